"""Probabilities, from the stages or from elsewhere, joined by id and class."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from src.artifacts.io import entry, read_json, sha256, write_table, writer_of
from src.artifacts.lineage import check_blend
from src.artifacts.manifest import Manifest
from src.artifacts.outside import OutsideTable
from src.artifacts.truth import Truth
from src.labels.columns import alike, marks_no_finding, no_findings, plain_name
from src.labels.files import ids_of, named
from src.labels.id_match import match_ids
from src.runtime.csv_files import read_cells
from src.runtime.tables import plural

PREFIX = re.compile("(?:prob|pred)[ _]", re.IGNORECASE)  # of a column of probabilities, such as prob_Edema


@dataclass(frozen=True)
class Probs:
    """Probabilities of one file: `values` [N, C] float64 for `ids` and `classes`; `said`: how it was understood."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray
    path: Path
    said: str = ""

    def known_as(self, ids: Sequence[str]) -> "Probs":
        """The same under the `ids` of the labels, matched as `match_ids` does; `said` tells of those spelled otherwise.

        An id that fits none stays. Raises ValueError where one fits several.
        """
        rows = match_ids(ids, self.ids, path=self.path)
        names = {self.ids[row]: name for name, row in zip(ids, rows, strict=True) if row >= 0 and self.ids[row] != name}
        if not names:
            return self
        here, there = next(iter(names.items()))
        count = plural(len(names), "id")
        said = f"{self.said}; {count} matched by the end of the path, such as {here!r} to {there!r}"
        return replace(self, ids=tuple(names.get(name, name) for name in self.ids), said=said)

    def aligned(self, ids: Sequence[str], classes: Sequence[str], *, others: Iterable[str] = ()) -> np.ndarray:
        """Values [len(ids), len(classes)] in the order asked for.

        Classes match whatever their case, blanks, - and _. Raises ValueError naming the first id or class that is
        missing here or extra; the ids `others` may be here, such as those of another split.
        """
        unknown = set(self.ids).difference(ids, others)
        rows = pd.Index(self.ids).get_indexer(pd.Index(ids))
        self._check("image id", ids, rows, [name for name in self.ids if name in unknown])
        have = {plain_name(name): at for at, name in enumerate(self.classes)}
        have |= {name: at for at, name in enumerate(self.classes)}
        columns = np.array([have.get(name, have.get(plain_name(name), -1)) for name in classes])
        extra = [name for at, name in enumerate(self.classes) if at not in columns]
        self._check("class", classes, columns, extra)
        return self.values[np.ix_(rows, columns)]

    def _check(self, what: str, names: Sequence[str], places: np.ndarray, extra: Sequence[str]) -> None:
        """ValueError where a place of the names is -1, which is none, and where this file has `extra` ones."""
        missing = [name for name, place in zip(names, places, strict=True) if place < 0]
        if missing:
            count = f"{len(missing)} of {len(names)} in all"
            has = f"; it has {', '.join(map(repr, self.ids[:2]))}, ..." if what == "image id" else ""
            raise ValueError(
                f"{self.path}: {what} {missing[0]!r} is missing ({count}); expected those of the labels{has}"
            )
        if extra:
            count = f"{len(extra)} in all"
            raise ValueError(
                f"{self.path}: {what} {extra[0]!r} is not in the labels ({count}); expected the same in both"
            )


def write_probs(path: Path, *, ids: Sequence[str], classes: Sequence[str], values: np.ndarray) -> None:
    """Write `image_id` and one column of probabilities per class."""
    table = pd.DataFrame(values, columns=list(classes))
    table.insert(0, "image_id", list(ids))
    write_table(path, table)


def read_probs(path: Path) -> Probs:
    """Probabilities that a stage wrote: the first column is the id, each other one a class.

    Raises ValueError naming file, class, id and value where one is blank, no number or outside [0, 1], and for
    doubled ids or classes, a file without rows, and one of nothing but 0 and 1, which is one of labels.
    """
    path = Path(path)
    cells = read_cells(path)
    return _checked(path, ids_of(cells.iloc[:, 0], path=path, unique=True), cells.iloc[:, 1:])


