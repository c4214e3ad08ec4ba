"""BRAX: CheXpert's columns with paths of their own."""

import numpy as np
import pandas as pd
import pytest

from src.data import read_dataset
from src.labels.chexpert import CHEXPERT_CLASSES
from tests.reading import check_form, refused, row
from tests.trees import drop_column, make_brax, set_cell

FILE = "master_spreadsheet_update.csv"


def test_brax(tmp_path):
    source = read_dataset(make_brax(tmp_path))
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("brax", CHEXPERT_CLASSES, tmp_path)
    assert all((tmp_path / name).is_file() for name in source.table["image_id"])
    assert source.table["split"].isna().all() and source.warnings == () and len(source.table) == 24
    image = row(source, "images/id_0001/Study_1.2.1/Series_3.1/image-1-1-1.png")
    assert (image.patient_id, image.study_id, image["view"]) == ("1", "911", "lateral")
    assert (image.sex, image.age, image.study_order) == ("M", 45, 0)  # its date is the earlier one
    for name in CHEXPERT_CLASSES:
        np.testing.assert_array_equal(source.table[name], pd.read_csv(tmp_path / FILE)[name])


def test_dicom_files_where_only_they_are_there(tmp_path):
    make_brax(tmp_path, images=False)
    assert read_dataset(tmp_path).table["image_id"][0].startswith("images/")
    (tmp_path / "Anonymized_DICOMs").mkdir()
    assert read_dataset(tmp_path).table["image_id"][0].startswith("Anonymized_DICOMs/")
    (tmp_path / "images").mkdir()
    assert read_dataset(tmp_path).table["image_id"][0].startswith("images/")
    drop_column(tmp_path / FILE, "PngPath")
    assert read_dataset(tmp_path).table["image_id"][0].startswith("Anonymized_DICOMs/")


@pytest.mark.parametrize(("value", "age"), [("85 or more", 85), ("60 to 65", 60), ("", np.nan)])
def test_age_groups(tmp_path, value, age):
    set_cell(make_brax(tmp_path, images=False) / FILE, line=2, column="PatientAge", value=value)
    np.testing.assert_equal(read_dataset(tmp_path).context["age"][0], age)


@pytest.mark.parametrize(("value", "view"), [("AP", "frontal"), ("LL", "lateral"), ("RLD", ""), ("", "")])
def test_views(tmp_path, value, view):
    set_cell(make_brax(tmp_path, images=False) / FILE, line=2, column="ViewPosition", value=value)
    assert read_dataset(tmp_path).table["view"][0] == view


def test_files_columns_and_cells_that_are_not_as_expected(tmp_path):
    file = make_brax(tmp_path / "brax", images=False) / FILE
    refused(tmp_path, "its folder brax does (brax)")
    refused(tmp_path, "holds no master_spreadsheet*.csv", dataset="brax")
    set_cell(file, line=3, column="PngPath", value="")
    refused(file, FILE, "line 3", "'PngPath' is blank")
    set_cell(file, line=3, column="PngPath", value=pd.read_csv(file)["PngPath"][0])
    refused(file, "lines 2 and 3")
    drop_column(file, "AccessionNumber")
    refused(file, "'AccessionNumber'", dataset="brax")
    (file.parent / "master_spreadsheet.csv").write_bytes(file.read_bytes())
    refused(file.parent, f"master_spreadsheet.csv, {FILE}", "keep the one to read")
