"""What stage 6 prints: the rules per class, their verdicts on test, the workload, and what the promise means."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.rule_results import Evaluation, RuleResult
from src.artifacts.truth import EvalSplit
from src.config import ThresholdConfig
from src.runtime.csv_files import number, read_cells
from src.runtime.tables import format_table, plural, with_interval
from src.stages.metric_tables import all_views, views_of
from src.stats.intervals import VERDICTS, share_interval, top_share
from src.stats.planning import plan
from src.stats.thresholds import OperatingPoint
from src.stats.workload import Answers, per_thousand, precision_at

# How a class held: by its AUPRC, and by how far its precision stays above the prevalence, as a share of the way to 1.
HIGH_AUPRC, SOME_WAY = 0.95, 0.25
CONCENTRATED = 0.3  # share of positives owned by 5% of the patients, above which the next patient is another promise
PLAN_AUROC, PLAN_PREVALENCE = 0.85, 0.1


def print_split(split: EvalSplit) -> None:
    """Macro AUROC and AUPRC in every view of the labels."""
    for text, metrics in views_of(all_views(split.probs, split.view, resamples=0, seed=0)).items():
        macro = metrics["macro"]
        print(
            f"{split.name}, {text}: macro AUROC {with_interval(macro, 'auroc')}, macro AUPRC "
            f"{with_interval(macro, 'auprc')} over {plural(macro['classes'], 'class')}"
        )


def print_notes(config: ThresholdConfig, split: EvalSplit) -> None:
    """What is counted, whose recall it is, and what weakens the promise on this data."""
    unit, view, codes = config.unit or "", split.view, split.units.codes
    images = ", a row each"
    if codes is not None:
        images = f" of {len(codes):,} images, each with the {config.aggregate} over its own"
    print(f"unit: {plural(len(split.probs), unit)} in {split.name}" + (images if unit == "study" else ""))
    if config.weights == "patient":
        print(f"recall: that of a random {unit} of a random patient")
    else:
        print(f"recall: that of the next {unit}, drawn as those of {split.name} were")
    ill = view.mask & (view.targets == 1)
    shares = {name: top_share(split.patients[ill[:, c]]) for c, name in enumerate(view.truth.classes)}
    known = {name: share for name, share in shares.items() if not np.isnan(share)}
    if known:
        low, high = (f"{100 * end(known.values()):.0f}%" for end in (min, max))
        between = low if low == high else f"{low} to {high}"
        print(f"the 5% of patients with the most positives own {between} of a finding's positives in {split.name}")
    heavy = [f"{name} ({100 * share:.0f}%)" for name, share in known.items() if share > CONCENTRATED]
    if heavy and config.weights != "patient":
        print(
            f"warning: the 5% of patients with the most positives own more than 30% of them in {', '.join(heavy)}; if "
            f"they are easier or harder to read than others, the recall of the next {unit} is not that of the next "
            "patient, which --weights patient certifies, and intervals and verdicts are overconfident"
        )


def print_target(
    recall: float,
    confidence: float,
    rules: list[RuleResult],
    evaluation: Evaluation,
    *,
    config: ThresholdConfig,
    chosen_on: str,
) -> None:
    """The rules per class, what test says of the promise, and the classes grouped by how precise they are."""
    split = evaluation.split
    certified = f"at {100 * confidence:.4g}% confidence on new patients"
    if config.family_wise:
        certified += f", so that all findings together are at {100 * config.confidence:.4g}%"
    promises = {"certified": certified, "empirical": f"on {chosen_on}"}
    whose = "recall of a random patient" if config.weights == "patient" else "recall"
    print(f"\n== {whose} >= {recall:g} ==  " + "; ".join(f"{rule.kind}: {promises[rule.kind]}" for rule in rules))
    here, there = chosen_on.capitalize(), split.name.capitalize()
    tried = split.name == "test"
    headers = ["Class", "Rule", "Threshold", *([f"{here} precision", f"{here} recall"] if tried else []), "Lower"]
    headers += [f"{there} precision", f"{there} recall", *(["Verdict"] if tried else []), "AUPRC", "Status"]
    rows = []
    for c, name in enumerate(split.view.truth.classes):
        for rule in rules:
            point, values = rule.points[c], rule.metrics[c]
            chosen = (point.threshold, *((point.precision, point.recall) if tried else ()), point.recall_lower)
            found = (with_interval(values, "precision"), with_interval(values, "recall"))
            said = (values["verdict"] or "-",) if tried else ()
            status = _status(point, flags_all=values["flags_all"])
            first = name if rule is rules[0] else ""
            rows.append((first, rule.kind, *chosen, *found, *said, evaluation.auprc[c], status))
    print(format_table(headers, rows))
    if not tried:
        print("no test data was given: these figures are for the data on which the thresholds were chosen")
    for rule in rules:
        print(f"{rule.kind}: {count_verdicts(rule, tested=tried)}")
    if rules[0].kind == "certified":
        print(_expected(rules[0], confidence))
    for rule in rules:
        print(f"{there} Accuracy (Recall >= {recall:g}), {rule.kind}: {rule.accuracy:.3f}")
    _print_groups(rules[0], evaluation)


def count_verdicts(rule: RuleResult, *, tested: bool) -> str:
    """In how many classes test contradicts or confirms the target; those that flag all are no success, and apart."""
    said = [v["verdict"] for p, v in zip(rule.points, rule.metrics, strict=True) if p.status == "ok"]
    counts = [(name, said.count(name)) for name in VERDICTS] if tested else [("feasible", len(said))]
    counts.append(("infeasible", len(rule.points) - len(said)))
    if tested and "" in said:
        counts.append(("without positives on test", said.count("")))
    return ", ".join(f"{name} {number}" for name, number in counts)


def _expected(rule: RuleResult, confidence: float) -> str:
    """What the confidence of each finding means for all of them together."""
    certified = sum(point.status == "ok" for point in rule.points)
    if not certified:
        return "no finding could be certified"
    failing = certified * (1 - confidence)
    return (
        f"{plural(certified, 'finding')} certified, each at {100 * confidence:.4g}%: up to {failing:.2g} may be "
        "expected to fall short of the target on new patients"
    )


def _status(point: OperatingPoint, *, flags_all: bool) -> str:
    if point.status == "ok":
        return "ok, flags all" if flags_all else "ok"
    return f"infeasible, flags all: {plural(point.positives_needed, 'more positive patient')} needed"


def _print_groups(rule: RuleResult, evaluation: Evaluation) -> None:
    """Classes by how precise they are at the chosen thresholds."""
    well_above = f"precision well above prevalence (at least {SOME_WAY:.0%} of the way to 1)"
    titles = (f"AUPRC >= {HIGH_AUPRC}", well_above, "precision close to prevalence")
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


def print_workload(rule: RuleResult, evaluation: Evaluation) -> None:
    """Flagged, missed and falsely flagged units per 1,000 at the rule's thresholds, in both views of the labels."""
    split, views = evaluation.split, evaluation.views()
    flags = split.probs >= rule.thresholds
    left, right = (per_thousand(flags, known, classes=split.view.truth.classes) for known in views)
    print(
        f"\nper 1,000 of {split.name}, at the {rule.kind} thresholds: left, of those with a label; right, of all, with "
        "every flag counted and each blank a negative. The last row counts those with at least one flag, one finding "
        "missed, one false flag:"
    )
    events = ("Flagged", "Missed", "Falsely flagged")
    headers = ("Class", "Labeled", *events, "| All", *events)
    print(format_table(headers, [(*one, *other[1:]) for one, other in zip(left, right, strict=True)], digits=0))
    chosen = np.array([point.status == "ok" for point in rule.points])
    if chosen.any() and not chosen.all():
        known = Answers(*(entries[:, chosen] for entries in views[1]))
        names = np.array(split.view.truth.classes)
        *_, (_, _, *figures) = per_thousand(flags[:, chosen], known, classes=names[chosen].tolist())
        flagged, missed, falsely = (f"{figure:.0f}" for figure in figures)
        print(
            f"without infeasible findings, which flag all ({', '.join(names[~chosen])}), the last row on the right "
            f"would be: {flagged} flagged, {missed} missed, {falsely} falsely flagged"
        )


