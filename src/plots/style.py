"""What the pictures have in common: a canvas that is saved in one step, colors, and a few ways to draw.

Figures are made without pyplot: no backend is chosen, no figure stays open, and style settings do not leak
out. The colors are those of Okabe & Ito (2008), told apart with any color vision.
"""

import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from src.artifacts.io import atomic_path
from src.runtime.fonts import installed, say_what_is_missing

BLUE, SKY, GREEN, ORANGE, RED, PINK = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
INK, GRAY, PALE = "#222222", "#7F7F7F", "#D9D9D9"
DPI = 130
STYLE = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GRAY,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E8E8E8",
    "text.color": INK,
    "text.parse_math": False,  # a class may have a $ in its name
    "agg.path.chunksize": 10_000,  # curves have a point per image
    "legend.frameon": False,
}


@contextmanager
def canvas(path: Path, *, width: float, height: float) -> Iterator[Figure]:
    """A figure of `width` x `height` [in] in the style of all, written to `path` if the block ends well."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)  # type: ignore[arg-type]  # the type of its keys is new in matplotlib 3.11
        matplotlib.rcParams["font.family"] = ["DejaVu Sans", *installed()]
        figure = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(h_pad=0.07, w_pad=0.06))
        yield figure
        _save(figure, path)


def headline(figure: Figure | SubFigure, text: str) -> None:
    """Title over a figure, broken to its width."""
    inches = figure.bbox.width / figure.dpi
    lines = textwrap.fill(text, max(20, int(inches * 12.5)))
    figure.suptitle(lines, x=0.01, ha="left", fontsize=10, fontweight="bold")


def short(name: str, *, width: int = 24, lines: int = 2) -> str:
    """A class name broken to lines of `width` characters; what does not fit ends in an ellipsis."""
    parts = textwrap.wrap(name, width)
    if len(parts) > lines:
        parts = [*parts[: lines - 1], parts[lines - 1][: width - 1].rstrip() + "…"]
    return "\n".join(parts)


def offsets(count: int, *, step: float) -> np.ndarray:
    """Places of `count` things side by side around 0, `step` apart: [count] float64."""
    return step * (np.arange(count) - (count - 1) / 2)


def dots(axes: Axes, x: np.ndarray | float, y: np.ndarray | float, **look: Any) -> None:
    """Markers that may stand across the frame; those with a NaN are left out.

    A line without points that is not clipped would count as a point at the corner of the page in the layout.
    """
    x, y = np.broadcast_arrays(np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64))
    there = np.isfinite(x) & np.isfinite(y)
    if there.any():
        axes.plot(x[there], y[there], clip_on=False, zorder=3, **{"ls": "", "markersize": 6, **look})


def legend(figure: Figure | SubFigure, entries: Axes | Sequence[Artist], **look: Any) -> None:
    """A legend below a figure, in one row unless `look` has ncols: of what is labeled in axes, or of these handles."""
    handles = entries.get_legend_handles_labels()[0] if isinstance(entries, Axes) else entries
    if handles:
        figure.legend(handles=handles, loc="outside lower center", **{"ncols": len(handles), **look})


@contextmanager
def panels(path: Path, count: int, *, xlabel: str, ylabel: str) -> Iterator[tuple[Figure, list[Axes]]]:
    """A figure of `count` square panels over [0, 1] x [0, 1], labeled along its left and lower edge."""
    columns = min(4, count)
    rows = -(-count // columns)
    with canvas(path, width=max(2.3 * columns + 0.4, 5.6), height=2.3 * rows + 1.2) as figure:
        squares = []
        for i in range(count):
            axes = figure.add_subplot(rows, columns, i + 1, box_aspect=1)
            axes.set(xlim=(0, 1), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
            lowest, leftmost = i + columns >= count, i % columns == 0
            axes.set(xlabel=xlabel if lowest else "", ylabel=ylabel if leftmost else "")
            axes.tick_params(labelbottom=lowest, labelleft=leftmost)
            squares.append(axes)
        yield figure, squares


def heat_map(
    axes: Axes,
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    colors: str = "PuOr_r",
    limits: tuple[float, float] = (-2, 2),
    scale: str = "",
    empty: str = "#F2F2F2",
) -> None:
    """Cells of color with a text each; NaN in the color `empty`. `scale` names a color bar of log2 ratios."""
    palette = matplotlib.colormaps[colors].with_extremes(bad=empty)
    image = axes.imshow(np.ma.masked_invalid(values), cmap=palette, vmin=limits[0], vmax=limits[1], aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        red, green, blue, _ = image.cmap(image.norm(value)) if np.isfinite(value) else (1, 1, 1, 1)
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.58
        color = "white" if dark else INK
        axes.text(column, row, texts[row][column], ha="center", va="center", fontsize=7.5, color=color)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    if scale:
        bar = axes.figure.colorbar(image, ax=axes, shrink=0.7, aspect=25, pad=0.02, label=scale)
        bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼ or less", "½", "1", "2", "4 or more"])
        bar.outline.set_visible(False)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG in one step; the same figure gives the same bytes."""
    with atomic_path(path) as temporary, warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message="Glyph")
        figure.savefig(temporary, format="png", metadata={"Software": None})
    for warning in caught:
        if not str(warning.message).startswith("Glyph"):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    if any(str(warning.message).startswith("Glyph") for warning in caught):
        say_what_is_missing()
