"""The synthetic radiographs."""
