"""The audit of recall within groups of patients, a part of stage 6."""

import numpy as np
import pandas as pd

from src.artifacts.io import write_table
from src.artifacts.rule_results import RuleResult
from src.artifacts.truth import EvalSplit
from src.config import ThresholdConfig
from src.plots import audits
from src.runtime.tables import format_table, plural, with_interval
from src.stats.subgroups import age_bands, audit


def groups_of(config: ThresholdConfig, split: EvalSplit) -> pd.DataFrame:
    """The groups of each unit, a column per way of grouping that was asked for.

    Raises ValueError where nothing is known of it.
    """
    known, columns = split.view.truth.groups, {}
    for by in config.subgroups:
        if by not in known or not (known[by].notna() & (known[by] != "")).any():
            raise ValueError(
                f"--subgroups {by}: no row of {split.name} records it; leave it out, or give the label file a "
                f"column {by} that can be read"
            )
        values = known[by].to_numpy()
        columns[by] = age_bands(values.astype(np.float64), starts=config.age_bands) if by == "age" else values
    return pd.DataFrame(columns, index=range(len(split.probs)))


def audit_subgroups(
    config: ThresholdConfig, rule: RuleResult, split: EvalSplit, groups: pd.DataFrame, *, target: float
) -> None:
    """Print, write and draw recall per group of `groups_of`, of each finding for which the rule has a threshold."""
    kept = [c for c, point in enumerate(rule.points) if point.status == "ok"]
    left_out = [name for c, name in enumerate(split.view.truth.classes) if c not in kept]
    if not kept:
        print("\nno finding has a threshold, so every unit is flagged, whatever its group")
        return
    ill = split.view.mask & (split.view.targets == 1)
    table = audit(
        split.probs[:, kept],
        thresholds=rule.thresholds[kept],
        present=ill[:, kept],
        patients=split.patients,
        groups=groups,
        classes=[split.view.truth.classes[c] for c in kept],
        target=target,
        by_patient=config.weights == "patient",
        tried=split.name == "test",
    )
    folder, name = config.run_dir / "ensemble", f"subgroups_recall_{target:g}"
    write_table(folder / f"{name}.csv", table, exact=True)
    _print(table, split.name, target, by_patient=config.weights == "patient")
    if left_out:
        print(f"without a threshold, and flagged in every group: {', '.join(left_out)}")
    if config.pictures:
        path = folder / f"{name}.png"
        audits.subgroup_intervals(table, target=target, path=path, split=split.name, left_out=len(left_out))


def _print(table: pd.DataFrame, split: str, target: float, *, by_patient: bool) -> None:
    """Groups in their own order; the largest gap among many groups is mostly chance, so none is ranked."""
    verdicts = "verdicts hold for all groups of a finding together, 95% intervals for each alone"
    if split != "test":
        verdicts = "without test data there are no verdicts; 95% intervals hold for each group alone"
    print(f"\nrecall on {split} by group, against {target:g}; {verdicts}:")
    rows = []
    for name, part in table.groupby("class", sort=False):
        for number, row in enumerate(part.to_dict("records")):
            row |= {"recall_ci": (row["low"], row["high"])} if row["positives"] else {}
            needed = plural(row["needed"], "more positive patient")
            said = row["verdict"] or (f"cannot be stated: {needed} needed" if row["needed"] else "-")
            first = (name if not number else "", f"{row['by']} {row['group']}")
            rows.append((*first, row["positives"], row["missed"], with_interval(row, "recall"), said))
    recall = "Recall, each patient with equal weight" if by_patient else "Recall"
    print(format_table(("Class", "Group", "Positives", "Missed", recall, "Verdict"), rows))
