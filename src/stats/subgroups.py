"""Recall within groups of patients, with what can and what cannot be said of each group."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from src.stats.intervals import LEVEL, share_interval, verdict
from src.stats.thresholds import bonferroni, build_curve, patients_needed

COLUMNS = ("class", "by", "group", "positives", "patients", "missed", "recall", "low", "high", "verdict", "needed")


def age_bands(ages: np.ndarray, *, starts: Sequence[int]) -> np.ndarray:
    """The band of each age [N] in years, such as 40-59 or 80+: [N] str, "" where the age is NaN."""
    edges = [0, *sorted(set(starts))]
    names = [f"{low}-{high - 1}" for low, high in zip(edges, edges[1:], strict=False)] + [f"{edges[-1]}+"]
    place = np.searchsorted(edges, np.nan_to_num(ages), side="right") - 1
    return np.where(np.isnan(ages), "", np.array(names, dtype=object)[np.maximum(place, 0)])


def audit(
    probs: np.ndarray,
    *,
    thresholds: np.ndarray,
    present: np.ndarray,
    patients: np.ndarray,
    groups: pd.DataFrame,
    classes: Sequence[str],
    target: float,
    by_patient: bool = False,
    tried: bool = True,
) -> pd.DataFrame:
    """Recall of each class in each group, in the order of the groups and never by recall: the columns of `COLUMNS`.

    probs [U, C] float; thresholds [C]; present [U, C] bool; patients [U]; groups: U rows and a column of names per way
    of grouping, "" where a unit belongs to no group. `low` and `high` are a 95% interval. The verdict on `target` is
    one at the level that holds for all groups of a class together (Bonferroni). A group with positives of fewer
    patients than could confirm the target by itself even without a miss gets none; `needed` says how many more it
    takes. No group gets one unless the thresholds are `tried` on other data than they were chosen on.
    """
    enough = patients_needed(target, confidence=LEVEL) if target < 1 else 1
    rows: list[tuple[Any, ...]] = []
    for c, name in enumerate(classes):
        parts = []
        for by in groups:
            for group in sorted(set(groups[by]) - {""}, key=_natural):
                members = present[:, c] & (groups[by] == group).to_numpy()
                data: dict[str, Any] = {"targets": np.ones(members.sum()), "patients": patients[members]}
                curve = build_curve(probs[members, c], **data, by_patient=by_patient)
                parts.append((by, group, curve, curve.recall_share(thresholds[c])))
        level = bonferroni(LEVEL, classes=max(1, sum(curve.patients >= enough for *_, curve, _ in parts)))
        for by, group, curve, share in parts:
            missed = curve.positives - int(curve.counts_at(thresholds[c])[0])
            said = verdict(share, target=target, level=level) if tried and curve.patients >= enough else ""
            figures = (share.value, *share_interval(share), said, max(0, enough - curve.patients))
            rows.append((name, by, group, curve.positives, curve.patients, missed, *figures))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _natural(name: str) -> tuple[float, str]:
    """Bands by their first age, other names by the alphabet."""
    start = name.split("-")[0].rstrip("+")
    return (float(start), "") if start.isdigit() else (0.0, name)
