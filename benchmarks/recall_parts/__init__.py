"""The parts of recall_coverage.py, one per question."""
