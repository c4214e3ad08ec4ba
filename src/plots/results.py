"""Every picture of models, ensembles and thresholds; those of labels are in `plots.labels`.

Draws, computes nothing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from src.plots.style import BLUE, GRAY, INK, PALE, RED, SKY, canvas, dots, headline, legend, offsets, panels, short
from src.runtime.tables import plural
from src.stats.intervals import VERDICTS

# Looks of operating points by the rule that chose them, and of probabilities before and after correction.
HOLLOW, FILLED = {"color": RED, "marker": "o", "markerfacecolor": "white"}, {"color": BLUE, "marker": "D"}
RULES = {"empirical": HOLLOW, "certified": FILLED}
CALIBRATION = {"before": HOLLOW, "after": FILLED}
CURVES = {
    "train_loss": ("training loss", "loss per valid label, weighted by class"),
    "val_loss": ("validation loss", "loss per valid label, weighted by class"),
    "val_auroc": ("validation AUROC", "AUROC, mean over classes"),
    "val_auprc": ("validation AUPRC", "AUPRC, mean over classes"),
}

MONITORS = {monitor: CURVES[f"val_{monitor}"][0] for monitor in ("auprc", "auroc", "loss")}


def kept_epoch(history: pd.DataFrame, *, monitor: str) -> pd.Series | None:
    """The row of the epoch that is kept: the first with the best val_`monitor`; None where none is defined."""
    score = -history["val_loss"] if monitor == "loss" else history[f"val_{monitor}"]
    return history.loc[score.idxmax()] if score.notna().any() else None


def learning_curves(history: pd.DataFrame, *, folder: Path, title: str, monitor: str = "auprc") -> list[Path]:
    """Draw train_loss.png, val_loss.png, val_auroc.png and val_auprc.png into `folder`; returns their paths.

    `history` has a row per epoch: epoch, train_loss, val_loss, val_auroc, val_auprc, lr. Marked are the epoch
    that is kept, by the best val_`monitor`, and where the learning rate fell.
    """
    kept = kept_epoch(history, monitor=monitor)
    falls = history["epoch"][history["lr"].diff() < 0]
    paths = []
    for name, (what, unit) in CURVES.items():
        path = Path(folder) / f"{name}.png"
        with canvas(path, width=5.6, height=3.5) as figure:
            axes = figure.add_subplot(xlabel="epoch", ylabel=unit)
            for i, epoch in enumerate(falls):
                axes.axvline(epoch - 0.5, color=GRAY, lw=0.8, ls=":", label="" if i else "learning rate falls")
            axes.plot(history["epoch"], history[name], color=GRAY, marker="o", markersize=3.5, lw=1.5)
            headline(figure, f"{title}: {what}{_mark_kept(axes, kept, name, monitor)}")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.set_xlim(history["epoch"].min() - 0.6, history["epoch"].max() + 0.6)
            _say_if_undefined(axes, history[name])
            legend(figure, axes)
        paths.append(path)
    return paths


def _mark_kept(axes: Axes, kept: pd.Series | None, name: str, monitor: str) -> str:
    """Mark the kept epoch; returns what the title says of it."""
    if kept is None or not np.isfinite(kept[name]):
        return ""
    label = f"epoch kept (best {MONITORS[monitor]})"
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
    with panels(path, len(curves), xlabel=xlabel, ylabel=ylabel) as (figure, squares):
        for axes, curve in zip(squares, curves, strict=True):
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
) -> Path:
    """Recall of each class at its operating points, with intervals, against the target; returns `path`.

    rows: per class a mapping of name, positives (their number), note (optional text beside the name), and
    points: mappings of label (for the legend), recall, lower, upper (NaN where not known), verdict ("" where none can
    be given) and kind, a key of `RULES`. The title counts the verdicts of the first point of each class.
    """
    with canvas(path, width=7.2, height=1.9 + 0.42 * len(rows)) as figure:
        axes = figure.add_subplot(xlabel=f"{split} recall, 95% interval")
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
        headline(figure, f"{split.capitalize()} recall against the target {target:g}{_verdicts(rows)}")
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
    return f"{short(row['name'], width=34, lines=1)}\n{plural(row['positives'], 'positive')}{note}"


def _verdicts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many classes of each rule have which verdict; nothing where none has one."""
    texts = []
    for label in _kinds([row["points"] for row in rows]):
        said = [point["verdict"] for row in rows for point in row["points"] if point["label"] == label]
        without = [f"{said.count('')} without a verdict"] if "" in said else []
        counts = [f"{said.count(name)}\N{NO-BREAK SPACE}{name}" for name in VERDICTS]
        texts.append(f"{label}: {', '.join(counts + without)}")
    return ": " + "; ".join(texts) if any(p["verdict"] for row in rows for p in row["points"]) else ""


def reliability(curves: Sequence[Mapping[str, Any]], *, path: Path, split: str = "test") -> Path:
    """Observed share of positives over the predicted probability, a panel per class; returns `path`.

    curves: per class a mapping of name and series: mappings of label (for the legend), kind (a key of
    `CALIBRATION`), predicted [B] (mean probability of a bin) and observed [B] (share of positives in it), of ten bins
    of about equal size.
    """
    xlabel, ylabel = f"predicted probability ({split})", f"observed share ({split})"
    with panels(path, len(curves), xlabel=xlabel, ylabel=ylabel) as (figure, squares):
        for axes, curve in zip(squares, curves, strict=True):
            _draw_reliability(axes, curve)
        question = "Do findings occur as often as predicted? On the diagonal they do"
        headline(figure, f"{question}. A point is about a tenth of the cases")
        handles = _point_handles([curve["series"] for curve in curves], CALIBRATION, line=True)
        legend(figure, handles, ncols=1 if len(curves) < 3 else len(handles))
    return path


def _draw_reliability(axes: Axes, curve: Mapping[str, Any]) -> None:
    axes.set_title(short(curve["name"], width=28))
    axes.plot([0, 1], [0, 1], color=INK, lw=0.8, ls="--")
    for series in curve["series"]:
        look = {"ls": "-", "lw": 1.2, "markersize": 4.5, **CALIBRATION[series["kind"]]}
        dots(axes, series["predicted"], series["observed"], **look)
    if not any(len(series["predicted"]) for series in curve["series"]):
        axes.text(0.35, 0.75, "not defined", ha="center", color=GRAY)


def _kinds(groups: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, str]:
    """The kind of each label among the points of all classes."""
    return {item["label"]: item["kind"] for items in groups for item in items}


def _point_handles(
    groups: Sequence[Sequence[Mapping[str, Any]]], looks: Mapping[str, dict[str, Any]], *, line: bool = False
) -> list[Artist]:
    """Legend entries: one per label among the points of all classes."""
    style: dict[str, Any] = {"ls": "-" if line else "", "markersize": 6}
    return [Line2D([], [], label=label, **style, **looks[kind]) for label, kind in _kinds(groups).items()]
