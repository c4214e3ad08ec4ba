"""The story of stage 6: a threshold per class under a recall constraint, and what it costs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import clear, read_table, refuse_overwrite, sha256, write_json, write_table
from src.artifacts.manifest import read_manifest
from src.artifacts.probs import EvalSplit, Truth, read_blend, read_probs, read_truth
from src.config import ThresholdConfig
from src.evaluate import masked_metrics, ratio
from src.plots import results as plots
from src.runtime.tables import format_table, with_interval
from src.stages.metric_tables import two_views
from src.stats.bootstrap import bootstrap_metrics, interval
from src.stats.thresholds import (
    OperatingPoint,
    apply_threshold,
    bonferroni,
    build_curve,
    build_curves,
    certified_rule,
    empirical_rule,
    patients_needed,
)
from src.stats.workload import check_prevalence, per_thousand, precision_at

# How a class held: by its AUPRC, and by how far its precision stays above the prevalence, as a share of the way to 1.
HIGH_AUPRC, SOME_WAY = 0.95, 0.25


@dataclass(frozen=True)
class RuleResult:
    """What one rule chose for every class, and what it does on the split it is evaluated on."""

    kind: str  # "certified" or "empirical", a key of plots.RULES
    points: list[OperatingPoint]
    metrics: dict[str, Any]  # per class: precision and recall, with intervals where resampled
    accuracy: float

    @property
    def thresholds(self) -> np.ndarray:
        """[C] float64."""
        return np.array([point.threshold for point in self.points])

    def reached(self, recall: float) -> str:
        """In how many classes the target was reached; those that flag all are no success, and counted apart."""
        chosen = [
            p.status == "ok" and not np.isnan(v["recall"])
            for p, v in zip(self.points, self.metrics.values(), strict=True)
        ]
        kept = sum(ok and v["recall"] >= recall for ok, v in zip(chosen, self.metrics.values(), strict=True))
        infeasible = sum(point.status != "ok" for point in self.points)
        return f"{kept} of {sum(chosen)} classes" + (f"; {infeasible} infeasible, flag all" if infeasible else "")


def search_thresholds(config: ThresholdConfig) -> None:
    """Choose thresholds on validation for each recall target, evaluate them on test, write and print both."""
    config = replace(config, recall=tuple(dict.fromkeys(config.recall)))
    folder = config.run_dir / "ensemble"
    tables = [folder / f"thresholds_recall_{recall:g}.csv" for recall in config.recall]
    refuse_overwrite([*tables, folder / "thresholds.json"], overwrite=config.overwrite)
    certifies = config.rule == "certified"
    for recall in config.recall if certifies else ():
        patients_needed(recall, confidence=config.confidence)  # raises where it can never be promised
    outside = any((config.val_probs, config.val_labels, config.test_probs, config.test_labels))
    val, test, origin = _outside(config) if outside else _of_run(config)
    classes = val.view.truth.classes
    stated = parse_prevalence(config.prevalence, classes=classes)
    eval_split = test or val
    metrics = masked_metrics(eval_split.probs, **eval_split.view.arrays())["per_class"]
    auprc = [metrics[name]["auprc"] for name in classes]
    for split in filter(None, (val, test)):
        _print_split(split)
    curves = build_curves(
        val.probs, targets=val.view.targets, mask=val.view.mask, patients=val.patients, grid=config.grid or None
    )
    confidence = config.confidence
    if config.family_wise:
        confidence = bonferroni(confidence, classes=len(classes))
    clear(folder, "thresholds*", "precision_recall_*.png", "intervals_recall_*.png")
    chosen = {}
    for recall, path in zip(config.recall, tables, strict=True):
        points = {"empirical": [empirical_rule(curve, recall=recall) for curve in curves]}
        if certifies:
            certified = [certified_rule(curve, recall=recall, confidence=confidence) for curve in curves]
            points = {"certified": certified} | points
        rules = [_outcome(config, *choice, eval_split) for choice in points.items()]
        write_table(path, _table(rules, classes, auprc, tested=test is not None), exact=True)
        _print_target(recall, confidence, rules, eval_split, auprc)
        _print_workload(rules[0], eval_split, stated)
        if config.pictures:
            _draw(folder, recall, rules, eval_split)
        chosen[f"{recall:g}"] = {name: asdict(point) for name, point in zip(classes, rules[0].points, strict=True)}
    settings = {"rule": config.rule, "confidence": config.confidence if certifies else None}
    settings |= {"family_wise": config.family_wise, "grid": config.grid}
    settings |= {"uncertain": config.uncertain, "missing": config.missing}
    settings |= {"resamples": config.resamples, "seed": config.seed}
    write_json(folder / "thresholds.json", {**settings, **origin, "classes": classes, "recall": chosen})
    print(f"\nwrote to {folder}: thresholds.json", *(path.name for path in tables))


def _of_run(config: ThresholdConfig) -> tuple[EvalSplit, EvalSplit | None, dict[str, Any]]:
    """The blend that stage 5 left, on val and on test."""
    folder = config.run_dir / "ensemble"
    if (folder / "probs_val.csv").exists() and not (config.run_dir / "manifest.csv").exists():
        raise ValueError(
            f"{config.run_dir} holds a blend of files from another program and no manifest; pass "
            f"--val-probs {folder}/probs_val.csv --val-labels TRUTH.csv"
        )
    manifest = read_manifest(config.run_dir)
    (val_truth, val), (test_truth, test) = read_blend(config.run_dir, manifest)
    splits = _split(config, "val", val, val_truth), _split(config, "test", test, test_truth)
    return *splits, {"manifest_sha256": manifest.sha256, "probs_val_sha256": sha256(folder / "probs_val.csv")}


def _outside(config: ThresholdConfig) -> tuple[EvalSplit, EvalSplit | None, dict[str, Any]]:
    """Probabilities from another program, for validation and perhaps for test, beside their truth."""
    if not (config.val_probs and config.val_labels) or (config.test_probs is None) != (config.test_labels is None):
        raise ValueError("--val-probs goes with --val-labels, and --test-probs with --test-labels")
    classes = read_probs(config.val_probs).classes
    splits, sources = [], {}
    for name, path, labels in (
        ("val", config.val_probs, config.val_labels),
        ("test", config.test_probs, config.test_labels),
    ):
        if path is None:
            splits.append(None)
            continue
        truth, unused = read_truth(labels, classes)
        if unused:
            print(f"columns of {labels} that {path} does not have, ignored: {', '.join(unused)}")
        splits.append(_split(config, name, read_probs(path).aligned(truth.ids, classes), truth))
        sources |= {str(path): sha256(path), str(labels): sha256(labels)}
    if splits[1] is not None:
        shared = set(splits[0].view.truth.patients) & set(splits[1].view.truth.patients)
        if shared:
            raise ValueError(
                f"{len(shared):,} patients are in both --val-labels and --test-labels, for example "
                f"{sorted(shared)[0]}; the test patients must not be used to choose thresholds"
            )
    return *splits, {"sources": sources}


def _split(config: ThresholdConfig, name: str, probs: np.ndarray, truth: Truth) -> EvalSplit:
    return EvalSplit.of(name, probs, truth, uncertain=config.uncertain, missing=config.missing)


def _outcome(config: ThresholdConfig, kind: str, points: list[OperatingPoint], split: EvalSplit) -> RuleResult:
    """Precision and recall of a rule's thresholds on a split, with patient-bootstrap intervals, and the accuracy."""
    classes, thresholds = split.view.truth.classes, np.array([point.threshold for point in points])
    metrics = {}
    for c, name in enumerate(classes):
        probs, targets = split.entries(c)
        outcome = apply_threshold(probs, targets=targets, threshold=thresholds[c])
        metrics[name] = {"precision": outcome.precision, "recall": outcome.recall}
    accuracy = masked_metrics(split.probs, **split.view.arrays(), thresholds=thresholds)["macro"]["accuracy"]
    if config.resamples:
        replicates = bootstrap_metrics(
            split.probs,
            **split.view.arrays(),
            patients=split.patients,
            thresholds=thresholds,
            resamples=config.resamples,
            seed=config.seed,
        )["per_class"]
        for name, values in metrics.items():
            values |= {f"{key}_ci": interval(replicates[name][key]) for key in ("precision", "recall")}
    return RuleResult(kind, points, metrics, accuracy)


