"""The table of predictions: one row per image, rewritten as it grows, and continued after an interrupt."""

import csv
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import atomic_path, read_json, write_json


def image_id(path: Path) -> str:
    """The path as it was given, as text that a row of a CSV can hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\r", "\\r")  # csv does not quote it


class PredictionTable:
    """The rows of a CSV by image id, as text, and a JSON file next to it that records what made them."""

    def __init__(self, path: Path, classes: Sequence[str]):
        self.path, self.classes = path, tuple(classes)
        self.header = ["image_id", *(n for c in classes for n in (c, f"{c} flagged")), "flags", "error"]
        self.rows: dict[str, list[str]] = {}
        self.folder = os.getcwd()  # the folder to which the ids are relative
        self._ids: dict[str, str] = {}  # by absolute path, so that its spelling does not matter
        self._story = path.with_name(path.name + ".json")
        self._origin: dict[str, Any] = {}
        self._owner = _left_by_a_run(self._story).get("owner")  # the run that wrote it last
        self._saved: float | None = None  # the time of the last save
        if len(set(self.header)) < len(self.header):
            raise ValueError("the run has a finding named as another column of the table; rename it")

    @classmethod
    def open(
        cls, path: Path, classes: Sequence[str], *, origin: Mapping[str, Any], append: bool, overwrite: bool
    ) -> "PredictionTable":
        """A new table, or with `append` the existing one, if the same models and thresholds made it.

        `origin` describes what makes the table, as JSON reads it back. No file changes before `save`. Raises ValueError
        if the existing table was made by something else, has other columns, or may not be replaced.
        """
        table = cls(path, classes)
        story = table._story
        if append and path.exists():
            if not story.exists():
                raise ValueError(f"{story}, which says what made it, is missing; remove {path} or pass another --out")
            made_by = read_json(story)
            changed = [key for key in origin if made_by.get(key) != origin[key]]
            if changed:
                raise ValueError(f"{path} was made with other {', '.join(changed)}; pass --overwrite or another --out")
            table.folder = str(made_by.get("folder", table.folder))
            table._read()
        elif path.exists() and not overwrite:
            raise ValueError(f"{path} is already there; pass --append to go on with it, or --overwrite to replace it")
        elif (path.exists() or story.exists()) and "checkpoint_sha256" not in _left_by_a_run(story):
            raise ValueError(f"{path} or {story} is there and was not made by predict.py; pass another --out")
        table._origin = {**origin, "folder": table.folder}
        return table

    def id_of(self, path: Path) -> str:
        """The id of an image: its path as it was first given, relative to the folder where the table was started."""
        if not path.is_absolute() and self.folder != os.getcwd():
            path = Path(os.path.relpath(path, self.folder))
        return self._ids.get(self._absolute(path), image_id(path))

    def has(self, path: Path) -> bool:
        """Whether the table has results for an image; one that could not be read counts as missing."""
        return not self.rows.get(self.id_of(path), ["", "no results"])[-1]

    def add(self, path: Path, probs: np.ndarray, flags: np.ndarray) -> None:
        """Add the row of an image: probs [C] as `as_stored` returns them, flags [C] bool."""
        cells = [text for p, flag in zip(probs, flags, strict=True) for text in (f"{p:.9g}", str(int(flag)))]
        self._set([self.id_of(path), *cells, str(int(flags.sum())), ""])

    def add_fault(self, path: Path, reason: str) -> None:
        """Add the row of an image that cannot be read."""
        blank = [""] * (2 * len(self.classes) + 1)
        text = reason.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self._set([self.id_of(path), *blank, text])

    def _set(self, row: list[str]) -> None:
        self.rows[row[0]] = row
        self._ids[self._absolute(row[0])] = row[0]

    def _absolute(self, path: Path | str) -> str:
        return os.path.normpath(os.path.join(self.folder, path))

    def flagged(self, image: str) -> list[str]:
        """The findings that an image's row flags."""
        return [name for name, flag in zip(self.classes, self.rows[image][2:-2:2], strict=True) if flag == "1"]

    def fault(self, image: str) -> str:
        """Why an image could not be read, "" where it could."""
        return self.rows[image][-1]

    def save(self, *, every: float = 0.0) -> None:
        """Rewrite the file, unless it was written less than `every` seconds ago.

        Raises ValueError if another run writes it too.
        """
        if every and self._saved is not None and time.monotonic() - self._saved < every:
            return
        if _left_by_a_run(self._story).get("owner") != self._owner:
            raise ValueError(f"another run of predict.py writes {self.path}; give each its own --out")
        if self._saved is None:
            owner = uuid.uuid4().hex
            # The old table goes first, so that --append never takes its rows for those of other models. A link stays.
            Path(os.path.realpath(self.path)).unlink(missing_ok=True)
            write_json(self._story, {**self._origin, "owner": owner})
            self._owner = owner
        with atomic_path(self.path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([self.header, *self.rows.values()])
        self._saved = time.monotonic()

    def forget(self, path: Path) -> None:
        """Drop the row of an image or a folder that could not be read."""
        if self.rows.get(self.id_of(path), [""])[-1]:
            del self.rows[self.id_of(path)]

    def _read(self) -> None:
        try:
            with open(self.path, encoding="utf-8-sig", newline="") as stream:
                header, *rows = list(csv.reader(stream)) or [[]]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is not a table of predict.py ({error}); pass another --out") from None
        if header != self.header or any(len(row) != len(header) for row in rows):
            raise ValueError(f"{self.path} has other columns than this run's table; pass --overwrite or another --out")
        for row in rows:
            if row[0] in self.rows or not _is_whole(row):
                what = "appears more than once" if row[0] in self.rows else "is corrupt"
                raise ValueError(f"{self.path}: the row of {row[0]!r} {what}; pass --overwrite or another --out")
            self._set(row)


def _is_whole(row: list[str]) -> bool:
    """Whether this class wrote a row: probabilities, flags and their number, or the reason of a fault."""
    probs, flags, (number, error) = row[1:-2:2], row[2:-2:2], row[-2:]
    if error:
        return not any(row[1:-1])
    try:
        inside = all(0 <= float(prob) <= 1 for prob in probs)
    except ValueError:
        return False
    return inside and set(flags) <= {"0", "1"} and number == str(flags.count("1"))


def _left_by_a_run(path: Path) -> dict[str, Any]:
    """The JSON that predict.py left beside its table; empty if it cannot be read."""
    try:
        return read_json(path)
    except (ValueError, OSError):
        return {}
