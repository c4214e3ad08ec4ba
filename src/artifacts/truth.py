"""What probabilities are held against: the labels of a split, per image and per unit that is decided on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import as_stored
from src.artifacts.manifest import Manifest
from src.labels.columns import columns_by_role
from src.labels.files import (
    COUNTING_STUDY,
    ages_of,
    ids_of,
    labels_of,
    no_finding_of,
    sexes_of,
    studies_of,
    views_of,
)
from src.labels.patients import patients_in
from src.labels.policy import LabelPolicy, said_absent
from src.runtime.csv_files import read_cells_by_id, require_columns

AGGREGATES = ("max", "mean")
UNITS = ("study", "image")
GROUPS = ("sex", "age", "view")


@dataclass(frozen=True)
class Truth:
    """Raw labels [N, C] float64 (1, 0, -1, NaN) of `ids` [N] and `classes` [C]; patient and study of each id [N].

    `groups` has a row per id and the columns of `GROUPS` that are known: sex and view as text ("" where unknown), age
    in years (NaN where unknown). `no_finding` [N] bool: whether the row is marked "No Finding"; None where no row is.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    labels: np.ndarray
    patients: np.ndarray
    studies: np.ndarray
    groups: pd.DataFrame
    no_finding: np.ndarray | None = None

    @classmethod
    def of_split(cls, manifest: Manifest, split: str) -> "Truth":
        """The rows of one split of a manifest."""
        part = manifest.part(split)
        ids, patients, studies = (part.table[key].to_numpy() for key in ("image_id", "patient_id", "study_id"))
        groups = pd.concat([part.context[["sex", "age"]], part.table[["view"]]], axis=1)
        marked = part.context["no_finding"].to_numpy() == 1
        return cls(tuple(ids), part.classes, part.labels(), patients, studies, groups, marked)

    @property
    def said_absent(self) -> np.ndarray:
        """The blanks [N, C] bool of rows marked "No Finding", as `labels.policy.said_absent` defines them."""
        if self.no_finding is None:
            return np.zeros_like(self.labels, bool)
        return said_absent(self.labels, self.no_finding, classes=self.classes)

    def with_no_finding(self, policy: str) -> "Truth":
        """The same with each label of `said_absent` 0 where the policy is negative; as it is where it is mask."""
        if policy == "mask":
            return self
        return replace(self, labels=np.where(self.said_absent, 0.0, self.labels))


def read_truth(path: Path, classes: Sequence[str]) -> tuple[Truth, list[str]]:
    """Truth of `classes` from a CSV whose first column is the id, and lines that say how its columns were understood.

    Patients come from the column that has one of its usual names (`patient_id`, `Patient ID`, ...), else from the id
    where that names them, else each id is its own patient. Studies come from such a column too, else each id is its
    own study. Raises ValueError for doubled ids, a class that is missing, and a label that is not 1, 0, -1 or blank.
    """
    cells = read_cells_by_id(path)
    ids, others = cells.iloc[:, 0], cells.iloc[:, 1:]
    require_columns(others, classes, path=path)
    labels = labels_of(cells, classes, path=path).to_numpy()
    found = columns_by_role(name for name in others if name not in classes)
    roles = {role: names[0] for role, names in found.items() if names}
    patients, said = (ids_of(others[roles["patient"]], path=path), "") if "patient" in roles else patients_in(ids)
    patients = patients.to_numpy()
    studies = ids.to_numpy()
    if "study" in roles:
        alone = "patient" not in roles and (patients == ids.to_numpy()).all()
        if alone:  # all that is known of who belongs together
            patients = _studies_as_patients(others[roles["study"]], path)
        studies = patients if alone else studies_of(others[roles["study"]], patients, path=path).to_numpy()
    groups = pd.DataFrame(index=range(len(ids)))
    if "sex" in roles:
        groups["sex"] = sexes_of(others[roles["sex"]]).to_numpy()
    if "age" in roles:
        groups["age"] = ages_of(others[roles["age"]], path=path)[0]
    if "view" in roles:
        groups["view"] = views_of(others[roles["view"]]).to_numpy()
    marked = no_finding_of(cells, path=path).to_numpy() == 1
    known = ("patient", "study", "no_finding", *GROUPS)
    lines = [f"{path}: {_owner(role, roles, said)}" for role in ("patient", "study")]
    unused = [name for name in others if name not in (*classes, *(roles.get(role) for role in known))]
    if unused:
        lines.append(f"{path}: columns that are not used: {', '.join(unused)}")
    return Truth(tuple(ids), tuple(classes), labels, patients, studies, groups, marked), lines


def _studies_as_patients(values: pd.Series, path: Path) -> np.ndarray:
    """The study of each row in the place of its patient; ValueError where its id only counts within a patient."""
    ids = ids_of(values, path=path)
    counts = ids[ids.str.lower().str.fullmatch(COUNTING_STUDY)]
    if len(counts):
        raise ValueError(
            f"{path}: the study of line {counts.index[0]} is {counts.iloc[0]!r}, which only counts the studies of a "
            "patient, and no column names the patient; add a column patient_id"
        )
    return ids.to_numpy()


