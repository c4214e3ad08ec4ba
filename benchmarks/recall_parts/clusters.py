"""Part clusters: independent and correlated images, 30 to 1,000 positives, four targets, through the command line.

Draws many classes, lets the stage choose thresholds as on a validation split, and looks up the true recall,
Phi(1.5 - z), of what it chose. One row per cell:

feasible    share of classes in which the certified rule could choose
certified   share of these whose true recall is at least the target
empirical   the same for the empirical rule, over all classes
precision   mean true precision against the empirical rule's where feasible, in points
"""

import numpy as np
import pandas as pd
from scipy.special import ndtr, ndtri

from recall_parts.common import NEGATIVES_PER_POSITIVE, SHIFT, print_header, print_row, run_stage, true_rates

CLASSES, REPEATS = 100, 10
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
    """The stage's table of thresholds for each recall target."""
    return run_stage(
        probs, labels, recalls=RECALLS, owners={"patient_id": patients}, flags=("--confidence", confidence)
    )


def summarize(chosen, recall):
    """One cell of the table from the stage's rows."""
    feasible = (chosen["status"] == "ok").to_numpy()
    held, precision = true_rates(ndtri(chosen["threshold"].to_numpy(float)))
    empirical, empirical_precision = true_rates(ndtri(chosen["empirical_threshold"].to_numpy(float)))
    row = {"feasible": feasible.mean(), "empirical": np.mean(empirical >= recall)}
    if feasible.any():
        row["certified"] = np.mean(held[feasible] >= recall)
        row["precision"] = np.mean((precision - empirical_precision)[feasible])
    return row


def report(*, classes, repeats, confidence, seed):
    """Print the table."""
    print_header("positives", "images per patient", "correlation", "recall", "feasible", "certified", "empirical",
                 "precision")  # fmt: skip
    for positives in POSITIVES:
        for most_images, correlation in CLUSTERS:
            rng = np.random.default_rng([seed, positives, most_images, round(100 * correlation)])
            cell = {"positives": positives, "most_images": most_images, "correlation": correlation}
            runs = [choose(*simulate(**cell, classes=classes, rng=rng), confidence=confidence) for _ in range(repeats)]
            images = "1" if most_images == 1 else f"1-{most_images}"
            for recall in RECALLS:
                row = summarize(pd.concat([run[recall] for run in runs]), recall)
                certified = f"{row['certified']:.1%}" if "certified" in row else "-"
                cost = f"{100 * row['precision']:+.1f}" if "precision" in row else "-"
                shares = (f"{row['feasible']:.1%}", certified, f"{row['empirical']:.1%}")
                print_row(positives, images, correlation, f"{recall:.2f}", *shares, cost)
