"""Pictures of the labels, from the tables of `eda`, which they take as the stage writes them.

Each `_draw` function fills a figure or a part of one, so that a picture of its own and the overview look
alike. Each public function returns the path it was given.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure, SubFigure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, PercentFormatter

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
    heat_map,
    legend,
    offsets,
    short,
)
from src.runtime.tables import plural

STATE_COLORS = {"positive": BLUE, "negative": SKY, "uncertain": ORANGE, "blank": PALE}
SPLIT_LOOKS = {"train": (INK, "o"), "val": (GREEN, "s"), "test": (RED, "^")}
GROUP_LOOKS = ((GREEN, "s"), (PINK, "o"), (INK, "^"))
SIGNIFICANT = 0.05  # of the Bonferroni-corrected p of a pair
FEWEST_PAIRS = 10  # of consecutive studies for a share of them to be shown
FEWEST_EXPECTED = 5  # positives of an age band at the prevalence of all ages, for a ratio to be shown


def label_states(states: pd.DataFrame, *, path: Path) -> Path:
    """Share of images per label state and class, over all images; `states` as in label_states.csv."""
    return _picture(_draw_label_states, states, path=path)


def prevalence(rates: pd.DataFrame, *, path: Path) -> Path:
    """Prevalence per class and split, blanks left out and as negatives; `rates` as in prevalence.csv."""
    return _picture(_draw_prevalence, rates, path=path)


def cooccurrence(counts: pd.DataFrame, *, path: Path) -> Path:
    """Of the images with a finding, the share with each other one; `counts` as in cooccurrence.csv."""
    size = 3.0 + 0.42 * len(counts)
    with canvas(path, width=max(size + 0.6, 5), height=max(size, 4)) as figure:
        _draw_cooccurrence(figure, counts)
    return path


def findings_per_image(table: pd.DataFrame, *, path: Path) -> Path:
    """Share of a split's images by their number of findings; `table` as in findings_per_image.csv."""
    with canvas(path, width=6.4, height=3.6) as figure:
        _draw_findings_per_image(figure, table)
    return path


def overview(tables: Mapping[str, pd.DataFrame], *, path: Path, title: str) -> Path:
    """What the tables of stage 2 show, on one page; `tables` by the name of their CSV.

    A panel with nothing to show, such as one by age where no age is known, leaves no gap.
    """
    classes = _by_frequency(tables["label_states"])
    halves = _halves(tables)
    changes = _frequent_changes(tables["study_changes"])
    changed = bool(changes["share"].notna().any())
    rows = len(halves) // 2 + changed
    with canvas(path, width=13, height=rows * (1.5 + 0.22 * max(len(classes), 5)) + 0.5) as figure:
        figure.suptitle(title, fontsize=13, fontweight="bold")
        parts = figure.subfigures(rows, 1, squeeze=False, hspace=0.02)[:, 0]
        for part, row in zip(parts, zip(halves[::2], halves[1::2], strict=True), strict=False):
            for side, (draw, table) in zip(part.subfigures(1, 2, wspace=0.02), row, strict=True):
                draw(side, table, classes)
        if changed:
            _draw_changes(parts[-1], changes, classes)
    return path


def _halves(tables: Mapping[str, pd.DataFrame]) -> list[tuple[Callable, pd.DataFrame]]:
    """The panels of half the page's width for which there is something to see; an even number of them."""
    views = tables["rates_by_view"]
    halves = [
        (_draw_label_states, "label_states", True),
        (_draw_prevalence, "prevalence", True),
        (_draw_views, "rates_by_view", (views["uncertain"] + views["blank"]).any()),
        (_draw_sex, "by_sex", "by_sex" in tables),
        (_draw_age, "by_age", "by_age" in tables),
        (_draw_lift, "pairs", tables["pairs"]["lift"].notna().any()),
    ]
    shown = [(draw, tables[name]) for draw, name, worth in halves if worth]
    filler = [(_draw_findings_per_image, tables["findings_per_image"])]
    return shown + filler * (len(shown) % 2)


