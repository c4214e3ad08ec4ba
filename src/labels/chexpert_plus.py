"""CheXpert Plus's files: CheXpert's images as PNG and DICOM, with labels per section of the report.

The table has a row per image, with its report; CheXbert's labels of it are in JSON files, one per section (Chambon et
al. 2024).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.chexpert import CHEXPERT_CLASSES, NO_FINDING, choose_findings, patients_and_studies
from src.labels.files import (
    LABEL_VALUES,
    REPORTS,
    LabelSource,
    ages_of,
    convert,
    find_label_file,
    ids_of,
    image_ids_of,
    named,
    one_file,
    sexes_of,
    study_order,
    views_of,
)
from src.runtime.csv_files import read_cells, read_header, require_columns

PLUS_FILE = "df_chexpert_plus*.csv"
PLUS_COLUMNS = ("path_to_image", "frontal_lateral", "deid_patient_id", "age", "sex", "split")
PLUS_SPLITS = {"train": "train", "valid": "test"}  # as of CheXpert, whose images these are
SECTIONS = ("impression", "findings", "report")  # of the report; CheXpert's own labels are of the impression
LABEL_FOLDERS = (".", "chexbert_labels", "labels")
# Where the images may lie under the image root, and as what; the first is the one of the download.
IMAGE_FOLDERS = ("PNG", "PNG/PNG", "PNGs", "images", "DICOM", ".")
IMAGE_SUFFIXES = (".png", ".jpg", ".dcm")
LOOKED_AT = 100  # rows that are tried to find the folder


def is_chexpert_plus(path: Path) -> bool:
    """Whether a folder holds the table of CheXpert Plus, or the file is it."""
    if path.is_dir():
        return one_file(path, PLUS_FILE) is not None
    return {"path_to_image", "deid_patient_id"} <= set(read_header(path))


def read_chexpert_plus(
    path: Path, *, classes: Sequence[str] | None, image_root: Path | None, labels: str = "default"
) -> LabelSource:
    """CheXpert Plus: `path` is its folder, or the table df_chexpert_plus*.csv in it.

    labels: the section of the report that the labels are of; default is the impression. They lie beside the table or in
    chexbert_labels/ as SECTION_fixed.json. train is train and valid is test. Study numbers rise with time. Images
    without labels are left out, with a warning. Raises ValueError if a file or a cell is not as expected.
    """
    file = find_label_file(path, PLUS_FILE, of="CheXpert Plus")
    cells = read_cells(file, columns=PLUS_COLUMNS)
    ids = image_ids_of(cells["path_to_image"], path=file)
    folders, numbers = patients_and_studies(ids, path=file)
    label_file, all_labels = _labels(file, SECTIONS[0] if labels == "default" else labels)
    classes = choose_findings(classes, all_labels, path=label_file)
    unlabeled = ~ids.isin(all_labels.index)
    if unlabeled.all():
        raise ValueError(f"{label_file} labels no image of {file.name}; are both from the same download?")
    expected = f"one of {', '.join(PLUS_SPLITS)}"
    ages, warnings = ages_of(cells["age"], path=file)
    root = image_root or file.parent
    rows = pd.DataFrame({
        "image_id": _image_ids(ids, root),
        "patient_id": ids_of(cells["deid_patient_id"], path=file),
        "study_id": folders + "/study" + numbers,
        "view": views_of(cells["frontal_lateral"]),
        "split": convert(cells["split"], lambda text: PLUS_SPLITS[text.lower()], path=file, expected=expected),
        "sex": sexes_of(cells["sex"]),
        "age": ages,
    })  # fmt: skip
    rows["no_finding"] = ids.map(all_labels[NO_FINDING]) if NO_FINDING in all_labels else np.nan
    rows["study_order"] = study_order(rows["patient_id"], rows["study_id"], numbers.astype(int))
    unknown = all_labels.index[~all_labels.index.isin(ids)]
    return LabelSource.from_rows(
        "chexpert-plus",
        rows[~unlabeled],
        all_labels.loc[ids[~unlabeled], list(classes)],
        image_root=root,
        files=(file, label_file),
        split_note=f"column 'split' of {file.name}, where valid is test",
        labels_from={"": REPORTS.format(label_file.name)},
        warnings=(*warnings, *named(ids[unlabeled], f"images left out because {label_file.name} does not label them")),
        problems=tuple(named(unknown, f"images in {label_file.name} that {file.name} does not list")),
    )


def _labels(file: Path, section: str) -> tuple[Path, pd.DataFrame]:
    """The label file of a section, and its labels as float, with the image's path as index."""
    name = f"{section}_fixed.json"
    found = [path for folder in LABEL_FOLDERS if (path := file.parent / folder / name).is_file()]
    if len(found) != 1:
        places = " or ".join(f"{folder}/{name}" for folder in LABEL_FOLDERS[1:])
        what = "holds several of" if found else "needs one of"
        raise ValueError(f"{file.parent} {what} {name}, {places}; expected exactly one, with the labels")
    try:
        table = pd.read_json(found[0], lines=True, dtype={"path_to_image": str})
    except (ValueError, OSError) as error:
        raise ValueError(f"{found[0]} cannot be read: {error}; expected a JSON object per line and image") from error
    require_columns(table, ["path_to_image"], path=found[0])
    ids = image_ids_of(table["path_to_image"].set_axis(range(1, len(table) + 1)), path=found[0])
    labels = table[[name for name in table if name in (*CHEXPERT_CLASSES, NO_FINDING)]].set_axis(ids, axis=0)
    odd = ~(labels.isin(list(LABEL_VALUES)) | labels.isna())
    if odd.any(axis=None):
        image, column = odd.stack().idxmax()
        expected = "expected 1, 0, -1 or null"
        raise ValueError(f"{found[0]}: the {column} of {image} is {labels.loc[image, column]!r}; {expected}")
    return found[0], labels.astype(np.float64)


def _image_ids(ids: pd.Series, root: Path) -> pd.Series:
    """The images' paths under `root`, with the folder and suffix under which one of the first rows is there."""
    places = [(folder, suffix) for folder in IMAGE_FOLDERS for suffix in IMAGE_SUFFIXES]
    stems = ids.str.rsplit(".", n=1).str[0]
    first = stems[:: max(1, len(stems) // LOOKED_AT)]
    there = ((f, s) for f, s in places if any((root / f / (stem + s)).is_file() for stem in first))
    folder, suffix = next(there, places[0])
    return ("" if folder == "." else folder + "/") + stems + suffix
