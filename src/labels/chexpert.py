"""CheXpert's label files, and the 13 findings that MIMIC-CXR-JPG has too."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.files import (
    LabelSource,
    ages_of,
    choose_classes,
    image_ids_of,
    labels_of,
    named,
    no_finding_of,
    one_file,
    sexes_of,
    study_order,
    views_of,
)
from src.runtime.csv_files import read_cells, read_header, require_columns

# Of CheXpert and MIMIC-CXR-JPG: the 13 findings in alphabetical order; "No Finding" says that the others are absent.
CHEXPERT_CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
NO_FINDING = "No Finding"
CHEXPERT_ROOT = "CheXpert-v1.0"  # -small, or what else a release adds to it
CHEXPERT_PATH = r"(?:^|/)(patient\d+)/study(\d+)/"


def is_chexpert(path: Path) -> bool:
    """Whether a label file, or the train.csv of a folder, has CheXpert's columns."""
    if path.is_dir():
        return any(is_chexpert(file) for folder in _chexpert_folders(path) if (file := one_file(folder, "train.csv")))
    header = set(read_header(path))
    return {"Path", "Frontal/Lateral"} <= header and not header.isdisjoint(CHEXPERT_CLASSES)


def read_chexpert(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """CheXpert, small or full: `path` is its folder, the folder that holds `CheXpert-v1.0*`, or one label file.

    The public files have no test labels: valid.csv, which radiologists labeled, is the published test split, and
    train.csv is train. Study numbers rise with time. Raises ValueError where a file or a cell is not as expected.
    """
    files = [path] if path.is_file() else _chexpert_files(path)
    parts = [_chexpert_rows(file, classes) for file in files]
    rows = pd.concat([rows for rows, _, _ in parts])
    if len(files) == 2:
        rows["split"] = np.repeat(["train", "test"], [len(labels) for _, labels, _ in parts])
    doubled = named(rows["image_id"][rows["image_id"].duplicated()], "images in both train.csv and valid.csv")
    if doubled:
        raise ValueError(f"{files[0].parent}: {doubled[0]}; each image must have exactly one row")
    return LabelSource.from_rows(
        "chexpert",
        rows,
        pd.concat([labels for _, labels, _ in parts]),
        image_root=image_root or files[0].parent,
        files=tuple(files),
        split_note=f"{files[0].name} is train, {files[1].name} is test" if len(files) == 2 else "",
        warnings=tuple(warning for _, _, warnings in parts for warning in warnings),
    )


def _chexpert_folders(path: Path) -> list[Path]:
    """`path` where it holds train.csv, else the CheXpert-v1.0* folders in it that do."""
    folders = [path] if one_file(path, "train.csv") else sorted(path.glob("CheXpert-v1.0*"))
    return [folder for folder in folders if one_file(folder, "train.csv")]


def _chexpert_files(path: Path) -> list[Path]:
    folders = _chexpert_folders(path)
    if not folders:
        raise ValueError(f"{path} holds no train.csv or train.csv.gz, nor does a CheXpert-v1.0* folder in it")
    if len(folders) > 1:
        raise ValueError(f"{path} holds {', '.join(folder.name for folder in folders)}; give the path of one of them")
    files = [one_file(folders[0], name) for name in ("train.csv", "valid.csv")]
    return [file for file in files if file is not None]


def _chexpert_rows(path: Path, classes: Sequence[str] | None) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    cells = read_cells(path)
    require_columns(cells, ["Path", "Sex", "Age", "Frontal/Lateral"], path=path)
    present = [name for name in cells if name in (*CHEXPERT_CLASSES, NO_FINDING)]
    classes = choose_classes(classes, default=CHEXPERT_CLASSES, present=present, path=path)
    ids = image_ids_of(cells["Path"], path=path, root=CHEXPERT_ROOT)
    parts = ids.str.extract(CHEXPERT_PATH)
    patients, numbers = parts[0], parts[1]
    if patients.isna().any():
        line, expected = patients.isna().idxmax(), "expected .../patient00001/study1/NAME"
        raise ValueError(f"{path}, line {line}: {ids[line]!r} is not a path of CheXpert; {expected}")
    ages, warnings = ages_of(cells["Age"], path=path)
    studies = patients + "/study" + numbers
    rows = {
        "image_id": ids,
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(cells["Frontal/Lateral"]),
        "split": None,
        "sex": sexes_of(cells["Sex"]),
        "age": ages,
        "study_order": study_order(patients, studies, numbers.astype(int)),
        "no_finding": no_finding_of(cells, path=path),
    }
    return pd.DataFrame(rows), labels_of(cells, classes, path=path), warnings
