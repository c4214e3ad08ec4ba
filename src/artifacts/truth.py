"""What probabilities are held against: the labels of a split, per image and per unit that is decided on."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import as_stored
from src.artifacts.manifest import Manifest
from src.artifacts.outside import OutsideTable
from src.labels.files import (
    COUNTING_STUDY,
    groups_of,
    ids_of,
    labels_of,
    named,
    no_finding_of,
    studies_of,
)
from src.labels.patients import patients_in, said_found, studies_in, two_spellings
from src.labels.policy import LabelPolicy, joined_labels, said_absent

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
    """Truth of `classes` from a CSV of another program, and lines that say how its columns were understood.

    Patients, studies, sex, age and view come from the columns with one of their usual names (`patient_id`, `Patient
    ID`, ...). Without a column of patients, or of studies, an id may name them, else each study, or each id, is its own
    patient, and each id its own study. Raises ValueError for doubled ids, a class that is missing, a
    label that is not 1, 0, -1 or blank, and rows of several splits.
    """
    table = OutsideTable.read(path)
    columns = table.columns_of(classes)
    for name in classes:
        if name not in columns:
            others = ", ".join(table.others) or "no finding"
            raise ValueError(f"{path} has no column {name!r}; it has {others}, and its ids are in {table.ids.name!r}")
    _check_one_split(table)
    labels = labels_of(table.cells, list(columns.values()), path=table.path).to_numpy()
    patients, studies, *found = _owners(table)
    groups, warnings = groups_of(table.cells, table.roles, path=table.path)
    unknown = int(patients.isna().sum())
    if unknown:
        patients = patients.fillna(studies)
        warnings.append(
            f"{path} names no patient in {unknown:,} of {len(patients):,} rows. If a patient has several of them, "
            "intervals are too narrow and recall is promised with too much confidence; add a column patient_id"
        )
    marked = no_finding_of(table.cells, path=table.path).to_numpy() == 1
    used = ("patient", "study", *GROUPS, "no_finding")
    lines = [table.said(used, columns.values(), *found), *_warned(warnings)]
    owners = patients.to_numpy(), studies.to_numpy()
    return Truth(tuple(table.ids), tuple(classes), labels, *owners, groups.reset_index(drop=True), marked), lines


def _check_one_split(table: OutsideTable) -> None:
    """ValueError where a column says that the rows are of several splits, which must not be mixed."""
    if "split" not in table.roles:
        return
    column = table.roles["split"]
    splits = table.cells[column].str.strip().unique()
    if len(splits) > 1:
        raise ValueError(
            f"{table.path} has rows of several splits ({', '.join(splits[:4])}) in its column {column!r}; keep the "
            "rows of one, or make a manifest with check_split.py and leave out the labels, so that its splits are used"
        )


def _owners(table: OutsideTable) -> tuple[pd.Series, pd.Series, str, str]:
    """Patient [N] (NaN where nothing tells) and study [N] of each row, and how both were found."""
    path, ids, roles = table.path, table.ids, table.roles
    if "patient" in roles:
        patients, of_patient = ids_of(table.cells[roles["patient"]], path=path), ""
    else:
        patients = patients_in(ids)
        of_patient = said_found(ids, patients)
    if "study" not in roles:
        studies = studies_in(ids)
        return patients, studies.fillna(ids), of_patient, said_found(ids, studies, what="study")
    if patients.isna().all():  # the study is all that is known of who belongs together
        return patients, _own_studies(table), "each study counts as a patient", ""
    return patients, studies_of(table.cells[roles["study"]], patients.fillna(ids), path=path), of_patient, ""


def _own_studies(table: OutsideTable) -> pd.Series:
    """The study of each row; ValueError where its id only counts within a patient."""
    ids = ids_of(table.cells[table.roles["study"]], path=table.path)
    counts = ids[ids.str.lower().str.fullmatch(COUNTING_STUDY)]
    if len(counts):
        raise ValueError(
            f"{table.path}: the study in line {counts.index[0]} is {counts.iloc[0]!r}, which only numbers the studies "
            "of a patient, and no column names the patient; add a column patient_id"
        )
    return ids


def respelled_patients(*truths: Truth) -> list[str]:
    """A warning, to be printed, where an id of a patient is spelled in more than one way in the labels."""
    what = (
        "patients whose id is spelled in more than one way count as different people, so that intervals are too narrow "
        "and recall is promised with too much confidence"
    )
    return _warned(named(two_spellings(itertools.chain(*(truth.patients for truth in truths))), what))


def _warned(lines: Iterable[str]) -> list[str]:
    return [f"warning: {line}" for line in lines]


@dataclass(frozen=True)
class Units:
    """What is decided on: every image by itself, or every study, which has the images of one patient at one time.

    The probability of a study is the maximum or the mean over its images. Its label is `joined_labels` of theirs.
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
        labels = joined_labels(images.labels, codes)
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
    table = pd.DataFrame({name: blank[name].first() for name in GROUPS if name in groups}, index=range(codes.max() + 1))
    if "view" in groups:  # joining text takes long, so that it is done only where a study has several views
        seen = pd.DataFrame({"unit": codes, "view": groups["view"].to_numpy()})
        seen = seen[seen["view"] != ""].drop_duplicates().sort_values(["unit", "view"])
        several = seen[seen["unit"].duplicated(keep=False)].groupby("unit")["view"].agg("+".join)
        table.loc[several.index, "view"] = several
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
