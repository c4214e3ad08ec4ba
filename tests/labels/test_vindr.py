"""VinDr-CXR of PhysioNet and of Kaggle: readers who vote, and images without patients."""

import pandas as pd
import pytest

from src.data import read_dataset
from tests.reading import check_form, refused, row
from tests.trees import VINDR_FINDINGS, drop_column, make_chexpert, make_vinbigdata, make_vindr, set_cell, write_csv

TRAIN, TEST = "image_labels_train.csv", "image_labels_test.csv"


def boxes(path, *readings):
    """Kaggle's train.csv with one image `a`; `readings` are its rows as (reader, finding)."""
    cells = [{"image_id": "a", "class_name": finding, "rad_id": reader, "x_min": ""} for reader, finding in readings]
    write_csv(path / "train.csv", cells)
    return path


@pytest.mark.parametrize("folder", ["annotations", "."])
@pytest.mark.parametrize("suffix", [".dicom", ".png"])
def test_vindr(tmp_path, folder, suffix):
    make_vindr(tmp_path, folder=folder, images=False)
    for part, count in (("train", 8), ("test", 4)):
        (tmp_path / part).mkdir(exist_ok=True)
        for number in range(count):
            (tmp_path / part / f"{part}{number:04x}{suffix}").touch()
    source = read_dataset(tmp_path)
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("vindr", VINDR_FINDINGS, tmp_path)
    assert source.split_note == f"{TRAIN} and {TEST}" and len(source.files) == 2
    assert source.table["split"].value_counts().to_dict() == {"train": 8, "test": 4}
    image = row(source, f"test/test0003{suffix}")
    assert (image.patient_id, image.study_id, image["view"]) == ("test0003", "test0003", "frontal")
    readers, patients = source.warnings
    assert not source.patients_known
    assert readers.startswith("8 images have several readers") and "each image counts as its own" in patients


@pytest.mark.parametrize(("rule", "labels"), [("majority", [1, 0]), ("any", [1, 1])])
def test_votes(tmp_path, rule, labels):
    make_vindr(tmp_path, images=False)
    file = tmp_path / "annotations" / TRAIN
    for reader, (cardiomegaly, effusion) in enumerate((("1", "0"), ("1.0", ""), ("0", "1"))):
        set_cell(file, line=5 + reader, column="Cardiomegaly", value=cardiomegaly)
        set_cell(file, line=5 + reader, column="Pleural effusion", value=effusion)
    source = read_dataset(tmp_path, reader_rule=rule, classes=("Cardiomegaly", "Pleural effusion"))
    assert row(source, "train/train0001.dicom")[["Cardiomegaly", "Pleural effusion"]].tolist() == labels
    assert f"--reader-rule {rule}" in source.warnings[0]


def test_the_consensus_of_test_is_taken_as_it_is(tmp_path):
    make_vindr(tmp_path, images=False)
    truth = pd.read_csv(tmp_path / "annotations" / TEST).set_index("image_id")
    table = read_dataset(tmp_path).table.set_index("patient_id")
    assert table.loc[truth.index, "Other diseases"].tolist() == truth["Other disease"].tolist()
    assert table.loc[truth.index, "Cardiomegaly"].tolist() == truth["Cardiomegaly"].tolist()


def test_kaggle(tmp_path):
    source = read_dataset(make_vinbigdata(tmp_path))
    check_form(source)
    assert (source.name, source.classes) == ("vindr", VINDR_FINDINGS[:3])
    assert all((tmp_path / name).is_file() for name in source.table["image_id"]) and len(source.table) == 8
    assert source.table["split"].isna().all() and "no image_labels_test.csv next to train.csv" in source.warnings[-1]
    assert read_dataset(tmp_path / "train.csv").table.equals(source.table)


def test_the_boxes_of_one_reader_are_one_vote(tmp_path):
    boxes(tmp_path, *[("R1", "Mass")] * 3, ("R2", "No finding"), ("R3", "Mass"), ("R3", "Edema"))
    assert read_dataset(tmp_path).table.iloc[0][["Edema", "Mass"]].tolist() == [0, 1]
    boxes(tmp_path, *[("R1", "Mass")] * 3, ("R2", "No finding"), ("R3", "No finding"))
    assert read_dataset(tmp_path).table.iloc[0]["Mass"] == 0
    boxes(tmp_path, ("R1", "Mass"), ("R2", "No finding"))
    assert read_dataset(tmp_path).table.iloc[0]["Mass"] == 0  # half is not a majority


def test_files_that_are_missing_or_too_many(tmp_path):
    make_vindr(tmp_path, images=False)
    (tmp_path / TRAIN).write_bytes((tmp_path / "annotations" / TRAIN).read_bytes())
    refused(tmp_path, f"{TRAIN} twice", "annotations/")
    (tmp_path / TRAIN).unlink()
    (tmp_path / "annotations" / TEST).rename(tmp_path / "test_labels.csv")
    source = read_dataset(tmp_path)
    assert source.table["split"].isna().all() and "the split is made here" in source.warnings[-1]
    (tmp_path / "annotations" / TRAIN).unlink()
    refused(tmp_path, "image_labels_train.csv (here or in annotations/)", "train.csv", dataset="vindr")


def test_one_label_file_and_a_folder_above(tmp_path):
    make_vindr(tmp_path / "vindr")
    source = read_dataset(tmp_path / "vindr" / "annotations" / TRAIN)
    assert source.image_root == tmp_path / "vindr" and source.table["image_id"][0] == "train/train0000.png"
    refused(tmp_path, "its folder vindr does (vindr)")


@pytest.mark.parametrize(
    ("file", "cells", "words"),
    [
        (TRAIN, {"rad_id": "R9"}, ("'train0000 of R9'", "lines 2 and 3")),
        (TRAIN, {"image_id": "test0001"}, ("images in both label files: 1 (test0001)",)),
        (TRAIN, {"Cardiomegaly": "2"}, ("line 2", "'Cardiomegaly'", "'2'")),
        (TRAIN, {"image_id": ""}, ("line 2", "'image_id' is blank")),
        (TEST, {"image_id": "test0001"}, ("'test0001'", "lines 2 and 3")),
    ],
)
def test_rows_that_cannot_be(tmp_path, file, cells, words):
    make_vindr(tmp_path, images=False)
    for column, value in cells.items():
        set_cell(tmp_path / "annotations" / file, line=2, column=column, value=value)
    refused(tmp_path, *words)


def test_class_that_test_does_not_have(tmp_path):
    drop_column(make_vindr(tmp_path, images=False) / "annotations" / TEST, "Cardiomegaly")
    refused(tmp_path, TEST, "'Cardiomegaly'")


def test_the_rule_is_for_this_data_set(tmp_path):
    make_chexpert(tmp_path, images=False)
    refused(tmp_path, "read as chexpert; --reader-rule any is for vindr", reader_rule="any")
