"""The thresholds that flag: read from a thresholds.json of stage 6 or of the report, if it is of the run at hand."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import is_number, read_json
from src.artifacts.truth import AGGREGATES, UNITS

AGAIN = "run ensemble_threshold_search.py --overwrite, or save it from the report again"


@dataclass(frozen=True)
class SavedThresholds:
    """A threshold per class for one recall target: `values` [C] float64, 0 for a class of `needed`.

    `targets` [C] are the recall targets of each class, `recall` or one above it that was chosen in the report.
    `needed` has the classes without a feasible threshold, which flag all, with the positive patients they lack.
    `confidences` [C] are 0 where a threshold is the empirical rule's. `unit` (study or image) is what the thresholds
    flag, `aggregate` (max or mean) gives a study its probability, `weights` (study, image or patient) says whose recall
    reaches the target, and `chosen_on` (val or calib) where the thresholds were chosen.
    """

    classes: tuple[str, ...]
    recall: float
    targets: tuple[float, ...]
    values: np.ndarray
    needed: dict[str, int]
    confidences: tuple[float, ...]
    unit: str
    aggregate: str
    weights: str
    chosen_on: str
    together: bool  # whether the confidence is that of all findings together

    @property
    def confidence(self) -> float | None:
        """The lowest confidence of any class; None where one has the empirical rule, which has none."""
        return min(self.confidences) or None

    @property
    def rule(self) -> str:
        """certified where every class is, else empirical."""
        return "certified" if self.confidence else "empirical"

    @property
    def promise(self) -> str:
        """What the thresholds are of, and whose recall they are for."""
        if len(self.needed) == len(self.classes):
            return f"none, because too few patients have any finding in {self.chosen_on}; every {self.unit} is flagged"
        or_more = " or more" if len(set(self.confidences)) > 1 else ""
        or_more += ", all findings together," if self.together else ""
        rule = f"certified at {100 * self.confidence:g}%{or_more}" if self.confidence else "empirical,"
        whose = f"the next {self.unit}" if self.confidence else f"a random {self.unit} of {self.chosen_on}"
        if self.weights == "patient":
            whose = f"a random {self.unit} of a random patient" + ("" if self.confidence else f" of {self.chosen_on}")
        how = f"; the probability of a study is the {self.aggregate} over its images" if self.unit == "study" else ""
        return f"{rule} for the recall of {whose}{how}"

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
    if not path.exists():
        raise ValueError(f"{path} does not exist; run ensemble_threshold_search.py, or save one from the report")
    if path.suffix == ".csv":
        raise ValueError(f"{path} is a table; expected thresholds.json, which stage 6 writes beside its tables")
    content = read_json(path)
    if "recall" not in content:
        raise ValueError(f"{path} holds no thresholds; expected thresholds.json of stage 6 or of the report")
    for key in ("manifest_sha256", "probs_val_sha256"):
        if content.get(key) != origin[key]:
            what = "is missing" if key not in content else "differs"
            raise ValueError(f"{path} does not belong to this run: its {key} {what}; {AGAIN}")
    if content.get("classes") != list(classes):
        raise ValueError(f"{path} {_other(content.get('classes'), classes)}; expected those of the run; {AGAIN}")
    by_target = check_targets(path, content)
    target = _choose(path, list(by_target), recall)
    points = by_target[target]
    needed = {name: points[name]["positives_needed"] for name in classes if points[name]["status"] == "infeasible"}
    values = [0.0 if name in needed else float(points[name]["threshold"]) for name in classes]
    confidence = read_confidence(path, content) or 0.0
    chosen = _chosen(path, content.get("report", {}), classes)
    targets, confidences = zip(*(chosen.get(name, (target, None)) for name in classes), strict=True)
    return SavedThresholds(
        tuple(classes),
        target,
        targets,
        np.array(values),
        needed,
        tuple(confidence if value is None else value for value in confidences),
        **read_counted(path, content),
        together=content.get("family_wise") is True,
    )


def read_confidence(path: Path, content: Mapping[str, Any]) -> float | None:
    """The confidence of the certified rule, or None where the thresholds of a thresholds.json are the empirical rule's.

    A file without a "rule" was written when a confidence of 0 stood for the empirical rule.
    Raises ValueError where rule or confidence are not what stage 6 and the report write.
    """
    confidence = content.get("confidence")
    rule = content.get("rule", "empirical" if is_number(confidence) and confidence == 0 else "certified")
    if rule not in ("certified", "empirical"):
        raise ValueError(f"{path}: its rule is {rule!r}; expected certified or empirical; {AGAIN}")
    if rule == "certified" and not (is_number(confidence) and 0 < confidence < 1):
        raise ValueError(f"{path}: its confidence is {confidence!r}; expected a number above 0 and below 1; {AGAIN}")
    return confidence if rule == "certified" else None


def read_counted(path: Path, content: Mapping[str, Any]) -> dict[str, str]:
    """What the thresholds of a thresholds.json flag and whose recall they are for; of images where it does not say.

    Raises ValueError where an entry is not what stage 6 and the report write.
    """
    unit = content.get("unit", "image")
    choices = {"unit": UNITS, "aggregate": AGGREGATES, "weights": (unit, "patient"), "chosen_on": ("val", "calib")}
    counted = {"unit": unit, "aggregate": "max", "weights": unit, "chosen_on": "val"}
    for key, allowed in choices.items():
        counted[key] = content.get(key, counted[key])
        if counted[key] not in allowed:
            said = f"its {key} {'are' if key == 'weights' else 'is'} {counted[key]!r}"
            raise ValueError(f"{path}: {said}; expected {' or '.join(allowed)}; {AGAIN}")
    return counted


def check_targets(path: Path, content: Mapping[str, Any]) -> dict[float, dict[str, dict[str, Any]]]:
    """The operating points of a thresholds.json by recall target and class.

    Raises ValueError where they are not what stage 6 and the report write.
    """
    classes, targets = content.get("classes"), content.get("recall")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"{path}: its classes are {classes!r}; expected a list of names; {AGAIN}")
    if not isinstance(targets, dict) or not targets:
        raise ValueError(f"{path} has no thresholds for any recall; {AGAIN}")
    by_target: dict[float, dict[str, dict[str, Any]]] = {}
    for key, points in targets.items():
        target = _as_target(key)
        if target is None or target in by_target:
            expected = "a number above 0 and up to 1" if target is None else "each target once"
            raise ValueError(f"{path} has thresholds for recall {key!r}; expected {expected}; {AGAIN}")
        if not isinstance(points, dict) or set(points) != set(classes):
            raise ValueError(f"{path}: recall {key} {_other(points, classes)}; {AGAIN}")
        for name in classes:
            _check_point(path, name, points[name])
        by_target[target] = points
    return by_target


def _as_target(key: str) -> float | None:
    try:
        value = float(key)
    except ValueError:
        return None
    return value if 0 < value <= 1 else None


def _choose(path: Path, targets: Sequence[float], recall: float | None) -> float:
    """The target that is asked for, or the only one."""
    there = ", ".join(f"{target:g}" for target in targets)
    if recall is None and len(targets) > 1:
        raise ValueError(f"{path} has thresholds for recall {there}; pass --recall with one of them")
    for target in targets:
        if recall is None or math.isclose(target, recall, abs_tol=1e-9):
            return target
    raise ValueError(
        f"{path} has no thresholds for recall {recall:g}; pass one of {there}, or run stage 6 with that target"
    )


def _check_point(path: Path, name: str, point: Any) -> None:
    """Raise ValueError where an operating point lacks what a flag depends on, or has what no stage writes."""
    entry = point if isinstance(point, dict) else {}
    threshold, status, needed = (entry.get(key) for key in ("threshold", "status", "positives_needed"))
    if not is_number(threshold) or not 0 <= threshold <= 1:
        raise ValueError(f"{path}: the threshold of {name} is {threshold!r}; expected a number from 0 to 1; {AGAIN}")
    if status not in ("ok", "infeasible"):
        raise ValueError(f"{path}: the status of {name} is {status!r}; expected ok or infeasible; {AGAIN}")
    if not is_number(needed) or needed != int(needed) or needed < 0 or (needed > 0) != (status == "infeasible"):
        raise ValueError(
            f"{path}: {name} is {status} and its positives_needed is {needed!r}; expected 0 if it is ok, else the "
            f"number of positive patients that are lacking; {AGAIN}"
        )


def _chosen(path: Path, report: Any, classes: Sequence[str]) -> dict[str, tuple[float, float | None]]:
    """The recall target of each class that was chosen in the report, and its confidence where the report says so."""
    chosen = report.get("chosen", {}) if isinstance(report, dict) else report
    if not isinstance(chosen, dict):
        raise ValueError(f"{path}: its 'report' is not in the format that the report writes; {AGAIN}")
    found = {}
    for name in filter(chosen.__contains__, classes):
        entry = chosen[name] if isinstance(chosen[name], dict) else {"recall": chosen[name]}
        target, confidence = entry.get("recall"), entry.get("confidence")
        if not is_number(target) or not 0 < target <= 1:
            raise ValueError(f"{path}: the recall chosen for {name} is {target!r}; expected a number up to 1; {AGAIN}")
        if confidence is not None and not (is_number(confidence) and 0 <= confidence < 1):
            raise ValueError(
                f"{path}: the confidence chosen for {name} is {confidence!r}; expected a number below 1, or 0 for the "
                f"empirical rule; {AGAIN}"
            )
        found[name] = float(target), confidence
    return found


def _other(found: Any, classes: Sequence[str]) -> str:
    """How the names in a list or an object differ from the classes."""
    names = list(found) if isinstance(found, list | dict) else []
    missing = [name for name in classes if name not in names]
    extra = [name for name in names if name not in classes]
    if missing:
        return f"lacks the class {missing[0]!r}"
    return f"has {extra[0]!r}, which is not a class of this run" if extra else "has the classes in a different order"
