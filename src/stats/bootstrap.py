"""Confidence intervals by resampling patients, vectorized.

A resample of the patients with replacement is a whole-number weight per patient: every class is sorted once,
and each resample then costs a few gathers and running sums. The weights depend on the seed and the set of
patients only, so replicates of two models on the same images are paired: their difference is a replicate of
the difference.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from src.evaluate import check_masked

FIGURES = ("auroc", "auprc", "accuracy")


class RankedClass(NamedTuple):
    """The valid entries of one class, positives and negatives apart, each from the highest score down."""

    positives: np.ndarray  # [P] int64 patient of each positive
    negatives: np.ndarray  # [Q] int64 patient of each negative
    above: np.ndarray  # [P] int64 negatives that score higher than this positive
    reach: np.ndarray  # [P] int64 negatives that score as high or higher
    tied: np.ndarray  # [P] int64 index of the last positive that scores the same
    flagged: tuple[np.ndarray, ...]  # [T] int64 each: positives and negatives at or above each threshold


def bootstrap_metrics(
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
    resamples: int = 1000,
    seed: int = 0,
    workers: int | None = None,
) -> dict:
    """Replicates of the metrics over resamples of the patients (Efron & Tibshirani 1993, chapter 8).

    probs, targets, mask: [N, C] as in `evaluate.check_masked`; classes: C names; patients: [N] labels of any
    kind; workers: threads, by default one per core. The accuracy is that at a threshold of 0.5. Which patients
    are drawn does not depend on the order of the rows.

    Returns the structure of `evaluate.masked_metrics` with an array [resamples] of float64 for each value:
    {"macro": {"auroc", "auprc", "accuracy"}, "per_class": {name: {"auroc", "auprc", "accuracy"}}}. What a resample
    leaves undefined is NaN. The macro averages over the classes that are defined on all patients, and is NaN where a
    resample lacks one of them, so that it always means the same classes.
    """
    data: dict[str, Any] = {"targets": targets, "mask": mask, "classes": classes, "patients": patients}
    halves = [np.array([0.5])] * len(classes)
    options: dict[str, Any] = {"resamples": resamples, "seed": seed, "workers": workers}
    ranked, figures = _replicate(_figures, probs, **data, thresholds=halves, **options)
    return _collect(np.array(figures), classes, defined=[len(one.positives) and len(one.negatives) for one in ranked])


def bootstrap_outcomes(
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
    thresholds: Sequence[np.ndarray],
    resamples: int = 1000,
    seed: int = 0,
) -> list[np.ndarray]:
    """95% intervals of precision and recall at any number of thresholds, over the resamples of `bootstrap_metrics`.

    thresholds: per class [T] float, flagged is `prob >= threshold`; the rest as in `bootstrap_metrics`. Sorting and
    resampling are shared by all thresholds.

    Returns per class [T, 4] float64: precision low and high, recall low and high; NaN where no resample defines it.
    """
    data: dict[str, Any] = {"targets": targets, "mask": mask, "classes": classes, "patients": patients}
    _, drawn = _replicate(_counts, probs, **data, thresholds=thresholds, resamples=resamples, seed=seed)
    return [_precision_and_recall(*map(np.array, zip(*one, strict=True))) for one in zip(*drawn, strict=True)]


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


def with_intervals(metrics: dict, replicates: dict) -> dict:
    """`masked_metrics`' result with "auroc_ci", "auprc_ci" and "accuracy_ci" beside the values: [low, high].

    "undefined_resamples" counts those whose AUROC and AUPRC, for want of one of the labels, were left out.
    """

    def extended(values: dict, arrays: dict) -> dict:
        intervals = {f"{key}_ci": list(interval(arrays[key])) for key in FIGURES}
        return {**values, **intervals, "undefined_resamples": int(np.isnan(arrays["auroc"]).sum())}

    per_class = replicates["per_class"]
    return {
        "macro": extended(metrics["macro"], replicates["macro"]),
        "per_class": {name: extended(values, per_class[name]) for name, values in metrics["per_class"].items()},
    }


def _replicate(
    figures: Callable[[RankedClass, np.ndarray], Any],
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    patients: np.ndarray,
    thresholds: Sequence[np.ndarray],
    resamples: int,
    seed: int,
    workers: int | None = None,
) -> tuple[list[RankedClass], list[list[Any]]]:
    """The ranked classes, and `figures(class, weights)` per resample and class."""
    probs, positive, mask = check_masked(probs, targets=targets, mask=mask, classes=classes)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    if len(patients) != len(probs):
        raise ValueError(f"{len(patients)} patients were given for {len(probs)} rows of probabilities")
    names, codes = np.unique(patients, return_inverse=True)
    ranked = [
        _rank_class(probs[valid, c], positive=positive[valid, c], patients=codes[valid], thresholds=cuts)
        for c, (valid, cuts) in enumerate(zip(mask.T, thresholds, strict=True))
    ]

    def of_all(index: int) -> list[Any]:
        weights = resample(len(names), seed=seed, index=index)
        return [figures(one, weights) for one in ranked]

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return ranked, list(pool.map(of_all, range(resamples)))


def _rank_class(
    scores: np.ndarray, *, positive: np.ndarray, patients: np.ndarray, thresholds: np.ndarray
) -> RankedClass:
    order = np.argsort(-scores)
    scores, positive, patients = scores[order], positive[order], patients[order]
    of_positives, of_negatives = -scores[positive], -scores[~positive]  # ascending, as searchsorted wants
    return RankedClass(
        positives=patients[positive],
        negatives=patients[~positive],
        above=np.searchsorted(of_negatives, of_positives, side="left"),
        reach=np.searchsorted(of_negatives, of_positives, side="right"),
        tied=np.searchsorted(of_positives, of_positives, side="right") - 1,
        flagged=tuple(np.searchsorted(part, -thresholds, side="right") for part in (of_positives, of_negatives)),
    )


def _figures(ranked: RankedClass, weights: np.ndarray) -> tuple:
    """AUROC, average precision, entries that the one threshold gets right, and entries.

    weights: [patients] integers, meaning what `sample_weight` means to scikit-learn. The sums of integers are
    exact. No dot product: BLAS would start threads inside this one.
    """
    hits = weights[ranked.positives]
    tp, fp = _running_sum(hits), _running_sum(weights[ranked.negatives])
    positives, negatives = tp[-1], fp[-1]
    right = tp[ranked.flagged[0][0]] + negatives - fp[ranked.flagged[1][0]]
    if not positives or not negatives:
        return np.nan, np.nan, right, positives + negatives
    reach = fp[ranked.reach]
    losses = np.sum(hits * (fp[ranked.above] + reach))  # twice the pairs in which the negative scores higher
    flagged_hits = tp[1:][ranked.tied]
    precision = flagged_hits / np.maximum(flagged_hits + reach, 1)  # 0/0 only where the hit weighs nothing
    auroc = 1 - losses / (2 * positives * negatives)
    return auroc, np.sum(hits * precision) / positives, right, positives + negatives


def _counts(ranked: RankedClass, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.int64]:
    """True and false positives at each threshold, and the positives."""
    tp, fp = (_running_sum(weights[part]) for part in (ranked.positives, ranked.negatives))
    return tp[ranked.flagged[0]], fp[ranked.flagged[1]], tp[-1]


def _precision_and_recall(tp: np.ndarray, fp: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """[T, 4] intervals of the counts tp, fp [R, T] and positives [R] of the resamples."""
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = tp / (tp + fp), tp / positives[:, None]
    rows = [interval(p) + interval(r) for p, r in zip(precision.T, recall.T, strict=True)]
    return np.array(rows).reshape(-1, 4)


def _running_sum(weights: np.ndarray) -> np.ndarray:
    total = np.zeros(len(weights) + 1, dtype=np.int64)
    np.cumsum(weights, out=total[1:])
    return total


def _collect(figures: np.ndarray, classes: Sequence[str], *, defined: Sequence[int]) -> dict:
    auroc, auprc, right, valid = np.moveaxis(figures, 2, 0)  # [R, C] each
    kept = np.flatnonzero(defined)
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (auroc, auprc, right / valid)
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
