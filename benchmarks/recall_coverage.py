"""Does the recall that was promised hold? Simulated through the command line of ensemble_threshold_search.py.

Every cell draws many classes with known score distributions - negatives N(0, 1), positives N(1.5, 1), images
of a patient correlated - lets the stage choose thresholds as on a validation split, and looks up the true
recall, Phi(1.5 - z), of what it chose. Prints a Markdown table, one row per cell:

feasible    share of classes in which the certified rule could choose
certified   share of these whose true recall is at least the target
empirical   the same for the empirical rule, over all classes
precision   mean true precision against the empirical rule's where feasible, in points

Example: python benchmarks/recall_coverage.py --classes 100 --repeats 10
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

ROOT = Path(__file__).resolve().parents[1]
SHIFT, NEGATIVES_PER_POSITIVE = 1.5, 3
RECALLS = (0.80, 0.85, 0.90, 0.95)
POSITIVES = (30, 60, 100, 300, 1000)
CLUSTERS = ((1, 0.0), (8, 0.0), (8, 0.4), (8, 0.7))  # most images of a patient, correlation of their scores


def simulate(*, positives, most_images, correlation, classes, rng):
    """Probabilities and labels [N, C] (NaN: blank), patients [N]; images of a patient share their label."""
    needed = positives * (1 + NEGATIVES_PER_POSITIVE) + most_images
    sizes = rng.integers(1, most_images + 1, needed)
    sizes = sizes[: np.searchsorted(np.cumsum(sizes), needed) + 1]
    patients = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.zeros((len(patients), classes))
    for c in range(classes):
        order = rng.permutation(len(sizes))
        ill = order[: np.searchsorted(np.cumsum(sizes[order]), positives) + 1]
        images = np.flatnonzero(np.isin(patients, ill))
        labels[images, c] = 1
        labels[images[positives:], c] = np.nan  # exactly as many positives as the cell says
    noise = rng.normal(size=labels.shape)
    shared = rng.normal(size=(len(sizes), classes))[patients]
    scores = np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * noise + SHIFT * np.nan_to_num(labels)
    return ndtr(scores), labels, patients


def choose(probs, labels, patients, *, confidence):
    """The stage's table of thresholds for each recall target, read back from what it wrote."""
    names = [f"class{c:04d}" for c in range(probs.shape[1])]
    ids = [f"image{row:06d}" for row in range(len(probs))]
    with tempfile.TemporaryDirectory() as folder:
        files = {"probs": Path(folder) / "probs.csv", "labels": Path(folder) / "labels.csv"}
        table = pd.DataFrame(probs, index=pd.Index(ids, name="image_id"), columns=names)
        table.to_csv(files["probs"], float_format="%.12g")
        truth = pd.DataFrame(labels, index=table.index, columns=names)
        truth.insert(0, "patient_id", [f"p{patient}" for patient in patients])
        truth.to_csv(files["labels"], float_format="%g")
        command = [sys.executable, ROOT / "ensemble_threshold_search.py", "--run-dir", folder]
        command += ["--val-probs", files["probs"], "--val-labels", files["labels"]]
        command += ["--confidence", confidence, "--recall", *RECALLS, "--resamples", 0, "--no-pictures"]
        subprocess.run([str(word) for word in command], check=True, stdout=subprocess.DEVNULL)
        tables = Path(folder) / "ensemble"
        return {recall: pd.read_csv(tables / f"thresholds_recall_{recall:g}.csv") for recall in RECALLS}


def true_rates(thresholds):
    """True recall and precision of flagging at `thresholds`."""
    z = ndtri(np.asarray(thresholds, dtype=float))
    recall, false_alarms = ndtr(SHIFT - z), ndtr(-z)
    return recall, recall / (recall + NEGATIVES_PER_POSITIVE * false_alarms)


def summarize(chosen, recall):
    """One cell of the table from the stage's rows."""
    feasible = (chosen["status"] == "ok").to_numpy()
    held, precision = true_rates(chosen["threshold"])
    empirical, empirical_precision = true_rates(chosen["empirical_threshold"])
    row = {"feasible": feasible.mean(), "empirical": np.mean(empirical >= recall)}
    if feasible.any():
        row["certified"] = np.mean(held[feasible] >= recall)
        row["precision"] = np.mean((precision - empirical_precision)[feasible])
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=100, help="classes in one pair of files (100)")
    parser.add_argument("--repeats", type=int, default=10, help="pairs of files for each cell (10)")
    parser.add_argument("--confidence", type=float, default=0.95, help="what the rule promises (0.95)")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print("| positives | images per patient | correlation | recall | feasible | certified | empirical | precision |")
    print("|---|---|---|---|---|---|---|---|")
    for positives in POSITIVES:
        for most_images, correlation in CLUSTERS:
            rng = np.random.default_rng([args.seed, positives, most_images, round(100 * correlation)])
            cell = {"positives": positives, "most_images": most_images, "correlation": correlation}
            runs = [
                choose(*simulate(**cell, classes=args.classes, rng=rng), confidence=args.confidence)
                for _ in range(args.repeats)
            ]
            images = "1" if most_images == 1 else f"1-{most_images}"
            for recall in RECALLS:
                row = summarize(pd.concat([run[recall] for run in runs]), recall)
                certified = f"{row['certified']:.1%}" if "certified" in row else "-"
                cost = f"{100 * row['precision']:+.1f}" if "precision" in row else "-"
                print(
                    f"| {positives} | {images} | {correlation} | {recall:.2f} | {row['feasible']:.1%} | "
                    f"{certified} | {row['empirical']:.1%} | {cost} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
