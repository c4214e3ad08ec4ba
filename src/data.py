"""From a data set on disk to its labels: which data set it is, and the reader of a CSV of one's own."""

import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.brax import BRAX_FILE, is_brax, read_brax
from src.labels.chexpert import is_chexpert, read_chexpert
from src.labels.chexpert_folders import TRAIN_FILES
from src.labels.chexpert_plus import PLUS_FILE, SECTIONS, is_chexpert_plus, read_chexpert_plus
from src.labels.columns import columns_by_role, doubled_columns, no_findings, said_roles
from src.labels.files import (
    LabelSource,
    choose_classes,
    groups_of,
    ids_of,
    image_ids_of,
    labels_of,
    named,
    no_finding_of,
    splits_of,
    studies_of,
    study_order,
)
from src.labels.mimic import is_mimic, read_mimic
from src.labels.nih import is_nih, read_nih
from src.labels.padchest import PADCHEST_FILE, is_padchest, read_padchest
from src.labels.patients import one_spelling, patients_in, said_found, studies_in, two_spellings
from src.labels.vindr import READER_RULES, is_vindr, read_vindr
from src.runtime.csv_files import read_cells, require_columns


@dataclass(frozen=True)
class Layout:
    """A public data set: whether a path is one, its reader, by which files it is known, and what the reader takes.

    options: the options of `read_dataset` that are for this data set, with their values.
    """

    recognizes: Callable[[Path], bool]
    read: Callable[..., LabelSource]
    files: str
    options: Mapping[str, Collection[str]] = field(default_factory=dict)


PUBLIC = {
    "chexpert": Layout(
        is_chexpert,
        read_chexpert,
        "train.csv with CheXpert's columns (here or in a CheXpert* folder)",
        options={"labels": TRAIN_FILES},
    ),
    "chexpert-plus": Layout(
        is_chexpert_plus, read_chexpert_plus, PLUS_FILE, options={"labels": ("default", *SECTIONS)}
    ),
    "mimic": Layout(is_mimic, read_mimic, "mimic-cxr-2.*-chexpert.csv"),
    "nih": Layout(is_nih, read_nih, "Data_Entry_2017*.csv or sample_labels.csv"),
    "padchest": Layout(is_padchest, read_padchest, PADCHEST_FILE),
    "brax": Layout(is_brax, read_brax, BRAX_FILE),
    "vindr": Layout(
        is_vindr,
        read_vindr,
        "image_labels_train.csv (here or in annotations/)",
        options={"reader_rule": READER_RULES},
    ),
}
OPTIONS = {"labels": "default", "reader_rule": "majority"}  # of single data sets, with their defaults
DATASETS = ("auto", *PUBLIC, "csv")


def read_dataset(
    path: str | Path,
    *,
    dataset: str = "auto",
    classes: Sequence[str] | None = None,
    image_root: str | Path | None = None,
    labels: str = "default",
    path_column: str | None = None,
    patient_column: str | None = None,
    study_column: str | None = None,
    view_column: str | None = None,
    split_column: str | None = None,
    sex_column: str | None = None,
    age_column: str | None = None,
    merge_patients: bool = False,
    reader_rule: str = "majority",
) -> LabelSource:
    """Labels, patients, studies, views and the published split of a data set.

    path: a data set's folder or its label file (for MIMIC-CXR-JPG, the folder).
    dataset: one of DATASETS; auto recognizes which.
    classes: the classes to keep, in this order; by default the 13 findings of CheXpert and MIMIC-CXR-JPG, NIH's 14,
        or every column of a CSV that is nothing else.
    image_root: the folder that image ids are relative to; by default the one the data set's layout implies.
    labels: of CheXpert, whose labels of train (default, cheXbert or visualCheXbert); of CheXpert Plus, the section of
        the report that the labels are of (impression, which is the default, findings or report).
    *_column: the columns of a CSV, where their names do not tell.
    merge_patients: treat patient ids that `plain_id` makes equal as one patient.
    reader_rule: of VinDr-CXR, whether a finding needs the majority of an image's readers, or any of them.

    Raises ValueError, naming file, line, column and value, for whatever is not as expected.
    """
    path = Path(path)
    image_root = None if image_root is None else Path(image_root)
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected the folder or the label file of a data set")
    if image_root is not None and not image_root.is_dir():
        raise ValueError(f"{image_root} is not a folder; expected the folder that the image paths are relative to")
    if dataset not in DATASETS:
        raise ValueError(f"unknown data set {dataset!r}; expected one of {', '.join(DATASETS)}")
    columns = {
        "path": path_column,
        "patient": patient_column,
        "study": study_column,
        "view": view_column,
        "split": split_column,
        "sex": sex_column,
        "age": age_column,
    }
    name = _recognize(path) if dataset == "auto" else dataset
    options = _options(name, path, labels=labels, reader_rule=reader_rule)
    if name == "csv":
        return _read_csv(path, classes=classes, image_root=image_root, columns=columns, merge_patients=merge_patients)
    for role, column in columns.items():
        if column is not None:
            raise ValueError(f"{path} is read as {name}, whose columns are known; --{role}-column {column} is for csv")
    source = PUBLIC[name].read(path, classes=classes, image_root=image_root, **options)
    return _merged(source) if merge_patients else source


