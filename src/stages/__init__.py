"""One story per script."""
