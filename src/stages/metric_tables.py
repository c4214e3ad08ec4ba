"""Metrics of one split as the test scripts print and write them: two views of the labels, and calibration."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from src.artifacts.truth import EvalLabels
from src.evaluate import masked_metrics
from src.runtime.tables import format_table, plural, undefined_note, with_interval
from src.stats.bootstrap import bootstrap_metrics, with_intervals
from src.stats.calibration import masked_calibration, reliability


def metrics_with_intervals(probs: np.ndarray, view: EvalLabels, *, resamples: int, seed: int) -> dict[str, Any]:
    """`evaluate.masked_metrics`, with 95% intervals from patient resamples where `resamples` is above 0."""
    metrics = masked_metrics(probs, **view.arrays())
    if not resamples:
        return metrics
    patients = view.truth.patients
    return with_intervals(
        metrics, bootstrap_metrics(probs, **view.arrays(), patients=patients, resamples=resamples, seed=seed)
    )


def two_views(probs: np.ndarray, view: EvalLabels, *, resamples: int, seed: int) -> dict[str, Any]:
    """Metrics under the view, and under `blank_as_negative` those with every blank counted as a negative."""
    negative = view.blank_as_negative
    return {
        **metrics_with_intervals(probs, view, resamples=resamples, seed=seed),
        "blank_as_negative": metrics_with_intervals(probs, negative, resamples=resamples, seed=seed),
    }


def print_two_views(metrics: Mapping[str, Any], *, title: str, resamples: int) -> None:
    """Per class: both views side by side, AUPRC beside the prevalence, which is the AUPRC of a random ranking."""
    other = metrics["blank_as_negative"]
    headers = ("Class", "Pos", "Neg", "AUROC", "AUPRC", "Chance", "Accuracy", "| Neg", "AUROC", "AUPRC", "Chance")
    rows = []
    for name, masked in metrics["per_class"].items():
        blank = other["per_class"][name]
        row = [name, masked["positives"], masked["negatives"], masked["auroc"], masked["auprc"], masked["prevalence"]]
        rows.append((*row, masked["accuracy"], blank["negatives"], blank["auroc"], blank["auprc"], blank["prevalence"]))
    print(f"\n{title}: left, labels as the policy has them; right, each blank as a negative.")
    print("Chance: AUPRC of a random ranking (equals the prevalence)")
    print(format_table(headers, rows))
    classes = plural(len(rows), "class")
    for text, values in (("as the policy has them", metrics["macro"]), ("each blank negative", other["macro"])):
        print(
            f"macro over {values['classes']} of {classes}, {text}: AUROC {with_interval(values, 'auroc')}, "
            f"AUPRC {with_interval(values, 'auprc')}"
        )
        print(undefined_note(values, resamples), end="")


def calibration_before_and_after(raw: np.ndarray, corrected: np.ndarray, view: EvalLabels) -> dict[str, Any]:
    """Brier score and calibration error of the raw sigmoid and after prior correction."""
    return {
        "raw": masked_calibration(raw, **view.arrays()),
        "corrected": masked_calibration(corrected, **view.arrays()),
    }


def print_calibration(calibration: Mapping[str, Any], *, title: str) -> None:
    """Per class and macro, before and after."""
    raw, corrected = calibration["raw"], calibration["corrected"]
    keys = ("brier", "calibration_error", "chance_error")
    pairs = [(name, raw["per_class"][name], corrected["per_class"][name]) for name in raw["per_class"]]
    pairs.append(("macro", raw["macro"], corrected["macro"]))
    rows = [(name, *(values[key] for key in keys for values in (before, after))) for name, before, after in pairs]
    print(f"\n{title}: calibration of the raw sigmoid, and with the prior correction, logit - log(pos_weight).")
    print("Chance: the ECE that probabilities which are right would show on so few cases")
    headers = ("Class", "Brier raw", "corrected", "ECE raw", "corrected", "Chance raw", "corrected")
    print(format_table(headers, rows))


def reliability_curves(raw: np.ndarray, corrected: np.ndarray, view: EvalLabels) -> list[dict[str, Any]]:
    """What `plots.reliability` draws: per class the bins before and after the prior correction."""
    curves = []
    for c, name in enumerate(view.truth.classes):
        valid = view.mask[:, c]
        series = []
        for label, kind, probs in (("raw sigmoid", "before", raw), ("prior corrected", "after", corrected)):
            bins = reliability(probs[valid, c], targets=view.targets[valid, c])
            series.append(
                {"label": label, "kind": kind, "predicted": bins.prob, "observed": bins.rate, "counts": bins.counts}
            )
        curves.append({"name": name, "series": series})
    return curves


def print_scores(name: str, results: Mapping[str, dict[str, Any]], *, resamples: int) -> None:
    """The metrics of a model's splits in one table, then per class both views and the calibration of each."""
    keys = ("accuracy", "auroc", "auprc")
    rows = [
        (f"{name} ({split})", metrics["loss"], *(with_interval(metrics["macro"], key) for key in keys))
        for split, metrics in results.items()
    ]
    print(format_table(("Model", "Loss", "Accuracy", "Macro AUROC", "Macro AUPRC"), rows))
    for split, metrics in results.items():
        print_two_views(metrics, title=split, resamples=resamples)
        print_calibration(metrics["calibration"], title=split)