def _merged(source: LabelSource) -> LabelSource:
    """The source with one id per patient; the studies of a patient's spellings follow each other as before."""
    patients, said = _merged_ids(source.table["patient_id"])
    order = study_order(patients, source.table["study_id"], source.context["study_order"])
    return replace(
        source,
        table=source.table.assign(patient_id=patients),
        context=source.context.assign(study_order=order),
        warnings=(*source.warnings, *said),
    )


def _merged_ids(patients: pd.Series) -> tuple[pd.Series, list[str]]:
    """Each id [N] in its first spelling, and a warning where there were more."""
    what = "patients with an id in several spellings, each treated as one patient"
    return one_spelling(patients), named(two_spellings(patients), what)


def _options(name: str, path: Path, **given: str) -> dict[str, str]:
    """The options that the reader of this data set takes. ValueError where one is given that is for another."""
    own = PUBLIC[name].options if name in PUBLIC else {}
    for option, value in given.items():
        if value not in own.get(option, (OPTIONS[option],)):
            others = [other for other, layout in PUBLIC.items() if value in layout.options.get(option, ())]
            flag = option.replace("_", "-")
            raise ValueError(f"{path} is read as {name}; --{flag} {value} is for {' and '.join(others) or 'none'}")
    return {option: value for option, value in given.items() if option in own}


def _recognize(path: Path) -> str:
    found = _layouts(path)
    if len(found) > 1:
        raise ValueError(f"{path} looks like {' and '.join(found)}; choose one with --dataset")
    if not found and path.is_dir() and not _csv_files(path):
        for folder in sorted(filter(Path.is_dir, path.iterdir())):
            if inside := _layouts(folder):
                raise ValueError(
                    f"{path} holds no label file; its folder {folder.name} does ({inside[0]}), so pass that folder"
                )
        known = ", no ".join(layout.files for layout in PUBLIC.values())
        raise ValueError(f"{path} holds no known data set: no {known}, and no other CSV file")
    return found[0] if found else "csv"


def _layouts(path: Path) -> list[str]:
    return [name for name, layout in PUBLIC.items() if layout.recognizes(path)]


def _csv_files(folder: Path) -> list[str]:
    return sorted(file.name for pattern in ("*.csv", "*.csv.gz") for file in folder.glob(pattern))


def _csv_file(path: Path) -> Path:
    """`path` itself, or the only CSV file of a folder."""
    if path.is_file():
        return path
    names = _csv_files(path)
    if len(names) != 1:
        found = f"{len(names)} CSV files ({', '.join(names)})" if names else "no CSV file"
        raise ValueError(f"{path} holds {found}; pass the path of the label file")
    return path / names[0]


