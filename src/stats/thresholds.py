"""Operating points: the threshold of a class under a recall constraint. Chosen on validation data only.

A finding is flagged where `prob >= threshold`. The empirical rule asks for the recall on the validation data; the
certified rule asks for a lower confidence bound on the recall of new patients. A row is a unit, which is a study or an
image. Recall is that of the next unit, or with `by_patient` that of a random unit of a random patient.
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, stdtrit

from src.evaluate import ratio
from src.stats.grid import unit_grid
from src.stats.intervals import LEVEL, Share

FLAG_ALL = 0.0  # no probability is below it


@dataclass(frozen=True)
class Curve:
    """Every candidate threshold of one class, from the highest down, with its counts on the data it was built from."""

    thresholds: np.ndarray  # [K] float64
    tp: np.ndarray  # [K] int64 positives flagged
    fp: np.ndarray  # [K] int64 negatives flagged
    recall: np.ndarray  # [K] float64, NaN without positives
    effective: np.ndarray  # [K] float64 independent positives that carry as much information on recall
    positives: int
    negatives: int
    distinct: int  # positives without copies: a patient's positives with the same score are one
    patients: int  # patients among the positives

    @property
    def precision(self) -> np.ndarray:
        """[K] float64, 0 where nothing is flagged (such a threshold is never chosen)."""
        return self.tp / np.maximum(self.tp + self.fp, 1)

    @property
    def entries(self) -> int:
        """Positives and negatives."""
        return self.positives + self.negatives

    @property
    def prevalence(self) -> float:
        """Share of positives, NaN without entries."""
        return ratio(self.positives, self.entries)

    def counts_at(self, threshold: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """True and false positives of flagging `prob >= threshold`: two int64 arrays in the shape of `threshold`.

        Where the candidates are a grid, only its multiples are counted exactly.
        """
        reached = self._reached(threshold)
        return np.append(0, self.tp)[reached], np.append(0, self.fp)[reached]

    def recall_share(self, threshold: float) -> Share:
        """Recall of flagging `prob >= threshold`, with the effective number of positives for a two-sided interval.

        The number is that of `recall_lower_bound`, which takes the correlation within patients from all cuts of the
        class: at the cut itself a single miss always looks independent, so that one miss would tell more than none.
        """
        if not self.positives:
            return Share(np.nan, 0.0)
        reached = int(self._reached(threshold))
        value = float(self.recall[reached - 1]) if reached else 0.0
        size = float(_effective_size(self, max(reached - 1, 0), (1 + LEVEL) / 2))
        return Share(value, max(size, self.patients) if value in (0, 1) else size)

    def _reached(self, threshold: float | np.ndarray) -> np.ndarray:
        """How many candidates are at or above a threshold."""
        return np.searchsorted(-self.thresholds, -np.asarray(threshold), side="right")


@dataclass(frozen=True)
class OperatingPoint:
    """A chosen threshold and what it does on the data it was chosen on."""

    threshold: float
    precision: float
    recall: float
    recall_lower: float  # lower confidence bound on recall; NaN where none was asked for
    positives: int
    status: str  # "ok" or "infeasible"; an infeasible class flags all
    positives_needed: int  # more positives, each from another patient, until it is feasible; 0 when it is


def build_curve(
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    patients: np.ndarray | None = None,
    by_patient: bool = False,
    grid: float | None = None,
) -> Curve:
    """All candidate thresholds of one class, from one sort; both rules and every recall target can share it.

    probs: [n] float in [0, 1], the valid entries only; targets: [n] 0 or 1; patients: [n] labels of any kind
    (integers sort fastest), None where every entry is its own patient. `by_patient` weights each positive by one over
    the positives of its patient, so that recall is that of a random positive of a random patient. Candidates are the
    distinct observed probabilities, or with `grid` (a step such as 0.01) the multiples of it from 0 to 1.
    Raises ValueError for a probability that is NaN, whose place among the others is not defined.
    """
    probs = np.asarray(probs, dtype=np.float64)
    if np.isnan(probs).any():
        raise ValueError(f"{np.isnan(probs).sum()} of {len(probs)} probabilities are NaN; expected numbers in [0, 1]")
    order = np.argsort(probs)[::-1]
    positive = (np.asarray(targets) == 1)[order]
    thresholds, tp, fp = _tally(probs[order], positive)
    members = order[positive]
    owners = members if patients is None else np.asarray(patients)[members]
    ranked = _rank_positives(probs[members], owners, by_patient=by_patient)
    counts = {"positives": len(members), "negatives": len(probs) - len(members)}
    counts |= {"distinct": ranked.distinct, "patients": ranked.patients}
    curve = Curve(thresholds, tp, fp, ranked.recall[tp], ranked.effective[tp], **counts)
    if grid is None:
        return curve
    thresholds = unit_grid(grid, flag="--grid")[::-1]
    tp, fp = curve.counts_at(thresholds)
    fields = {"recall": ranked.recall[tp], "effective": ranked.effective[tp]}
    return replace(curve, thresholds=thresholds, tp=tp, fp=fp, **fields)


def build_curves(
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    patients: np.ndarray,
    by_patient: bool = False,
    grid: float | None = None,
) -> list[Curve]:
    """`build_curve` of every class: probs, targets, mask [N, C], patients [N] integers; C curves.

    Classes run in threads: sorting, which is most of it, does not hold the interpreter lock.
    """

    def of_class(c: int) -> Curve:
        rows = np.flatnonzero(mask[:, c])
        data = {"targets": targets[rows, c], "patients": patients[rows]}
        return build_curve(probs[rows, c], **data, by_patient=by_patient, grid=grid)

    with ThreadPoolExecutor() as pool:
        return list(pool.map(of_class, range(mask.shape[1])))


def _tally(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct scores of scores [n] that descend, and true and false positives at each: [K] each.

    scikit-learn keeps its own version of this private.
    """
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))[: len(scores)]
    tp = np.cumsum(positive, dtype=np.int64)[last]
    return scores[last], tp, last + 1 - tp


