"""Every picture of models, ensembles and thresholds; those of labels are in `plots.labels`.

Draws, computes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from src.plots.style import (
    BLUE,
    GRAY,
    GREEN,
    INK,
    ORANGE,
    PALE,
    PINK,
    RED,
    SKY,
    canvas,
    dots,
    headline,
    legend,
    offsets,
    short,
)
from src.stats.intervals import VERDICTS

# Looks of operating points by the rule that chose them, and of probabilities before and after correction.
HOLLOW, FILLED = {"color": RED, "marker": "o", "markerfacecolor": "white"}, {"color": BLUE, "marker": "D"}
RULES = {"empirical": HOLLOW, "certified": FILLED}
CALIBRATION = {"before": HOLLOW, "after": FILLED}
UNSTATED = "too few patients for a verdict"
GROUP_COLORS = {"confirmed": BLUE, "consistent": GREEN, "contradicted": RED, UNSTATED: GRAY}
CURVES = {
    "train_loss": ("training loss", "loss per valid label (class-weighted BCE)"),
    "val_loss": ("validation loss", "loss per valid label (class-weighted BCE)"),
    "val_auroc": ("validation AUROC", "AUROC, mean over classes"),
    "val_auprc": ("validation AUPRC", "AUPRC, mean over classes"),
}


def learning_curves(history: pd.DataFrame, *, folder: Path, title: str) -> list[Path]:
    """Draw train_loss.png, val_loss.png, val_auroc.png and val_auprc.png into `folder`; returns their paths.

    `history` has a row per epoch: epoch, train_loss, val_loss, val_auroc, val_auprc, lr. Marked are the epoch
    that is kept, the first with the best val_auprc, and where the learning rate fell.
    """
    score = history["val_auprc"]
    kept = history.loc[score.idxmax()] if score.notna().any() else None
    falls = history["epoch"][history["lr"].diff() < 0]
    paths = []
    for name, (what, unit) in CURVES.items():
        path = Path(folder) / f"{name}.png"
        with canvas(path, width=5.6, height=3.5) as figure:
            axes = figure.add_subplot(xlabel="epoch", ylabel=unit)
            for i, epoch in enumerate(falls):
                axes.axvline(epoch - 0.5, color=GRAY, lw=0.8, ls=":", label="" if i else "learning rate falls")
            axes.plot(history["epoch"], history[name], color=GRAY, marker="o", markersize=3.5, lw=1.5)
            headline(figure, f"{title}: {what}{_mark_kept(axes, kept, name)}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(history["epoch"].min() - 0.6, history["epoch"].max() + 0.6)
            _say_if_undefined(axes, history[name])
            legend(figure, axes)
        paths.append(path)
    return paths


def _mark_kept(axes: Axes, kept: pd.Series | None, name: str) -> str:
    """Mark the kept epoch; returns what the title says of it."""
    if kept is None or not np.isfinite(kept[name]):
        return ""
    label = "epoch kept (best validation AUPRC)"
    dots(axes, kept["epoch"], kept[name], color=RED, marker="D", markersize=7, label=label)
    return f" {kept[name]:.3f} at the kept epoch, {kept['epoch']:.0f}"


def _say_if_undefined(axes: Axes, values: pd.Series) -> None:
    if not np.isfinite(values.to_numpy(np.float64)).any():
        axes.text(0.5, 0.5, "not defined", transform=axes.transAxes, ha="center", va="center", color=GRAY)
        axes.set_yticks([])


def alpha_curve(
    table: pd.DataFrame,
    *,
    chosen: float,
    path: Path,
    standard_error: float | np.ndarray | None = None,
    members: Sequence[str] = ("first model", "second model"),
) -> Path:
    """Validation AUPRC, AUROC and accuracy over alpha, the weight of the first of `members`; returns `path`.

    `table` has a row per alpha: alpha, accuracy, auroc, auprc. With `standard_error`, of the AUPRC's
    difference to the best, one for all or one per alpha, the band within one of the best is shaded.
    """
    with canvas(path, width=7.2, height=3.9) as figure:
        grid = figure.add_gridspec(2, 2, width_ratios=(1.7, 1))
        main = figure.add_subplot(grid[:, 0], xlabel=f"alpha (0: {members[1]} alone, 1: {members[0]} alone)")
        side = [figure.add_subplot(grid[i, 1], sharex=main) for i in range(2)]
        best = table["auprc"].max()
        if standard_error is not None and np.isfinite(best):
            label = "within one standard error of the best"
            main.fill_between(table["alpha"], best - standard_error, best, color=SKY, alpha=0.3, lw=0, label=label)
        names = {"auprc": "AUPRC, mean over classes", "auroc": "AUROC, mean over classes", "accuracy": "accuracy"}
        at = table[np.isclose(table["alpha"], chosen)]
        for axes, (name, title) in zip((main, *side), names.items(), strict=True):
            axes.set_title(title)
            axes.plot(table["alpha"], table[name], color=GRAY, marker="o", markersize=4, lw=1.5)
            axes.axvline(chosen, color=RED, lw=0.8, ls="--")
            dots(axes, at["alpha"], at[name], color=RED, marker="D", label=f"chosen: alpha {chosen:g}")
            axes.ticklabel_format(axis="y", useOffset=False)
            _say_if_undefined(axes, table[name])
        side[0].tick_params(labelbottom=False)
        side[1].set_xlabel("alpha")
        legend(figure, main)
        headline(figure, f"Scores of the blend on validation; alpha {chosen:g} is chosen")
    return path


def precision_recall_curves(
    curves: Sequence[Mapping[str, Any]], *, target: float, path: Path, split: str = "validation"
) -> Path:
    """Precision over recall, a panel per class, with the operating points of each rule; returns `path`.

    curves: per class a mapping of
        name; recall and precision [K], in the order of the thresholds, either way;
        prevalence: share of positives, the precision of a random ranking;
        points: mappings of label (for the legend), recall, precision and kind, a key of `RULES`;
        note: optional text under the name, such as why a class is infeasible.
    """
    xlabel, ylabel = f"recall ({split})", f"precision ({split})"
    with _panels(path, len(curves), xlabel=xlabel, ylabel=ylabel) as (figure, panels):
        for axes, curve in zip(panels, curves, strict=True):
            _draw_precision_recall(axes, curve, target)
        headline(figure, f"Precision against recall, {split}: what each rule chose for recall ≥ {target:g}")
        handles = _point_handles([curve["points"] for curve in curves], RULES)
        handles.append(Line2D([], [], color=INK, lw=1, ls="--", label=f"recall target {target:g}"))
        handles.append(Line2D([], [], color=GRAY, lw=1, ls=":", label="chance (prevalence)"))
        legend(figure, handles, ncols=2 if len(curves) < 3 else len(handles))
    return path


def _draw_precision_recall(axes: Axes, curve: Mapping[str, Any], target: float) -> None:
    recall, precision = (np.asarray(curve[name], dtype=np.float64) for name in ("recall", "precision"))
    if len(recall) and recall[0] > recall[-1]:
        recall, precision = recall[::-1], precision[::-1]
    axes.set_title("\n".join(filter(None, (short(curve["name"], width=28), short(curve.get("note", ""), width=32)))))
    axes.axvline(target, color=INK, lw=1, ls="--")
    if np.isfinite(curve["prevalence"]):
        axes.axhline(curve["prevalence"], color=GRAY, lw=1, ls=":")
    # Average precision is the area under these steps, each as high as the precision at its right end.
    axes.plot(recall, precision, color=GRAY, lw=1.5, drawstyle="steps-pre")
    for point in curve["points"]:
        dots(axes, point["recall"], point["precision"], **RULES[point["kind"]])
    if not np.isfinite(recall).any():
        axes.text(0.42, 0.5, "not defined", ha="center", color=GRAY)


def recall_intervals(
    rows: Sequence[Mapping[str, Any]],
    *,
    target: float,
    path: Path,
    split: str = "test",
    interval: str = "95% interval",
) -> Path:
    """Recall of each class at its operating points, with intervals, against the target; returns `path`.

    rows: per class a mapping of name, positives (their number), note (optional text beside the name), and
    points: mappings of label (for the legend), recall, lower, upper (NaN where not known), verdict ("" where none can
    be given) and kind, a key of `RULES`. The title counts the verdicts of the first point of each class.
    """
    with canvas(path, width=7.2, height=1.9 + 0.42 * len(rows)) as figure:
        axes = figure.add_subplot(xlabel=f"{split} recall, {interval}")
        axes.axvspan(0, target, color=PALE, alpha=0.35, lw=0)
        axes.axvline(target, color=INK, lw=1, ls="--")
        for y, row in enumerate(rows):
            for offset, point in zip(offsets(len(row["points"]), step=0.3), row["points"], strict=True):
                look = RULES[point["kind"]]
                axes.hlines(y + offset, point["lower"], point["upper"], color=look["color"], lw=1.8, zorder=2)
                dots(axes, point["recall"], y + offset, **look)
        axes.set_yticks(range(len(rows)), [_row_label(row) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(_lowest(rows, target), 1.005)
        axes.grid(axis="y", visible=False)
        headline(figure, f"{split.capitalize()} recall against the target {target:g}: {_verdicts(rows)}")
        handles = _point_handles([row["points"] for row in rows], RULES)
        handles.append(Patch(color=PALE, alpha=0.6, lw=0, label=f"below the target {target:g}"))
        legend(figure, handles)
    return path


def _lowest(rows: Sequence[Mapping[str, Any]], target: float) -> float:
    """Where the recall axis begins: a tenth below all there is to show."""
    values = [point[name] for row in rows for point in row["points"] for name in ("recall", "lower")]
    return max(0, np.floor(10 * min([target, *(v for v in values if np.isfinite(v))]) - 0.5) / 10)


def _row_label(row: Mapping[str, Any]) -> str:
    note = f"; {row['note']}" if row.get("note") else ""
    return f"{short(row['name'], width=34, lines=1)}\n{row['positives']:,} positives{note}"


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many classes of each rule's are contradicted, confirmed and consistent."""
    texts = []
    for label in _kinds([row["points"] for row in rows]):
        said = [point["verdict"] for row in rows for point in row["points"] if point["label"] == label]
        counts = ", ".join(f"{said.count(name)} {name}" for name in VERDICTS)
        texts.append(f"{label}: {counts}")
    return "; ".join(texts) if any(p["verdict"] for row in rows for p in row["points"]) else "no verdicts"


