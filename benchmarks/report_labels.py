"""What do thresholds that were certified on labels of reports find of what experts saw? By what the reports say.

Needs a finished run whose test split was labeled by experts (check_split.py --expert-labels), and the labels of the
reports for the same images. Prints a Markdown table with a row per finding: how many images have it by the experts, by
both labels, by one of them, and by neither, and how many of these the thresholds of the first recall target flag.

Example: python benchmarks/report_labels.py --run-dir runs/nih-experts --labels labels.csv.gz
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.artifacts.manifest import read_manifest
from src.artifacts.probs import read_blend
from src.artifacts.truth import read_truth


def read_run(run_dir, labels):
    """Flags, experts' positives and report labels of test, [N, C] each, and class names."""
    truth, probs = read_blend(run_dir, read_manifest(run_dir))["test"]
    found = json.loads((run_dir / "ensemble" / "thresholds.json").read_text())
    points = next(iter(found["recall"].values()))
    reports, _ = read_truth(labels, truth.classes)
    rows = dict(zip(reports.ids, range(len(reports.ids)), strict=True))
    said = reports.labels[[rows[name] for name in truth.ids]]
    flags = probs >= [points[name]["threshold"] for name in truth.classes]
    return flags, truth.labels == 1, said == 1, truth.classes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run-dir", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True, help="the labels of the reports, with the same ids")
    args = parser.parse_args()
    flags, seen, said, classes = read_run(args.run_dir, args.labels)
    groups = {
        "experts": seen,
        "experts and report": seen & said,
        "experts, not the report": seen & ~said,
        "report, not the experts": said & ~seen,
        "neither": ~seen & ~said,
    }
    print(
        "| finding | " + " | ".join(f"{name} | flagged" for name in groups) + " |\n|" + "---|" * (2 * len(groups) + 1)
    )
    for c in np.argsort(-seen.sum(axis=0), kind="stable"):
        counts = [f"{group[:, c].sum()} | {(group & flags)[:, c].sum()}" for group in groups.values()]
        print(f"| {classes[c].replace('_', ' ')} | " + " | ".join(counts) + " |")


if __name__ == "__main__":
    main()
