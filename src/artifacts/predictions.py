"""The table of predictions: one row per image, rewritten as it grows, and continued after an interrupt."""

import csv
import os
import time
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import atomic_path, read_json, write_json
from src.artifacts.prediction_rows import image_layout, study_layout, study_rows
from src.artifacts.thresholds_file import SavedThresholds


def image_id(path: Path | str) -> str:
    """The path as it was given, as text that a row of a CSV can hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace").replace("\r", "\\r")  # csv does not quote it


class PredictionTable:
    """The rows of a CSV by image id, as text, and a JSON file next to it that records what made them.

    Where the thresholds are of studies, a second CSV next to it has a row per study, made from those of the images.
    """

    def __init__(self, path: Path, thresholds: SavedThresholds):
        self.path, self.thresholds = path, thresholds
        self.of_studies = thresholds.unit == "study"
        self.layout = image_layout(thresholds)
        self.study_layout = study_layout(thresholds)
        self.study_path = path.with_name(f"{path.stem}_studies{path.suffix}")
        self.rows: dict[str, list[str]] = {}
        self.folder = os.getcwd()  # the folder to which the ids are relative
        self._ids: dict[str, str] = {}  # of images and of folders by absolute path, so that spelling does not matter
        self._story = path.with_name(path.name + ".json")
        self._origin: dict[str, Any] = {}
        self._left = _left_by_a_run(self._story)  # by the run that wrote it last
        self._owner = self._left.get("owner")
        self._saved: float | None = None  # the time of the last save
        self._took = 0.0  # how long it took [s]

    @property
    def written(self) -> list[Path]:
        """The tables that `save` writes."""
        return [self.path, self.study_path] if self.of_studies else [self.path]

    @classmethod
    def open(
        cls, path: Path, thresholds: SavedThresholds, *, origin: Mapping[str, Any], append: bool, overwrite: bool
    ) -> "PredictionTable":
        """A new table, or with `append` the existing one, if the same models and thresholds made it.

        `origin` describes what makes the table, as JSON reads it back. No file changes before `save`. Raises ValueError
        if the existing table was made by something else, has other columns, or may not be replaced.
        """
        table = cls(path, thresholds)
        table._origin = dict(origin)
        if append and path.exists():
            table._continue()
        else:
            table._check_free(append=append, overwrite=overwrite)
        table._origin |= {"folder": table.folder, "promise": thresholds.promise}
        return table

    def _continue(self) -> None:
        """Read the rows there are; raises ValueError where something else made them."""
        if not self._story.exists():
            raise ValueError(
                f"{self.path} was not written by predict.py, or {self._story.name}, which tells how it was made, "
                "is gone; pass another --out"
            )
        earlier = {"unit": "image", "equalize": False}  # of tables from before these were recorded
        made_by = earlier | read_json(self._story)
        changed = [key for key in self._origin if made_by.get(key) != self._origin[key]]
        if changed:
            names = ", ".join(f"--{key}" if key in ("study", "equalize") else key for key in changed)
            raise ValueError(f"{self.path} was made with other settings ({names}); pass --overwrite or another --out")
        self.folder = str(made_by.get("folder", self.folder))
        self._read()

    def _check_free(self, *, append: bool, overwrite: bool) -> None:
        """Raise ValueError where a file that is to be written is there and may not be replaced."""
        of_a_run = "checkpoint_sha256" in self._left
        ours = {self.path: of_a_run, self._story: of_a_run}
        if self.of_studies:
            ours[self.study_path] = of_a_run and self._left.get("unit") == "study"
        there = [path for path in ours if path.exists()]
        for path in there:
            if not ours[path]:
                raise ValueError(f"{path} exists and was not written by predict.py; pass another --out")
        there = [path for path in there if path != self._story]
        if there and not overwrite:
            go_on = "" if append else "--append to continue it, or "
            raise ValueError(f"{there[0]} already exists; pass {go_on}--overwrite to replace it")

    def id_of(self, path: Path) -> str:
        """The id of an image: its path as it was first given, relative to the folder where the table was started."""
        if not path.is_absolute() and self.folder != os.getcwd():
            path = Path(os.path.relpath(path, self.folder))
        return self._ids.get(self._absolute(path), image_id(path))

    def has(self, path: Path) -> bool:
        """Whether the table has results for an image; one that could not be read counts as missing."""
        return not self.rows.get(self.id_of(path), ["", "no results"])[-1]

    def add(self, path: Path, probs: np.ndarray, *, study: Path | str = "", unlike: str = "") -> None:
        """Add the row of an image: probs [C] as `as_stored` returns them, and the study that it is of.

        A study is named by a text, or by a path: that of a folder, or of an image that is a study of its own. `unlike`
        says which models found it unlike the training images.
        """
        self._set(self.layout.row(self._keys(path, study), probs, self.thresholds.flags(probs), unlike=unlike))

    def add_fault(self, path: Path, reason: str, *, study: Path | str = "") -> None:
        """Add the row of an image that cannot be read."""
        text = reason.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self._set(self.layout.blank(self._keys(path, study), error=text))

    def _keys(self, path: Path, study: Path | str) -> list[str]:
        name = self.id_of(path)
        if not self.of_studies:
            return [name]
        return [name, self.id_of(study) if isinstance(study, Path) else study or name]

    def _set(self, row: list[str]) -> None:
        self.rows[row[0]] = row
        for name in row[: len(self.layout.keys)]:
            self._ids.setdefault(self._absolute(name), name)

    def _absolute(self, path: Path | str) -> str:
        return image_id(os.path.normpath(os.path.join(self.folder, path)))

    def fault(self, image: str) -> str:
        """Why an image could not be read, "" where it could."""
        return self.rows[image][-1]

    def studies(self) -> dict[str, list[str]]:
        """The rows of the table of studies by study, which `study_layout` reads."""
        return study_rows(list(self.rows.values()), self.thresholds)

    def save(self, *, every: float = 0.0) -> None:
        """Rewrite the files, unless they were written less than `every` seconds ago.

        Large tables are written less often, so that at most a tenth of the time goes into writing. Raises ValueError if
        another run writes them too.
        """
        started = time.monotonic()
        if every and self._saved is not None and started - self._saved < max(every, 10 * self._took):
            return
        if _left_by_a_run(self._story).get("owner") != self._owner:
            raise ValueError(f"another run of predict.py is writing {self.path}; give each run its own --out")
        if self._saved is None:
            owner = uuid.uuid4().hex
            # The old tables go first, so that --append never takes their rows for those of other models. A link stays.
            if self.of_studies or self._left.get("unit") == "study":
                Path(os.path.realpath(self.study_path)).unlink(missing_ok=True)
            Path(os.path.realpath(self.path)).unlink(missing_ok=True)
            write_json(self._story, {**self._origin, "owner": owner})
            self._owner = owner
        _write(self.path, [self.layout.header, *self.rows.values()])
        if self.of_studies:
            _write(self.study_path, [self.study_layout.header, *self.studies().values()])
        self._saved = time.monotonic()
        self._took = self._saved - started

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
        if header != self.layout.header or any(len(row) != len(header) for row in rows):
            raise ValueError(f"{self.path} does not have this run's columns; pass --overwrite or another --out")
        for row in rows:
            if row[0] in self.rows or not self.layout.is_whole(row):
                what = "appears more than once" if row[0] in self.rows else "is corrupt"
                raise ValueError(f"{self.path}: the row of {row[0]!r} {what}; pass --overwrite or another --out")
            self._set(row)


def _write(path: Path, rows: Iterable[list[str]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def _left_by_a_run(path: Path) -> dict[str, Any]:
    """The JSON that predict.py left beside its table; empty if it cannot be read."""
    try:
        return read_json(path)
    except (ValueError, OSError):
        return {}
