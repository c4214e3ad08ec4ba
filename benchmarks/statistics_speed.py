"""How fast metrics, threshold search and bootstrap are, against scikit-learn in the same run.

Reads a CheXpert label file, for its label pattern and patients; the scores are synthetic. Prints a Markdown
table.

Example: python benchmarks/statistics_speed.py --labels CheXpert-v1.0-small/train.csv
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.evaluate import masked_metrics
from src.stats.bootstrap import bootstrap_metrics, resample
from src.stats.thresholds import build_curves, certified_rule, empirical_rule

RECALLS, RESAMPLES, PEER_RESAMPLES, SEED = (0.85, 0.90), 1000, 10, 0


def read_case(labels_csv):
    """Probabilities, targets, mask [N, 13], class names and patient codes [N] of a CheXpert label file."""
    table = pd.read_csv(labels_csv)
    classes = sorted(set(table.columns[5:]) - {"No Finding"})
    labels = table[classes].to_numpy()
    mask = (labels == 0) | (labels == 1)
    targets = np.where(mask, labels, 0)
    probs = expit(np.random.default_rng(SEED).normal(size=labels.shape) + 1.2 * targets)
    patients = table["Path"].str.extract(r"(patient\d+)", expand=False).to_numpy()
    return probs, targets, mask, classes, patients


def seconds(function, *, repeats=1):
    """(best wall time of `repeats` calls, the last result)."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        times.append(time.perf_counter() - start)
    return min(times), result


def valid_columns(probs, targets, mask):
    return [(targets[valid, c], probs[valid, c]) for c, valid in enumerate(mask.T)]


def peer_areas(columns):
    return np.array([(roc_auc_score(y, p), average_precision_score(y, p)) for y, p in columns])


def point_metrics(probs, targets, mask, classes):
    columns = valid_columns(probs, targets, mask)
    peer, expected = seconds(lambda: peer_areas(columns), repeats=5)
    ours, found = seconds(lambda: masked_metrics(probs, targets=targets, mask=mask, classes=classes), repeats=5)
    values = np.array([(row["auroc"], row["auprc"]) for row in found["per_class"].values()])
    return peer, ours, f"largest difference {np.abs(values - expected).max():.0e}"


def threshold_search(probs, targets, mask, patients):
    def peer_search():
        grid, chosen = np.linspace(0, 1, 101), []
        for y, p in valid_columns(probs, targets, mask):
            precision = np.array([precision_score(y, p >= t, zero_division=0) for t in grid])
            recall = np.array([recall_score(y, p >= t) for t in grid])
            chosen.append([np.where(recall >= target, precision, 0).max() for target in RECALLS])
        return np.array(chosen)

    def our_search():
        chosen = []
        for curve in build_curves(probs, targets=targets, mask=mask, patients=pd.factorize(patients)[0]):
            for target in RECALLS:
                certified_rule(curve, recall=target)
            chosen.append([empirical_rule(curve, recall=target).precision for target in RECALLS])
        return np.array(chosen)

    ours, exact = seconds(our_search, repeats=3)
    peer, grid = seconds(peer_search)
    gain = exact - grid
    return peer, ours, f"precision of the exact rule minus the grid's: {gain.min():.5f} to {gain.max():.5f}"


def bootstrap(probs, targets, mask, classes, patients):
    codes = np.unique(patients, return_inverse=True)[1]

    def peer_replicate(index):
        rows = np.repeat(np.arange(len(codes)), resample(codes.max() + 1, seed=SEED, index=index)[codes])
        return peer_areas(valid_columns(probs[rows], targets[rows], mask[rows])).mean(axis=0)

    arguments = {"targets": targets, "mask": mask, "classes": classes, "patients": patients}
    ours, found = seconds(lambda: bootstrap_metrics(probs, **arguments, resamples=RESAMPLES, seed=SEED))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peer, expected = seconds(lambda: np.array([peer_replicate(index) for index in range(PEER_RESAMPLES)]))
    values = np.stack([found["macro"][key][:PEER_RESAMPLES] for key in ("auroc", "auprc")], axis=1)
    return (
        peer * RESAMPLES / PEER_RESAMPLES,
        ours,
        f"largest difference {np.abs(values - expected).max():.0e}; peak memory of all so far "
        f"{memory / 2**20:.2f} GiB; peer timed on {PEER_RESAMPLES} resamples",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", required=True, help="CheXpert's train.csv, or train.csv.gz")
    probs, targets, mask, classes, patients = read_case(parser.parse_args().labels)
    people = len(set(patients))
    print(f"{len(probs):,} rows, {len(classes)} classes, {people:,} patients, {mask.sum():,} labels\n")
    rows = {
        f"{RESAMPLES:,} patient-bootstrap resamples": bootstrap(probs, targets, mask, classes, patients),
        "AUROC and AUPRC, all classes": point_metrics(probs, targets, mask, classes),
        "threshold search, 2 targets, both rules": threshold_search(probs, targets, mask, patients),
    }
    print("| job | scikit-learn, s | here, s | times faster | note |\n|---|---|---|---|---|")
    for job, (peer, ours, note) in rows.items():
        print(f"| {job} | {peer:.2f} | {ours:.3f} | {peer / ours:.1f} | {note} |")


if __name__ == "__main__":
    main()