def _table(rules: list[RuleResult], classes: tuple[str, ...], auprc: list[float], *, tested: bool) -> pd.DataFrame:
    """The rows of thresholds_recall_<r>.csv; test columns are blank where nothing was tested."""
    asked, empirical = rules[0], rules[-1]
    rows = []
    for c, name in enumerate(classes):
        point, test, empirical_test = asked.points[c], asked.metrics[name], empirical.metrics[name]
        if not tested:
            test = empirical_test = {"precision": np.nan, "recall": np.nan}
        rows.append(
            {
                "class": name,
                "threshold": point.threshold,
                "val_precision": point.precision,
                "val_recall": point.recall,
                "val_recall_lower": point.recall_lower,
                "val_positives": point.positives,
                "test_precision": test["precision"],
                "test_recall": test["recall"],
                "auprc": auprc[c],
                "status": point.status,
                "empirical_threshold": empirical.points[c].threshold,
                "empirical_test_precision": empirical_test["precision"],
                "empirical_test_recall": empirical_test["recall"],
            }
        )
    return pd.DataFrame(rows)


def _print_split(split: EvalSplit) -> None:
    """Macro AUROC and AUPRC under the policy, and with each blank as a negative."""
    metrics = two_views(split.probs, split.view, resamples=0, seed=0)
    for text, macro in (("as the policy has them", metrics["macro"]),
                        ("each blank a negative", metrics["blank_as_negative"]["macro"])):  # fmt: skip
        print(
            f"{split.name}, labels {text}: macro AUROC {macro['auroc']:.3f}, macro AUPRC {macro['auprc']:.3f} "
            f"over {macro['classes']} classes"
        )


