"""How work is cut to fit a CPU."""

CPU_STEP = 4  # images prepared, or passed through frozen layers, at once: what one step leaves stays in the CPU's cache
