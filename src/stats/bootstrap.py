"""Replicates of the metrics by resampling patients, vectorized.

A resample of the patients with replacement is a whole-number weight per patient: every class is sorted once,
and each resample then costs a few gathers and running sums. The weights depend on the seed and the set of
patients only, so replicates of two models on the same rows are paired: their difference is a replicate of
the difference.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from src.evaluate import check_masked
from src.stats.intervals import area_interval

FIGURES = ("auroc", "auprc", "accuracy")


class RankedClass(NamedTuple):
    """The valid entries of one class, positives and negatives apart, each from the highest score down."""

    positives: np.ndarray  # [P] int64 patient of each positive
    negatives: np.ndarray  # [Q] int64 patient of each negative
    above: np.ndarray  # [P] int64 negatives that score higher than this positive
    reach: np.ndarray  # [P] int64 negatives that score as high or higher
    tied: np.ndarray  # [P] int64 index of the last positive that scores the same
    flagged: tuple[int, int]  # positives and negatives at or above 0.5


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
    {"macro": {"auroc", "auprc", "accuracy"}, "per_class": {name: {"auroc", "auprc", "accuracy"}}}, and in each mapping
    "patients": on how many patients each figure rests, as `area_interval` takes it. What a resample leaves undefined is
    NaN. The macro averages over the classes that are defined on all patients, and is NaN where a resample lacks one of
    them, so that it always means the same classes.
    """
    probs, positive, mask = check_masked(probs, targets=targets, mask=mask, classes=classes)
    if resamples < 1:
        raise ValueError(f"resamples is {resamples}, expected at least 1")
    if len(patients) != len(probs):
        raise ValueError(f"{len(patients)} patients were given for {len(probs)} rows of probabilities")
    names, codes = np.unique(patients, return_inverse=True)
    ranked = [
        _rank_class(probs[valid, c], positive=positive[valid, c], patients=codes[valid])
        for c, valid in enumerate(mask.T)
    ]

    def of_all(index: int) -> list[Any]:
        weights = resample(len(names), seed=seed, index=index)
        return [_figures(one, weights) for one in ranked]

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return _collect(np.array(list(pool.map(of_all, range(resamples)))), classes, ranked)


def resample(patients: int, *, seed: int, index: int) -> np.ndarray:
    """How often each of `patients` patients is drawn in resample `index`: [patients] int64 with that sum."""
    drawn = np.random.default_rng([seed, index]).integers(patients, size=patients)
    return np.bincount(drawn, minlength=patients)


def interval(replicates: np.ndarray) -> tuple[float, float]:
    """95% percentile interval (low, high) of [R] replicates; those undefined are left out, NaN if all are."""
    defined = replicates[~np.isnan(replicates)]
    if not len(defined):
        return np.nan, np.nan
    low, high = np.quantile(defined, [0.025, 0.975])
    return float(low), float(high)


def with_intervals(metrics: dict, replicates: dict) -> dict:
    """`masked_metrics`' result with "auroc_ci", "auprc_ci" and "accuracy_ci" beside the values: [low, high].

    "undefined_resamples" counts those whose AUROC and AUPRC, for want of one of the labels, were left out.
    """

    def extended(values: dict, arrays: dict) -> dict:
        found = {
            f"{key}_ci": list(area_interval(values[key], arrays[key], patients=arrays["patients"][key]))
            for key in FIGURES
        }
        return {**values, **found, "undefined_resamples": int(np.isnan(arrays["auroc"]).sum())}

    per_class = replicates["per_class"]
    return {
        "macro": extended(metrics["macro"], replicates["macro"]),
        "per_class": {name: extended(values, per_class[name]) for name, values in metrics["per_class"].items()},
    }


