"""What an operating point means in a clinic: work per 1,000 studies, and precision at another prevalence."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from src.evaluate import ratio

ANY = "at least one finding"


class Answers(NamedTuple):
    """What is known of each unit and finding: bool [U, C] each."""

    counted: np.ndarray  # takes part in the counts
    present: np.ndarray  # has the finding
    absent: np.ndarray  # does not have it, so that a flag is a false one


def answers(targets: np.ndarray, *, mask: np.ndarray, blank: np.ndarray) -> tuple[Answers, Answers]:
    """Two views of the same labels: the labeled units alone, and all units with each blank as a negative.

    targets [U, C] 0 or 1 where `mask` [U, C] is true; blank: [U, C] bool. In the second view every flag is counted,
    also that of a unit with a masked label, of which nobody knows whether it is false.
    """
    present, absent = mask & (targets == 1), mask & (targets == 0)
    everybody = np.ones_like(mask)
    return Answers(mask, present, absent), Answers(everybody, present, absent | (blank & ~present))


def count(flags: np.ndarray, known: Answers) -> np.ndarray:
    """Units counted, flagged, missed and falsely flagged: [C + 1, 4] int64, the last row of any finding at all.

    flags: [U, C] bool.
    """
    events = (known.counted, flags & known.counted, known.present & ~flags, flags & known.absent)
    per_class = [event.sum(axis=0) for event in events]
    anywhere = [event.any(axis=1).sum() for event in events]
    return np.column_stack([np.array(per_class), np.array(anywhere)]).T


def per_thousand(flags: np.ndarray, known: Answers, *, classes: Sequence[str]) -> list[tuple[Any, ...]]:
    """`count` as a row per class and one for any finding: name, units, and per 1,000 of these the events (or NaN)."""
    rows = zip((*classes, ANY), count(flags, known).tolist(), strict=True)
    return [(name, units, *(ratio(1000 * n, units) for n in events)) for name, (units, *events) in rows]


def precision_at(recall: float, specificity: float, *, prevalence: float) -> float:
    """Precision of an operating point where the finding has another prevalence (Bayes' rule).

    recall * prevalence / (recall * prevalence + (1 - specificity) * (1 - prevalence)). Takes recall and specificity
    to be the same there. NaN where nothing would be flagged or one of them is NaN.
    """
    hits, false = recall * prevalence, (1 - specificity) * (1 - prevalence)
    return hits / (hits + false) if hits + false > 0 else float("nan")
