"""What an operating point means in a clinic: work per 1,000 studies, and precision at another prevalence."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from src.evaluate import ratio

ANY = "at least one finding"


class StudyScores(NamedTuple):
    """What the images of each study say together, classes first."""

    scores: np.ndarray  # [C, S] float64 highest labeled probability, -1 where none is labeled
    present: np.ndarray  # [C, S] bool a positive label
    valid: np.ndarray  # [C, S] bool any label


def by_study(probs: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, studies: np.ndarray) -> StudyScores:
    """Group images by study: probs [N, C] in [0, 1], targets [N, C] 0 or 1, mask [N, C] bool, studies [N] ids.

    Only labeled entries count: a study is flagged in a class where the highest of its labeled probabilities is at
    least the threshold, and has the finding where any of its images has it.
    """
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
    """Studies flagged, missed and falsely flagged in class `c` at thresholds [T] in [0, 1]: [3, T] int64."""
    scores, present = studies.scores[c], studies.present[c]
    flagged, hits = (
        len(part) - np.searchsorted(np.sort(part), thresholds, side="left") for part in (scores, scores[present])
    )
    return np.stack([flagged, present.sum() - hits, flagged - hits])


def count_any(studies: StudyScores, *, thresholds: np.ndarray) -> tuple[int, ...]:
    """Studies with at least one flag, one finding missed and one false flag, at a threshold [C] in [0, 1] per class."""
    flags = studies.scores >= thresholds[:, None]
    events = (flags, studies.present & ~flags, flags & ~studies.present)
    return tuple(int(event.any(axis=0).sum()) for event in events)


def per_thousand(studies: StudyScores, *, thresholds: np.ndarray, classes: Sequence[str]) -> list[tuple[Any, ...]]:
    """A row per class and one for any finding: its name, the labeled studies, and per 1,000 of these the events.

    These are `count_studies`' and, for any finding, `count_any`'s, at a threshold [C] in [0, 1] per class. The studies
    of any finding are those with a valid label of any class. NaN without a labeled study.
    """
    rows: list[tuple[str, int, Iterable[float]]] = []
    for c, name in enumerate(classes):
        rows.append((name, int(studies.valid[c].sum()), count_studies(studies, c, thresholds=thresholds[[c]])[:, 0]))
    rows.append((ANY, int(studies.valid.any(axis=0).sum()), count_any(studies, thresholds=thresholds)))
    return [(name, valid, *(ratio(1000 * n, valid) for n in events)) for name, valid, events in rows]


def precision_at(recall: float, specificity: float, *, prevalence: float) -> float:
    """Precision of an operating point where the finding has another prevalence (Bayes' rule).

    recall * prevalence / (recall * prevalence + (1 - specificity) * (1 - prevalence)). Takes recall and specificity
    to be the same there. NaN where nothing would be flagged or one of them is NaN.
    """
    hits, false = recall * prevalence, (1 - specificity) * (1 - prevalence)
    return hits / (hits + false) if hits + false > 0 else float("nan")
