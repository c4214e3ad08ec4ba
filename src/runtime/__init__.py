"""How a script ends, text tables, distributed processes, interrupts."""