def _print_target(
    recall: float, confidence: float, rules: list[RuleResult], eval_split: EvalSplit, auprc: list[float]
) -> None:
    """The rules per class, whether they kept the promise, and the classes grouped by how precise they are."""
    promises = {"certified": f"at {100 * confidence:g}% confidence on new patients", "empirical": "on val"}
    print(f"\n== recall >= {recall:g} ==  " + "; ".join(f"{rule.kind}: {promises[rule.kind]}" for rule in rules))
    headers = ["Class", "Rule", "Threshold", "Val precision", "Val recall", "Lower", f"{eval_split.name} Precision"]
    headers += [f"{eval_split.name} Recall", "AUPRC", "Status"]
    rows = []
    for c, name in enumerate(eval_split.view.truth.classes):
        for rule in rules:
            point, values = rule.points[c], rule.metrics[name]
            rows.append(
                (name if rule is rules[0] else "", rule.kind, point.threshold, point.precision, point.recall)
                + (point.recall_lower, with_interval(values, "precision"), with_interval(values, "recall"))
                + (auprc[c], _status(point, flags_all=bool((eval_split.entries(c)[0] >= point.threshold).all())))
            )
    print(format_table(headers, rows))
    if eval_split.name == "val":
        print("no test data was given: these are figures of the data the thresholds were chosen on")
    for rule in rules:
        print(f"{rule.kind}: {eval_split.name} recall >= {recall:g} in {rule.reached(recall)}")
    for rule in rules:
        title = f"{eval_split.name.capitalize()} Accuracy (Recall >= {recall:g})"
        print(f"{title}, {rule.kind}: {rule.accuracy:.3f}")
    _print_groups(rules[0], eval_split, auprc)


def _status(point: OperatingPoint, *, flags_all: bool) -> str:
    if point.status == "ok":
        return "ok, flags all" if flags_all else "ok"
    return f"infeasible, flags all: {point.positives_needed} more positive patients needed"


def _print_groups(rule: RuleResult, eval_split: EvalSplit, auprc: list[float]) -> None:
    """Classes by how precise they are at the chosen thresholds."""
    groups = {
        f"AUPRC >= {HIGH_AUPRC}": [],
        "precision well above prevalence": [],
        "precision close to prevalence": [],
        "not defined": [],
    }
    high, some, collapse, undefined = groups.values()
    for c, name in enumerate(eval_split.view.truth.classes):
        _, targets = eval_split.entries(c)
        if np.isnan(auprc[c]):
            undefined.append(name)
            continue
        kept = (rule.metrics[name]["precision"] - targets.mean()) / (1 - targets.mean())
        (high if auprc[c] >= HIGH_AUPRC else some if kept >= SOME_WAY else collapse).append(name)
    for title, names in groups.items():
        print(f"{title}: {', '.join(names) or 'none'}")


