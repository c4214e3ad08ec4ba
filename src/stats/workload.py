"""What an operating point means in a clinic: work per 1,000 studies, and precision at another prevalence."""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

ANY = "at least one finding"


def per_thousand(
    flags: np.ndarray, *, targets: np.ndarray, mask: np.ndarray, studies: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """Studies flagged, missed and falsely flagged per 1,000, per class and for any finding.

    flags, mask: [N, C] bool; targets: [N, C] 0 or 1; studies: [N] ids. A study has what any of its images has. Only
    labeled entries count: a class's 1,000 are studies with a valid label of it, those of "any finding" studies with
    any. There, flagged and false mean at least one flag and one false flag, missed at least one positive missed.
    Returns columns class, studies, flagged, missed, false; NaN without a labeled study.
    """
    positive = mask & (targets == 1)
    columns = [_any_per_study(values, studies) for values in (mask, flags & mask, positive)]
    valid, flagged, present = columns
    missed, false = present & ~flagged, flagged & ~present
    rows = [(name, *_rates(valid[:, c], flagged[:, c], missed[:, c], false[:, c])) for c, name in enumerate(classes)]
    rows.append((ANY, *_rates(*(values.any(axis=1) for values in (valid, flagged, missed, false)))))
    return pd.DataFrame(rows, columns=["class", "studies", "flagged", "missed", "false"])


def precision_at(recall: float, specificity: float, *, prevalence: float) -> float:
    """Precision of an operating point where the finding has another prevalence (Bayes' rule).

    recall * prevalence / (recall * prevalence + (1 - specificity) * (1 - prevalence)). Takes recall and specificity
    to be the same there. NaN where nothing would be flagged or one of them is NaN.
    """
    hits, false = recall * prevalence, (1 - specificity) * (1 - prevalence)
    return hits / (hits + false) if hits + false > 0 else float("nan")


def check_prevalence(pairs: Iterable[tuple[str, str]], *, classes: Sequence[str]) -> dict[str, float]:
    """Prevalence by class from pairs of a class name and a number as text.

    Raises ValueError for an unknown or doubled class and a value that is not above 0 and below 1.
    """
    stated = {}
    for name, value in pairs:
        if not name:
            raise ValueError(f"--prevalence {value}: expected CLASS=share, such as Edema=0.05")
        if name not in classes:
            raise ValueError(f"--prevalence {name}={value}: no class {name!r}; the classes are {', '.join(classes)}")
        if name in stated:
            raise ValueError(f"--prevalence names {name} twice; expected each class once")
        stated[name] = _share(value, name)
    return stated


def _share(text: str, name: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = np.nan
    if not 0 < share < 1:
        raise ValueError(f"--prevalence {name}={text}: expected a share above 0 and below 1, such as 0.05")
    return share


def _any_per_study(values: np.ndarray, studies: np.ndarray) -> np.ndarray:
    """[studies, C] bool: whether any image of the study is true."""
    _, codes = np.unique(studies, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.flatnonzero(np.diff(codes[order], prepend=-1))
    return np.logical_or.reduceat(values[order], starts, axis=0)


def _rates(valid: np.ndarray, *events: np.ndarray) -> tuple[float, ...]:
    count = int(valid.sum())
    return count, *(1000 * float(event.sum()) / count if count else float("nan") for event in events)
