"""The data behind the report's threshold explorer: what stage 6 would print, for a grid of targets and confidences.

Every choice is made by a rule of `stats.thresholds` and every figure comes from counts, so the page only looks up.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np

from src.artifacts.io import read_stage_table
from src.artifacts.probs import EvalSplit
from src.evaluate import masked_metrics, ratio
from src.report.source import SCRIPT, Search
from src.stats.bootstrap import bootstrap_outcomes
from src.stats.thresholds import Curve, OperatingPoint, bonferroni, build_curves, certified_rule, empirical_rule
from src.stats.workload import StudyScores, by_study, count_any, count_studies

RECALLS = tuple(round(0.5 + 0.005 * step, 3) for step in range(99))
CONFIDENCES = (0.0, 0.8, 0.9, 0.95, 0.975, 0.99)  # 0: the empirical rule
CURVE_BINS = 160  # of a curve as wide as a phone: two pixels each
CLOSE = 1e-9  # a bound computed by another version of SciPy

Grid = list[list[OperatingPoint | None]]  # by confidence, then by recall target


def explore(val: EvalSplit, test: EvalSplit | None, *, search: Search) -> dict[str, Any]:
    """Everything the explorer shows, as JSON can hold it; evaluated on test, or on val without test data.

    Raises ValueError where stage 6's own tables say something else of the same targets. "classes" holds per class
    what `_class_data` returns; "any" the studies with a flag, a miss and a false flag in any class, by confidence and
    recall target.
    """
    eval_split, recorded = test or val, search.confidence or 0.0
    recalls = sorted({*RECALLS, *map(float, search.chosen)})
    confidences = sorted({*CONFIDENCES, recorded})
    asked, at = [recalls.index(float(key)) for key in search.chosen], confidences.index(recorded)
    curves = build_curves(val.probs, **_labels(val), patients=val.patients, grid=search.settings["grid"] or None)
    eval_curves = build_curves(eval_split.probs, **_labels(eval_split), patients=eval_split.patients)
    together = len(search.classes) if search.settings["family_wise"] else 1
    levels = [confidence and bonferroni(confidence, classes=together) for confidence in confidences]
    with ThreadPoolExecutor() as pool:
        grids = list(pool.map(lambda curve: _choose(curve, recalls=recalls, confidences=levels), curves))
    chosen = [[grid[at][r] for r in asked] for grid in grids]
    _check(search, chosen, tested=eval_curves if test else None)
    studies = by_study(eval_split.probs, **_labels(eval_split), studies=eval_split.view.truth.studies)
    metrics = masked_metrics(eval_split.probs, **eval_split.view.arrays())["per_class"]
    classes = [_class_data(*parts) for parts in zip(curves, eval_curves, grids, strict=True)]
    for c, (name, data) in enumerate(zip(search.classes, classes, strict=True)):
        data |= {"name": name, "auprc": metrics[name]["auprc"]}
        events = count_studies(studies, c, thresholds=data["thresholds"])
        counts = dict(zip(("flagged", "missed", "false"), events, strict=True))
        data["studies"] = {"valid": studies.valid[c].sum(), **counts}
    _add_intervals(classes, eval_split, search.settings)
    return {
        "eval_split": eval_split.name,
        "recalls": [f"{recall:g}" for recall in recalls],
        "confidences": confidences,
        "start": {"recalls": asked, "confidence": at},
        "settings": {**search.settings, "assumed": list(search.assumed)},
        "origin": search.origin,
        "classes": classes,
        "any": _any_finding(studies, grids),
        "any_studies": int(studies.valid.any(axis=0).sum()),
    }


def _labels(split: EvalSplit) -> dict[str, Any]:
    return {"targets": split.view.targets, "mask": split.view.mask}


def _choose(curve: Curve, *, recalls: Sequence[float], confidences: Sequence[float]) -> Grid:
    """Stage 6's choice; None where it can never be promised, which is recall 1 with a confidence."""

    def choice(recall: float, confidence: float) -> OperatingPoint | None:
        if not confidence:
            return empirical_rule(curve, recall=recall)
        return None if recall == 1 else certified_rule(curve, recall=recall, confidence=confidence)

    return [[choice(recall, confidence) for recall in recalls] for confidence in confidences]


