"""Stage 6: a threshold per class under a recall constraint, and what it costs."""

from collections.abc import Iterable, Sequence
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
from src.labels.policy import LabelPolicy
from src.plots import results as plots
from src.runtime.tables import format_table, with_interval
from src.stages.label_flags import inherit_label_flags, label_flags
from src.stages.metric_tables import two_views
from src.stats.bootstrap import bootstrap_outcomes
from src.stats.thresholds import (
    Curve,
    OperatingPoint,
    bonferroni,
    build_curves,
    certified_rule,
    empirical_rule,
    patients_needed,
)
from src.stats.workload import StudyScores, by_study, per_thousand, precision_at

# How a class held: by its AUPRC, and by how far its precision stays above the prevalence, as a share of the way to 1.
HIGH_AUPRC, SOME_WAY = 0.95, 0.25


@dataclass(frozen=True)
class Evaluation:
    """The split that thresholds are evaluated on, and what the targets and rules share of it."""

    split: EvalSplit
    curves: list[Curve]
    auprc: list[float]  # [C]
    studies: StudyScores

    @classmethod
    def of(cls, split: EvalSplit) -> "Evaluation":
        """Rank the classes and group the images by study."""
        labels: dict[str, Any] = {"targets": split.view.targets, "mask": split.view.mask}
        curves = build_curves(split.probs, **labels, patients=split.patients)
        auprc = [v["auprc"] for v in masked_metrics(split.probs, **split.view.arrays())["per_class"].values()]
        return cls(split, curves, auprc, by_study(split.probs, **labels, studies=split.view.truth.studies))


@dataclass(frozen=True)
class RuleResult:
    """What one rule chose for every class, and what it does on the split it is evaluated on."""

    kind: str  # "certified" or "empirical", a key of plots.RULES
    points: list[OperatingPoint]
    metrics: list[dict[str, Any]]  # per class what `_at_threshold` returns, and intervals where resampled
    accuracy: float

    def reached(self, recall: float) -> str:
        """In how many classes the target was reached; those that flag all are no success, and counted apart."""
        found = [v["recall"] for p, v in zip(self.points, self.metrics, strict=True) if p.status == "ok"]
        defined = [value for value in found if not np.isnan(value)]
        kept, infeasible = sum(value >= recall for value in defined), len(self.points) - len(found)
        return f"{kept} of {len(defined)} classes" + (f"; {infeasible} infeasible, flag all" if infeasible else "")


def search_thresholds(config: ThresholdConfig) -> None:
    """Choose thresholds on validation for each recall target, evaluate them on test, write and print both."""
    config = replace(config, recall=tuple(dict.fromkeys(config.recall)))
    folder = config.run_dir / "ensemble"
    tables = [folder / f"thresholds_recall_{recall:g}.csv" for recall in config.recall]
    refuse_overwrite([*tables, folder / "thresholds.json"], overwrite=config.overwrite)
    for recall in config.recall if config.rule == "certified" else ():
        patients_needed(recall, confidence=config.confidence)  # raises where it can never be promised
    outside = any((config.val_probs, config.val_labels, config.test_probs, config.test_labels))
    blended = not config.val_probs or config.val_probs.resolve() == (folder / "probs_val.csv").resolve()
    config, inherited = inherit_label_flags(config, earlier=[folder / "probs.json"] if blended else [])
    val, test, origin = _outside(config) if outside else _of_run(config)
    classes = val.view.truth.classes
    stated = parse_prevalence(config.prevalence, classes=classes)
    print(*inherited, sep="\n", end="\n" if inherited else "")
    for split in filter(None, (val, test)):
        _print_split(split)
    labels = {"targets": val.view.targets, "mask": val.view.mask}
    curves = build_curves(val.probs, **labels, patients=val.patients, grid=config.grid or None)
    evaluation = Evaluation.of(test or val)
    confidence = bonferroni(config.confidence, classes=len(classes) if config.family_wise else 1)
    clear(folder, "thresholds*", "precision_recall_*.png", "intervals_recall_*.png")
    chosen = {}
    for recall, path in zip(config.recall, tables, strict=True):
        points = {"empirical": [empirical_rule(curve, recall=recall) for curve in curves]}
        if config.rule == "certified":
            certified = [certified_rule(curve, recall=recall, confidence=confidence) for curve in curves]
            points = {"certified": certified, **points}
        rules = _evaluate(config, points, evaluation)
        write_table(path, _table(rules, evaluation, tested=test is not None), exact=True)
        _print_target(recall, confidence, rules, evaluation)
        _print_workload(rules[0], evaluation)
        _print_precision_elsewhere(rules[0], evaluation, stated)
        if config.pictures:
            _draw(folder, recall, rules, evaluation)
        chosen[f"{recall:g}"] = dict(zip(classes, map(asdict, rules[0].points), strict=True))
    write_json(folder / "thresholds.json", {**_settings(config), **origin, "classes": classes, "recall": chosen})
    print(f"\nwrote to {folder}: thresholds.json", *(path.name for path in tables))


