"""Probabilities that mean something: undoing pos_weight, and measuring how far off they are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sklearn.metrics import brier_score_loss, log_loss

from src.evaluate import check_masked, ratio

CHANCE_DRAWS = 40


class Reliability(NamedTuple):
    """Groups of similar probabilities, from the lowest up; B is at most the number of bins asked for."""

    prob: np.ndarray  # [B] mean probability
    rate: np.ndarray  # [B] share of positives
    counts: np.ndarray  # [B] int64 entries


def correct_probs(
    probs: np.ndarray, *, pos_weight: float | Sequence[float] | np.ndarray, slope: float = 1.0
) -> np.ndarray:
    """What the model would say had positives not counted `pos_weight` times: sigmoid(logit - log(pos_weight)).

    probs: [..., C] float in [0, 1]; pos_weight: a number or [C], above 0. Returns p / (p + w (1 - p)), float64, which
    is the same and safe at 0 and 1. Weighting the positives of the cross-entropy by w multiplies the odds at its
    minimum by w, exactly and at every input (Elkan 2001, theorem 2; King & Zeng 2001, prior correction). Ranks within
    a class stay. `slope`, above 0, multiplies the logit first. Raises ValueError for a weight that is not a finite
    number above 0.
    """
    probs, weight = np.asarray(probs, dtype=np.float64), np.asarray(pos_weight, dtype=np.float64)
    if not (np.isfinite(weight) & (weight > 0)).all():
        raise ValueError(f"pos_weight is {pos_weight}, expected finite numbers above 0")
    ill, well = probs**slope, (1 - probs) ** slope
    return ill / (ill + weight * well)


def brier_score(probs: np.ndarray, *, targets: np.ndarray) -> float:
    """Mean squared difference of probability and outcome (Brier 1950); probs, targets: [n]; NaN if empty."""
    return float(brier_score_loss(targets, probs, pos_label=1)) if len(probs) else float("nan")


def log_score(probs: np.ndarray, *, targets: np.ndarray) -> float:
    """Mean of -log of the probability of what came out; probs, targets: [n]; NaN if empty."""
    return float(log_loss(targets, probs, labels=[0, 1])) if len(probs) else float("nan")


def reliability(probs: np.ndarray, *, targets: np.ndarray, bins: int = 10) -> Reliability:
    """Mean probability against share of positives, in `bins` groups of about equal size.

    probs: [n] float in [0, 1]; targets: [n] 0 or 1. Equal probabilities share a group, so the order of the
    entries does not matter, and groups that stay empty are dropped. scikit-learn's `calibration_curve` gives no counts.
    """
    probs, targets = np.asarray(probs, dtype=np.float64), np.asarray(targets, dtype=np.float64)
    group = _group(probs, bins=bins)
    count = np.bincount(group, minlength=bins)
    sums = [np.bincount(group, weights=values, minlength=bins) for values in (probs, targets)]
    kept = count > 0
    return Reliability(sums[0][kept] / count[kept], sums[1][kept] / count[kept], count[kept])


def _group(probs: np.ndarray, *, bins: int) -> np.ndarray:
    """The group of each probability [n], by the middle rank of those equal to it: [n] int64."""
    if bins < 1:
        raise ValueError(f"bins is {bins}, expected at least 1")
    ascending = np.sort(probs)
    first, last = (np.searchsorted(ascending, probs, side=side) for side in ("left", "right"))
    return (first + last - 1) * bins // (2 * max(len(probs), 1))


def calibration_error(groups: Reliability) -> float:
    """Expected calibration error: mean of |share of positives - mean probability| over the entries.

    groups: `reliability`'s. Naeini et al. (2015), with groups of equal size instead of equal width (Nixon et
    al. 2019), since findings are rare and most probabilities small. NaN without entries. Chance alone
    keeps it above 0: `chance_error` says by how much.
    """
    return ratio(np.sum(groups.counts * np.abs(groups.rate - groups.prob)), groups.counts.sum())


def chance_error(probs: np.ndarray, *, bins: int = 10) -> float:
    """The calibration error that chance alone gives: the mean over outcomes drawn from the probabilities themselves.

    probs: [n] float in [0, 1]. NaN without entries. The draws are always the same.
    """
    probs = np.asarray(probs, dtype=np.float64)
    group, rng = _group(probs, bins=bins), np.random.default_rng(0)
    gaps = [np.bincount(group, weights=(rng.random(len(probs)) < probs) - probs) for _ in range(CHANCE_DRAWS)]
    return ratio(float(np.mean(np.abs(gaps).sum(axis=1))), len(probs))


def masked_calibration(
    probs: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, classes: Sequence[str], bins: int = 10
) -> dict:
    """Brier score, log loss, and calibration error over the valid entries, per class and as means over the classes.

    probs, targets, mask: [N, C] as in `evaluate.check_masked`; classes: C names. Returns {"macro": {"brier",
    "log_loss", "calibration_error", "chance_error"}, "per_class": {name: the same}}; NaN for a class without a valid
    entry, which the macro leaves out.
    """
    probs, positive, mask = check_masked(probs, targets=targets, mask=mask, classes=classes)
    per_class = {}
    for c, name in enumerate(classes):
        entries, outcomes = probs[mask[:, c], c], positive[mask[:, c], c]
        per_class[name] = {
            "brier": brier_score(entries, targets=outcomes),
            "log_loss": log_score(entries, targets=outcomes),
            "calibration_error": calibration_error(reliability(entries, targets=outcomes, bins=bins)),
            "chance_error": chance_error(entries, bins=bins),
        }
    defined = [per_class[name] for name, valid in zip(classes, mask.T, strict=True) if valid.any()]
    keys = ("brier", "log_loss", "calibration_error", "chance_error")
    macro = {key: ratio(sum(values[key] for values in defined), len(defined)) for key in keys}
    return {"macro": macro, "per_class": per_class}