def _picture(draw: Callable, table: pd.DataFrame, *, path: Path) -> Path:
    classes = _by_frequency(table)
    with canvas(path, width=7.2, height=1.6 + 0.3 * len(classes)) as figure:
        draw(figure, table, classes)
    return path


def _by_frequency(states: pd.DataFrame) -> list[str]:
    """Classes by falling number of positives."""
    totals = states[states[states.columns[0]] == "all"].set_index("class")["positive"]
    return list(totals.sort_values(ascending=False, kind="stable").index)


def _class_axis(figure: Figure | SubFigure, classes: Sequence[str], *, xlabel: str, position: int = 111) -> Axes:
    """Axes with a row per class, the first on top, and shares in percent along x."""
    axes = figure.add_subplot(position, xlabel=xlabel)
    axes.set_yticks(range(len(classes)), _row_names(classes))
    axes.set_ylim(len(classes) - 0.4, -0.6)
    _in_percent(axes.xaxis)
    axes.grid(axis="y", visible=False)
    return axes


def _row_names(classes: Sequence[str]) -> list[str]:
    return [short(name, width=26) for name in classes]


def _in_percent(axis: Axis) -> None:
    axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(PercentFormatter(1, decimals=0))


def _draw_label_states(figure: Figure | SubFigure, states: pd.DataFrame, classes: Sequence[str]) -> None:
    table = states[states["split"] == "all"].set_index("class").loc[classes]
    axes = _class_axis(figure, classes, xlabel="share of images")
    left = np.zeros(len(table))
    for state, color in STATE_COLORS.items():
        if not table[state].any():
            continue
        share = (table[state] / table["images"]).to_numpy()
        axes.barh(range(len(table)), share, left=left, height=0.75, color=color, label=state)
        left += share
    axes.set_xlim(0, 1)
    axes.grid(visible=False)
    legend(figure, axes)
    headline(figure, f"Label states of {plural(table['images'].iloc[0], 'image')}")


def _draw_prevalence(figure: Figure | SubFigure, rates: pd.DataFrame, classes: Sequence[str]) -> None:
    axes = _class_axis(figure, classes, xlabel="prevalence")
    splits = [split for split in SPLIT_LOOKS if (rates["split"] == split).any()]
    blanks = rates["blank"].any()
    for split, offset in zip(splits, offsets(len(splits), step=0.22), strict=True):
        table = rates[rates["split"] == split].set_index("class").loc[classes]
        color, marker = SPLIT_LOOKS[split]
        y = np.arange(len(classes)) + offset
        if blanks:
            axes.hlines(y, table["prevalence_blank_0"], table["prevalence"], color=PALE, lw=1)
            look = {"marker": marker, "markersize": 4.5, "color": color, "markerfacecolor": "white"}
            dots(axes, table["prevalence_blank_0"], y, **look)
        dots(axes, table["prevalence"], y, color=color, marker=marker, markersize=4.5)
    axes.set_xlim(0, _upper(rates[["prevalence", "prevalence_blank_0"]]))
    looks = ((split, *SPLIT_LOOKS[split]) for split in splits)
    handles = [Line2D([], [], color=color, marker=marker, ls="", label=split) for split, color, marker in looks]
    if blanks:
        handles.append(Line2D([], [], color=GRAY, marker="o", ls="", label="filled: of valid labels"))
        handles.append(Line2D([], [], color=GRAY, marker="o", mfc="white", ls="", label="hollow: blank = negative"))
    legend(figure, handles, columnspacing=1, handletextpad=0.2)
    headline(figure, "Prevalence per split" + (", blanks left out or taken as negative" if blanks else ""))


def _draw_findings_per_image(figure: Figure | SubFigure, table: pd.DataFrame, classes: Sequence[str] = ()) -> None:
    axes = figure.add_subplot(xlabel="positive findings in the image", ylabel="share of the split's images")
    splits = [split for split in SPLIT_LOOKS if (table["split"] == split).any()]
    for split, offset in zip(splits, offsets(len(splits), step=0.27), strict=True):
        rows = table[table["split"] == split]
        axes.bar(rows["findings"] + offset, rows["share"], width=0.25, color=SPLIT_LOOKS[split][0], label=split)
    axes.set_xticks(range(table["findings"].max() + 1))
    _in_percent(axes.yaxis)
    axes.grid(axis="x", visible=False)
    axes.set_xlim(-0.6, max(table["findings"].max(), 3) + 0.6)
    legend(figure, axes)
    overall = table[table["split"] == "all"]
    mean = (overall["findings"] * overall["share"]).sum()
    headline(figure, f"Findings per image: {mean:.1f} on average")


