"""Pictures of recall within groups of patients, and of readers beside the model. Draws, computes nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

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
    panels,
    short,
)
from src.runtime.tables import plural

UNSTATED, UNTRIED = "too few patients for a verdict", "no verdict without test data"
GROUP_COLORS = {"confirmed": BLUE, "consistent": GREEN, "contradicted": RED, UNSTATED: GRAY, UNTRIED: INK}


def subgroup_intervals(
    table: pd.DataFrame, *, target: float, path: Path, split: str = "test", left_out: int = 0
) -> Path:
    """Recall of each class within groups, with intervals, a panel per class; returns `path`.

    table: the rows of `stats.subgroups.audit`. Groups of too few patients are gray, without a verdict. An arrow ends
    an interval that goes on beyond the panel. left_out: the number of classes without a threshold.
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
        looks = set(table.apply(_look, axis=1))
        verdicts = "" if UNTRIED in looks else "verdicts hold for all groups of a finding together, "
        title = f"{split.capitalize()} recall within groups, against {target:g}"
        missing = f"; {plural(left_out, 'finding')} without a threshold not shown" if left_out else ""
        headline(figure, f"{title}; {verdicts}95% intervals for each alone{missing}")
        handles = [
            Line2D([], [], color=color, marker="o", lw=1.5, markersize=5, label=text)
            for text, color in GROUP_COLORS.items()
            if text in looks
        ]
        legend(figure, handles)
    return path


def _look(row: pd.Series) -> str:
    """What the color of a group says, a key of `GROUP_COLORS`."""
    return row["verdict"] or (UNSTATED if row["needed"] else UNTRIED)


def _draw_group(axes: Axes, y: int, row: pd.Series) -> None:
    color, start = GROUP_COLORS[_look(row)], axes.get_xlim()[0]
    if row["positives"] == 0:
        axes.text(0.02, y, "no positives", transform=axes.get_yaxis_transform(), va="center", color=GRAY, fontsize=7)
        return
    axes.hlines(y, row["low"], row["high"], color=color, lw=1.5, zorder=2)
    if row["low"] < start:
        axes.plot(start, y, marker="<", color=color, markersize=5, clip_on=False)
    if row["recall"] >= start:
        dots(axes, row["recall"], y, color=color, marker="o", markersize=4.5)


def reader_curves(curves: Sequence[Mapping[str, Any]], *, folder: Path, split: str = "test") -> list[Path]:
    """readers_precision_recall.png and readers_roc.png in `folder`, a panel per class; returns their paths.

    curves: per class a mapping of name, "precision_recall" and "roc" (the model's curve, "x" and "y" [K]), and readers:
    mappings of reader, cases, recall, precision and specificity, these with a 95% interval as `<name>_ci`.
    """
    looks: dict[str, dict[str, Any]] = {}
    for i, reader in enumerate(dict.fromkeys(row["reader"] for curve in curves for row in curve["readers"])):
        looks[reader] = {"color": (BLUE, RED, GREEN, ORANGE, PINK, SKY)[i % 6], "marker": "oDs^v"[i % 5]}
    paths = []
    for kind, xlabel, ylabel in (("precision_recall", "recall", "precision"), ("roc", "1 - specificity", "recall")):
        path = folder / f"readers_{kind}.png"
        with panels(path, len(curves), xlabel=f"{xlabel} ({split})", ylabel=ylabel) as (figure, squares):
            for axes, curve in zip(squares, curves, strict=True):
                axes.set_title(f"{short(curve['name'], width=28)}\n{_cases(curve['readers'])}")
                axes.plot(curve[kind]["x"], curve[kind]["y"], color=GRAY, lw=1.5)
                for row in curve["readers"]:
                    _draw_reader(axes, row, roc=kind == "roc", look=looks[row["reader"]])
            headline(figure, f"Readers beside the model's curve, {split}, with 95% intervals")
            handles: list[Artist] = [Line2D([], [], label=name, ls="", **look) for name, look in looks.items()]
            handles.append(Line2D([], [], color=GRAY, lw=1.5, label="model"))
            legend(figure, handles, ncols=min(len(handles), max(2, 2 * min(len(curves), 4))))
        paths.append(path)
    return paths


def _cases(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many cases the readers of a class read, each of them or from the fewest to the most."""
    few, many = min(row["cases"] for row in rows), max(row["cases"] for row in rows)
    return f"{plural(few, 'case')} per reader" if few == many else f"{few:,} to {many:,} cases per reader"


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