def subgroup_intervals(table: pd.DataFrame, *, target: float, path: Path, split: str = "test") -> Path:
    """Recall of each class within groups, with intervals, a panel per class; returns `path`.

    table: the rows of `stats.subgroups.audit`. Groups of too few patients are gray, without a verdict.
    """
    classes = list(dict.fromkeys(table["class"]))
    groups = list(dict.fromkeys(zip(table["by"], table["group"], strict=True)))
    stated = table.loc[table["verdict"] != "", "low"]  # an interval without a verdict may run out of the panel
    start = np.floor(10 * min(target - 0.1, stated.min() if len(stated) else 0)) / 10
    columns = min(4, len(classes))
    rows = -(-len(classes) // columns)
    with canvas(path, width=2.4 * columns + 1.4, height=rows * (0.5 + 0.2 * len(groups)) + 1.1) as figure:
        for i, name in enumerate(classes):
            axes = figure.add_subplot(rows, columns, i + 1, title=short(name, width=26), xlim=(start, 1.02))
            part = table[table["class"] == name].set_index(["by", "group"])
            axes.axvspan(0, target, color=PALE, alpha=0.35, lw=0)
            axes.axvline(target, color=INK, lw=1, ls="--")
            for y, key in enumerate(groups):
                if key in part.index:
                    _draw_group(axes, y, part.loc[key])
            labels = [f"{by} {group}" for by, group in groups] if i % columns == 0 else []
            axes.set_yticks(range(len(groups)), labels or [""] * len(groups))
            axes.set_ylim(len(groups) - 0.5, -0.5)
            axes.grid(axis="y", visible=False)
            lowest = i + columns >= len(classes)
            axes.tick_params(labelbottom=lowest)
            axes.set_xlabel(f"{split} recall" if lowest else "")
        headline(figure, f"{split.capitalize()} recall within groups, against {target:g}")
        handles = [
            Line2D([], [], color=c, marker="o", lw=1.5, markersize=5, label=text) for text, c in GROUP_COLORS.items()
        ]
        legend(figure, handles)
    return path


def _draw_group(axes: Axes, y: int, row: pd.Series) -> None:
    color = GROUP_COLORS[row["verdict"] or UNSTATED]
    axes.hlines(y, row["low"], row["high"], color=color, lw=1.5, zorder=2)
    dots(axes, row["recall"], y, color=color, marker="o", markersize=4.5)


def reader_curves(curves: Sequence[Mapping[str, Any]], *, folder: Path, split: str = "test") -> list[Path]:
    """readers_precision_recall.png and readers_roc.png in `folder`, a panel per class; returns their paths.

    curves: per class a mapping of name, "precision_recall" and "roc" (the model's curve, "x" and "y" [K]), and readers:
    mappings of reader, recall, precision and specificity, each with a 95% interval as `<name>_ci`.
    """
    looks: dict[str, dict[str, Any]] = {}
    for i, reader in enumerate(dict.fromkeys(row["reader"] for curve in curves for row in curve["readers"])):
        looks[reader] = {"color": (BLUE, RED, GREEN, ORANGE, PINK, SKY)[i % 6], "marker": "oDs^v"[i % 5]}
    paths = []
    for kind, xlabel, ylabel in (("precision_recall", "recall", "precision"), ("roc", "1 - specificity", "recall")):
        path = folder / f"readers_{kind}.png"
        with _panels(path, len(curves), xlabel=f"{xlabel} ({split})", ylabel=ylabel) as (figure, panels):
            for axes, curve in zip(panels, curves, strict=True):
                axes.set_title(short(curve["name"], width=28))
                axes.plot(curve[kind]["x"], curve[kind]["y"], color=GRAY, lw=1.5)
                for row in curve["readers"]:
                    _draw_reader(axes, row, roc=kind == "roc", look=looks[row["reader"]])
            headline(figure, f"Readers beside the model's curve, {split}, with 95% intervals")
            handles: list[Artist] = [Line2D([], [], label=name, ls="", **look) for name, look in looks.items()]
            handles.append(Line2D([], [], color=GRAY, lw=1.5, label="model"))
            legend(figure, handles, ncols=min(len(handles), max(2, 2 * min(len(curves), 4))))
        paths.append(path)
    return paths


def _draw_reader(axes: Axes, row: Mapping[str, Any], *, roc: bool, look: dict[str, Any]) -> None:
    """A reader's point and the intervals of both its coordinates."""
    if roc:
        x, across = 1 - row["specificity"], [1 - end for end in row["specificity_ci"]]
    else:
        x, across = row["recall"], row["recall_ci"]
    name = "recall" if roc else "precision"
    y, upright = row[name], row[f"{name}_ci"]
    axes.hlines(y, *across, color=look["color"], lw=0.9, alpha=0.7)
    axes.vlines(x, *upright, color=look["color"], lw=0.9, alpha=0.7)
    dots(axes, x, y, **look)


def reliability(curves: Sequence[Mapping[str, Any]], *, path: Path, split: str = "test") -> Path:
    """Observed share of positives over the predicted probability, a panel per class; returns `path`.

    curves: per class a mapping of name and series: mappings of label (for the legend), kind (a key of
    `CALIBRATION`), predicted [B] (mean probability of a bin), observed [B] (share of positives in it) and
    counts [B]; NaN where a bin is empty. Counts are drawn as bars, relative to the fullest bin of the class.
    """
    xlabel, ylabel = f"predicted probability ({split})", f"observed share ({split})"
    with _panels(path, len(curves), xlabel=xlabel, ylabel=ylabel) as (figure, panels):
        for axes, curve in zip(panels, curves, strict=True):
            _draw_reliability(axes, curve)
        headline(figure, "Do findings occur as often as predicted? On the diagonal they do")
        handles = _point_handles([curve["series"] for curve in curves], CALIBRATION, line=True)
        handles.append(Patch(color=GRAY, alpha=0.35, lw=0, label="images per bin"))
        legend(figure, handles, ncols=1 if len(curves) < 3 else len(handles))
    return path


def _draw_reliability(axes: Axes, curve: Mapping[str, Any]) -> None:
    axes.set_title(short(curve["name"], width=28))
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    counts = [np.asarray(series["counts"], dtype=np.float64) for series in curve["series"]]
    fullest = max((count.max() for count in counts if len(count)), default=0)
    defined = False
    for series, count in zip(curve["series"], counts, strict=True):
        look = CALIBRATION[series["kind"]]
        filled = (count > 0) & np.isfinite(series["predicted"]) & np.isfinite(series["observed"])
        predicted, observed = (np.asarray(series[name], dtype=np.float64)[filled] for name in ("predicted", "observed"))
        defined |= bool(filled.any())
        if filled.any():
            axes.bar(predicted, 0.25 * count[filled] / fullest, width=0.03, color=look["color"], alpha=0.35, lw=0)
        dots(axes, predicted, observed, **{"ls": "-", "lw": 1.2, "markersize": 4.5, **look})
    if not defined:
        axes.text(0.35, 0.75, "not defined", ha="center", color=GRAY)


@contextmanager
def _panels(
    path: Path, count: int, *, xlabel: str, ylabel: str, columns: int = 4
) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `count` square panels over [0, 1] x [0, 1], labeled along its left and lower edge."""
    columns = min(columns, count)
    rows = -(-count // columns)
    with canvas(path, width=max(2.3 * columns + 0.4, 5.6), height=2.3 * rows + 1.2) as figure:
        panels = []
        for i in range(count):
            axes = figure.add_subplot(rows, columns, i + 1, box_aspect=1)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            lowest, leftmost = i + columns >= count, i % columns == 0
            axes.set(xlabel=xlabel if lowest else "", ylabel=ylabel if leftmost else "")
            axes.tick_params(labelbottom=lowest, labelleft=leftmost)
            panels.append(axes)
        yield figure, panels


def _kinds(groups: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """The kind of each label among the points of all classes."""
    return {item["label"]: item["kind"] for items in groups for item in items}


def _point_handles(
    groups: Sequence[Sequence[Mapping[str, Any]]], looks: Mapping[str, dict[str, Any]], *, line: bool = False
) -> list[Artist]:
    """Legend entries: one per label among the points of all classes."""
    style: dict[str, Any] = {"ls": "-" if line else "", "markersize": 6}
    return [Line2D([], [], label=label, **style, **looks[kind]) for label, kind in _kinds(groups).items()]