def read_outside_probs(path: Path, *, asked: Iterable[str] = ()) -> Probs:
    """Probabilities that another program wrote: a row per id, and a column per class among others.

    Where columns begin with `prob_`, these are the classes; else each column is one whose name does not say that it is
    something else, unless it is among the `asked` classes. "No Finding" is one if it is asked for or alone. Raises
    ValueError as `read_probs`, and for two columns of one class.
    """
    table = OutsideTable.read(path)
    prefixed = [name for name in table.others if PREFIX.match(name)]
    asked = {plain_name(name) for name in asked}
    none = {name for name in no_findings(table.others) if plain_name(name) not in asked}
    columns = prefixed or [name for name in table.others if name not in none]
    marks = [] if any(map(marks_no_finding, asked)) else [c for c in columns if marks_no_finding(_bare(c, prefixed))]
    columns = [name for name in columns if name not in marks] or columns
    classes = [_bare(name, prefixed) for name in columns]
    doubled = [name for name, one in zip(columns, classes, strict=True) if one in alike(classes)]
    if doubled:
        raise ValueError(f"{path} has two columns for the same class: {' and '.join(doubled[:2])}; remove one")
    left_out = [f"{name!r} is not a class, because nothing asked for it" for name in marks if name not in columns]
    said = table.said((), columns, *named(columns, "findings"), *left_out)
    return _checked(table.path, table.ids, table.cells[columns].set_axis(classes, axis="columns"), said=said)


def _bare(name: str, prefixed: Sequence[str]) -> str:
    """The class of a column of probabilities, whose name begins with PREFIX where it is one of `prefixed`."""
    return PREFIX.sub("", name, count=1) if name in prefixed else name


def _checked(path: Path, ids: pd.Series, cells: pd.DataFrame, said: str = "") -> Probs:
    """The cells as probabilities, or a ValueError that says why they are none."""
    classes = tuple(cells)
    if not classes:
        raise ValueError(f"{path} has only one column; expected a column of ids and one of probabilities per class")
    numbers = cells.apply(lambda column: pd.to_numeric(column.str.replace(",", "."), errors="coerce"))
    values = numbers.to_numpy(np.float64)
    bad = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(bad):
        row, column = bad[0]
        raise ValueError(
            f"{path}: {classes[column]} of {ids.iloc[row]} is {cells.iloc[row, column].strip() or 'blank'}; expected a "
            f"probability from 0 to 1 (such values: {len(bad)})"
        )
    if np.isin(values, (0, 1)).all():
        raise ValueError(f"{path} holds only 0 and 1; expected probabilities (is it a file of labels?)")
    return Probs(tuple(ids), classes, values, path, said)


def read_stage_probs(folder: Path, split: str, manifest: Manifest) -> Probs:
    """Probabilities a stage of this run left; raises ValueError where they come from another manifest."""
    path = Path(folder) / f"probs_{split}.csv"
    origin = read_json(path.with_name("probs.json"))
    if origin.get("manifest_sha256") != manifest.sha256:
        raise ValueError(f"{path} was made from a different manifest than the run's; run {writer_of(path)} --overwrite")
    if entry(origin, "probs_sha256", dict, path=path.with_name("probs.json")).get(split) != sha256(path):
        raise ValueError(f"{path} does not match probs.json; run {writer_of(path)} --overwrite")
    return read_probs(path)


def read_blend(run_dir: Path, manifest: Manifest) -> dict[str, tuple[Truth, np.ndarray]]:
    """The truth of each split that was scored, and the blend [N, C] that stage 5 left of it.

    Raises ValueError where a model was trained or tested again since, or a file is of another manifest or was changed.
    """
    check_blend(run_dir)
    folder = run_dir / "ensemble"
    truths = {name: Truth.of_split(manifest, name) for name in manifest.scored}
    return {
        name: (truth, read_stage_probs(folder, name, manifest).aligned(truth.ids, truth.classes))
        for name, truth in truths.items()
    }
