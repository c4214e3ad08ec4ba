"""The data behind the report's threshold explorer: what stage 6 would choose, at each target of a grid.

At the targets that stage 6 was given there is all that it printed. At every other target there are figures of the data
that thresholds are chosen on, and none of test.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from src.artifacts.io import read_stage_table
from src.artifacts.rule_results import Evaluation, curves_of, evaluate
from src.artifacts.truth import EvalSplit
from src.report.source import SCRIPT, Search
from src.stats.thresholds import Curve, choose_points, shared_confidence
from src.stats.workload import count

RECALLS = tuple(percent / 100 for percent in range(50, 100))
ANY_TARGET = 0.995  # confidence at which recall reached all targets of RECALLS together in at least 95%, simulated
CURVE_BINS = 160  # of a curve as wide as a phone: two pixels each
CLOSE = 1e-9  # a bound computed by another version of SciPy
FIGURES = ("recall", "recall_ci", "precision", "precision_ci", "specificity", "verdict")


def explore(chosen_on: EvalSplit, test: EvalSplit | None, *, search: Search) -> dict[str, Any]:
    """Everything the explorer shows, as JSON can hold it.

    "targets" holds per recall target the confidence, the operating point of each class, and the workload in each split
    that may be shown; where stage 6 was given the target also "figures", what the points do on test, or without test
    data on `chosen_on`. Raises ValueError where stage 6's own tables say something else.
    """
    by_patient = search.recorded["weights"] == "patient"
    own = Evaluation.of(chosen_on, by_patient=by_patient)
    evaluated = Evaluation.of(test, by_patient=by_patient) if test else own
    curves = curves_of(chosen_on, by_patient=by_patient, grid=search.recorded["grid"] or None)
    given = {float(key) for key in search.chosen}

    def at(recall: float) -> dict[str, Any]:
        """One target."""
        confidence = search.confidence
        if confidence and recall not in given:
            confidence = max(confidence, ANY_TARGET)
        level = confidence
        if level and search.recorded["family_wise"]:
            level = shared_confidence(level, curves, recall=recall)
        points = choose_points(curves, recall=recall, confidence=level)
        cuts = np.array([point.threshold for point in points])
        shown = (own, evaluated) if recall in given else (own,)
        work = {one.split.name: [count(one.split.probs >= cuts, known) for known in one.views()] for one in shown}
        target = {"recall": f"{recall:g}", "confidence": confidence, "points": list(map(asdict, points)), "work": work}
        if recall not in given:
            return target
        metrics = evaluate(search.recorded["rule"], points, evaluated, recall).metrics
        return target | {"figures": [{key: values[key] for key in FIGURES} for values in metrics]}

    targets = [at(recall) for recall in sorted({*RECALLS, *given})]
    _check(search, [target for target in targets if "figures" in target], tested=test is not None)
    return {
        "chosen_on": chosen_on.name,
        "evaluated": evaluated.split.name,
        "recorded": search.recorded,
        "targets": targets,
        "classes": [
            {
                "name": name,
                "patients": curve.patients,
                "curve": _picture(own.curves[c]),
                "prevalence": {split.split.name: split.curves[c].prevalence for split in (own, evaluated)},
            }
            for c, (name, curve) in enumerate(zip(search.classes, curves, strict=True))
        ],
    }


def _picture(curve: Curve) -> dict[str, Any]:
    """A precision-recall curve as the page draws it; only of the split in which thresholds are chosen."""
    recall, precision = thin_curve(curve.recall, curve.precision, bins=CURVE_BINS)
    return {"recall": recall.round(4), "precision": precision.round(4)}


def thin_curve(recall: np.ndarray, precision: np.ndarray, *, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """At most four points of a curve per bin of recall: the first, the last, the lowest and the highest.

    recall: [K] from 0 to 1, ascending; precision: [K]. A line through these covers the pixels of the whole
    curve (Jugel et al. 2014, M4, VLDB 7). Empty without positives, where recall is NaN.
    """
    if not len(recall) or np.isnan(recall).any():
        return np.zeros(0), np.zeros(0)
    edges = np.flatnonzero(np.diff(np.floor(recall * bins), prepend=-1))
    kept = set()
    for start, stop in zip(edges, np.append(edges[1:], len(recall)), strict=True):
        part = precision[start:stop]
        kept |= {start, stop - 1, start + int(part.argmin()), start + int(part.argmax())}
    places = np.array(sorted(kept))
    return recall[places], precision[places]


def _check(search: Search, targets: Sequence[Mapping[str, Any]], *, tested: bool) -> None:
    """Raise ValueError where stage 6 left other points or figures at the targets that it was given."""
    for target in targets:
        key = target["recall"]
        path = search.folder / f"thresholds_recall_{key}.csv"
        rows = [_row(search, *pair, tested=tested) for pair in zip(target["points"], target["figures"], strict=True)]
        numbers = [name for name, value in rows[0].items() if not isinstance(value, str)]
        texts = dict.fromkeys(("class", *(rows[0].keys() - {*numbers})), str)
        options = {"dtype": texts, "keep_default_na": False, "na_values": {name: [""] for name in numbers}}
        table = read_stage_table(path, ["class", *rows[0]], **options)
        for name, point, row in zip(search.classes, target["points"], rows, strict=True):
            theirs = table[table["class"] == name]
            same = len(theirs) == 1 and _alike(row, theirs[list(row)].iloc[0])
            if not same or not _alike(point, search.chosen.get(key, {}).get(name, {})):
                raise ValueError(
                    f"{path.with_name('thresholds.json')} and {path.name} differ from what probabilities and labels "
                    f"give for {name!r} at recall {key}; run {SCRIPT} --overwrite"
                )


def _row(search: Search, point: Mapping[str, Any], figures: Mapping[str, Any], *, tested: bool) -> dict[str, Any]:
    """What stage 6's table has of a class."""
    split = search.recorded["chosen_on"]
    row = {key: point[key] for key in ("threshold", "status")}
    row |= {f"{split}_{key}": point[key] for key in ("precision", "recall", "recall_lower", "positives")}
    return row | ({f"test_{key}": figures[key] for key in ("precision", "recall", "verdict")} if tested else {})


def _alike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Texts alike, numbers within `CLOSE`; null is NaN."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, str) or isinstance(b, str):
            return a == b
        a, b = (np.nan if value is None else float(value) for value in (a, b))
        return bool(np.isclose(a, b, rtol=0, atol=CLOSE, equal_nan=True))

    return set(ours) == set(theirs.keys()) and all(equal(ours[key], theirs[key]) for key in ours)
