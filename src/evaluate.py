"""Masked point metrics, by scikit-learn over the valid entries of each class.

A value that is not defined is NaN, never 0. Intervals around these figures are in `stats/bootstrap.py`.
"""

from collections.abc import Callable, Sequence

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score


def check_masked(
    probs: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Check what every metric takes and return it as arrays.

    probs: [N, C] float, in [0, 1] wherever `mask` is true; targets: [N, C], 0 or 1 wherever `mask` is true;
    mask: [N, C] bool; classes: C names. Values outside the mask are ignored, NaN included.
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


def _refuse(bad: np.ndarray, values: np.ndarray, classes: Sequence[str], what: str, expected: str) -> None:
    if bad.any():
        row, column = np.argwhere(bad)[0]
        raise ValueError(
            f"{what} {values[row, column]:g} in row {row} of class {classes[column]} "
            f"(such values: {int(bad.sum())}): {expected}"
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
        entries = {"positive": positive[valid, c], "probs": probs[valid, c]}
        per_class[name] = {
            "auroc": _defined(roc_auc_score, **entries),
            "auprc": _defined(average_precision_score, **entries),
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


def _defined(metric: Callable, *, positive: np.ndarray, probs: np.ndarray) -> float:
    """A metric of a class, NaN unless both labels occur: scikit-learn would warn, or return 0."""
    return float(metric(positive, probs)) if positive.any() and not positive.all() else float("nan")


def ratio(part: float, whole: float) -> float:
    """part / whole as a float; NaN where `whole` is 0."""
    return float(part / whole) if whole else float("nan")