def _owner(role: str, roles: dict[str, str], said: str) -> str:
    """How the patient or the study of each row was found; `said`: what `patients_in` says of the patient."""
    if role in roles:
        return f"the {role} is read from the column {roles[role]!r}"
    if role == "patient" and "study" in roles and " is read from " not in said:
        return "no column names the patient, so each study is a patient of its own"
    return said if role == "patient" else "no column names the study, so each row is a study of its own"


@dataclass(frozen=True)
class Units:
    """What is decided on: every image by itself, or every study, which has the images of one patient at one time.

    The probability of a study is the maximum or the mean over its images. Its label is positive if that of any image
    is, else uncertain if any is, else negative if any is, else blank.
    """

    truth: Truth  # of the units
    codes: np.ndarray | None  # [N] int64 unit of each image; None where each image is a unit
    aggregate: str

    @classmethod
    def of(cls, images: Truth, *, unit: str, aggregate: str) -> "Units":
        """The units of a split's images, in the order in which they first appear."""
        if unit == "image":
            return cls(images, None, aggregate)
        pairs = pd.MultiIndex.from_arrays([images.patients, images.studies])
        codes, found = pd.factorize(pairs)
        if len(found) == len(codes):
            return cls(images, None, aggregate)
        states = np.select([images.labels == 1, images.labels == -1, images.labels == 0], [3, 2, 1], 0)
        states = pd.DataFrame(states).groupby(codes).max().to_numpy()
        labels = np.array([np.nan, 0.0, -1.0, 1.0])[states]
        patients, studies = (found.get_level_values(level).to_numpy() for level in (0, 1))
        ids = studies if len(set(studies)) == len(studies) else patients + "/" + studies
        groups = _groups_of_units(images.groups, codes)
        marked = images.no_finding
        if marked is not None:
            marked = pd.Series(marked).groupby(codes).any().to_numpy()
        return cls(Truth(tuple(ids), images.classes, labels, patients, studies, groups, marked), codes, aggregate)

    def probs(self, values: np.ndarray) -> np.ndarray:
        """Probabilities [U, C] float64 of the units from those of the images [N, C], as files hold both."""
        if self.codes is None:
            return values
        grouped = pd.DataFrame(values).groupby(self.codes)
        return grouped.max().to_numpy() if self.aggregate == "max" else as_stored(grouped.mean().to_numpy())


def _groups_of_units(groups: pd.DataFrame, codes: np.ndarray) -> pd.DataFrame:
    """Sex and age of a study: the first that is known. Its view: all that it has, such as frontal+lateral."""
    blank = groups.replace("", np.nan).groupby(codes)
    columns = {name: blank[name].first() for name in ("sex", "age") if name in groups}
    if "view" in groups:
        columns["view"] = blank["view"].agg(lambda views: "+".join(sorted(set(views.dropna()))))
    table = pd.DataFrame(columns, index=range(codes.max() + 1))
    return table.fillna(dict.fromkeys({"sex", "view"} & set(table), ""))


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

    @property
    def other_views(self) -> dict[str, "EvalLabels"]:
        """The same with more blanks counted as negatives, by the name of the view.

        `no_finding_as_negative`: the blanks of rows marked "No Finding", where there are any. `blank_as_negative`:
        every blank. Blanks are mostly findings that are not there: left out, a rare finding looks common, and AUPRC,
        whose floor is the prevalence, looks high.
        """
        said, blank = self.truth.said_absent, np.isnan(self.truth.labels)
        chosen = {"no_finding_as_negative": said, "blank_as_negative": blank}
        return {
            name: EvalLabels(self.truth, np.where(rows, np.float32(0), self.targets), self.mask | rows)
            for name, rows in chosen.items()
            if name == "blank_as_negative" or rows.any()
        }

    def arrays(self) -> dict[str, Any]:
        """Targets, mask and classes, as the metrics take them."""
        return {"targets": self.targets, "mask": self.mask, "classes": self.truth.classes}


@dataclass(frozen=True)
class EvalSplit:
    """Probabilities [U, C] of a split's units, the labels they are evaluated against, and patients as numbers [U]."""

    name: str
    probs: np.ndarray
    view: EvalLabels
    patients: np.ndarray
    units: Units

    @classmethod
    def of(cls, name: str, probs: np.ndarray, units: Units, policy: LabelPolicy) -> "EvalSplit":
        """Probabilities [N, C] of the images of `units`, under a label policy; a soft target raises ValueError."""
        view = EvalLabels.of(units.truth, policy)
        return cls(name, units.probs(probs), view, np.unique(units.truth.patients, return_inverse=True)[1], units)

    def entries(self, c: int) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities and targets of the valid entries of class `c`, [n] each."""
        valid = self.view.mask[:, c]
        return self.probs[valid, c], self.view.targets[valid, c]
