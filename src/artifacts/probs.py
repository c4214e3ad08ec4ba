"""Probabilities, from the stages or from elsewhere, joined by id and class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import entry, read_json, sha256, write_table, writer_of
from src.artifacts.manifest import Manifest
from src.artifacts.truth import Truth
from src.runtime.csv_files import read_cells_by_id


@dataclass(frozen=True)
class Probs:
    """Probabilities of one file: `values` [N, C] float64 for `ids` and `classes`."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray
    path: Path

    def aligned(self, ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
        """Values [len(ids), len(classes)] in the order asked for.

        Raises ValueError naming the first id or class that is missing here or extra.
        """
        _same_names(self.ids, ids, f"{self.path}: image id")
        _same_names(self.classes, classes, f"{self.path}: class")
        rows = pd.Index(self.ids).get_indexer(pd.Index(ids))
        columns = pd.Index(self.classes).get_indexer(pd.Index(classes))
        return self.values[np.ix_(rows, columns)]


def write_probs(path: Path, *, ids: Sequence[str], classes: Sequence[str], values: np.ndarray) -> None:
    """Write `image_id` and one column of probabilities per class."""
    table = pd.DataFrame(values, columns=list(classes))
    table.insert(0, "image_id", list(ids))
    write_table(path, table)


def read_probs(path: Path) -> Probs:
    """Read probabilities: the first column is the id, each other one a class.

    Raises ValueError naming file, class, id and value where one is blank, no number or outside [0, 1], and for
    doubled ids or classes, a file without rows, and one of nothing but 0 and 1, which is one of labels.
    """
    path = Path(path)
    cells = read_cells_by_id(path)
    ids, classes = tuple(cells.iloc[:, 0]), tuple(cells.columns[1:])
    if not classes:
        raise ValueError(f"{path} has one column; expected the ids there and a column of probabilities per class")
    values = cells.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    bad = np.argwhere(~((values >= 0) & (values <= 1)))
    if len(bad):
        row, column = bad[0]
        value = cells.iloc[row, column + 1]
        raise ValueError(
            f"{path}: {classes[column]} of {ids[row]} is {value.strip() or 'blank'}; expected a probability "
            f"from 0 to 1 (values like this in the file: {len(bad)})"
        )
    if np.isin(values, (0, 1)).all():
        raise ValueError(f"{path} holds nothing but 0 and 1; expected probabilities: is it a file of labels?")
    return Probs(ids, classes, values, path)


def read_stage_probs(folder: Path, split: str, manifest: Manifest) -> Probs:
    """Probabilities a stage of this run left; raises ValueError where they come from another manifest."""
    path = Path(folder) / f"probs_{split}.csv"
    origin = read_json(path.with_name("probs.json"))
    if origin.get("manifest_sha256") != manifest.sha256:
        raise ValueError(f"{path} was made from another manifest than the run's; run {writer_of(path)} --overwrite")
    if entry(origin, "probs_sha256", dict, path=path.with_name("probs.json")).get(split) != sha256(path):
        raise ValueError(f"{path} is not the file that probs.json describes; run {writer_of(path)} --overwrite")
    return read_probs(path)


def read_blend(run_dir: Path, manifest: Manifest) -> dict[str, tuple[Truth, np.ndarray]]:
    """The truth of each split that was scored, and the blend [N, C] that stage 5 left of it.

    Raises ValueError where a model was trained or tested again since, or a file is of another manifest or was changed.
    A model whose folder was removed does not matter: the blend stands by itself.
    """
    folder = run_dir / "ensemble"
    blended = {"members_sha256": {}} | read_json(folder / "probs.json")
    for model, digests in entry(blended, "members_sha256", dict, path=folder / "probs.json").items():
        story = run_dir / model / "probs.json"
        if not story.exists() and not (run_dir / model / "best.pt").exists():
            continue
        if not story.exists():  # training removes it
            raise ValueError(
                f"{model} was trained again since it was blended; run {writer_of(story)} --overwrite, then "
                f"{writer_of(folder / 'probs.json')} --overwrite"
            )
        found = read_json(story)
        recorded = blended.get("members_flags") or blended.get("members_labels") or {}  # earlier versions: labels alone
        flags = recorded.get(model, [])
        if found.get("probs_sha256") != digests or recorded_flags(found)[: len(flags)] != flags:
            raise ValueError(f"{model} was tested again since it was blended; run ensemble_alpha_search.py --overwrite")
    truths = {name: Truth.of_split(manifest, name) for name in manifest.scored}
    return {
        name: (truth, read_stage_probs(folder, name, manifest).aligned(truth.ids, truth.classes))
        for name, truth in truths.items()
    }


def recorded_flags(story: Mapping[str, Any]) -> list[Any]:
    """The flags in a probs.json that say what its metrics count: the label policy and the unit."""
    return [story.get(key) for key in ("uncertain", "missing", "unit", "aggregate", "no_finding")]


def _same_names(have: Sequence[str], want: Sequence[str], what: str) -> None:
    missing = sorted(set(want) - set(have))
    extra = sorted(set(have) - set(want))
    if missing:
        raise ValueError(f"{what} {missing[0]!r} is missing ({len(missing)} of {len(want)} are)")
    if extra:
        raise ValueError(f"{what} {extra[0]!r} is not expected here ({len(extra)} such)")