def _read_csv(
    path: Path,
    *,
    classes: Sequence[str] | None,
    image_root: Path | None,
    columns: dict[str, str | None],
    merge_patients: bool,
) -> LabelSource:
    """A CSV of one's own: a row per image. `columns`: the column of each role, None where its name shall tell.

    Without a patient column, the patient is the one that the path names, else the image itself, with a warning. So is
    the study without a study column, which is said. Studies follow each other in time as the file lists them.
    """
    file = _csv_file(path)
    cells = read_cells(file)
    roles, taken = _csv_roles(cells, columns, file)
    classes, warnings = _csv_classes(classes, cells, roles, taken, file)
    whose = "" if "patient" in roles else ", and the column of the patients, if there is one, with --patient-column"
    hint = f"; name the columns that are classes with --classes{whose}"
    labels = labels_of(cells, classes, path=file, hint=hint)
    image_ids = image_ids_of(cells[roles["path"]], path=file)
    patients, said = _csv_patients(cells, image_ids, roles, file, merge=merge_patients)
    studies, of_study = _csv_studies(cells, image_ids, patients, roles, file)
    groups, doubtful = groups_of(cells, roles, path=file)
    rows = {
        "image_id": image_ids,
        "patient_id": patients,
        "study_id": studies,
        "view": groups.get("view", ""),
        "split": splits_of(cells[roles["split"]], path=file) if "split" in roles else None,
        "sex": groups.get("sex", ""),
        "age": groups.get("age", np.nan),
        "study_order": study_order(patients, studies, np.arange(len(cells))),
        "no_finding": no_finding_of(cells, path=file),
    }
    return LabelSource.from_rows(
        "csv",
        pd.DataFrame(rows),
        labels,
        image_root=image_root or file.parent,
        files=(file,),
        split_note=f"column {roles['split']!r} of {file.name}" if "split" in roles else "",
        patients_known=not (patients == image_ids).any(),
        understood="; ".join([f"{file.name}: {said_roles(roles)}", *named(classes, "findings", first=14), *of_study]),
        warnings=(*warnings, *said, *doubtful),
    )


def _csv_roles(cells: pd.DataFrame, columns: dict[str, str | None], path: Path) -> tuple[dict[str, str], set[str]]:
    """The column of each role that has one, and all columns whose name says that they are no class."""
    require_columns(cells, [column for column in columns.values() if column is not None], path=path)
    roles, taken = {}, set()
    for role, fitting in columns_by_role(cells).items():
        chosen = columns.get(role) or next(iter(fitting), None)
        if chosen is not None:
            roles[role] = chosen
            taken |= {chosen, *fitting}
    if "path" not in roles:
        raise ValueError(f"{path} has no column of image paths; it has {', '.join(cells)}. Name it with --path-column")
    return roles, taken


def _csv_classes(
    classes: Sequence[str] | None, cells: pd.DataFrame, roles: dict[str, str], taken: set[str], path: Path
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes, by default every column that is nothing else, and a warning of those that seem to be none."""
    no_finding = [name for name in cells if name == roles.get("no_finding")]
    remaining = [name for name in cells if name not in taken] or no_finding
    present = [name for name in cells if name not in roles.values() or name in no_finding]
    warnings = _doubtful_classes(remaining, path) if classes is None else ()
    return choose_classes(classes, default=remaining, present=present, path=path), warnings


def _doubtful_classes(classes: Sequence[str], path: Path) -> tuple[str, ...]:
    """A warning of classes whose name says that they are none, with the flag that leaves them out."""
    doubtful = [name for name in classes if name in {*no_findings(classes), *doubled_columns(classes)}]
    rest = [name for name in classes if name not in doubtful]
    what = f"columns of {path.name} that count as findings, although their names suggest otherwise"
    remedy = f"leave them out with --classes {shlex.join(rest)}" if rest else "rename them if they are findings"
    return tuple(f"{line}; {remedy}" for line in named(doubtful, what, first=14))


def _csv_patients(
    cells: pd.DataFrame, image_ids: pd.Series, roles: dict[str, str], path: Path, *, merge: bool
) -> tuple[pd.Series, list[str]]:
    if "patient" not in roles:
        found = patients_in(image_ids)
        together = "study" in roles and found.isna().all()
        also = f" (--patient-column {roles['study']} would keep studies together)" if together else ""
        said = f"{said_found(image_ids, found)}; name the column with --patient-column{also}"
        return found.fillna(image_ids), [f"{path.name} has no patient column: {said}"]
    patients = ids_of(cells[roles["patient"]], path=path)
    return _merged_ids(patients) if merge else (patients, [])


def _csv_studies(
    cells: pd.DataFrame, image_ids: pd.Series, patients: pd.Series, roles: dict[str, str], path: Path
) -> tuple[pd.Series, list[str]]:
    """The study of each row, and where no column has it, how it was found."""
    if "study" in roles:
        return studies_of(cells[roles["study"]], patients, path=path), []
    found = studies_in(image_ids)
    return found.fillna(image_ids), [said_found(image_ids, found, what="study")]
