"""Remedies for rare findings that follow from the counts of the training labels: class weights, repeated images.

All take the valid training targets [N, C] in [0, 1] and mask [N, C] bool.
"""

import numpy as np

EFFECTIVE_BETA = 0.9999  # the largest of Cui et al. (2019): up to thousands of positives, each counts almost fully


def label_counts(targets: np.ndarray, *, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives of each class among the valid targets [N, C]; a soft target is a share of both."""
    positives = np.where(mask, targets, 0).sum(axis=0, dtype=np.float64)
    return positives, mask.sum(axis=0) - positives


def class_weights(
    targets: np.ndarray,
    *,
    mask: np.ndarray,
    pos_weight: np.ndarray,
    balanced: bool,
    importance: np.ndarray | None = None,
) -> np.ndarray:
    """What multiplies every entry of a class, from the valid training targets [N, C]: float32 [C].

    The loss weight of a class is positives * pos_weight + negatives. Where `balanced`, it is made the same for all
    classes that have a label. `importance` [C] multiplies that. The weights are scaled so that the loss weight of
    all classes together stays what it was, and the learning rate means the same.
    """
    positives, negatives = label_counts(targets, mask=mask)
    totals = positives * pos_weight + negatives
    weights = np.divide(1, totals, out=np.zeros_like(totals), where=totals > 0) if balanced else np.ones_like(totals)
    weights *= 1 if importance is None else importance
    return (weights * totals.sum() / (weights * totals).sum()).astype(np.float32)


def effective_importance(targets: np.ndarray, *, mask: np.ndarray) -> np.ndarray:
    """One over the effective number of positives of each class, (1 - beta^n) / (1 - beta): float64 [C].

    Cui et al. 2019, arXiv:1901.05555, eq. 2; a class without a positive counts as one with a single positive.
    """
    positives = np.maximum(label_counts(targets, mask=mask)[0], 1)
    return (1 - EFFECTIVE_BETA) / (1 - EFFECTIVE_BETA**positives)


def repeat_factors(targets: np.ndarray, *, mask: np.ndarray, threshold: float) -> np.ndarray:
    """How often to show each image per epoch, on average, so that rare findings come more often: float64 [N], from 1.

    max(1, sqrt(threshold / f)) for a finding that is positive (target above 0.5) in a share f of the images, and for
    an image the largest of its findings (Gupta et al. 2019, LVIS, arXiv:1908.03195).
    """
    positive = mask & (targets > 0.5)
    shares = np.maximum(positive.mean(axis=0), 1 / len(targets))
    return np.where(positive, np.maximum(1, np.sqrt(threshold / shares)), 1).max(axis=1)