class _Positives(NamedTuple):
    """The positives of a class from the highest score down; entry k of the arrays is for the cut that flags k."""

    recall: np.ndarray  # [P + 1] float64
    effective: np.ndarray  # [P + 1] float64 independent positives that tell as much about recall as these
    distinct: int
    patients: int


def _rank_positives(scores: np.ndarray, patients: np.ndarray, *, by_patient: bool) -> _Positives:
    """Recall and effective number at every cut; scores, patients [P] from the highest score down.

    The method: `recall_lower_bound`.
    """
    total = len(scores)
    codes = np.unique(patients, return_inverse=True)[1]
    patients, place = np.divmod(np.sort(codes * total + np.arange(total)), max(total, 1))
    same = np.diff(patients) == 0  # by patient from here on, each from the highest score down
    distinct = total - int(np.sum(same & (np.diff(scores[place]) == 0)))
    people = total - int(same.sum())
    if not total:
        return _Positives(np.full(1, np.nan), np.zeros(1), 0, 0)
    first = np.append(0, np.flatnonzero(~same) + 1)
    sizes = np.diff(first, append=total)
    weights = np.empty(total)
    weights[place] = np.repeat(1 / sizes if by_patient else np.ones(people), sizes)
    whole = people if by_patient else total  # the sum of the weights
    recall = np.append(0, np.cumsum(weights) / whole)
    if by_patient:
        recall = np.round(recall, 12)  # so that sums of thirds reach a target as they do on paper
    recall[-1] = 1
    cuts = np.flatnonzero(np.diff(scores))  # the last of each group of equal scores, recall 1 left out
    if people < 2 or not len(cuts):
        return _Positives(recall, np.full(total + 1, float(people)), distinct, people)

    hits_before, size = np.empty((2, total))  # of the same patient, each weighted
    hits_before[place] = (np.arange(total) - np.repeat(first, sizes)) * weights[place]
    size[place] = np.repeat(np.ones(people) if by_patient else sizes, sizes)
    found = recall[1:]
    squares = np.cumsum((2 * hits_before + weights) * weights) - 2 * found * np.cumsum(weights * size)
    squares += found**2 * np.sum(weights * size)  # sum over patients of (hits - recall * size) ** 2
    variance = squares[cuts] / whole**2 * people / (people - 1)
    binomial = found[cuts] * (1 - found[cuts]) / (distinct - 1)
    effect = np.maximum.accumulate((variance / binomial)[::-1])[::-1]
    floor = max(1.0, variance.sum() / binomial.sum())
    effective = np.full(total + 1, distinct / floor)
    effective[cuts + 1] = distinct / np.maximum(effect, floor)
    return _Positives(recall, effective, distinct, people)


