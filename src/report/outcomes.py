"""What given thresholds do on a split: counts, workload and patient-bootstrap intervals, for many thresholds at once.

The figures are those of `bootstrap.bootstrap_metrics` and `workload.per_thousand`; the sorting, the resamples and the
grouping by study are shared by all thresholds of a class.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from src.stats.bootstrap import interval, resample


class Segments(NamedTuple):
    """The entries of one class that reach some threshold, in runs between one threshold and the next."""

    patients: np.ndarray  # [n] int64 patient of each entry, from the highest score down
    reached: np.ndarray  # [T] int64 entries at or above each threshold


class StudyScores(NamedTuple):
    """What a study has if any of its images has it, classes first."""

    scores: np.ndarray  # [C, S] float64 highest labeled probability, -1 where none is labeled
    present: np.ndarray  # [C, S] bool a positive label
    valid: np.ndarray  # [C, S] bool any label


def count_outcomes(probs: np.ndarray, *, targets: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives with `probs >= threshold`: [T] int64 each, for probs and targets [n] of one class."""
    positive = targets == 1
    return tuple(_reached(np.sort(probs[part]), thresholds) for part in (positive, ~positive))


def bootstrap_outcomes(
    entries: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    *,
    thresholds: Sequence[np.ndarray],
    patients: int,
    resamples: int,
    seed: int,
) -> list[np.ndarray]:
    """95% intervals of precision and recall at each threshold: per class [T, 4], precision low, high, recall low, high.

    entries: per class probabilities, targets and patient numbers, [n] each, valid entries only; thresholds: per class
    [T]; patients: how many there are in the split, whether or not they have a label of the class. The same
    seed gives the resamples of `bootstrap.bootstrap_metrics`, hence its intervals.
    """
    ranked = [_rank(*entry, thresholds=cuts) for entry, cuts in zip(entries, thresholds, strict=True)]

    def replicate(index: int) -> list[np.ndarray]:
        weights = resample(patients, seed=seed, index=index)
        return [_weigh(parts, weights) for parts in ranked]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        drawn = list(pool.map(replicate, range(resamples)))
    return [_intervals(np.stack([one[c] for one in drawn])) for c in range(len(ranked))]


def _rank(
    probs: np.ndarray, targets: np.ndarray, patients: np.ndarray, *, thresholds: np.ndarray
) -> tuple[Segments, Segments]:
    """Positives and negatives apart."""
    parts = []
    for part in (targets == 1, targets != 1):
        order = np.argsort(-probs[part], kind="stable")
        parts.append(Segments(patients[part][order], _reached(np.sort(probs[part]), thresholds)))
    return tuple(parts)


def _weigh(parts: tuple[Segments, Segments], weights: np.ndarray) -> np.ndarray:
    """[3, T]: true positives, false positives and positives in one resample."""
    totals = []
    for segments in parts:
        total = np.zeros(len(segments.patients) + 1, dtype=np.int64)
        np.cumsum(weights[segments.patients], out=total[1:])
        totals.append(total)
    tp, fp = (total[segments.reached] for total, segments in zip(totals, parts, strict=True))
    return np.stack([tp, fp, np.full_like(tp, totals[0][-1])])


def _intervals(counts: np.ndarray) -> np.ndarray:
    """[T, 4] of the counts [R, 3, T] of the resamples."""
    tp, fp, positives = np.moveaxis(counts, 1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = tp / (tp + fp), tp / positives
    rows = [interval(p) + interval(r) for p, r in zip(precision.T, recall.T, strict=True)]
    return np.array(rows).reshape(-1, 4)


def by_study(probs: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, studies: np.ndarray) -> StudyScores:
    """Group images by study: probs, targets, mask [N, C]; studies [N] ids."""
    codes = np.unique(studies, return_inverse=True)[1]
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))

    def grouped(values: np.ndarray, reduce: Callable) -> np.ndarray:
        return np.ascontiguousarray(reduce(values[order], starts, axis=0).T)

    return StudyScores(
        scores=grouped(np.where(mask, probs, -1.0), np.maximum.reduceat),
        present=grouped(mask & (targets == 1), np.logical_or.reduceat),
        valid=grouped(mask, np.logical_or.reduceat),
    )


def count_studies(studies: StudyScores, c: int, *, thresholds: np.ndarray) -> np.ndarray:
    """Studies flagged, missed and falsely flagged in class `c` at each threshold: [3, T] int64."""
    scores, present = studies.scores[c], studies.present[c]
    flagged, hits = (_reached(np.sort(part), thresholds) for part in (scores, scores[present]))
    return np.stack([flagged, present.sum() - hits, flagged - hits])


def count_any(studies: StudyScores, *, thresholds: np.ndarray) -> tuple[int, int, int]:
    """Studies with a flag, a finding missed, a false flag, in any class, at one threshold [C] per class."""
    flags = studies.scores >= thresholds[:, None]
    events = (flags, studies.present & ~flags, flags & ~studies.present)
    return tuple(int(np.logical_or.reduce(event, axis=0).sum()) for event in events)


def _reached(ascending: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    return len(ascending) - np.searchsorted(ascending, thresholds, side="left")
