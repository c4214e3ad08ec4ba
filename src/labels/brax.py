"""BRAX's label file: CheXpert's findings, read by its labeler from Portuguese reports (Reis et al. 2022)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.labels.chexpert import choose_findings
from src.labels.files import (
    REPORTS,
    LabelSource,
    ages_of,
    find_label_file,
    ids_of,
    image_ids_of,
    labels_of,
    no_finding_of,
    one_file,
    sexes_of,
    study_order,
    views_of,
)
from src.runtime.csv_files import read_cells, read_header, require_columns

BRAX_FILE = "master_spreadsheet*.csv"
BRAX_COLUMNS = ("PatientID", "PatientSex", "PatientAge", "AccessionNumber", "StudyDate", "ViewPosition")
BRAX_IMAGES = {"PngPath": "images", "DicomPath": "Anonymized_DICOMs"}  # the column of each copy, and its first folder


def is_brax(path: Path) -> bool:
    """Whether a folder holds BRAX's label file, or the file is one."""
    if path.is_dir():
        file = one_file(path, BRAX_FILE)
        return file is not None and is_brax(file)
    header = set(read_header(path))
    return {"AccessionNumber", "PatientID"} <= header and not header.isdisjoint(BRAX_IMAGES)


def read_brax(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """BRAX: `path` is its folder, or the label file master_spreadsheet_update.csv in it.

    The images are the PNG files, or the DICOM files where only their folder is there. Ages are the lower end of groups
    of five years, up to 85. No split is published. Raises ValueError if a file or a cell is not as expected.
    """
    file = find_label_file(path, BRAX_FILE, of="BRAX")
    cells = read_cells(file)
    root = image_root or file.parent
    copies = [column for column in BRAX_IMAGES if column in cells] or list(BRAX_IMAGES)
    column = next((column for column in copies if (root / BRAX_IMAGES[column]).is_dir()), copies[0])
    require_columns(cells, [column, *BRAX_COLUMNS], path=file)
    classes = choose_findings(classes, cells, path=file)
    patients, studies = (ids_of(cells[name], path=file) for name in ("PatientID", "AccessionNumber"))
    groups = cells["PatientAge"].str.extract(r"(\d+)", expand=False).fillna("").rename("PatientAge")
    ages, warnings = ages_of(groups, path=file)  # "60", "85 or more"
    rows = {
        "image_id": image_ids_of(cells[column], path=file),
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(cells["ViewPosition"]),
        "split": None,
        "sex": sexes_of(cells["PatientSex"]),
        "age": ages,
        "study_order": study_order(patients, studies, pd.factorize(cells["StudyDate"], sort=True)[0]),
        "no_finding": no_finding_of(cells, path=file),
    }
    return LabelSource.from_rows(
        "brax",
        pd.DataFrame(rows),
        labels_of(cells, classes, path=file),
        image_root=root,
        files=(file,),
        labels_from={"": REPORTS.format(file.name)},
        warnings=warnings,
    )