def print_precision_elsewhere(rule: RuleResult, evaluation: Evaluation, stated: dict[str, float]) -> None:
    """Precision at the stated prevalence of each class that has one."""
    if not stated:
        return
    rows = []
    for name, prevalence in stated.items():
        c = evaluation.split.view.truth.classes.index(name)
        recall, specificity, precision = (rule.metrics[c][key] for key in ("recall", "specificity", "precision"))
        there: dict[str, Any] = {"precision": precision_at(recall, specificity, prevalence=prevalence)}
        there["precision_ci"] = _precision_interval(rule.metrics[c]["shares"], prevalence=prevalence)
        own = evaluation.curves[c].prevalence
        rows.append((name, recall, specificity, own, precision, prevalence, with_interval(there, "precision")))
    here = f"Prevalence in {evaluation.split.name}"
    print("\nprecision at the stated prevalence, with an interval of at least 95%:")
    print(format_table(("Class", "Recall", "Specificity", here, "Precision", "Stated", "There"), rows))


def _precision_interval(shares: dict[str, Any], *, prevalence: float) -> tuple[float, float]:
    """Precision at both ends of 97.5% intervals of recall and specificity, which hold together in at least 95%."""
    recall, specificity = (share_interval(shares[key], level=0.975) for key in ("recall", "specificity"))
    low, high = (precision_at(*ends, prevalence=prevalence) for ends in zip(recall, specificity, strict=True))
    return low, high


def print_plan(config: ThresholdConfig) -> None:
    """What certifying costs for several numbers of positives, before there are data."""
    auroc, prevalence = PLAN_AUROC, PLAN_PREVALENCE
    plans = {
        recall: plan(recall, confidence=config.confidence, auroc=auroc, prevalence=prevalence)
        for recall in config.recall
    }
    print(
        f"What certifying costs, calculated for one positive per patient, normal scores with AUROC {auroc}, and a "
        f"prevalence of {prevalence}. With several positives per patient, the number of patients matters more."
    )
    headers = ("Positives", "Misses allowed", "Val recall", "True recall, mean", "Precision, mean", "Precision lost")
    for recall, planned in plans.items():
        rows = [(row.positives, "infeasible" if row.misses < 0 else str(row.misses), *row[2:]) for row in planned]
        print(f"\n== recall >= {recall:g} at {100 * config.confidence:g}% confidence ==")
        print(format_table(headers, rows))


def parse_prevalence(words: Sequence[str], *, classes: Sequence[str]) -> dict[str, float]:
    """Prevalence by class from `CLASS=share` words, or from one CSV with the columns class and prevalence.

    Raises ValueError for an unknown or repeated class and a share that is not above 0 and below 1.
    """
    pairs: Iterable[tuple[str, str]] = [word.rpartition("=")[::2] for word in words]
    if len(words) == 1 and words[0].lower().endswith((".csv", ".csv.gz")):
        table = read_cells(Path(words[0]))
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
            stated[name] = number(text)
        except ValueError:
            stated[name] = np.nan
        if not 0 < stated[name] < 1:
            raise ValueError(f"--prevalence {name}={text}: expected a share above 0 and below 1, such as 0.05")
    return stated