def recall_lower_bound(curve: Curve, *, confidence: float) -> np.ndarray:
    """One-sided lower confidence bound on the recall at every candidate: [K] float64, NaN without positives.

    Clopper & Pearson (1934) on an effective number of positives (Korn & Graubard 1998, Survey Methodology
    24): n = positives / effect * (t_positives-1 / t_patients-1) ** 2, hits = recall * n. The design effect is the
    linearized variance of the ratio "hits / positives", clustered by patient, over the binomial variance.
    With one positive per patient this is the plain Clopper-Pearson bound.

    The textbook effect, estimated at the candidate itself, falls short where few positives are missed: a
    single miss always looks independent, and at recall 1 the effect is 0/0. Hence
    - the effect is at least 1, and at least its pooled value: sum of the variances over sum of the binomial
      variances, at all cuts of the class;
    - it is at least its value at every lower threshold. The bound then only falls as the threshold rises, so
      that choosing among certified thresholds costs no confidence: the choice can only fail if the one
      threshold at which true recall equals the target was certified;
    - copies (same patient, same score) are one positive, so that doubling them does not pass for information;
    - at recall 1, n is at least the number of patients G: where none of them has a miss, recall is at least
      (1 - confidence) ** (1 / G) whatever the correlation within patients (how many positives a patient
      has saying nothing of their scores).

    The recall of a random positive of a random patient (`by_patient`) is the survey estimate with the weight one over
    the positives of the patient. Its linearized variance is that of the patients' own recalls, divided by G, and the
    rest is the same: weights enter Korn & Graubard's n through the design effect alone.
    """
    _check_confidence(confidence)
    return _lower_bound(curve, np.arange(len(curve.tp)), confidence)


def _lower_bound(curve: Curve, at: int | np.ndarray, confidence: float) -> np.ndarray:
    if not curve.positives:
        return np.full(np.shape(at), np.nan)
    size = _effective_size(curve, at, max(confidence, 0.75))  # at 0.5 both quantiles are 0
    size = np.where(curve.tp[at] == curve.positives, np.maximum(size, curve.patients), size)
    hits = curve.recall[at] * size
    return np.where(hits > 0, betaincinv(hits, size - hits + 1, 1 - confidence), 0.0)


def _effective_size(curve: Curve, at: int | np.ndarray, level: float) -> np.ndarray:
    """Effective positives with the correction for degrees of freedom, for a quantile of Student's t at `level`."""
    spread = [stdtrit(max(count - 1, 1), level) for count in (curve.distinct, curve.patients)]
    return curve.effective[at] * (spread[0] / spread[1]) ** 2


def patients_needed(recall: float, *, confidence: float) -> int:
    """From how many patients a class needs positives for `recall` to hold: at 95%, 19 for 0.85, 29 for 0.9.

    The smallest n with recall ** n <= 1 - confidence: fewer patients without a single miss are no proof.
    """
    _check_recall(recall)
    _check_confidence(confidence)
    if recall == 1:
        raise ValueError("--recall 1 cannot be promised; pass a lower --recall, or --rule empirical")
    return max(1, math.ceil(math.log1p(-confidence) / math.log(recall)))


