"""CheXpert Plus: a table of reports, and labels of each section in JSON."""

import json

import numpy as np
import pandas as pd
import pytest

from src.data import read_dataset
from src.labels.chexpert import CHEXPERT_CLASSES
from tests.reading import check_form, refused, row
from tests.trees import drop_column, drop_rows, make_chexpert_plus, set_cell

FILE = "df_chexpert_plus_240401.csv"
LABELS = "chexbert_labels/impression_fixed.json"


def test_chexpert_plus(tmp_path):
    source = read_dataset(make_chexpert_plus(tmp_path))
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("chexpert-plus", CHEXPERT_CLASSES, tmp_path)
    assert all((tmp_path / name).is_file() for name in source.table["image_id"])
    assert source.table["split"].value_counts().to_dict() == {"train": 12, "test": 8}
    assert "valid is test" in source.split_note and source.warnings == source.problems == ()
    image = row(source, "PNG/train/patient00001/study1/view2_lateral.png")
    assert (image.patient_id, image.study_id) == ("patient00001", "patient00001/study1")
    assert (image["view"], image.sex, image.age, image.study_order) == ("lateral", "F", 41, 0)


def test_labels_are_joined_by_image(tmp_path):
    make_chexpert_plus(tmp_path, images=False)
    lines = (tmp_path / LABELS).read_text().splitlines()
    (tmp_path / LABELS).write_text("\n".join(reversed(lines)))
    truth = pd.DataFrame(map(json.loads, lines)).astype({name: float for name in CHEXPERT_CLASSES})
    source = read_dataset(tmp_path)
    pd.testing.assert_frame_equal(source.table[list(CHEXPERT_CLASSES)], truth[list(CHEXPERT_CLASSES)])
    np.testing.assert_array_equal(source.context["no_finding"], truth["No Finding"].astype(float))


@pytest.mark.parametrize(
    ("folder", "suffix", "found"),
    [("PNG/PNG", ".png", "PNG/PNG/"), (".", ".jpg", ""), ("DICOM", ".dcm", "DICOM/"), ("elsewhere", ".png", "PNG/")],
)
def test_images_in_other_folders(tmp_path, folder, suffix, found):
    make_chexpert_plus(tmp_path, folder=folder, suffix=".png")
    for path in tmp_path.rglob("view*.png"):
        path.rename(path.with_suffix(suffix))
    first = read_dataset(tmp_path).table["image_id"][0]
    assert first == f"{found}train/patient00001/study1/view1_frontal{suffix}"


def test_the_section_whose_labels_are_asked_for(tmp_path):
    make_chexpert_plus(tmp_path, images=False)
    make_chexpert_plus(tmp_path, images=False, section="findings", seed=1)
    default, findings = read_dataset(tmp_path), read_dataset(tmp_path, labels="findings")
    assert findings.files[1].name == "findings_fixed.json" and not findings.table.equals(default.table)
    assert read_dataset(tmp_path, labels="impression").table.equals(default.table)
    refused(tmp_path, "report_fixed.json", "expected exactly one", labels="report")
    refused(tmp_path, "--labels cheXbert is for chexpert", labels="cheXbert")


def test_images_that_one_of_the_files_does_not_know(tmp_path):
    make_chexpert_plus(tmp_path, images=False)
    lines = (tmp_path / LABELS).read_text().splitlines()
    (tmp_path / LABELS).write_text("\n".join(lines[1:]))
    drop_rows(tmp_path / FILE, 4, 5)
    source = read_dataset(tmp_path)
    check_form(source)
    assert len(source.table) == 17
    assert source.warnings[0].endswith("does not label them: 1 (train/patient00001/study1/view1_frontal.jpg)")
    assert "does not list: 2 (train/patient00002" in source.problems[0]
    (tmp_path / LABELS).write_text(lines[0].replace("patient00001", "patient99999"))
    refused(tmp_path, "labels no image of")


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("not JSON", ("cannot be read", "a JSON object per line")),
        ('{"Edema": 1.0}', ("'path_to_image'",)),
        ('{"path_to_image": "train/patient00001/study1/view1_frontal.jpg"}', ("'Atelectasis'",)),
    ],
)
def test_label_file_that_cannot_be_read(tmp_path, labels, words):
    make_chexpert_plus(tmp_path, images=False)
    (tmp_path / LABELS).write_text(labels)
    refused(tmp_path, "impression_fixed.json", *words)


def test_files_columns_and_cells_that_are_not_as_expected(tmp_path):
    root = make_chexpert_plus(tmp_path / "plus", images=False)
    refused(tmp_path, "its folder plus does (chexpert-plus)")
    text = (root / LABELS).read_text()
    (root / LABELS).write_text(text.replace('"Edema": ', '"Edema": 2', 1))
    refused(root, "the Edema of train/patient00001/study1/view1_frontal.jpg", "expected 1, 0, -1 or null")
    (root / LABELS).write_text(text)
    (root / "impression_fixed.json").write_text(text)
    refused(root, "holds several of impression_fixed.json")
    (root / "impression_fixed.json").unlink()
    set_cell(root / FILE, line=3, column="split", value="holdout")
    refused(root, "'holdout'", "train, valid")
    set_cell(root / FILE, line=3, column="path_to_image", value="train/1.jpg")
    refused(root, "'train/1.jpg'", "patient00001/study1")
    drop_column(root / FILE, "age")
    refused(root, FILE, "'age'", "path_to_image, path_to_dcm")
    (root / FILE).with_suffix(".csv.gz").touch()
    refused(root, f"{FILE}, {FILE}.gz", "keep the one to read")
