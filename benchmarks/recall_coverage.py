"""Does the recall that was promised hold? Simulated against known truth, a Markdown table per part.

Scores have known distributions - negatives N(0, 1), positives N(1.5, 1), images of a patient correlated - so that the
true recall of any threshold is known. The parts:

clusters    independent and correlated images, through the command line of ensemble_threshold_search.py
units       thresholds for studies and for images, both used to decide on studies, through the command line
weights     a few patients own most images: the recall of the next unit and of the next patient
reuse       epoch, alpha and thresholds chosen on the same val
calibration two models calibrated, and thresholds chosen, on the same val
targets     all targets together, and a target that was picked by looking

Example: python benchmarks/recall_coverage.py --part weights
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

PARTS = ("clusters", "units", "weights", "reuse", "calibration", "targets")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, default="clusters", help="what to simulate (clusters)")
    parser.add_argument("--classes", type=int, help="classes in one pair of files (default: as the part has it)")
    parser.add_argument("--repeats", type=int, help="pairs of files, or data sets, for each cell (as the part has it)")
    parser.add_argument("--confidence", type=float, default=0.95, help="what the rule promises (0.95)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    part = import_module(f"recall_parts.{args.part}")
    sizes = {"classes": args.classes or part.CLASSES, "repeats": args.repeats or part.REPEATS}
    part.report(**sizes, confidence=args.confidence, seed=args.seed)


if __name__ == "__main__":
    main()