def _draw_views(figure: Figure | SubFigure, rates: pd.DataFrame, classes: Sequence[str]) -> None:
    first = _class_axis(figure, classes, xlabel="uncertain, share of images", position=121)
    second = figure.add_subplot(122, sharey=first)
    second.tick_params(labelleft=False)
    second.set_xlabel("blank, share of images")
    _in_percent(second.xaxis)
    second.grid(axis="y", visible=False)
    for axes, name in ((first, "uncertain_rate"), (second, "blank_rate")):
        _draw_groups(axes, rates, name, classes)
    legend(figure, first)
    headline(figure, "How often a finding is uncertain or not mentioned, by view")


def _draw_sex(figure: Figure | SubFigure, rates: pd.DataFrame, classes: Sequence[str]) -> None:
    axes = _class_axis(figure, classes, xlabel="prevalence, blank = negative")
    _draw_groups(axes, rates.replace({"sex": {"F": "female", "M": "male"}}), "prevalence_blank_0", classes)
    legend(figure, axes)
    headline(figure, "Prevalence by sex")


def _draw_groups(axes: Axes, rates: pd.DataFrame, name: str, classes: Sequence[str]) -> None:
    """A dot per class and group, joined by a line per class; the group is the first column."""
    column = rates.columns[0]
    values = rates.pivot(index="class", columns=column, values=name).loc[classes]
    axes.hlines(range(len(classes)), values.min(axis=1), values.max(axis=1), color=PALE, lw=2)
    for group, (color, marker) in zip(dict.fromkeys(rates[column]), GROUP_LOOKS, strict=False):
        images = rates.loc[rates[column] == group, "images"].iloc[0]
        label = f"{group} ({plural(images, 'image')})"
        dots(axes, values[group], np.arange(len(classes)), color=color, marker=marker, markersize=5, label=label)
    axes.set_xlim(0, _upper(values))


def _upper(shares: pd.DataFrame) -> float:
    """Where an axis of shares ends."""
    return max(0.05, 1.05 * np.nanmax(shares.to_numpy(), initial=0))


def _draw_age(figure: Figure | SubFigure, rates: pd.DataFrame, classes: Sequence[str]) -> None:
    bands = list(dict.fromkeys(rates["age"]))
    values = rates.pivot(index="class", columns="age", values="prevalence_blank_0").loc[classes, bands]
    known = (rates["valid"] + rates["blank"]).groupby(rates["class"]).sum()
    overall = (rates.groupby("class")["positive"].sum() / known.where(known > 0)).loc[classes]
    images = rates.drop_duplicates("age").set_index("age")["images"][bands]
    enough = np.outer(overall, images) >= FEWEST_EXPECTED
    axes = figure.add_subplot(xlabel="age [years] (images)")
    heat_map(
        axes,
        _log2_ratio(values.div(overall, axis=0).where(enough).to_numpy()),
        _percent(values.to_numpy()),
        rows=_row_names(classes),
        columns=[f"{band}\n({count:,})" for band, count in images.items()],
        scale="relative to all ages",
    )
    condition = f"colored if ≥ {FEWEST_EXPECTED} positives expected"
    headline(figure, f"Prevalence [%] by age, blank = negative; {condition}")


