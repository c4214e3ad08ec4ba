"""Stage 6: a threshold per class under a recall constraint, and what it costs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import clear, refuse_overwrite, sha256, write_json, write_table
from src.artifacts.probs import read_blend, read_outside_probs
from src.artifacts.rule_results import Evaluation, RuleResult, curves_of, evaluate
from src.artifacts.truth import EvalSplit, Truth, read_truth, respelled_patients
from src.config import ThresholdConfig
from src.plots import results as plots
from src.runtime.locks import exclusive
from src.runtime.tables import plural
from src.stages import threshold_tables as tables
from src.stages.inherited_flags import flags_of, inherit_flags, policy_of, units_of
from src.stages.opening import open_manifest
from src.stages.readers import compare_readers, read_calls
from src.stages.reuse import notes_on_reuse
from src.stages.subgroups import audit_subgroups, groups_of
from src.stats.thresholds import choose_points, patients_needed, shared_confidence

OUTPUTS = ("thresholds*", "precision_recall_*.png", "intervals_recall_*.png", "subgroups*", "readers*")


@dataclass(frozen=True)
class SearchData:
    """What thresholds are searched in and evaluated on, and where it comes from."""

    chosen_on: EvalSplit
    test: EvalSplit | None
    origin: dict[str, Any]

    @property
    def evaluated(self) -> EvalSplit:
        """Test, or without one the split in which thresholds are chosen."""
        return self.test or self.chosen_on


def search_thresholds(config: ThresholdConfig) -> None:
    """Choose thresholds for each recall target, evaluate them on test, write and print both."""
    config = replace(config, recall=tuple({f"{recall:g}": recall for recall in config.recall}.values()))
    if config.plan:
        tables.print_plan(config)
        return
    folder = config.run_dir / "ensemble"
    refuse_overwrite([*_paths(config).values(), folder / "thresholds.json"], overwrite=config.overwrite)
    for recall in config.recall if config.rule == "certified" else ():
        patients_needed(recall, confidence=config.confidence)  # raises where it can never be promised
    outside = any((config.val_probs, config.val_labels, config.test_probs, config.test_labels))
    blended = not config.val_probs or config.val_probs.resolve() == (folder / "probs_val.csv").resolve()
    config, inherited = inherit_flags(config, earlier=[folder / "probs.json"] if blended else [])
    config = _check_weights(config)
    if not blended and (folder / "probs.json").exists() and (config.run_dir / "manifest.csv").exists():
        raise ValueError(
            f"{config.run_dir} has a split and a blend of its own, and --val-probs names other probabilities; pass "
            "another --run-dir, so that the report does not mix them"
        )
    search, understood = _outside(config) if outside else _of_run(config)
    stated = tables.parse_prevalence(config.prevalence, classes=search.chosen_on.view.truth.classes)
    print(*understood, *inherited, sep="\n", end="\n" if understood or inherited else "")
    for split in filter(None, (search.chosen_on, search.test)):
        tables.print_split(split)
    tables.print_notes(config, search.chosen_on)
    for note in notes_on_reuse(config, search.chosen_on, of_run=not outside):
        print(note)
    groups, calls = groups_of(config, search.evaluated), read_calls(config, search.evaluated)
    with exclusive(folder):
        _search(config, search, groups, stated)
        if calls:
            compare_readers(config, search.evaluated, calls)
    print(f"\nwrote to {folder}:", *sorted(path.name for pattern in OUTPUTS for path in folder.glob(pattern)))


def _paths(config: ThresholdConfig) -> dict[float, Path]:
    """The table of each recall target."""
    folder = config.run_dir / "ensemble"
    return {recall: folder / f"thresholds_recall_{recall:g}.csv" for recall in config.recall}


def _search(config: ThresholdConfig, search: SearchData, groups: pd.DataFrame, stated: dict[str, float]) -> None:
    """Choose, write and print the thresholds of every target; nothing can be refused any more."""
    folder, chosen_on, by_patient = config.run_dir / "ensemble", search.chosen_on, config.weights == "patient"
    classes = chosen_on.view.truth.classes
    curves = curves_of(chosen_on, by_patient=by_patient, grid=config.grid or None)
    evaluation = Evaluation.of(search.evaluated, by_patient=by_patient)
    clear(folder, *OUTPUTS)
    chosen = {}
    for recall, path in _paths(config).items():
        confidence = config.confidence
        if config.family_wise:
            confidence = shared_confidence(confidence, curves, recall=recall)
        asked = {"certified": confidence, "empirical": None} if config.rule == "certified" else {"empirical": None}
        points = {kind: choose_points(curves, recall=recall, confidence=level) for kind, level in asked.items()}
        rules = [evaluate(kind, of_rule, evaluation, recall) for kind, of_rule in points.items()]
        write_table(path, _table(rules, evaluation, search), exact=True)
        tables.print_target(recall, confidence, rules, evaluation, config=config, chosen_on=chosen_on.name)
        tables.print_workload(rules[0], evaluation)
        tables.print_precision_elsewhere(rules[0], evaluation, stated)
        if len(groups.columns):
            audit_subgroups(config, rules[0], evaluation.split, groups, target=recall)
        if config.pictures:
            _draw(folder, recall, rules, evaluation)
        chosen[f"{recall:g}"] = dict(zip(classes, map(asdict, rules[0].points), strict=True))
    settings = _settings(config) | search.origin
    write_json(folder / "thresholds.json", {**settings, "classes": classes, "recall": chosen})


def _check_weights(config: ThresholdConfig) -> ThresholdConfig:
    """The config with the unit as the weights where none are given; raises ValueError where they do not fit it."""
    weights = config.weights or config.unit
    if weights not in (config.unit, "patient"):
        raise ValueError(
            f"--weights is {weights} and --unit is {config.unit}; pass --unit {weights} as well, or --weights patient"
        )
    return replace(config, weights=weights)


def _settings(config: ThresholdConfig) -> dict[str, Any]:
    """The flags that thresholds.json records; the empirical rule has no confidence."""
    keys = ("rule", "confidence", "family_wise", "weights", "grid", "resamples", "seed")
    settings = {key: getattr(config, key) for key in keys} | flags_of(config)
    return settings if config.rule == "certified" else settings | {"confidence": None}


def _of_run(config: ThresholdConfig) -> tuple[SearchData, list[str]]:
    """The blend that stage 5 left, on val (or calib) and on test."""
    folder = config.run_dir / "ensemble"
    if (folder / "probs_val.csv").exists() and not (config.run_dir / "manifest.csv").exists():
        raise ValueError(
            f"{config.run_dir} holds a blend of files from another program and no manifest; pass "
            f"--val-probs {folder}/probs_val.csv --val-labels TRUTH.csv"
        )
    if config.readers:
        raise ValueError("--readers compares with labels of your own; pass --val-probs and --val-labels as well")
    manifest = open_manifest(config.run_dir)
    blend = read_blend(config.run_dir, manifest)
    splits = {name: _split(config, name, probs, truth) for name, (truth, probs) in blend.items()}
    chosen_on = "calib" if "calib" in splits else "val"
    origin = {"manifest_sha256": manifest.sha256, "probs_val_sha256": sha256(folder / "probs_val.csv")}
    origin |= {f"probs_{chosen_on}_sha256": sha256(folder / f"probs_{chosen_on}.csv")}
    return SearchData(splits[chosen_on], splits["test"], {**origin, "chosen_on": chosen_on}), []


def _outside(config: ThresholdConfig) -> tuple[SearchData, list[str]]:
    """Probabilities from another program, for validation and perhaps for test, beside their truth."""
    if not (config.val_probs and config.val_labels) or (config.test_probs is None) != (config.test_labels is None):
        raise ValueError(
            "files from another program need --val-probs and --val-labels, and may add --test-probs and --test-labels"
        )
    classes = read_outside_probs(config.val_probs).classes
    pairs = {"val": (config.val_probs, config.val_labels), "test": (config.test_probs, config.test_labels)}
    splits: dict[str, EvalSplit] = {}
    sources: dict[str, str] = {}
    lines: list[str] = []
    for name, (path, labels) in pairs.items():
        if path and labels:
            truth, understood = read_truth(labels, classes)
            probs = read_outside_probs(path).known_as(truth.ids)
            lines += [probs.said, *understood]
            splits[name] = _split(config, name, probs.aligned(truth.ids, classes), truth)
            sources |= {str(path): sha256(path), str(labels): sha256(labels)}
    val, test = splits["val"], splits.get("test")
    shared = set(val.view.truth.patients) & set(test.view.truth.patients) if test else ()
    if shared:
        raise ValueError(
            f"--val-labels and --test-labels share {plural(len(shared), 'patient')}, for example {sorted(shared)[0]}; "
            "the test patients must not be used to choose thresholds"
        )
    lines += respelled_patients(*(split.units.truth for split in splits.values()))
    return SearchData(val, test, {"sources": sources, "chosen_on": "val"}), lines


def _split(config: ThresholdConfig, name: str, probs: np.ndarray, images: Truth) -> EvalSplit:
    return EvalSplit.of(name, probs, units_of(config, images), policy_of(config, images.classes))


def _table(rules: list[RuleResult], evaluation: Evaluation, search: SearchData) -> pd.DataFrame:
    """The rows of thresholds_recall_<r>.csv; test columns are blank where nothing was tested."""
    asked, empirical, tested = rules[0], rules[-1], search.test is not None
    name = search.chosen_on.name

    def chosen(key: str, rule: RuleResult = asked) -> list[Any]:
        return [getattr(point, key) for point in rule.points]

    def on_test(key: str, rule: RuleResult = asked) -> list[Any]:
        return [values[key] if tested else np.nan for values in rule.metrics]

    intervals = np.array([values["recall_ci"] if tested else (np.nan, np.nan) for values in asked.metrics])  # [C, 2]
    columns = {
        "class": evaluation.split.view.truth.classes,
        "threshold": chosen("threshold"),
        f"{name}_precision": chosen("precision"),
        f"{name}_recall": chosen("recall"),
        f"{name}_recall_lower": chosen("recall_lower"),
        f"{name}_positives": chosen("positives"),
        "test_precision": on_test("precision"),
        "test_recall": on_test("recall"),
        "test_recall_low": intervals[:, 0],
        "test_recall_high": intervals[:, 1],
        "test_verdict": on_test("verdict"),
        "auprc": evaluation.auprc,
        "status": chosen("status"),
        "empirical_threshold": chosen("threshold", empirical),
        "empirical_test_precision": on_test("precision", empirical),
        "empirical_test_recall": on_test("recall", empirical),
    }
    return pd.DataFrame(columns)


def _draw(folder: Path, recall: float, rules: list[RuleResult], evaluation: Evaluation) -> None:
    """Precision-recall curves with the operating points, and recall with its interval against the target."""
    curves, rows, split = [], [], evaluation.split.name
    for c, (name, curve) in enumerate(zip(evaluation.split.view.truth.classes, evaluation.curves, strict=True)):
        points, shown = [], []
        for rule in rules:
            values, known = rule.metrics[c], rule.points[c].status == "ok"
            point = {"label": f"{rule.kind} rule", "kind": rule.kind}
            points.append(point | {key: values[key] for key in ("precision", "recall")})
            shown.append(point | _shown_interval(values if known else {}))
        common = {"name": name, "note": "infeasible: flags all" if rules[0].points[c].status != "ok" else ""}
        places = {"recall": curve.recall, "precision": curve.precision, "prevalence": curve.prevalence}
        curves.append({**common, **places, "points": points})
        rows.append({**common, "points": shown, "positives": curve.positives})
    name = f"recall_{recall:g}.png"
    plots.precision_recall_curves(curves, target=recall, path=folder / f"precision_{name}", split=split)
    plots.recall_intervals(rows, target=recall, path=folder / f"intervals_{name}", split=split)


def _shown_interval(values: Mapping[str, Any]) -> dict[str, Any]:
    """Recall, its interval and the verdict, as the picture takes them; nothing where the class is infeasible."""
    low, high = values.get("recall_ci", (np.nan, np.nan))
    return {"recall": values.get("recall", np.nan), "lower": low, "upper": high, "verdict": values.get("verdict", "")}