def _settings(config: ThresholdConfig) -> dict[str, Any]:
    """The flags that thresholds.json records; the empirical rule has no confidence."""
    keys = ("rule", "confidence", "family_wise", "grid", "uncertain", "missing", "resamples", "seed")
    settings = {key: getattr(config, key) for key in keys}
    return settings if config.rule == "certified" else settings | {"confidence": None}


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
        raise ValueError(
            "files from another program need --val-probs and --val-labels, and may add --test-probs and --test-labels"
        )
    classes = read_probs(config.val_probs).classes
    pairs = {"val": (config.val_probs, config.val_labels), "test": (config.test_probs, config.test_labels)}
    splits: dict[str, EvalSplit] = {}
    sources: dict[str, str] = {}
    for name, (path, labels) in pairs.items():
        if path and labels:
            truth, unused = read_truth(labels, classes)
            if unused:
                print(f"columns of {labels} that {path} does not have, ignored: {', '.join(unused)}")
            splits[name] = _split(config, name, read_probs(path).aligned(truth.ids, classes), truth)
            sources |= {str(path): sha256(path), str(labels): sha256(labels)}
    val, test = splits["val"], splits.get("test")
    shared = set(val.view.truth.patients) & set(test.view.truth.patients) if test else ()
    if shared:
        raise ValueError(
            f"{len(shared):,} patients are in both --val-labels and --test-labels, for example {sorted(shared)[0]}; "
            "the test patients must not be used to choose thresholds"
        )
    return val, test, {"sources": sources}


def _split(config: ThresholdConfig, name: str, probs: np.ndarray, truth: Truth) -> EvalSplit:
    return EvalSplit.of(name, probs, truth, LabelPolicy.parse(**label_flags(config), classes=truth.classes))


def _evaluate(
    config: ThresholdConfig, chosen: dict[str, list[OperatingPoint]], evaluation: Evaluation
) -> list[RuleResult]:
    """What the points that each rule chose do on the split."""
    split, curves = evaluation.split, evaluation.curves
    thresholds = np.array([[point.threshold for point in points] for points in chosen.values()])  # [rules, C]
    metrics = [[_at_threshold(*pair) for pair in zip(curves, of_rule, strict=True)] for of_rule in thresholds]
    if config.resamples:
        options: dict[str, Any] = {"patients": split.patients, "resamples": config.resamples, "seed": config.seed}
        intervals = bootstrap_outcomes(split.probs, **split.view.arrays(), thresholds=list(thresholds.T), **options)
        for r, c in np.ndindex(thresholds.shape):
            bounds = intervals[c][r].tolist()
            metrics[r][c] |= {"precision_ci": bounds[:2], "recall_ci": bounds[2:]}
    entries = sum(curve.entries for curve in curves)
    return [
        RuleResult(kind, points, values, accuracy=ratio(sum(v["right"] for v in values), entries))
        for (kind, points), values in zip(chosen.items(), metrics, strict=True)
    ]


def _at_threshold(curve: Curve, threshold: float) -> dict[str, Any]:
    tp, fp = map(int, curve.counts_at(threshold))
    return {
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, curve.positives),
        "specificity": 1 - ratio(fp, curve.negatives),
        "right": tp + curve.negatives - fp,
        "flags_all": tp + fp == curve.entries,
    }