def _class_data(curve: Curve, eval_curve: Curve, grid: Grid) -> dict[str, Any]:
    """One class: its distinct thresholds with their counts, and which one each target and confidence chooses.

    "choices" are [index of the threshold, lower bound, positives needed], "chosen" the index of a choice by
    confidence and recall target, -1 where nothing can be promised; it is infeasible where positives are needed.
    """
    thresholds = np.array(sorted({point.threshold for row in grid for point in row if point}, reverse=True))
    at = {threshold: index for index, threshold in enumerate(thresholds.tolist())}
    choices: dict[tuple, int] = {}

    def place(point: OperatingPoint | None) -> int:
        """The number of a choice, a new one where it is new."""
        if point is None:
            return -1
        lower = None if np.isnan(point.recall_lower) else point.recall_lower
        return choices.setdefault((at[point.threshold], lower, point.positives_needed), len(choices))

    chosen = [[place(point) for point in row] for row in grid]
    recall, precision = thin_curve(eval_curve.recall, eval_curve.precision, bins=CURVE_BINS)
    return {
        "thresholds": thresholds,
        "val": {**_counts(curve, thresholds), "patients": curve.patients},
        "eval_split": _counts(eval_curve, thresholds),
        "choices": [list(choice) for choice in choices],
        "chosen": chosen,
        "curve": {"recall": recall.round(4), "precision": precision.round(4)},
    }


def _counts(curve: Curve, thresholds: np.ndarray) -> dict[str, Any]:
    tp, fp = curve.counts_at(thresholds)
    return {"tp": tp, "fp": fp, "positives": curve.positives, "negatives": curve.negatives}


def _add_intervals(classes: list[dict[str, Any]], split: EvalSplit, settings: Mapping[str, Any]) -> None:
    """Intervals of precision and recall at each threshold, to the three digits that stage 6 prints."""
    if not settings["resamples"]:
        return
    cuts = [data["thresholds"] for data in classes]
    options = {"patients": split.patients, "resamples": settings["resamples"], "seed": settings["seed"]}
    intervals = bootstrap_outcomes(split.probs, **split.view.arrays(), thresholds=cuts, **options)
    for data, found in zip(classes, intervals, strict=True):
        printed = [[float(f"{value:.3f}") for value in row] for row in found.tolist()]  # by Python's own rounding
        data["eval_split"]["intervals"] = printed


def _any_finding(studies: StudyScores, grids: list[Grid]) -> list[list[tuple[int, ...] | None]]:
    """By confidence and recall target; None where a class has no choice."""

    @cache
    def count(thresholds: tuple[float, ...]) -> tuple[int, ...]:
        return count_any(studies, thresholds=np.array(thresholds))

    return [
        [None if None in points else count(tuple(p.threshold for p in points)) for points in zip(*rows, strict=True)]
        for rows in zip(*grids, strict=True)
    ]


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


def _check(search: Search, chosen: Grid, *, tested: list[Curve] | None) -> None:
    """Raise ValueError where stage 6 left other figures; chosen: per class a point for each target it was given."""
    columns = ["test_precision", "test_recall"] if tested else []
    options = {"dtype": {"class": str}, "keep_default_na": False, "na_values": {name: [""] for name in columns}}
    for r, (key, named) in enumerate(search.chosen.items()):
        path = search.folder / f"thresholds_recall_{key}.csv"
        table = read_stage_table(path, ["class", *columns], **options)
        for c, name in enumerate(search.classes):
            point = chosen[c][r]
            same = point is not None and _alike(asdict(point), named.get(name, {}))
            if point and same and tested:
                row, (tp, fp) = table[table["class"] == name], map(int, tested[c].counts_at(point.threshold))
                ours = {"test_precision": ratio(tp, tp + fp), "test_recall": ratio(tp, tested[c].positives)}
                same = len(row) == 1 and _alike(ours, row[columns].iloc[0])
            if not same:
                raise ValueError(
                    f"{path.with_name('thresholds.json')} and {path.name} are not what the probabilities and labels "
                    f"give for {name!r} at recall {key}; run {SCRIPT} --overwrite (with the default --uncertain and "
                    "--missing, where the file does not record them)"
                )


def _alike(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Texts alike, numbers within `CLOSE`; null is NaN."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, str) or isinstance(b, str):
            return a == b
        a, b = (np.nan if value is None else float(value) for value in (a, b))
        return bool(np.isclose(a, b, rtol=0, atol=CLOSE, equal_nan=True))

    return set(ours) == set(theirs.keys()) and all(equal(ours[key], theirs[key]) for key in ours)
