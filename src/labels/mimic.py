"""MIMIC-CXR-JPG's label files."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.chexpert import choose_findings
from src.labels.files import (
    REPORTS,
    LabelSource,
    find_label_file,
    ids_of,
    labels_of,
    named,
    no_finding_of,
    numbers_of,
    splits_of,
    study_order,
    views_of,
)
from src.runtime.csv_files import read_cells, require_columns


def is_mimic(path: Path) -> bool:
    """Whether a folder holds label files of MIMIC-CXR-JPG, or the file is one."""
    folder = path if path.is_dir() else path.parent
    files = {file for part in ("chexpert", "split", "metadata") for file in folder.glob(f"mimic-cxr-2.*-{part}.csv*")}
    return bool(files) if path.is_dir() else path in files


def read_mimic(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """MIMIC-CXR-JPG 2.x: the folder with its chexpert, split and metadata files.

    The labels are those of the study. Images whose study has none are left out, with a warning; images that the split
    file does not list have no published split, which is a problem of that split. Sex and age are not in this data
    set. Raises ValueError where a file is missing or a cell is not as expected.
    """
    if path.is_file():
        raise ValueError(f"{path} is one of the three label files of MIMIC-CXR-JPG; pass the path of their folder")
    label_file, studies = _mimic_cells(path, "chexpert")
    split_file, lists = _mimic_cells(path, "split", "dicom_id", "split")
    image_file, rows = _mimic_cells(path, "metadata", "dicom_id", "ViewPosition", "StudyDate", "StudyTime")
    classes = choose_findings(classes, studies, path=label_file)
    labels = labels_of(studies, classes, path=label_file)
    labels.index = ids_of(studies["study_path"], path=label_file, unique=True)
    no_finding = no_finding_of(studies, path=label_file).set_axis(labels.index)
    published = pd.Series(splits_of(lists["split"], path=split_file), index=lists["image_id"], dtype=object)
    rows["split"] = rows["image_id"].map(published)
    rows["view"] = views_of(rows["ViewPosition"])
    rows["sex"], rows["age"] = "", np.nan
    rows["no_finding"] = rows["study_path"].map(no_finding)
    time = 1e6 * numbers_of(rows["StudyDate"], path=image_file) + numbers_of(rows["StudyTime"], path=image_file)
    rows["study_order"] = study_order(rows["patient_id"], rows["study_id"], time)  # time: YYYYMMDDhhmmss.fff

    unknown = published.index[~published.index.isin(rows["image_id"])]
    unlisted, unlabeled = rows["split"].isna(), ~rows["study_path"].isin(labels.index)
    problems = [
        *named(rows["image_id"][unlisted], f"images that {split_file.name} does not list"),
        *named(unknown, f"images that {split_file.name} lists and {image_file.name} does not"),
    ]
    warnings = named(rows["image_id"][unlabeled], f"images left out because {label_file.name} lacks their study")
    rows = rows[~unlabeled]
    if rows.empty:
        raise ValueError(f"no image appears in all of {label_file}, {split_file.name} and {image_file.name}")
    return LabelSource.from_rows(
        "mimic",
        rows,
        labels.loc[rows["study_path"]],
        image_root=image_root or path,
        files=(label_file, split_file, image_file),
        split_note=split_file.name,
        labels_from={"": REPORTS.format(label_file.name)},
        warnings=tuple(warnings),
        problems=tuple(problems),
    )


def _mimic_cells(folder: Path, part: str, *columns: str) -> tuple[Path, pd.DataFrame]:
    """One of the three files, with patient_id, study_id, study_path and (for a file of images) image_id added."""
    path = find_label_file(folder, f"mimic-cxr-2.*-{part}.csv", of="MIMIC-CXR-JPG")
    cells = read_cells(path)
    require_columns(cells, ["subject_id", "study_id", *columns], path=path)
    cells["patient_id"] = "p" + ids_of(cells["subject_id"], path=path)
    cells["study_id"] = "s" + ids_of(cells["study_id"], path=path)
    cells["study_path"] = cells["patient_id"].str[:3] + "/" + cells["patient_id"] + "/" + cells["study_id"]
    if "dicom_id" in columns:
        dicoms = ids_of(cells["dicom_id"], path=path, unique=True)
        cells["image_id"] = "files/" + cells["study_path"] + "/" + dicoms + ".jpg"
    return path, cells
