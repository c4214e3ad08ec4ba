"""Masked point metrics, NumPy only.

AUROC and AUPRC (average precision) are those of scikit-learn, computed from one sort per class. A value that
is not defined is NaN, never 0. Intervals around these figures are in `stats/bootstrap.py`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Ranking(NamedTuple):
    """What flagging `score >= threshold` gives, for every distinct score, from the highest down."""

    thresholds: np.ndarray  # [K] the distinct scores, descending
    tp: np.ndarray  # [K] int64 positives flagged
    fp: np.ndarray  # [K] int64 negatives flagged


def rank(scores: np.ndarray, *, positive: np.ndarray) -> Ranking:
    """Count true and false positives at every distinct threshold with a single sort.

    scores: [n] float without NaN; positive: [n] bool. Equal scores share one threshold.
    """
    order = np.argsort(scores)[::-1]
    return tally(scores[order], positive=positive[order])


def tally(scores: np.ndarray, *, positive: np.ndarray) -> Ranking:
    """The same for scores that already descend."""
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))[: len(scores)]
    tp = np.cumsum(positive, dtype=np.int64)[last]
    return Ranking(scores[last], tp, last + 1 - tp)


def auroc(ranking: Ranking) -> float:
    """Area under the ROC curve: P(positive scores higher) + P(tie) / 2 (Hanley & McNeil 1982).

    NaN unless both labels occur. Equal to scikit-learn's `roc_auc_score`.
    """
    tp, fp = ranking.tp, ranking.fp
    if not len(tp) or tp[-1] == 0 or fp[-1] == 0:
        return np.nan
    twice_wins = np.sum(np.diff(fp, prepend=0) * (tp + np.append(0, tp[:-1])))  # exact: integers
    return float(twice_wins / (2 * int(tp[-1]) * int(fp[-1])))


def average_precision(ranking: Ranking) -> float:
    """Sum over thresholds of (recall step) * precision, without interpolation.

    NaN unless both labels occur. Equal to scikit-learn's `average_precision_score`.
    """
    tp, fp = ranking.tp, ranking.fp
    if not len(tp) or tp[-1] == 0 or fp[-1] == 0:
        return np.nan
    return float(np.sum(np.diff(tp, prepend=0) * (tp / (tp + fp))) / tp[-1])


def check_masked(
    probs: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check what every metric takes and return it as arrays.

    probs: [N, C] float, in [0, 1] wherever `mask` is true; targets: [N, C], 0 or 1 wherever `mask` is true;
    mask: [N, C] bool; classes: C names. What stands outside the mask is never looked at, NaN included.
    Returns (probs [N, C] float, positive [N, C] bool, mask [N, C] bool).
    Raises ValueError for shapes that differ, soft targets, and probabilities that are NaN or outside [0, 1].
    """
    probs, targets, mask = np.asarray(probs), np.asarray(targets), np.asarray(mask)
    if mask.dtype != bool:
        raise ValueError(f"the mask has dtype {mask.dtype}, expected bool: pass e.g. labels >= 0")
    if probs.ndim != 2 or not probs.shape == targets.shape == mask.shape:
        raise ValueError(
            f"probs, targets and mask have shapes {probs.shape}, {targets.shape} and {mask.shape}, "
            "expected one shape [N, C] for all three"
        )
    if probs.shape[1] != len(classes):
        raise ValueError(f"probs have {probs.shape[1]} columns, but {len(classes)} class names were given")
    positive = targets == 1
    soft = mask & ~positive & (targets != 0)
    _refuse(soft, targets, classes, "target", "a metric needs a hard view, so mask what is not 0 or 1")
    outside = mask & ~((probs >= 0) & (probs <= 1))
    _refuse(outside, probs, classes, "probability", "expected a number in [0, 1]")
    return probs, positive, mask


def _refuse(bad, values, classes, what, expected) -> None:
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{what} {values[row, column]:g} in row {row} of class {classes[column]} "
            f"({int(bad.sum())} such values): {expected}"
        )


def masked_metrics(
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    thresholds: float | np.ndarray = 0.5,
) -> dict:
    """Metrics over the valid entries, in the structure of `metrics_*.json`.

    probs, targets, mask: [N, C] as in `check_masked`; classes: C names; thresholds: a number or one per
    class, for the accuracy (flagged where prob >= threshold).
    Returns {"macro": {"auroc", "auprc", "accuracy", "classes"}, "per_class": {name: {"auroc", "auprc",
    "accuracy", "positives", "negatives", "prevalence"}}}. Macro AUROC and AUPRC are means over the `classes`
    classes that have both labels; macro accuracy is the share of all valid entries predicted right. Undefined
    values are NaN.
    """
    probs, positive, mask = check_masked(probs, targets=targets, mask=mask, classes=classes)
    right = mask & ((probs >= np.asarray(thresholds)) == positive)
    per_class = {}
    for c, name in enumerate(classes):
        valid = mask[:, c]
        count, positives = int(valid.sum()), int((valid & positive[:, c]).sum())
        ranking = rank(probs[valid, c], positive=positive[valid, c])
        per_class[name] = {
            "auroc": auroc(ranking),
            "auprc": average_precision(ranking),
            "accuracy": ratio(right[:, c].sum(), count),
            "positives": positives,
            "negatives": count - positives,
            "prevalence": ratio(positives, count),
        }
    defined = [values for values in per_class.values() if values["positives"] and values["negatives"]]
    macro = {
        "auroc": ratio(sum(values["auroc"] for values in defined), len(defined)),
        "auprc": ratio(sum(values["auprc"] for values in defined), len(defined)),
        "accuracy": ratio(right.sum(), mask.sum()),
        "classes": len(defined),
    }
    return {"macro": macro, "per_class": per_class}


def ratio(part: float, whole: float) -> float:
    """part / whole as a float; NaN where `whole` is 0."""
    return float(part / whole) if whole else float("nan")