def _table(rules: list[RuleResult], evaluation: Evaluation, *, tested: bool) -> pd.DataFrame:
    """The rows of thresholds_recall_<r>.csv; test columns are blank where nothing was tested."""
    asked, empirical = rules[0], rules[-1]

    def chosen(key: str, rule: RuleResult = asked) -> list[Any]:
        return [getattr(point, key) for point in rule.points]

    def on_test(key: str, rule: RuleResult = asked) -> list[float]:
        return [values[key] if tested else np.nan for values in rule.metrics]

    columns = {
        "class": evaluation.split.view.truth.classes,
        "threshold": chosen("threshold"),
        "val_precision": chosen("precision"),
        "val_recall": chosen("recall"),
        "val_recall_lower": chosen("recall_lower"),
        "val_positives": chosen("positives"),
        "test_precision": on_test("precision"),
        "test_recall": on_test("recall"),
        "auprc": evaluation.auprc,
        "status": chosen("status"),
        "empirical_threshold": chosen("threshold", empirical),
        "empirical_test_precision": on_test("precision", empirical),
        "empirical_test_recall": on_test("recall", empirical),
    }
    return pd.DataFrame(columns)


def _print_split(split: EvalSplit) -> None:
    """Macro AUROC and AUPRC under the policy, and with each blank as a negative."""
    metrics = two_views(split.probs, split.view, resamples=0, seed=0)
    for text, macro in (("as the policy has them", metrics["macro"]),
                        ("each blank a negative", metrics["blank_as_negative"]["macro"])):  # fmt: skip
        print(
            f"{split.name}, labels {text}: macro AUROC {macro['auroc']:.3f}, macro AUPRC {macro['auprc']:.3f} "
            f"over {macro['classes']} classes"
        )


def _print_target(recall: float, confidence: float, rules: list[RuleResult], evaluation: Evaluation) -> None:
    """The rules per class, whether they kept the promise, and the classes grouped by how precise they are."""
    split = evaluation.split
    promises = {"certified": f"at {100 * confidence:g}% confidence on new patients", "empirical": "on val"}
    print(f"\n== recall >= {recall:g} ==  " + "; ".join(f"{rule.kind}: {promises[rule.kind]}" for rule in rules))
    headers = ["Class", "Rule", "Threshold", "Val precision", "Val recall", "Lower", f"{split.name} Precision"]
    headers += [f"{split.name} Recall", "AUPRC", "Status"]
    rows = []
    for c, name in enumerate(split.view.truth.classes):
        for rule in rules:
            point, values = rule.points[c], rule.metrics[c]
            chosen = (point.threshold, point.precision, point.recall, point.recall_lower)
            tested = (with_interval(values, "precision"), with_interval(values, "recall"))
            status = _status(point, flags_all=values["flags_all"])
            rows.append((name if rule is rules[0] else "", rule.kind, *chosen, *tested, evaluation.auprc[c], status))
    print(format_table(headers, rows))
    if split.name == "val":
        print("no test data was given: these are figures of the data the thresholds were chosen on")
    for rule in rules:
        print(f"{rule.kind}: {split.name} recall >= {recall:g} in {rule.reached(recall)}")
    for rule in rules:
        print(f"{split.name.capitalize()} Accuracy (Recall >= {recall:g}), {rule.kind}: {rule.accuracy:.3f}")
    _print_groups(rules[0], evaluation)


def _status(point: OperatingPoint, *, flags_all: bool) -> str:
    if point.status == "ok":
        return "ok, flags all" if flags_all else "ok"
    return f"infeasible, flags all: {point.positives_needed} more positive patients needed"


def _print_groups(rule: RuleResult, evaluation: Evaluation) -> None:
    """Classes by how precise they are at the chosen thresholds."""
    titles = (f"AUPRC >= {HIGH_AUPRC}", "precision well above prevalence", "precision close to prevalence")
    groups: dict[str, list[str]] = {title: [] for title in (*titles, "not defined")}
    high, some, close, undefined = groups
    names = evaluation.split.view.truth.classes
    for name, curve, auprc, values in zip(names, evaluation.curves, evaluation.auprc, rule.metrics, strict=True):
        if np.isnan(auprc):
            groups[undefined].append(name)
            continue
        kept = (values["precision"] - curve.prevalence) / (1 - curve.prevalence)
        groups[high if auprc >= HIGH_AUPRC else some if kept >= SOME_WAY else close].append(name)
    for title, members in groups.items():
        print(f"{title}: {', '.join(members) or 'none'}")


