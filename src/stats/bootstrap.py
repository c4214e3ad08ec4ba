"""Confidence intervals by resampling patients, vectorized.

A resample of the patients with replacement is a whole-number weight per patient: every class is sorted once,
and each resample then costs a few gathers and running sums. The weights depend on the seed and the set of
patients only, so replicates of two models on the same images are paired: their difference is a replicate of
the difference.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from src.evaluate import check_masked

FIGURES = ("auroc", "auprc", "accuracy", "precision", "recall")


class RankedClass(NamedTuple):
    """The valid entries of one class, positives and negatives apart, each from the highest score down."""

    positives: np.ndarray  # [P] int64 patient of each positive
    negatives: np.ndarray  # [Q] int64 patient of each negative
    above: np.ndarray  # [P] int64 negatives that score higher than this positive
    reach: np.ndarray  # [P] int64 negatives that score as high or higher
    tied: np.ndarray  # [P] int64 index of the last positive that scores the same
    flagged: tuple  # positives and negatives at or above the threshold


def bootstrap_metrics(
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
    thresholds: float | np.ndarray = 0.5,
    resamples: int = 1000,
    seed: int = 0,
    workers: int | None = None,
) -> dict:
    """Replicates of the metrics over resamples of the patients (Efron & Tibshirani 1993, chapter 8).

    probs, targets, mask: [N, C] as in `evaluate.check_masked`; classes: C names; patients: [N] labels of any
    kind; thresholds: a number or one per class, for accuracy, precision and recall; workers: threads, by
    default one per core. Which patients are drawn does not depend on the order of the rows.

    Returns the structure of `evaluate.masked_metrics` with an array [resamples] of float64 for each value:
    {"macro": {"auroc", "auprc", "accuracy"}, "per_class": {name: {"auroc", "auprc", "accuracy", "precision",
    "recall"}}}. What a resample leaves undefined is NaN. The macro averages over the classes that are defined
    on all patients, and is NaN where a resample lacks one of them, so that it always means the same classes.
    """
    probs, positive, mask = check_masked(probs, targets=targets, mask=mask, classes=classes)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    if len(patients) != len(probs):
        raise ValueError(f"{len(patients)} patients were given for {len(probs)} rows of probabilities")
    names, codes = np.unique(patients, return_inverse=True)
    thresholds = np.broadcast_to(thresholds, len(classes))
    ranked = [
        _rank_class(probs[valid, c], positive=positive[valid, c], patients=codes[valid], threshold=thresholds[c])
        for c, valid in enumerate(mask.T)
    ]

    def replicate(index):
        weights = resample(len(names), seed=seed, index=index)
        return [_figures(one, weights) for one in ranked]

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        figures = np.array(list(pool.map(replicate, range(resamples))))  # [R, C, 6]
    return _collect(figures, classes, defined=[len(one.positives) and len(one.negatives) for one in ranked])


def resample(patients: int, *, seed: int, index: int) -> np.ndarray:
    """How often each of `patients` patients is drawn in resample `index`: [patients] int64 with that sum."""
    drawn = np.random.default_rng([seed, index]).integers(patients, size=patients)
    return np.bincount(drawn, minlength=patients)


def interval(replicates: np.ndarray, *, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval (low, high) of [R] replicates; those undefined are left out, NaN if all are."""
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def with_intervals(metrics: dict, replicates: dict, *, level: float = 0.95) -> dict:
    """`masked_metrics`' result with "auroc_ci", "auprc_ci" and "accuracy_ci" beside the values: [low, high].

    "undefined_resamples" counts those whose AUROC and AUPRC, for want of one of the labels, were left out.
    """

    def extended(values, arrays):
        keys = [key for key in FIGURES if key in values]
        intervals = {f"{key}_ci": list(interval(arrays[key], level=level)) for key in keys}
        return {**values, **intervals, "undefined_resamples": int(np.isnan(arrays["auroc"]).sum())}

    per_class = replicates["per_class"]
    return {
        "macro": extended(metrics["macro"], replicates["macro"]),
        "per_class": {name: extended(values, per_class[name]) for name, values in metrics["per_class"].items()},
    }


def _rank_class(scores: np.ndarray, *, positive: np.ndarray, patients: np.ndarray, threshold: float) -> RankedClass:
    order = np.argsort(-scores)
    scores, positive, patients = scores[order], positive[order], patients[order]
    of_positives, of_negatives = -scores[positive], -scores[~positive]  # ascending, as searchsorted wants
    return RankedClass(
        positives=patients[positive],
        negatives=patients[~positive],
        above=np.searchsorted(of_negatives, of_positives, side="left"),
        reach=np.searchsorted(of_negatives, of_positives, side="right"),
        tied=np.searchsorted(of_positives, of_positives, side="right") - 1,
        flagged=tuple(int((part <= -threshold).sum()) for part in (of_positives, of_negatives)),
    )


def _figures(ranked: RankedClass, weights: np.ndarray) -> tuple:
    """AUROC, average precision, true and false positives at the threshold, positives, negatives.

    weights: [patients] integers, meaning what `sample_weight` means to scikit-learn. The sums of integers are
    exact. No dot product: BLAS would start threads inside this one.
    """
    hits = weights[ranked.positives]
    tp, fp = _running_sum(hits), _running_sum(weights[ranked.negatives])
    positives, negatives = tp[-1], fp[-1]
    at_threshold = tp[ranked.flagged[0]], fp[ranked.flagged[1]], positives, negatives
    if not positives or not negatives:
        return np.nan, np.nan, *at_threshold
    reach = fp[ranked.reach]
    losses = np.sum(hits * (fp[ranked.above] + reach))  # twice the pairs in which the negative scores higher
    flagged_hits = tp[1:][ranked.tied]
    precision = flagged_hits / np.maximum(flagged_hits + reach, 1)  # 0/0 only where the hit weighs nothing
    auroc = 1 - losses / (2 * positives * negatives)
    return auroc, np.sum(hits * precision) / positives, *at_threshold


def _running_sum(weights: np.ndarray) -> np.ndarray:
    total = np.zeros(len(weights) + 1, dtype=np.int64)
    np.cumsum(weights, out=total[1:])
    return total


def _collect(figures: np.ndarray, classes: Sequence[str], *, defined: Sequence[int]) -> dict:
    auroc, auprc, tp, fp, positives, negatives = np.moveaxis(figures, 2, 0)  # [R, C] each
    right, valid = tp + negatives - fp, positives + negatives
    kept = np.flatnonzero(defined)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (auroc, auprc, right / valid, tp / (tp + fp), tp / positives)
        macro = {
            "auroc": auroc[:, kept].sum(axis=1) / len(kept),
            "auprc": auprc[:, kept].sum(axis=1) / len(kept),
            "accuracy": right.sum(axis=1) / valid.sum(axis=1),
        }
    per_class = {
        name: {key: column[:, c] for key, column in zip(FIGURES, columns, strict=True)}
        for c, name in enumerate(classes)
    }
    return {"macro": macro, "per_class": per_class}
