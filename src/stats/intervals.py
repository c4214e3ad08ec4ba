"""95% intervals that do not collapse to a point, of shares and of areas under a curve, with patients as clusters."""

from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, expit, logit, stdtrit

LEVEL = 0.95  # of every two-sided interval, and of each one-sided bound in a verdict

VERDICTS = CONTRADICTED, CONFIRMED, CONSISTENT = ("contradicted", "confirmed", "consistent")


class Share(NamedTuple):
    """A share of hits, and how many independent units tell as much about it."""

    value: float  # NaN without units
    effective: float


def clustered_share(hits: np.ndarray, *, patients: np.ndarray) -> Share:
    """The share of hits among units, with its effective size (Korn & Graubard 1998, Survey Methodology 24).

    hits: [n] bool or 0/1; patients: [n] labels of any kind. The size is n / effect, where the design effect, at least
    1, is the linearized variance of the share, clustered by patient, over the binomial variance. Where all units are
    hits or none is, nothing is known of the correlation within patients, and the size is the number of patients.
    """
    hits = np.asarray(hits, dtype=np.float64)
    if not len(hits):
        return Share(np.nan, 0.0)
    names, codes = np.unique(patients, return_inverse=True)
    count, people = len(hits), len(names)
    value = float(hits.mean())
    if people < 2 or hits.min() == hits.max():
        return Share(value, float(people))
    residuals = np.bincount(codes, weights=hits - value) / count
    variance = np.sum(residuals**2) * people / (people - 1)
    effect = max(1.0, variance * (count - 1) / (value * (1 - value)))
    return Share(value, count / effect * (_t(count) / _t(people)) ** 2)


def _t(count: float) -> float:
    """Student's quantile for the standard deviation of `count` values."""
    return float(stdtrit(max(count - 1, 1), (1 + LEVEL) / 2))


def share_interval(share: Share, *, level: float = LEVEL) -> tuple[float, float]:
    """Two-sided Clopper-Pearson interval (1934) on the effective size: (low, high), (NaN, NaN) without units."""
    size, tail = share.effective, (1 - level) / 2
    if not size:
        return np.nan, np.nan
    hits = share.value * size
    low = betaincinv(hits, size - hits + 1, tail) if hits > 0 else 0.0
    high = betaincinv(hits + 1, size - hits, 1 - tail) if hits < size else 1.0
    return float(low), float(high)


def verdict(share: Share, *, target: float, level: float = LEVEL) -> str:
    """What new data say of a promised recall: "contradicted", "confirmed" or "consistent"; "" without data.

    Contradicted where the one-sided upper bound at `level` is below the target, confirmed where the lower bound is at
    or above it.
    """
    low, high = share_interval(share, level=2 * level - 1)
    if np.isnan(low):
        return ""
    return CONTRADICTED if high < target else CONFIRMED if low >= target else CONSISTENT


def area_interval(value: float, replicates: np.ndarray, *, patients: float) -> tuple[float, float]:
    """Interval of an AUROC, an AUPRC, an accuracy, or a mean of such, from its bootstrap replicates [R].

    On the logit scale, logit(value) +- t * standard error, where the standard error is the standard deviation of the
    logits of the replicates that are defined, or where some are 0 or 1, that of the replicates divided by value * (1 -
    value). `patients` is the number G of patients that the figure rests on, for an area those with the rarer label: it
    gives t its degrees of freedom, G - 1, and the variance the factor G / (G - 1) that resampling G patients takes
    away. Where the value is 0 or 1, the interval is Clopper & Pearson's for G of G hits. It is (NaN, NaN) where the
    value or all replicates are not defined, and (0, 1) where G is below 2 or the replicates do not vary.
    """
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value) or not len(defined):
        return np.nan, np.nan
    if patients < 2 or len(defined) < 2:
        return 0.0, 1.0
    if not 0 < value < 1:
        edge = share_interval(Share(1.0, float(patients)))[0]
        return (edge, 1.0) if value else (0.0, 1 - edge)
    if defined.min() == defined.max():  # as of a model that gives all images the same probability
        return 0.0, 1.0
    inside = defined.min() > 0 and defined.max() < 1
    spread = np.std(logit(defined), ddof=1) if inside else np.std(defined, ddof=1) / (value * (1 - value))
    reach = _t(patients) * float(spread) * np.sqrt(patients / (patients - 1))
    return float(expit(logit(value) - reach)), float(expit(logit(value) + reach))


def difference_interval(value: float, replicates: np.ndarray, *, patients: float) -> tuple[float, float]:
    """Interval of a paired difference of two shares from its bootstrap replicates [R]: value +- t * standard error.

    `patients` as in `area_interval`: those that the difference rests on. (NaN, NaN) where the value or all replicates
    are not defined; (-1, 1) where they are too few to tell, or the replicates do not vary.
    """
    defined = replicates[~np.isnan(replicates)]
    if np.isnan(value) or not len(defined):
        return np.nan, np.nan
    if patients < 2 or defined.min() == defined.max():
        return -1.0, 1.0
    reach = _t(patients) * float(np.std(defined, ddof=1)) * np.sqrt(patients / (patients - 1))
    return max(value - reach, -1.0), min(value + reach, 1.0)


def top_share(patients: np.ndarray) -> float:
    """The share of units that the 5% of patients with the most units own; patients: [n], one per unit.

    NaN with fewer than 20 patients, of whom one would be more than 5%.
    """
    sizes = np.sort(np.unique(patients, return_counts=True)[1])[::-1]
    if len(sizes) < 20:
        return float("nan")
    return float(sizes[: round(0.05 * len(sizes))].sum() / sizes.sum())
