"""Probabilities and the truth they are held against, from the stages or from elsewhere, joined by id and class."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import entry, read_json, sha256, write_table, writer_of
from src.artifacts.manifest import Manifest
from src.labels.files import labels_of, patient_of
from src.labels.policy import LabelPolicy
from src.runtime.csv_files import read_cells_by_id, require_columns


@dataclass(frozen=True)
class Truth:
    """Raw labels [N, C] float64 (1, 0, -1, NaN) of `ids` [N] and `classes` [C]; patient and study of each id [N]."""

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    patients: np.ndarray
    studies: np.ndarray

    @classmethod
    def of_split(cls, manifest: Manifest, split: str) -> "Truth":
        """The rows of one split of a manifest."""
        part = manifest.part(split)
        ids, patients, studies = (part.table[key].to_numpy() for key in ("image_id", "patient_id", "study_id"))
        return cls(tuple(ids), part.classes, part.labels(), patients, studies)


def read_truth(path: Path, classes: Sequence[str]) -> tuple[Truth, list[str]]:
    """Truth of `classes` from a CSV whose first column is the id, and the names of its other columns, not used.

    Patients come from a `patient_id` column, else from `patientNNN` in the id, else each id is its own patient;
    studies from a `study_id` column, else each id is its own study.
    Raises ValueError for doubled ids, a class that is missing, and a label that is not 1, 0, -1 or blank.
    """
    cells = read_cells_by_id(path)
    ids = cells.iloc[:, 0]
    require_columns(cells.iloc[:, 1:], classes, path=path)
    labels = labels_of(cells, classes, path=path).to_numpy()
    unused = [name for name in cells.columns[1:] if name not in (*classes, "patient_id", "study_id")]
    patients, studies = patient_of(ids, cells.get("patient_id")), cells.get("study_id", ids).to_numpy()
    return Truth(tuple(ids), tuple(classes), labels, patients, studies), unused


@dataclass(frozen=True)
class EvalLabels:
    """The hard view of a truth that metrics need: `targets` [N, C] float32 and `mask` [N, C] bool."""

    truth: Truth
    targets: np.ndarray
    mask: np.ndarray

    @classmethod
    def of(cls, truth: Truth, policy: LabelPolicy) -> "EvalLabels":
        """The truth under a label policy; a soft target raises ValueError."""
        policy.check_hard()
        return cls(truth, *policy.apply(truth.labels))

    def arrays(self) -> dict[str, Any]:
        """Targets, mask and classes, as the metrics take them."""
        return {"targets": self.targets, "mask": self.mask, "classes": self.truth.classes}


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


def as_stored(probs: np.ndarray) -> np.ndarray:
    """Probabilities as they come back from a probability file: rounded to nine significant digits, float64.

    Thresholds are chosen on such numbers and metrics computed from them, so that a probability equal to its
    threshold is flagged wherever it is computed. A float32 would round every logit above 17 to exactly 1.
    """
    return np.char.mod("%.9g", np.asarray(probs, np.float64)).astype(np.float64)


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


@dataclass(frozen=True)
class EvalSplit:
    """Probabilities [N, C] of one split, the labels they are evaluated against, and the patients as numbers [N]."""

    name: str
    probs: np.ndarray
    view: EvalLabels
    patients: np.ndarray

    @classmethod
    def of(cls, name: str, probs: np.ndarray, truth: Truth, policy: LabelPolicy) -> "EvalSplit":
        """Probabilities [N, C] in the order of `truth`, under a label policy; a soft target raises ValueError."""
        view = EvalLabels.of(truth, policy)
        return cls(name, probs, view, np.unique(truth.patients, return_inverse=True)[1])

    def entries(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and targets of the valid entries of class `c`, [n] each."""
        valid = self.view.mask[:, c]
        return self.probs[valid, c], self.view.targets[valid, c]


def read_blend(run_dir: Path, manifest: Manifest) -> list[tuple[Truth, np.ndarray]]:
    """The truth of val and of test, and the blend [N, C] that stage 5 left of each.

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
        labels = blended.get("members_labels", {}).get(model, recorded_flags(found))  # earlier versions have none
        if found.get("probs_sha256") != digests or recorded_flags(found) != labels:
            raise ValueError(f"{model} was tested again since it was blended; run ensemble_alpha_search.py --overwrite")
    pairs = []
    for name in ("val", "test"):
        truth = Truth.of_split(manifest, name)
        pairs.append((truth, read_stage_probs(folder, name, manifest).aligned(truth.ids, truth.classes)))
    return pairs


def recorded_flags(story: Mapping[str, Any]) -> list[Any]:
    """The label flags in a probs.json, which say under which policy its metrics are."""
    return [story.get("uncertain"), story.get("missing")]


def _same_names(have: Sequence[str], want: Sequence[str], what: str) -> None:
    missing = sorted(set(want) - set(have))
    extra = sorted(set(have) - set(want))
    if missing:
        raise ValueError(f"{what} {missing[0]!r} is missing ({len(missing)} of {len(want)} are)")
    if extra:
        raise ValueError(f"{what} {extra[0]!r} is not expected here ({len(extra)} such)")
