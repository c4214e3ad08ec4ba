"""The thresholds that flag: read from a thresholds.json of stage 6 or of the report, if it is of the run at hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts import read_json

AGAIN = "run ensemble_threshold_search.py --overwrite, or save it from the report again"


@dataclass(frozen=True)
class SavedThresholds:
    """A threshold per class for one recall target: `values` [C] float64, 0 for a class of `needed`.

    `needed` has the classes without a feasible threshold, which flag all, with the positive patients they lack (None
    where the file does not say).
    """

    classes: tuple[str, ...]
    recall: float
    values: np.ndarray
    needed: dict[str, int | None]

    def flags(self, probs: np.ndarray) -> np.ndarray:
        """Whether probabilities [.., C], as files hold them, are at or above their thresholds: bool [.., C]."""
        return probs >= self.values


def read_thresholds(
    path: Path, *, recall: float | None, classes: Sequence[str], origin: Mapping[str, Any]
) -> SavedThresholds:
    """The thresholds of one recall target, in the order of `classes`; `recall` None takes the only one there is.

    origin: the digests that the file must record too. Raises ValueError where it is of another run or other classes,
    has no such target (naming those it has), or a threshold is no number from 0 to 1.
    """
    content = read_json(path)
    for key in ("manifest_sha256", "probs_val_sha256"):
        if content.get(key) != origin[key]:
            what = "does not say" if key not in content else "says otherwise"
            raise ValueError(f"{path} is not of this run: its {key} {what}; {AGAIN}")
    targets = content.get("recall")
    if content.get("classes") != list(classes) or not isinstance(targets, dict) or not targets:
        raise ValueError(f"{path} has other classes than the run, or no thresholds; {AGAIN}")
    target = _target(path, targets, recall)
    points = targets[target]
    same = isinstance(points, dict) and set(points) == set(classes)
    if not same or not all(isinstance(point, dict) for point in points.values()):
        raise ValueError(f"{path}: recall {target} has other classes than the run; {AGAIN}")
    values = [points[name].get("threshold") for name in classes]
    for name, value in zip(classes, values, strict=True):
        if not is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"{path}: the threshold of {name} is {value}; expected a number from 0 to 1; {AGAIN}")
    needed = {name: points[name].get("positives_needed") for name in classes if points[name].get("status") != "ok"}
    flags_all = [name in needed for name in classes]
    flagging = np.where(flags_all, 0.0, np.array(values, np.float64))
    return SavedThresholds(tuple(classes), float(target), flagging, needed)


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _target(path: Path, targets: Mapping[str, Any], recall: float | None) -> str:
    """The recall target as the file spells it."""
    if recall is None and len(targets) > 1:
        raise ValueError(f"{path} has thresholds for recall {', '.join(targets)}; pass --recall with one of them")
    for key in targets:
        try:
            value = float(key)
        except ValueError:
            raise ValueError(f"{path} has thresholds for recall {key!r}; expected a number; {AGAIN}") from None
        if recall is None or math.isclose(value, recall, abs_tol=1e-9):
            return key
    raise ValueError(f"{path} has no thresholds for recall {recall:g}; it has {', '.join(targets)}")
