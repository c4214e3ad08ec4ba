"""Readers beside the model, a part of stage 6 for probabilities and labels from elsewhere."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_curve, roc_curve

from src.artifacts.io import write_table
from src.artifacts.outside import OutsideTable
from src.artifacts.truth import EvalSplit
from src.config import ThresholdConfig
from src.labels.files import labels_of
from src.plots import audits
from src.runtime.csv_files import table_name
from src.runtime.tables import format_table, with_interval
from src.stats.readers import compare_reader

FIGURES = ("recall", "precision", "specificity")


def read_calls(config: ThresholdConfig, split: EvalSplit) -> dict[str, np.ndarray]:
    """The calls [U, C] of each reader by name: 1 or 0, NaN where the reader made none.

    Raises ValueError where a file has no id or finding that is known, or all have no case with a finding.
    """
    calls = {table_name(path): _calls(path, split) for path in config.readers}
    if len(calls) < len(config.readers):
        raise ValueError("--readers has two files of the same name; rename one, since the names tell them apart")
    ill = split.view.mask & (split.view.targets == 1)
    if calls and not any((ill & ~np.isnan(values)).any() for values in calls.values()):
        raise ValueError(f"--readers: no reader called a case of {split.name} that has a finding; check the ids")
    return calls


def compare_readers(config: ThresholdConfig, split: EvalSplit, calls: dict[str, np.ndarray]) -> None:
    """Print, write and draw each reader's operating points beside the model's curves."""
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for reader, values in calls.items():
        for c, name in enumerate(split.view.truth.classes):
            read = split.view.mask[:, c] & ~np.isnan(values[:, c])
            if not (split.view.targets[read, c] == 1).any():
                left_out.append(f"{name} ({reader})")
                continue
            found = compare_reader(
                split.probs[read, c],
                targets=split.view.targets[read, c],
                calls=values[read, c],
                patients=split.patients[read],
                resamples=config.resamples,
                seed=config.seed,
            )
            rows.append({"reader": reader, "class": name, **found})
    _print(rows, split.name)
    if left_out:
        print(f"not compared, because no case that the reader called has the finding: {', '.join(left_out)}")
    folder = config.run_dir / "ensemble"
    write_table(folder / "readers.csv", _table(rows), exact=True)
    if config.pictures:
        _draw(rows, list(calls.values()), split, folder)


def _calls(path: Path, split: EvalSplit) -> np.ndarray:
    """A reader's calls; a -1 is none."""
    table, truth = OutsideTable.read(path), split.view.truth
    columns = table.columns_of(truth.classes)
    if not columns:
        raise ValueError(f"{path} has no column of a finding; expected some of {', '.join(truth.classes)}")
    labels = labels_of(table.cells, list(columns.values()), path=path, hint=", as a reader's calls are")
    labels = labels.set_axis(list(columns), axis="columns").set_axis(table.ids)
    known = labels.index.isin(truth.ids)
    if not known.any():
        raise ValueError(
            f"{path} has no id of {split.name}, such as {truth.ids[0]}; its first is {labels.index[0]!r}; expected "
            "ids of studies, or of images with --unit image"
        )
    if not known.all():
        print(f"{path}: {int((~known).sum()):,} of {len(known):,} ids are not in {split.name} and are left out")
    return labels.where(labels >= 0).reindex(index=list(truth.ids), columns=list(truth.classes)).to_numpy(np.float64)


def _print(rows: list[dict[str, Any]], split: str) -> None:
    print(f"\nreaders on {split}; the model's precision is that at the reader's recall:")
    lines = []
    for row in rows:
        figures = (with_interval(row, name) for name in FIGURES)
        gain = with_interval(row, "gain")
        lines.append((row["class"], row["reader"], row["cases"], *figures, row["model_precision"], gain))
    headers = (
        "Class",
        "Reader",
        "Cases",
        "Recall",
        "Precision",
        "Specificity",
        "Model precision",
        "Model minus reader",
    )
    print(format_table(headers, lines))


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows of readers.csv, each interval as two columns."""
    flat = []
    for row in rows:
        pairs = {f"{key[:-3]}_{end}": row[key][i] for key in row if key.endswith("_ci") for i, end in
                 enumerate(("low", "high"))}  # fmt: skip
        flat.append({key: value for key, value in row.items() if not key.endswith("_ci")} | pairs)
    return pd.DataFrame(flat)


def _draw(rows: list[dict[str, Any]], calls: list[np.ndarray], split: EvalSplit, folder: Path) -> None:
    """The readers' points beside the model's curves on the cases that any of them read, per finding they called."""
    curves = []
    for c, name in enumerate(split.view.truth.classes):
        own = [row for row in rows if row["class"] == name]
        read = split.view.mask[:, c] & np.any([~np.isnan(values[:, c]) for values in calls], axis=0)
        if own:
            probs, targets = split.probs[read, c], split.view.targets[read, c]
            false_alarms, sensitivity, _ = roc_curve(targets, probs)
            precision, recall, _ = precision_recall_curve(targets, probs)
            roc, pr = {"x": false_alarms, "y": sensitivity}, {"x": recall[:-1], "y": precision[:-1]}
            curves.append({"name": name, "readers": own, "roc": roc, "precision_recall": pr})
    audits.reader_curves(curves, folder=folder, split=split.name)