def _print_workload(rule: RuleResult, evaluation: Evaluation) -> None:
    """Flagged, missed and falsely flagged studies per 1,000 at the rule's thresholds."""
    thresholds = np.array([point.threshold for point in rule.points])
    rows = per_thousand(evaluation.studies, thresholds=thresholds, classes=evaluation.split.view.truth.classes)
    print(
        f"\nper 1,000 labeled {evaluation.split.name} studies, at the {rule.kind} thresholds; the last row counts "
        "studies with at least one flag, one finding missed, one false flag:"
    )
    print(format_table(("Class", "Labeled studies", "Flagged", "Missed", "Falsely flagged"), rows, digits=0))


def _print_precision_elsewhere(rule: RuleResult, evaluation: Evaluation, stated: dict[str, float]) -> None:
    """Precision at the stated prevalence of each class that has one."""
    if not stated:
        return
    rows = []
    for name, prevalence in stated.items():
        c = evaluation.split.view.truth.classes.index(name)
        recall, specificity, precision = (rule.metrics[c][key] for key in ("recall", "specificity", "precision"))
        there = precision_at(recall, specificity, prevalence=prevalence)
        rows.append((name, recall, specificity, evaluation.curves[c].prevalence, precision, prevalence, there))
    here = f"Prevalence in {evaluation.split.name}"
    print("\nprecision at the stated prevalence:")
    print(format_table(("Class", "Recall", "Specificity", here, "Precision", "Stated", "There"), rows))


def _draw(folder: Path, recall: float, rules: list[RuleResult], evaluation: Evaluation) -> None:
    """Precision-recall curves with the operating points, and recall with its interval against the target."""
    curves, rows, split = [], [], evaluation.split.name
    for c, (name, curve) in enumerate(zip(evaluation.split.view.truth.classes, evaluation.curves, strict=True)):
        points, shown = [], []
        for rule in rules:
            values = rule.metrics[c]
            point = {"label": f"{rule.kind} rule", "kind": rule.kind}
            points.append(point | {key: values[key] for key in ("precision", "recall")})
            known = rule.points[c].status == "ok"
            low, high = values.get("recall_ci", (np.nan, np.nan)) if known else (np.nan, np.nan)
            shown.append(point | {"recall": values["recall"] if known else np.nan, "lower": low, "upper": high})
        common = {"name": name, "note": "infeasible: flags all" if rules[0].points[c].status != "ok" else ""}
        places = {"recall": curve.recall, "precision": curve.precision, "prevalence": curve.prevalence}
        curves.append({**common, **places, "points": points})
        rows.append({**common, "points": shown, "positives": curve.positives})
    name = f"recall_{recall:g}.png"
    plots.precision_recall_curves(curves, target=recall, path=folder / f"precision_{name}", split=split)
    plots.recall_intervals(rows, target=recall, path=folder / f"intervals_{name}", split=split)


def parse_prevalence(words: Sequence[str], *, classes: Sequence[str]) -> dict[str, float]:
    """Prevalence by class from `CLASS=share` words, or from one CSV with the columns class and prevalence.

    Raises ValueError for an unknown or repeated class and a share that is not above 0 and below 1.
    """
    pairs: Iterable[tuple[str, str]] = [word.rpartition("=")[::2] for word in words]
    if len(words) == 1 and words[0].lower().endswith((".csv", ".csv.gz")):
        table = read_table(Path(words[0]), dtype=str, keep_default_na=False)
        if list(table.columns[:2]) != ["class", "prevalence"]:
            raise ValueError(f"--prevalence {words[0]} has columns {', '.join(table)}; expected class,prevalence")
        pairs = zip(table["class"], table["prevalence"], strict=True)
    stated = {}
    for name, text in pairs:
        if not name:
            raise ValueError(f"--prevalence {text}: expected CLASS=share, such as Edema=0.05")
        if name not in classes:
            raise ValueError(f"--prevalence {name}={text}: no class {name!r}; the classes are {', '.join(classes)}")
        if name in stated:
            raise ValueError(f"--prevalence names {name} twice; expected each class once")
        try:
            stated[name] = float(text)
        except ValueError:
            stated[name] = np.nan
        if not 0 < stated[name] < 1:
            raise ValueError(f"--prevalence {name}={text}: expected a share above 0 and below 1, such as 0.05")
    return stated