def _draw_lift(figure: Figure | SubFigure, pairs: pd.DataFrame, classes: Sequence[str]) -> None:
    both_ways = pd.concat([pairs, pairs.rename(columns={"class_a": "class_b", "class_b": "class_a"})])
    lift, p = (
        both_ways.pivot(index="class_a", columns="class_b", values=name).reindex(index=classes, columns=classes)
        for name in ("lift", "p_bonferroni")
    )
    below = np.tri(len(classes), k=-1, dtype=bool)
    texts = [[f"{x:.1f}" if np.isfinite(x) else "" for x in row] for row in lift.where(below).to_numpy()]
    axes = figure.add_subplot()
    heat_map(
        axes,
        _log2_ratio(lift.where(below & (p < SIGNIFICANT)).to_numpy()),
        texts,
        rows=_row_names(classes),
        columns=[],
        scale="observed / expected",
        empty="white",
    )
    # The other triangle is empty: there is room for the name of a column above its first cell.
    for column, name in enumerate(classes[:-1]):
        axes.text(column - 0.45, column + 0.1, short(name, width=18), va="center", fontsize=8, color=GRAY)
    what = "Pairs of findings in a patient's first study, observed / expected by chance"
    headline(figure, f"{what}; colored where corrected p < {SIGNIFICANT:g}")


def _frequent_changes(changes: pd.DataFrame) -> pd.DataFrame:
    """The table study_changes.csv with the shares of few pairs as NaN."""
    pairs = changes.groupby(["class", "from"])["pairs"].transform("sum")
    return changes.assign(share=changes["share"].where(pairs >= FEWEST_PAIRS))


def _draw_changes(figure: Figure | SubFigure, changes: pd.DataFrame, classes: Sequence[str]) -> None:
    totals = changes.groupby(["from", "to"])["pairs"].sum()
    seen_from = [state for state in STATE_COLORS if totals[state].any()]
    seen_to = [state for state in STATE_COLORS if totals.xs(state, level="to").any()]
    shares = changes.pivot(index="class", columns=["from", "to"], values="share").loc[classes]
    values = shares[[(a, b) for a in seen_from for b in seen_to]].to_numpy()
    axes = figure.add_subplot()
    heat_map(
        axes,
        values,
        _percent(values),
        rows=_row_names(classes),
        columns=seen_to * len(seen_from),
        colors="Blues",
        limits=(0, 1),
    )
    for i, state in enumerate(seen_from):
        middle = (i + 0.5) * len(seen_to) - 0.5
        axes.annotate(
            f"{state} in one study; in the next:", (middle, 1), (0, 4), xycoords=("data", "axes fraction"),
            textcoords="offset points", ha="center", va="bottom", fontweight="bold", fontsize=8.5,
        )  # fmt: skip
        axes.axvline(i * len(seen_to) - 0.5, color="white", lw=6)
    studies = int(changes.groupby("class")["pairs"].sum().max())
    text = f"Where labels go from one study of a patient to the next [%], {plural(studies, 'pair')} of studies"
    headline(figure, text + (f"; dash: fewer than {FEWEST_PAIRS} pairs" if np.isnan(values).any() else ""))


def _draw_cooccurrence(figure: Figure | SubFigure, counts: pd.DataFrame) -> None:
    table = counts.set_index("class")
    positives = pd.Series(np.diag(table), index=table.index).sort_values(ascending=False, kind="stable")
    order = list(positives.index)
    shares = table.loc[order, order].div(positives, axis=0).to_numpy(copy=True)
    np.fill_diagonal(shares, np.nan)
    axes = figure.add_subplot(xlabel="... have this finding too [%]", ylabel="of the images with this finding ...")
    heat_map(
        axes,
        shares,
        _percent(shares),
        rows=[f"{short(name, width=26, lines=1)} ({positives[name]:,})" for name in order],
        columns=[short(name, width=18) for name in order],
        colors="Blues",
        limits=(0, 1),
    )
    axes.tick_params(axis="x", labelrotation=90)
    headline(figure, "Findings that occur together in an image")


def _percent(shares: np.ndarray) -> list[list[str]]:
    """Shares as percent: below 9.95 with one digit after the point, NaN as a dash."""
    return [["–" if np.isnan(x) else f"{100 * x:.{1 if x < 0.0995 else 0}f}" for x in row] for row in shares]


def _log2_ratio(ratios: np.ndarray) -> np.ndarray:
    """log2, with ratios of 0 at the lower end of the color scale."""
    return np.log2(np.clip(ratios, 0.25, None))
