"""Every PNG."""
