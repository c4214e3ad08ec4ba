"""Metrics of one split as the test scripts print and write them: in every view of the labels, and calibration."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from src.artifacts.calibration_record import Calibration
from src.artifacts.truth import EvalLabels
from src.evaluate import masked_metrics
from src.runtime.tables import format_table, plural, undefined_note, with_interval
from src.stats.bootstrap import bootstrap_metrics, with_intervals
from src.stats.calibration import masked_calibration, reliability
from src.stats.calibration_maps import METHODS

FEW = 20  # positives or negatives, below which a map that was fitted to them says little


def metrics_with_intervals(probs: np.ndarray, view: EvalLabels, *, resamples: int, seed: int) -> dict[str, Any]:
    """`evaluate.masked_metrics`, with 95% intervals from patient resamples where `resamples` is above 0."""
    metrics = masked_metrics(probs, **view.arrays())
    if not resamples:
        return metrics
    patients = view.truth.patients
    return with_intervals(
        metrics, bootstrap_metrics(probs, **view.arrays(), patients=patients, resamples=resamples, seed=seed)
    )


OTHER_VIEWS = {
    "no_finding_as_negative": 'each blank of a row marked "No Finding" as a negative',
    "blank_as_negative": "each blank as a negative",
}


def all_views(probs: np.ndarray, view: EvalLabels, *, resamples: int, seed: int) -> dict[str, Any]:
    """Metrics under the view, and by name those under each of its `other_views`."""
    options: dict[str, Any] = {"resamples": resamples, "seed": seed}
    others = {name: metrics_with_intervals(probs, other, **options) for name, other in view.other_views.items()}
    return metrics_with_intervals(probs, view, **options) | others


def views_of(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The metrics of `all_views` under the view and under each other one, by what the view says."""
    others = {text: metrics[name] for name, text in OTHER_VIEWS.items() if name in metrics}
    return {"labels under the label policy": metrics} | others


def print_views(metrics: Mapping[str, Any], *, title: str, resamples: int) -> None:
    """Per class: the views side by side, AUPRC beside the prevalence, which is the AUPRC of a random ranking."""
    views = views_of(metrics)
    _, *others = views.values()
    headers = ["Class", "Pos", "Neg", "AUROC", "AUPRC", "Chance", "Accuracy"]
    headers += ["| Neg", "AUROC", "AUPRC", "Chance"] * len(others)
    rows = []
    for name, masked in metrics["per_class"].items():
        row = [name, *(masked[key] for key in ("positives", "negatives", "auroc", "auprc", "prevalence", "accuracy"))]
        for other in others:
            row += [other["per_class"][name][key] for key in ("negatives", "auroc", "auprc", "prevalence")]
        rows.append(row)
    print(f"\n{title}, from left to right: {'; '.join(views)}.")
    print("Chance: AUPRC of a random ranking (equals the prevalence)")
    print(format_table(headers, rows))
    for text, values in views.items():
        macro = values["macro"]
        print(
            f"macro over {macro['classes']} of {plural(len(rows), 'class')}, {text}: "
            f"AUROC {with_interval(macro, 'auroc')}, AUPRC {with_interval(macro, 'auprc')}"
        )
        print(undefined_note(macro, resamples), end="")


def calibration_before_and_after(
    raw: np.ndarray, corrected: np.ndarray, view: EvalLabels, *, method: str
) -> dict[str, Any]:
    """Brier score, log loss, and calibration error of the raw sigmoid and after calibration by `method`."""
    return {
        "method": method,
        "raw": masked_calibration(raw, **view.arrays()),
        "corrected": masked_calibration(corrected, **view.arrays()),
    }


def print_calibration(calibration: Mapping[str, Any], *, title: str) -> None:
    """Per class and macro, before and after."""
    raw, corrected, method = calibration["raw"], calibration["corrected"], calibration["method"]
    figures = {"brier": "Brier", "log_loss": "Log loss", "calibration_error": "ECE", "chance_error": "Chance"}
    pairs = [(name, raw["per_class"][name], corrected["per_class"][name]) for name in raw["per_class"]]
    pairs.append(("macro", raw["macro"], corrected["macro"]))
    rows = [(name, *(values[key] for key in figures for values in (before, after))) for name, before, after in pairs]
    print(f"\n{title}: calibration of the raw sigmoid, and with {METHODS[method]}.")
    print("Chance: the ECE that perfectly calibrated probabilities would show on as few cases")
    print(format_table(("Class", *(name for what in figures.values() for name in (f"{what} raw", method))), rows))


def print_fit(calibration: Calibration, kept: Mapping[str, str], val: Mapping[str, Any]) -> None:
    """On how many positives and negatives of val each class was calibrated, what came out, and what was `kept`."""
    if not calibration.fitted:
        return
    rows, few = [], []
    for name, of_class in zip(calibration.classes, calibration.maps, strict=True):
        counts = [val["per_class"][name][label] for label in ("positives", "negatives")]
        rows.append((name, *counts, f"prior: {kept[name]}" if name in kept else str(of_class)))
        few += [name] if name not in kept and min(counts) < FEW else []
    print(f"\n{METHODS[calibration.method]}: maps fitted to val, whose figures above are therefore optimistic")
    print(format_table(("Class", "Pos", "Neg", "Map"), rows))
    if few:
        print(f"note: fitted to fewer than {FEW} positives or negatives, so look at test: {', '.join(few)}")


def reliability_curves(
    raw: np.ndarray, corrected: np.ndarray, view: EvalLabels, *, method: str
) -> list[dict[str, Any]]:
    """What `plots.reliability` draws: per class the bins before and after calibration by `method`."""
    curves = []
    for c, name in enumerate(view.truth.classes):
        valid = view.mask[:, c]
        series = []
        for label, kind, probs in (
            ("raw sigmoid", "before", raw),
            (f"with {METHODS[method]}", "after", corrected),
        ):
            bins = reliability(probs[valid, c], targets=view.targets[valid, c])
            series.append({"label": label, "kind": kind, "predicted": bins.prob, "observed": bins.rate})
        curves.append({"name": name, "series": series})
    return curves


def print_scores(name: str, results: Mapping[str, dict[str, Any]], *, resamples: int) -> None:
    """The metrics of a model's splits in one table, then per class the views and the calibration of each."""
    keys = ("accuracy", "auroc", "auprc")
    rows = [
        (f"{name} ({split})", metrics["loss"], *(with_interval(metrics["macro"], key) for key in keys))
        for split, metrics in results.items()
    ]
    print(format_table(("Model", "Loss", "Accuracy", "Macro AUROC", "Macro AUPRC"), rows))
    for split, metrics in results.items():
        print_views(metrics, title=split, resamples=resamples)
        print_calibration(metrics["calibration"], title=split)
