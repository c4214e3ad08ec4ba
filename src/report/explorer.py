"""The data behind the report's threshold explorer: what stage 6 would print, for a grid of targets and confidences.

Every choice is made by a rule of `stats.thresholds` and every figure comes from counts, so the page only looks up.
"""

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from src.artifacts.io import read_stage_table
from src.artifacts.probs import EvalSplit
from src.evaluate import masked_metrics
from src.report.outcomes import bootstrap_outcomes, by_study, count_any, count_outcomes, count_studies
from src.report.source import SCRIPT, Search
from src.stats.thresholds import (
    Curve,
    OperatingPoint,
    bonferroni,
    build_curve,
    build_curves,
    certified_rule,
    empirical_rule,
)

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
    eval_split = test or val
    settings = search.settings
    recalls = sorted({*RECALLS, *(float(key) for key in search.chosen)})
    recorded = search.confidence or 0.0
    confidences = sorted({*CONFIDENCES, recorded})
    curves = build_curves(
        val.probs,
        targets=val.view.targets,
        mask=val.view.mask,
        patients=val.patients,
        grid=settings["grid"] or None,
    )
    levels = [_level(confidence, search) for confidence in confidences]
    with ThreadPoolExecutor() as pool:
        grids = list(pool.map(lambda curve: _choose(curve, recalls=recalls, confidences=levels), curves))
    thresholds = [_distinct(grid) for grid in grids]
    figures = _figures(eval_split, thresholds, settings)
    chosen_at = confidences.index(recorded), [recalls.index(float(key)) for key in search.chosen]
    _check(search, eval_split, grids, chosen_at, tested=test is not None)
    studies = by_study(eval_split.probs, **_labels(eval_split), studies=eval_split.view.truth.studies)
    metrics = masked_metrics(eval_split.probs, **eval_split.view.arrays())["per_class"]
    classes = []
    for c, name in enumerate(search.classes):
        data = _class_data(curves[c], grids[c], thresholds[c], figures[c])
        data |= _workload(studies, c, thresholds[c]) | _curve(eval_split, c)
        classes.append({"name": name, "auprc": metrics[name]["auprc"], **data})
    return {
        "eval_split": eval_split.name,
        "recalls": [f"{recall:g}" for recall in recalls],
        "confidences": confidences,
        "start": {"recalls": chosen_at[1], "confidence": chosen_at[0]},
        "settings": {**settings, "assumed": list(search.assumed)},
        "origin": search.origin,
        "classes": classes,
        "any": _any_finding(studies, grids),
        "any_studies": int(studies.valid.any(axis=0).sum()),
    }


def _level(confidence: float, search: Search) -> float:
    """The confidence of each class behind the one that is shown, as stage 6 takes it."""
    if search.settings["family_wise"] and confidence:
        return bonferroni(confidence, classes=len(search.classes))
    return confidence


def _choose(curve: Curve, *, recalls: Sequence[float], confidences: Sequence[float]) -> Grid:
    """Stage 6's choice; None where it can never be promised, which is recall 1 with a confidence."""

    def choice(recall: float, confidence: float) -> OperatingPoint | None:
        if not confidence:
            return empirical_rule(curve, recall=recall)
        return None if recall == 1 else certified_rule(curve, recall=recall, confidence=confidence)

    return [[choice(recall, confidence) for recall in recalls] for confidence in confidences]


def _distinct(grid: Grid) -> np.ndarray:
    """[T] float64, descending."""
    return np.array(sorted({point.threshold for row in grid for point in row if point}, reverse=True))


def _labels(split: EvalSplit) -> dict[str, np.ndarray]:
    return {"targets": split.view.targets, "mask": split.view.mask}


def _figures(eval_split: EvalSplit, thresholds: list[np.ndarray], settings: dict[str, Any]) -> list[dict[str, Any]]:
    """Per class: counts on the evaluated split at each threshold, and intervals of precision and recall."""
    entries = [
        (*eval_split.entries(c), eval_split.patients[eval_split.view.mask[:, c]]) for c in range(len(thresholds))
    ]
    figures = []
    for (probs, targets, _), cuts in zip(entries, thresholds, strict=True):
        tp, fp = count_outcomes(probs, targets=targets, thresholds=cuts)
        positives = int((targets == 1).sum())
        figures.append({"tp": tp, "fp": fp, "positives": positives, "negatives": len(targets) - positives})
    if settings["resamples"]:
        intervals = bootstrap_outcomes(
            entries,
            thresholds=thresholds,
            patients=len(np.unique(eval_split.patients)),
            resamples=settings["resamples"],
            seed=settings["seed"],
        )
        for one, found in zip(figures, intervals, strict=True):
            one["intervals"] = [[_as_printed(value) for value in row] for row in found.tolist()]
    return figures


def _as_printed(value: float) -> float | None:
    """To the three digits of stage 6, by Python's own rounding."""
    return None if np.isnan(value) else float(f"{value:.3f}")