def _rank_class(scores: np.ndarray, *, positive: np.ndarray, patients: np.ndarray) -> RankedClass:
    order = np.argsort(-scores)
    scores, positive, patients = scores[order], positive[order], patients[order]
    of_positives, of_negatives = -scores[positive], -scores[~positive]  # ascending, as searchsorted wants
    return RankedClass(
        positives=patients[positive],
        negatives=patients[~positive],
        above=np.searchsorted(of_negatives, of_positives, side="left"),
        reach=np.searchsorted(of_negatives, of_positives, side="right"),
        tied=np.searchsorted(of_positives, of_positives, side="right") - 1,
        flagged=(int(np.sum(of_positives <= -0.5)), int(np.sum(of_negatives <= -0.5))),
    )


def _figures(ranked: RankedClass, weights: np.ndarray) -> tuple:
    """AUROC, average precision, entries that the one threshold gets right, and entries.

    weights: [patients] integers, meaning what `sample_weight` means to scikit-learn. The sums of integers are
    exact. No dot product: BLAS would start threads inside this one.
    """
    hits = weights[ranked.positives]
    tp, fp = _running_sum(hits), _running_sum(weights[ranked.negatives])
    positives, negatives = tp[-1], fp[-1]
    right = tp[ranked.flagged[0]] + negatives - fp[ranked.flagged[1]]
    if not positives or not negatives:
        return np.nan, np.nan, right, positives + negatives
    reach = fp[ranked.reach]
    losses = np.sum(hits * (fp[ranked.above] + reach))  # twice the pairs in which the negative scores higher
    flagged_hits = tp[1:][ranked.tied]
    precision = flagged_hits / np.maximum(flagged_hits + reach, 1)  # 0/0 only where the hit weighs nothing
    auroc = 1 - losses / (2 * positives * negatives)
    return auroc, np.sum(hits * precision) / positives, right, positives + negatives


def _running_sum(weights: np.ndarray) -> np.ndarray:
    total = np.zeros(len(weights) + 1, dtype=np.int64)
    np.cumsum(weights, out=total[1:])
    return total


def _collect(figures: np.ndarray, classes: Sequence[str], ranked: Sequence[RankedClass]) -> dict:
    auroc, auprc, right, valid = np.moveaxis(figures, 2, 0)  # [R, C] each
    people = [_patients(one) for one in ranked]
    kept = [c for c, one in enumerate(people) if one["auroc"]]
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = (auroc, auprc, right / valid)
        macro: dict[str, Any] = {
            "auroc": auroc[:, kept].sum(axis=1) / len(kept),
            "auprc": auprc[:, kept].sum(axis=1) / len(kept),
            "accuracy": right.sum(axis=1) / valid.sum(axis=1),
        }
    macro["patients"] = {key: _joint([people[c][key] for c in kept], macro_of[:, kept]) for key, macro_of in
                         (("auroc", auroc), ("auprc", auprc))}  # fmt: skip
    macro["patients"]["accuracy"] = max((one["accuracy"] for one in people), default=0)
    per_class = {
        name: {**{key: column[:, c] for key, column in zip(FIGURES, columns, strict=True)}, "patients": people[c]}
        for c, name in enumerate(classes)
    }
    return {"macro": macro, "per_class": per_class}


def _patients(one: RankedClass) -> dict[str, float]:
    """On how many patients the figures of a class rest: for the areas, those of the rarer label."""
    rarer = min(len(np.unique(one.positives)), len(np.unique(one.negatives)))
    everybody = len(np.unique(np.append(one.positives, one.negatives)))
    return {"auroc": rarer, "auprc": rarer, "accuracy": everybody}


def _joint(patients: Sequence[float], figures: np.ndarray) -> float:
    """On how many patients the mean over the classes rests, by the degrees of freedom of Satterthwaite (1946).

    figures: replicates [R, C] of the classes, which rest on so many `patients` [C].
    """
    defined = figures[~np.isnan(figures).any(axis=1)]
    if not len(defined) or not len(patients):
        return 0.0
    variances = defined.var(axis=0)
    parts = np.sum(variances**2 / np.maximum(np.array(patients) - 1, 1))
    return float(1 + variances.sum() ** 2 / parts) if parts else float(min(patients))
