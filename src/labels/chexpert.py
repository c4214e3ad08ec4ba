"""CheXpert's label files, and the 13 findings that MIMIC-CXR-JPG has too."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.chexpert_folders import files_beside, home_of, known_files, label_files, locate_images, whose_labels
from src.labels.files import (
    IMAGE_PATH,
    OUR_OWN,
    SPARE,
    LabelSource,
    ages_of,
    choose_classes,
    image_ids_of,
    labels_of,
    named,
    no_finding_of,
    own_split,
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


def choose_findings(classes: Sequence[str] | None, columns: Iterable[str], *, path: Path) -> tuple[str, ...]:
    """`choose_classes` among the findings that have a column, "No Finding" included; all 13 by default."""
    present = [name for name in columns if name in (*CHEXPERT_CLASSES, NO_FINDING)]
    return choose_classes(classes, default=CHEXPERT_CLASSES, present=present, path=path)


def is_chexpert(path: Path) -> bool:
    """Whether a label file, or one of train or valid in a folder, has CheXpert's columns."""
    if path.is_dir():
        return any(is_chexpert(file) for file in known_files(home_of(path)))
    header = set(read_header(path))
    return {"Path", "Frontal/Lateral"} <= header and not header.isdisjoint(CHEXPERT_CLASSES)


def read_chexpert(
    path: Path, *, classes: Sequence[str] | None, image_root: Path | None, labels: str = "default"
) -> LabelSource:
    """CheXpert, small or full: `path` is its folder, the folder that its folders lie in, or one label file.

    Radiologists labeled valid.csv and the test set. Where the test set lies beside the others it is the published test
    split, and valid.csv is spare; where it does not, valid.csv is test. Study numbers rise with time. An image id is a
    path as the label files have it, from `train`, `valid` or `test` on, in whichever folder the image lies.

    labels: which file has the labels of train, a key of TRAIN_FILES. Raises ValueError where a file or a cell is not as
    expected.
    """
    if path.is_file() and labels != "default":
        raise ValueError(f"{path} is a single label file; with --labels {labels}, pass the path of its folder")
    home = home_of(path)
    files = {"train": path} if path.is_file() else label_files(home, labels)
    parts = [_chexpert_rows(file, classes) for file in files.values()]
    rows = pd.concat([rows for rows, _, _ in parts])
    doubled = named(rows["image_id"][rows["image_id"].duplicated()], "images in two label files")
    if doubled:
        names = ", ".join(file.name for file in files.values())
        raise ValueError(f"{home}: {doubled[0]} of {names}; each image must have exactly one row")
    splits = _splits(files)
    if splits:
        rows["split"] = np.repeat(list(splits), [len(labels) for _, labels, _ in parts])
    root, rows[IMAGE_PATH], warnings = locate_images(
        rows["image_id"], home=home, beside=files["train"].parent, root=image_root
    )
    return LabelSource.from_rows(
        "chexpert",
        rows,
        pd.concat([labels for _, labels, _ in parts]),
        image_root=root,
        files=tuple(files.values()),
        split_note=", ".join(f"{name} is {split}" for split, name in splits.items() if split != SPARE),
        spare=splits.get(SPARE, ""),
        labels_from={split: whose_labels(name) for split, name in (splits or {"": files["train"].name}).items()},
        warnings=(
            *(warning for _, _, more in parts for warning in more),
            *warnings,
            *([] if splits else [_own_split(files["train"])]),
        ),
    )


def _own_split(file: Path) -> str:
    """The warning where `file` is all that was read."""
    if others := files_beside(file):
        return f"{file.name} was read without {' and '.join(others)}, so that {OUR_OWN}; give its folder to use them"
    return own_split("valid.csv and test_labels.csv", beside=file)


def _splits(files: dict[str, Path]) -> dict[str, str]:
    """The label file of each published split, in the order of `files`; none where there is one file only."""
    if len(files) == 1:
        return {}
    valid = SPARE if "test" in files else "test"
    return {valid if part == "valid" else part: file.name for part, file in files.items()}


def patients_and_studies(ids: pd.Series, *, path: Path) -> tuple[pd.Series, pd.Series]:
    """The patient and the number of the study in each path; ValueError where a path has none."""
    parts = ids.str.extract(CHEXPERT_PATH)
    unknown = parts[0].isna()
    if unknown.any():
        line, expected = unknown.idxmax(), "expected .../patient00001/study1/NAME"
        raise ValueError(f"{path}, line {line}: {ids[line]!r} is not a CheXpert path; {expected}")
    return parts[0], parts[1]


def _chexpert_rows(path: Path, classes: Sequence[str] | None) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    """Rows without their split, labels, and warnings. The files of the test set have paths and labels only."""
    cells = read_cells(path)
    require_columns(cells, ["Path"], path=path)
    classes = choose_findings(classes, cells, path=path)
    ids = image_ids_of(cells["Path"], path=path, root=CHEXPERT_ROOT)
    patients, numbers = patients_and_studies(ids, path=path)
    ages, warnings = ages_of(cells["Age"], path=path) if "Age" in cells else (np.nan, ())
    views = cells["Frontal/Lateral"] if "Frontal/Lateral" in cells else ids.str.extract(r"_(\w+)\.\w+$")[0].fillna("")
    studies = patients + "/study" + numbers
    rows = {
        "image_id": ids,
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(views),
        "split": None,
        "sex": sexes_of(cells["Sex"]) if "Sex" in cells else "",
        "age": ages,
        "study_order": study_order(patients, studies, numbers.astype(int)),
        "no_finding": no_finding_of(cells, path=path),
    }
    return pd.DataFrame(rows), labels_of(cells, classes, path=path), warnings