def bonferroni(confidence: float, *, classes: int) -> float:
    """The confidence that each of `classes` classes needs for all to hold at `confidence` (Dunn 1961)."""
    return 1 - (1 - confidence) / classes


def shared_confidence(confidence: float, curves: Sequence[Curve], *, recall: float) -> float:
    """The confidence of each class for all with enough patients to reach `recall` together at `confidence`."""
    needed = patients_needed(recall, confidence=confidence)
    return bonferroni(confidence, classes=max(1, sum(curve.patients >= needed for curve in curves)))


def empirical_rule(curve: Curve, *, recall: float) -> OperatingPoint:
    """The candidate with the highest precision among those with validation recall >= `recall`.

    Ties in precision go to the higher threshold. Without positives no recall exists: "infeasible", flag all.
    """
    _check_recall(recall)
    if not curve.positives:
        return _flag_all(curve, recall_lower=np.nan, needed=1)
    first = bisect_left(range(len(curve.tp) - 1), True, key=lambda at: bool(curve.recall[at] >= recall))
    return _most_precise(curve, first)


def certified_rule(curve: Curve, *, recall: float, confidence: float = 0.95) -> OperatingPoint:
    """The candidate with the highest precision among those whose lower bound on recall is >= `recall`.

    `confidence`, above 0 and below 1, is that of the bound (`recall_lower_bound`). Ties in precision go to the higher
    threshold. A class is feasible when its positives come from `patients_needed` patients: with fewer,
    even certifying the lowest positive would rest on a correlation estimated from those few, and classes
    would pass where that estimate is low by chance. Otherwise the point is "infeasible", flags all, and says
    how many positives from further patients are missing.
    """
    _check_recall(recall)
    _check_confidence(confidence)
    missing = patients_needed(recall, confidence=confidence) - curve.patients
    last = len(curve.tp) - 1  # flags every positive, so enough patients certify it
    if missing > 0:
        bound = float(_lower_bound(curve, last, confidence)) if curve.positives else np.nan
        return _flag_all(curve, recall_lower=bound, needed=missing)
    first = bisect_left(range(last), True, key=lambda at: bool(_lower_bound(curve, at, confidence) >= recall))
    return _most_precise(curve, first, confidence=confidence)


def choose_points(curves: Sequence[Curve], *, recall: float, confidence: float | None) -> list[OperatingPoint]:
    """What the certified rule chooses for each class, or without a confidence the empirical rule."""
    if confidence is None:
        return [empirical_rule(curve, recall=recall) for curve in curves]
    return [certified_rule(curve, recall=recall, confidence=confidence) for curve in curves]


def _check_recall(recall: float) -> None:
    if not 0 < recall <= 1:
        raise ValueError(f"recall target is {recall}, expected a number above 0 and at most 1, such as 0.85")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}, expected a number above 0 and below 1, such as 0.95")


def _flag_all(curve: Curve, *, recall_lower: float, needed: int) -> OperatingPoint:
    return OperatingPoint(
        threshold=FLAG_ALL,
        precision=curve.prevalence,
        recall=ratio(curve.positives, curve.positives),
        recall_lower=recall_lower,
        positives=curve.positives,
        status="infeasible",
        positives_needed=needed,
    )


def _most_precise(curve: Curve, first: int, *, confidence: float | None = None) -> OperatingPoint:
    """The best candidate from index `first` on; recall only grows from there."""
    precision = curve.tp[first:] / (curve.tp[first:] + curve.fp[first:])
    best = first + int(np.argmax(precision))  # the first maximum: the highest threshold
    return OperatingPoint(
        threshold=float(curve.thresholds[best]),
        precision=float(precision[best - first]),
        recall=float(curve.recall[best]),
        recall_lower=np.nan if confidence is None else float(_lower_bound(curve, best, confidence)),
        positives=curve.positives,
        status="ok",
        positives_needed=0,
    )
