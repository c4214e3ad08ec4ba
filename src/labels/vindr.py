"""VinDr-CXR's label files, those of PhysioNet and those of Kaggle's VinBigData: several readers per image, who vote."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.files import EXPERTS, LabelSource, choose_classes, ids_of, labels_of, named, one_file, own_split
from src.labels.places import image_places
from src.runtime.csv_files import read_cells, read_header, require_columns

VINDR_FILES = {"train": "image_labels_train.csv", "test": "image_labels_test.csv"}
KAGGLE_FILE = "train.csv"
KAGGLE_COLUMNS = ("image_id", "class_name", "rad_id")  # a row per reader and box; its other columns place the box
NO_FINDING = "No finding"
VINDR_SUFFIXES = (".dicom", ".dcm", ".png", ".jpg", ".jpeg")
READER_RULES = {"majority": 0.5, "any": 0.0}  # a finding is positive where more than this share of the readers saw it


def is_vindr(path: Path) -> bool:
    """Whether a folder holds VinDr-CXR's training labels, or the file is one of its label files."""
    if path.is_dir():
        return any(is_vindr(file) for file in _label_files(path).values())
    header = set(read_header(path))
    return set(KAGGLE_COLUMNS) <= header or {"image_id", NO_FINDING} <= header


def read_vindr(
    path: Path, *, classes: Sequence[str] | None, image_root: Path | None, reader_rule: str = "majority"
) -> LabelSource:
    """VinDr-CXR: `path` is its folder, with image_labels_train.csv in it or in annotations/, or Kaggle's train.csv.

    PhysioNet's training images have three readers each and its test images their consensus; that is the published
    split. Kaggle has the training images only. A finding is 1 or 0 by `reader_rule`, a key of READER_RULES. All images
    are frontal; there are no patients. Raises ValueError if a file or a cell is not as expected.
    """
    files = {"train": path} if path.is_file() else _label_files(path)
    if "train" not in files:
        expected = f"{VINDR_FILES['train']} (here or in annotations/) nor Kaggle's {KAGGLE_FILE}"
        raise ValueError(f"{path} holds neither {expected}; a VinDr-CXR folder needs one of them")
    home = path if path.is_dir() else path.parent.parent if path.parent.name == "annotations" else path.parent
    read = {split: _votes(file, classes) for split, file in files.items()}
    chosen = list(read["train"][0])
    for part, (votes, _) in read.items():
        require_columns(votes, chosen, path=files[part])
    votes = pd.concat([votes[chosen] for votes, _ in read.values()])
    readers = pd.concat([readers for _, readers in read.values()])
    doubled = named(votes.index[votes.index.duplicated()], "images in both label files")
    if doubled:
        raise ValueError(f"{home}: {doubled[0]}; each image belongs to one split")
    split = np.repeat(list(read), [len(readers) for _, readers in read.values()])
    default = [f"{part}/{name}{VINDR_SUFFIXES[0]}" for part, name in zip(split, votes.index, strict=True)]
    root = image_root or home
    image_ids, copies = image_places(list(votes.index), root, default=default, suffixes=VINDR_SUFFIXES)
    rows = pd.DataFrame({"image_id": image_ids, "patient_id": votes.index, "study_id": votes.index, "view": "frontal"})
    labels = votes.gt(READER_RULES[reader_rule] * readers, axis=0).astype(float)
    return LabelSource.from_rows(
        "vindr",
        rows.assign(split=split if "test" in files else None, sex="", age=np.nan, study_order=0),
        labels,
        image_root=root,
        files=tuple(files.values()),
        patients_known=False,
        split_note=" and ".join(file.name for file in files.values()) if "test" in files else "",
        labels_from={"": EXPERTS.format(" and ".join(file.name for file in files.values()))},
        warnings=(*_notes(votes, readers, files, reader_rule), *copies),
    )


def _label_files(folder: Path) -> dict[str, Path]:
    """The label file of each split; of Kaggle, train only. ValueError where one is there twice."""
    files = {}
    for split, name in VINDR_FILES.items():
        found = [file for place in (folder, folder / "annotations") if (file := one_file(place, name))]
        if len(found) > 1:
            raise ValueError(f"{folder} holds {name} twice, also in annotations/; keep the one to read")
        if found:
            files[split] = found[0]
    kaggle = one_file(folder, KAGGLE_FILE)
    if kaggle and "train" not in files and set(KAGGLE_COLUMNS) <= set(read_header(kaggle)):
        files["train"] = kaggle
    return files


def _votes(path: Path, classes: Sequence[str] | None) -> tuple[pd.DataFrame, pd.Series]:
    """How many readers of each image saw each finding, and how many there were; both have the image as their index."""
    cells = read_cells(path)
    require_columns(cells, ["image_id"], path=path)
    cells["image_id"] = ids_of(cells["image_id"], path=path)
    if "class_name" in cells:
        return _votes_of_boxes(cells, classes, path)
    cells = cells.rename(columns={"Other disease": "Other diseases"})  # the test file's name of it
    findings = [name for name in cells if name not in ("image_id", "rad_id", NO_FINDING)]
    classes = choose_classes(classes, default=findings, present=[*findings, NO_FINDING], path=path)
    labels = labels_of(cells, classes, path=path)
    if "rad_id" in cells:
        ids_of((cells["image_id"] + " of " + cells["rad_id"]).rename("image_id and rad_id"), path=path, unique=True)
    else:
        ids_of(cells["image_id"], path=path, unique=True)
    images = (labels == 1).groupby(cells["image_id"], sort=False)
    return images.sum(), images.size()


def _votes_of_boxes(cells: pd.DataFrame, classes: Sequence[str] | None, path: Path) -> tuple[pd.DataFrame, pd.Series]:
    """The same of Kaggle's file, in which a reader has a row for each box, or one that says "No finding"."""
    require_columns(cells, KAGGLE_COLUMNS, path=path)
    cells["class_name"] = ids_of(cells["class_name"], path=path)
    findings = sorted(set(cells["class_name"]) - {NO_FINDING})
    classes = choose_classes(classes, default=findings, present=[*findings, NO_FINDING], path=path)
    once = cells[list(KAGGLE_COLUMNS)].drop_duplicates()
    readers = once.groupby("image_id", sort=False)["rad_id"].nunique()
    votes = once.groupby(["image_id", "class_name"]).size().unstack(fill_value=0)
    return votes.reindex(readers.index)[list(classes)], readers


def _notes(votes: pd.DataFrame, readers: pd.Series, files: dict[str, Path], rule: str) -> list[str]:
    """What a reader of the results should know: who voted, that there are no patients, and whose split it is."""
    notes = []
    if (readers > 1).any():
        several, split_vote = (readers > 1).sum(), (votes.gt(0, axis=0) & votes.lt(readers, axis=0)).any(axis=1).sum()
        meaning = {"majority": "most of them", "any": "any of them"}[rule]
        notes.append(
            f"{several:,} images have several readers, who disagree on {split_vote:,}; a finding is positive where "
            f"{meaning} saw it (--reader-rule {rule})"
        )
    notes.append(
        "VinDr-CXR does not say which images are of the same patient: each image counts as its own patient, so a "
        "patient may be in two splits; if many are, certificates are overconfident and intervals too narrow"
    )
    if "test" not in files:
        notes.append(own_split(VINDR_FILES["test"], beside=files["train"]))
    return notes