def _print_workload(rule: RuleResult, eval_split: EvalSplit, stated: dict[str, float]) -> None:
    """Per 1,000 studies at the rule's thresholds; precision at stated prevalences."""
    classes, view = eval_split.view.truth.classes, eval_split.view
    flags = eval_split.probs >= rule.thresholds
    table = per_thousand(flags, targets=view.targets, mask=view.mask, studies=view.truth.studies, classes=classes)
    print(
        f"\nper 1,000 labeled {eval_split.name} studies, at the {rule.kind} thresholds; the last row counts studies "
        "with at least one flag, one finding missed, one false flag:"
    )
    headers = ("Class", "Labeled studies", "Flagged", "Missed", "Falsely flagged")
    print(format_table(headers, table.itertuples(index=False), digits=0))
    if stated:
        rows = []
        for name, prevalence in stated.items():
            c = classes.index(name)
            probs, targets = eval_split.entries(c)
            outcome = apply_threshold(probs, targets=targets, threshold=rule.thresholds[c])
            specificity = 1 - ratio(outcome.false, outcome.negatives)
            here = ratio(outcome.positives, outcome.positives + outcome.negatives)
            there = precision_at(outcome.recall, specificity, prevalence=prevalence)
            rows.append((name, outcome.recall, specificity, here, outcome.precision, prevalence, there))
        headers = ("Class", "Recall", "Specificity", f"Prevalence in {eval_split.name}", "Precision", "Stated", "There")
        print("\nprecision at the stated prevalence:")
        print(format_table(headers, rows))


def _draw(folder: Path, recall: float, rules: list[RuleResult], eval_split: EvalSplit) -> None:
    """Precision-recall curves with the operating points, and recall with its interval against the target."""
    curves, rows = [], []
    for c, name in enumerate(eval_split.view.truth.classes):
        probs, targets = eval_split.entries(c)
        curve = build_curve(probs, targets=targets)
        note = "infeasible: flags all" if rules[0].points[c].status != "ok" else ""
        points = []
        for rule in rules:
            values = rule.metrics[name]
            low, high = values.get("recall_ci", (np.nan, np.nan))
            point = {"label": f"{rule.kind} rule", "kind": rule.kind, "precision": values["precision"]}
            points.append(point | {"recall": values["recall"], "lower": low, "upper": high})
        prevalence = ratio(curve.positives, curve.positives + curve.negatives)
        common = {"name": name, "points": points, "note": note}
        curves.append({**common, "recall": curve.recall, "precision": curve.precision, "prevalence": prevalence})
        shown = [
            p | {"recall": np.nan, "lower": np.nan, "upper": np.nan} if r.points[c].status != "ok" else p
            for p, r in zip(points, rules, strict=True)
        ]
        rows.append({**common, "points": shown, "positives": curve.positives})
    name = f"recall_{recall:g}.png"
    plots.precision_recall_curves(curves, target=recall, path=folder / f"precision_{name}", split=eval_split.name)
    plots.recall_intervals(rows, target=recall, path=folder / f"intervals_{name}", split=eval_split.name)


def parse_prevalence(words: Sequence[str], *, classes: Sequence[str]) -> dict[str, float]:
    """Prevalence by class from `CLASS=value` words, or from one CSV with the columns class and prevalence.

    Raises ValueError for an unknown or repeated class and a value that is not above 0 and below 1.
    """
    if len(words) == 1 and words[0].lower().endswith((".csv", ".csv.gz")):
        table = read_table(Path(words[0]), dtype=str, keep_default_na=False)
        if list(table.columns[:2]) != ["class", "prevalence"]:
            raise ValueError(f"--prevalence {words[0]} has columns {', '.join(table)}; expected class,prevalence")
        return check_prevalence(zip(table["class"], table["prevalence"], strict=True), classes=classes)
    return check_prevalence((word.rpartition("=")[::2] for word in words), classes=classes)
