"""Rows of the tables of predictions, as text: those of images, and those of studies that are made from them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.artifacts.thresholds_file import SavedThresholds
from src.artifacts.truth import Truth, Units
from src.runtime.tables import plural

UNLIKE = "unlike the training images"
NOT_CHECKED = "not checked"  # for which the run lacks what an earlier version did not write
END = ("flags", UNLIKE, "error")  # the last columns


@dataclass(frozen=True)
class RowLayout:
    """The cells of a row: `keys`, then per class a probability and a flag, then those of END.

    They are the number of flags; which models say that an image, or how many images of a study, are unlike the training
    images, blank for none; and the error. A row without results has blanks in the place of all but keys and error.
    """

    keys: tuple[str, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        """Raise ValueError where two columns would have one name."""
        if len(set(self.header)) < len(self.header):
            raise ValueError("the run has a finding named as another column of the table; rename it")

    @property
    def header(self) -> list[str]:
        """The names of the columns."""
        return [*self.keys, *(name for c in self.classes for name in (c, f"{c} flagged")), *END]

    def row(
        self, keys: Sequence[str], probs: np.ndarray, flags: np.ndarray, *, unlike: str, error: str = ""
    ) -> list[str]:
        """A row with results: probs [C] as `as_stored` returns them, flags [C] bool."""
        pairs = zip(probs.tolist(), flags.tolist(), strict=True)  # of Python's numbers, which are formatted faster
        cells = [text for p, flag in pairs for text in (f"{p:.9g}", "1" if flag else "0")]
        return [*keys, *cells, str(int(flags.sum())), unlike, error]

    def blank(self, keys: Sequence[str], *, error: str) -> list[str]:
        """A row without results."""
        return [*keys, *[""] * (len(self.header) - len(self.keys) - 1), error]

    def probs(self, rows: Sequence[list[str]]) -> np.ndarray:
        """Probabilities [R, C] float64 of rows with results."""
        cells = [float(cell) for row in rows for cell in row[len(self.keys) : -len(END) : 2]]
        return np.array(cells).reshape(-1, len(self.classes))

    def flagged(self, row: list[str]) -> list[str]:
        """The findings that a row flags."""
        flags = row[len(self.keys) + 1 : -len(END) : 2]
        return [name for name, flag in zip(self.classes, flags, strict=True) if flag == "1"]

    def flags(self, row: list[str]) -> str:
        """The number of findings that a row flags, "" where it has no results."""
        return row[-len(END)]

    def marked(self, row: list[str]) -> str:
        """What to say of a row whose images are unlike the training images, "" for nothing."""
        return mark(row[-2])

    def is_whole(self, row: list[str]) -> bool:
        """Whether `row` or `blank` may have made the row of an image."""
        keys, cells, (number, unlike, error) = row[: len(self.keys)], row[len(self.keys) : -len(END)], row[-len(END) :]
        if not all(keys) or error:
            return all(keys) and not any((*cells, number, unlike))
        try:
            inside = all(0 <= float(prob) <= 1 for prob in cells[::2])
        except ValueError:
            return False
        return inside and set(cells[1::2]) <= {"0", "1"} and number == str(cells[1::2].count("1"))


def mark(unlike: str) -> str:
    """What to say of an image, or of a study, of which a table has `unlike` in its column; "" for nothing."""
    return "" if unlike in ("", NOT_CHECKED) else f"{UNLIKE} ({unlike})"


def image_layout(thresholds: SavedThresholds) -> RowLayout:
    """The rows of images; where thresholds are of studies, they name the study of each."""
    return RowLayout(("image_id", "study") if thresholds.unit == "study" else ("image_id",), thresholds.classes)


def study_layout(thresholds: SavedThresholds) -> RowLayout:
    """The rows of studies; the column of images holds their number."""
    return RowLayout(("study", "images"), thresholds.classes)


def study_rows(images: Sequence[list[str]], thresholds: SavedThresholds) -> dict[str, list[str]]:
    """The row of each study, from those of its images that have results; its error counts those that have none.

    A study is marked as unlike the training images where any image of it is.
    """
    layout = study_layout(thresholds)
    total = Counter(row[1] for row in images)
    failed = Counter(row[1] for row in images if row[-1])
    marked = Counter(row[1] for row in images if image_layout(thresholds).marked(row))
    unchecked = {row[1] for row in images if row[-2] == NOT_CHECKED}
    probs = _study_probs([row for row in images if not row[-1]], thresholds)
    rows = {}
    for study, count in total.items():
        keys = (study, str(count))
        error = f"{failed[study]} of {plural(count, 'image')} could not be read" if failed[study] else ""
        unlike = f"{marked[study]} of {plural(count, 'image')}" if marked[study] else ""
        if not unlike and study in unchecked:
            unlike = NOT_CHECKED
        if study in probs:
            flags = thresholds.flags(probs[study])
            rows[study] = layout.row(keys, probs[study], flags, unlike=unlike, error=error)
        else:
            rows[study] = layout.blank(keys, error=error)
    return rows


def _study_probs(images: Sequence[list[str]], thresholds: SavedThresholds) -> dict[str, np.ndarray]:
    """Probabilities [C] of each study, aggregated as stage 6 does where it chooses thresholds."""
    values = image_layout(thresholds).probs(images)
    studies = np.array([row[1] for row in images], object)
    unknown = np.full(values.shape, np.nan)
    groups = pd.DataFrame(index=range(len(images)))
    truth = Truth(tuple(studies), thresholds.classes, unknown, studies, studies, groups)
    units = Units.of(truth, unit="study", aggregate=thresholds.aggregate)
    return dict(zip(units.truth.ids, units.probs(values), strict=True))
