"""The thresholds that flag: read from a thresholds.json of stage 6 or of the report, if it is of the run at hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts import is_number, read_json, recall_target

AGAIN = "run ensemble_threshold_search.py --overwrite, or save it from the report again"


@dataclass(frozen=True)
class SavedThresholds:
    """A threshold per class for one recall target: `values` [C] float64, 0 for a class of `needed`.

    `targets` [C] are the recall targets of each class, `recall` or one above it that was chosen in the report.
    `needed` has the classes without a feasible threshold, which flag all, with the positive patients they lack.
    """

    classes: tuple[str, ...]
    recall: float
    targets: tuple[float, ...]
    values: np.ndarray
    needed: dict[str, int]

    def flags(self, probs: np.ndarray) -> np.ndarray:
        """Whether probabilities [.., C], as files hold them, are at or above their thresholds: bool [.., C]."""
        return probs >= self.values


def read_thresholds(
    path: Path, *, recall: float | None, classes: Sequence[str], origin: Mapping[str, Any]
) -> SavedThresholds:
    """The thresholds of one recall target, in the order of `classes`; `recall` None takes the only one there is.

    origin: the digests that the file must record too. Raises ValueError where it is of another run or other classes,
    has no such target (naming those it has), or an entry is not what stage 6 and the report write.
    """
    content = read_json(path)
    for key in ("manifest_sha256", "probs_val_sha256"):
        if content.get(key) != origin[key]:
            what = "does not say" if key not in content else "says otherwise"
            raise ValueError(f"{path} is not of this run: its {key} {what}; {AGAIN}")
    if content.get("classes") != list(classes):
        raise ValueError(f"{path} {_other(content.get('classes'), classes)}; {AGAIN}")
    points, target = _points(path, content.get("recall"), recall)
    if set(points) != set(classes):
        raise ValueError(f"{path}: recall {target:g} {_other(list(points), classes)}; {AGAIN}")
    for name in classes:
        _check_point(path, name, points[name])
    needed = {name: points[name]["positives_needed"] for name in classes if points[name]["status"] == "infeasible"}
    values = [0.0 if name in needed else float(points[name]["threshold"]) for name in classes]
    chosen = _chosen(path, content.get("report", {}), classes)
    targets = tuple(chosen.get(name, target) for name in classes)
    return SavedThresholds(tuple(classes), target, targets, np.array(values), needed)


def _points(path: Path, targets: Any, recall: float | None) -> tuple[dict[str, Any], float]:
    """The operating points by class of a recall target, and the target."""
    if not isinstance(targets, dict) or not targets:
        raise ValueError(f"{path} has no thresholds for any recall; {AGAIN}")
    by_value: dict[float, dict[str, Any]] = {}
    for key, points in targets.items():
        value = recall_target(key)
        if value is None or not isinstance(points, dict):
            what = "a number above 0 and up to 1" if value is None else "a threshold per class"
            raise ValueError(f"{path} has thresholds for recall {key!r}; expected {what}; {AGAIN}")
        if value in by_value:
            raise ValueError(f"{path} has thresholds for recall {value:g} twice; expected each target once; {AGAIN}")
        by_value[value] = points
    if recall is None and len(targets) > 1:
        raise ValueError(f"{path} has thresholds for recall {', '.join(targets)}; pass --recall with one of them")
    for value, points in by_value.items():
        if recall is None or math.isclose(value, recall, abs_tol=1e-9):
            return points, value
    raise ValueError(f"{path} has no thresholds for recall {recall:g}; it has {', '.join(targets)}")


def _check_point(path: Path, name: str, point: Any) -> None:
    """Raise ValueError where an operating point lacks what a flag depends on, or has what no stage writes."""
    entry = point if isinstance(point, dict) else {}
    threshold, status, needed = (entry.get(key) for key in ("threshold", "status", "positives_needed"))
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"{path}: the threshold of {name} is {threshold!r}; expected a number from 0 to 1; {AGAIN}")
    if status not in ("ok", "infeasible"):
        raise ValueError(f"{path}: the status of {name} is {status!r}; expected ok or infeasible; {AGAIN}")
    if not isinstance(needed, int) or isinstance(needed, bool) or (needed > 0) != (status == "infeasible"):
        raise ValueError(
            f"{path}: {name} is {status} and its positives_needed is {needed!r}; expected 0 where it is ok, else the "
            f"number of positive patients it lacks; {AGAIN}"
        )


def _chosen(path: Path, report: Any, classes: Sequence[str]) -> dict[str, float]:
    """The recall target of each class that was chosen in the report."""
    chosen = report.get("chosen", {}) if isinstance(report, dict) else report
    if not isinstance(chosen, dict):
        raise ValueError(f"{path}: its 'report' is not what the report writes; {AGAIN}")
    targets = {}
    for name in filter(chosen.__contains__, classes):
        value = chosen[name].get("recall") if isinstance(chosen[name], dict) else chosen[name]
        if not is_number(value) or not 0 < value <= 1:
            raise ValueError(f"{path}: the recall chosen for {name} is {value!r}; expected a number up to 1; {AGAIN}")
        targets[name] = float(value)
    return targets


def _other(found: Any, classes: Sequence[str]) -> str:
    """How a list of classes differs from the run's."""
    found = found if isinstance(found, list) else []
    missing = [name for name in classes if name not in found]
    extra = [name for name in found if name not in classes]
    if missing:
        return f"lacks {missing[0]!r}, a class of the run"
    return f"has {extra[0]!r}, no class of the run" if extra else "has the run's classes in another order"