def _class_data(curve: Curve, grid: Grid, thresholds: np.ndarray, figures: dict[str, Any]) -> dict[str, Any]:
    """One class: its distinct thresholds with their counts, and which one each target and confidence chooses.

    "choices" are [index of the threshold, lower bound, positives needed], "chosen" the index of a choice by
    confidence and recall target, -1 where nothing can be promised; it is infeasible where positives are needed.
    """
    at = {threshold: index for index, threshold in enumerate(thresholds.tolist())}
    counts = {threshold: _val_counts(curve, threshold) for threshold in at}
    choices: dict[tuple, int] = {}
    chosen = [[-1 if p is None else _place(choices, p, at) for p in row] for row in grid]
    return {
        "thresholds": thresholds,
        "val": {"tp": [counts[t][0] for t in at], "fp": [counts[t][1] for t in at]}
        | {"positives": curve.positives, "negatives": curve.negatives, "patients": curve.patients},
        "eval_split": figures,
        "choices": [list(choice) for choice in choices],
        "chosen": chosen,
    }


def _place(choices: dict[tuple, int], point: OperatingPoint, at: dict[float, int]) -> int:
    """The number of a choice, a new one where it is new."""
    lower = None if np.isnan(point.recall_lower) else point.recall_lower
    return choices.setdefault((at[point.threshold], lower, point.positives_needed), len(choices))


def _val_counts(curve: Curve, threshold: float) -> tuple[int, int]:
    """True and false positives on val; a threshold below every candidate flags all."""
    place = int(np.searchsorted(-curve.thresholds, -threshold, side="right")) - 1
    return (int(curve.tp[place]), int(curve.fp[place])) if place >= 0 else (0, 0)


def _workload(studies: Any, c: int, thresholds: np.ndarray) -> dict[str, Any]:
    flagged, missed, false = count_studies(studies, c, thresholds=thresholds)
    return {"studies": {"valid": studies.valid[c].sum(), "flagged": flagged, "missed": missed, "false": false}}


def _any_finding(studies: Any, grids: list[Grid]) -> list[list[tuple[int, int, int] | None]]:
    """By confidence and recall target; None where a class has no choice."""
    known: dict[tuple, tuple[int, int, int]] = {}

    def of(points: Sequence[OperatingPoint | None]) -> tuple[int, int, int] | None:
        if any(point is None for point in points):
            return None
        thresholds = tuple(point.threshold for point in points)
        if thresholds not in known:
            known[thresholds] = count_any(studies, thresholds=np.array(thresholds))
        return known[thresholds]

    levels, targets = len(grids[0]), len(grids[0][0])
    return [[of([grid[k][r] for grid in grids]) for r in range(targets)] for k in range(levels)]


def _curve(eval_split: EvalSplit, c: int) -> dict[str, Any]:
    probs, targets = eval_split.entries(c)
    curve = build_curve(probs, targets=targets)
    recall, precision = thin_curve(curve.recall, curve.precision, bins=CURVE_BINS)
    return {"curve": {"recall": recall.round(4), "precision": precision.round(4)}}


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


def _check(
    search: Search, eval_split: EvalSplit, grids: list[Grid], chosen_at: tuple[int, list[int]], *, tested: bool
) -> None:
    """Raise ValueError where stage 6 left other figures for the targets it was given."""
    level, places = chosen_at
    for (key, named), r in zip(search.chosen.items(), places, strict=True):
        path = search.folder / f"thresholds_recall_{key}.csv"
        figures = ["test_precision", "test_recall"] if tested else []
        blank = {name: [""] for name in figures}
        options = {"dtype": {"class": str}, "keep_default_na": False, "na_values": blank}
        table = read_stage_table(path, ["class", *figures], **options)
        for c, name in enumerate(search.classes):
            point = dataclasses.asdict(grids[c][level][r])
            theirs = named.get(name, {})
            same = theirs.keys() == point.keys() and all(_equal(point[field], theirs[field]) for field in point)
            if same and tested:
                probs, targets = eval_split.entries(c)
                row = table[table["class"] == name]
                same = len(row) == 1 and _tested_alike(row.iloc[0], probs, targets, point["threshold"])
            if not same:
                raise ValueError(
                    f"{path.with_name('thresholds.json')} and {path.name} are not what the probabilities and labels "
                    f"give for {name!r} at recall {key}; run {SCRIPT} --overwrite (with the default --uncertain and "
                    "--missing, where the file does not record them)"
                )


def _tested_alike(row: Any, probs: np.ndarray, targets: np.ndarray, threshold: float) -> bool:
    cuts = np.array([threshold])
    tp, fp = (int(count[0]) for count in count_outcomes(probs, targets=targets, thresholds=cuts))
    positives = int((targets == 1).sum())
    precision = tp / (tp + fp) if tp + fp else np.nan
    recall = tp / positives if positives else np.nan
    return _equal(precision, row["test_precision"]) and _equal(recall, row["test_recall"])


def _equal(ours: Any, theirs: Any) -> bool:
    """Texts and counts alike, numbers within `CLOSE`; null is NaN."""
    if isinstance(ours, str) or isinstance(theirs, str):
        return ours == theirs
    ours, theirs = (np.nan if value is None else float(value) for value in (ours, theirs))
    return bool(np.isclose(ours, theirs, rtol=0, atol=CLOSE, equal_nan=True))
