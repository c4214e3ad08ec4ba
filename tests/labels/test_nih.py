"""NIH ChestX-ray14 as NIH hands it out, and as its copies are laid out."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.data import read_dataset
from src.labels.nih import NIH_CLASSES
from tests.reading import check_form, refused, row
from tests.trees import make_nih, set_cell


def test_nih(tmp_path):
    make_nih(tmp_path)
    set_cell(tmp_path / "Data_Entry_2017_v2020.csv", line=3, column="Finding Labels", value="Effusion|Mass")
    set_cell(tmp_path / "Data_Entry_2017_v2020.csv", line=2, column="Finding Labels", value="No Finding")
    source = read_dataset(tmp_path)
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("nih", NIH_CLASSES, tmp_path)
    assert source.split_note == "train_val_list.txt and test_list.txt" and source.problems == source.warnings == ()
    assert source.table.groupby("split")["patient_id"].nunique().to_dict() == {"test": 2, "train": 4}
    image = row(source, "images/00000001_001.png")
    assert (image.patient_id, image.study_id, image.split) == ("00000001", "00000001_001", "train")
    assert (image["view"], image.sex, image.age, image.study_order) == ("frontal", "M", 51.0, 1)
    assert [name for name in NIH_CLASSES if image[name] == 1] == ["Effusion", "Mass"]
    assert (source.table[list(NIH_CLASSES)].iloc[0] == 0).all()


def test_nih_classes_in_the_order_asked_for(tmp_path):
    table = read_dataset(make_nih(tmp_path, images=False)).table
    chosen = read_dataset(tmp_path, classes=("Nodule", "Edema"))
    pd.testing.assert_frame_equal(chosen.table[["Nodule", "Edema"]], table[["Nodule", "Edema"]])
    refused(tmp_path, "'Pleural Effusion'", "Effusion, Emphysema", classes=("Pleural Effusion",))


@pytest.mark.parametrize(
    "folders",
    [
        ("images_001/images", "images_002/images"),
        ("images_001", "images_012"),
        ("images-224/images-224",),
        ("sample/sample/images",),
        ("unzipped", "a/b/c"),
        (".",),
    ],
)
def test_nih_images_in_several_folders(tmp_path, folders):
    source = read_dataset(make_nih(tmp_path, folders=folders))
    assert all((tmp_path / name).is_file() for name in source.table["image_id"])
    assert source.table["image_id"][1] == (Path(folders[-1]) / "00000001_001.png").as_posix()
    assert source.warnings == ()


def test_nih_images_elsewhere_missing_or_doubled(tmp_path):
    labels = make_nih(tmp_path / "labels", folders=("../flat",))
    assert read_dataset(labels).table["image_id"][0] == "images/00000001_000.png"
    flat = read_dataset(labels, image_root=tmp_path / "flat")
    assert flat.table["image_id"][0] == "00000001_000.png" and flat.image_root == tmp_path / "flat"
    (labels / "images").mkdir()
    (labels / "images_001").mkdir()
    for folder in ("images", "images_001"):
        (labels / folder / "00000002_000.png").write_bytes(b"")
    doubled = read_dataset(labels)
    assert doubled.table["image_id"][2] == "images/00000002_000.png"
    assert len(doubled.warnings) == 1 and doubled.warnings[0].endswith(": 1 (00000002_000.png)")


def test_nih_without_lists_has_no_published_split(tmp_path):
    source = read_dataset(make_nih(tmp_path, lists=()))
    check_form(source)
    assert source.table["split"].isna().all() and source.split_note == "" and len(source.files) == 1
    assert "the split is made here" in source.warnings[0]
    (tmp_path / "test_list.txt").write_text("00000001_000.png\n")
    refused(tmp_path, "train_val_list.txt is missing")


def test_nih_faults_of_the_lists_are_problems(tmp_path):
    make_nih(tmp_path, images=False)
    lists = {name: (tmp_path / f"{name}_list.txt").read_text().split() for name in ("train_val", "test")}
    lists["test"] += [lists["train_val"][0], "00009999_000.png"]
    del lists["train_val"][1]
    for name, names in lists.items():
        (tmp_path / f"{name}_list.txt").write_text("\r\n".join(names) + "\r\n\r\n")
    source = read_dataset(tmp_path)
    check_form(source)
    assert len(source.table) == 12 and row(source, "images/00000001_000.png").split == "test"
    assert list(source.table["image_id"][source.table["split"].isna()]) == ["images/00000001_001.png"]
    left_out, both, unknown = source.problems
    assert left_out.endswith("that neither list names: 1 (00000001_001.png)")
    assert unknown.endswith("does not list: 1 (00009999_000.png)")
    assert both == "images in both lists, treated as test: 1 (00000001_000.png)"


def test_nih_older_release(tmp_path):
    """Ages with their unit, an age that cannot be, and a header that ends in a comma."""
    file = make_nih(tmp_path, images=False) / "Data_Entry_2017_v2020.csv"
    for line, age in enumerate(("058Y", "018M", "414Y"), start=2):
        set_cell(file, line=line, column="Patient Age", value=age)
    lines = file.read_text().splitlines()
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([lines[0] + ",", *[line + "," for line in lines[1:]]]))
    file.unlink()
    source = read_dataset(tmp_path)
    assert source.context["age"][:2].tolist() == [58.0, 1.5] and np.isnan(source.context["age"][2])
    assert "414Y" in source.warnings[0]


@pytest.mark.parametrize("value", ["Effusion|Cough", "", "No Finding|Edema"])
def test_nih_unknown_finding(tmp_path, value):
    make_nih(tmp_path, images=False)
    set_cell(tmp_path / "Data_Entry_2017_v2020.csv", line=5, column="Finding Labels", value=value)
    refused(tmp_path, "line 5", repr(value), "Pleural_Thickening")


def test_nih_two_label_files(tmp_path):
    file = make_nih(tmp_path, images=False) / "Data_Entry_2017_v2020.csv"
    (tmp_path / "Data_Entry_2017.csv").write_bytes(file.read_bytes())
    refused(tmp_path, "Data_Entry_2017.csv, Data_Entry_2017_v2020.csv")
    assert read_dataset(file).name == "nih" and len(read_dataset(file).table) == 12


def test_nih_copy_at_224_pixels(tmp_path):
    lists = ("train_val_list_NIH.txt", "test_list_NIH.txt")
    make_nih(tmp_path, name="Data_Entry_2017.csv", folders=("images-224/images-224",), lists=lists)
    source = read_dataset(tmp_path)
    check_form(source)
    assert source.split_note == "train_val_list_NIH.txt and test_list_NIH.txt" and source.warnings == ()
    assert row(source, "images-224/images-224/00000006_001.png").split == "test"
    (tmp_path / "test_list.txt").write_text("00000001_000.png\n")
    refused(tmp_path, "test_list.txt, test_list_NIH.txt", "keep the one")
    (tmp_path / "test_list.txt").unlink()
    (tmp_path / lists[1]).unlink()
    refused(tmp_path, "test_list.txt is missing")


def test_nih_kaggle_sample(tmp_path):
    """Its ids are padded, its ages have units, its images lie twice, and it has no lists."""
    file = make_nih(tmp_path, name="sample_labels.csv", folders=("sample/images",), lists=()) / "sample_labels.csv"
    copy = tmp_path / "sample" / "sample" / "images"
    copy.mkdir(parents=True)
    (copy / "00000001_000.png").touch()
    cells = {"Patient ID": "00000001", "Follow-up #": "000", "Patient Age": "060Y", "Finding Labels": "No_Finding"}
    for column, value in cells.items():
        set_cell(file, line=2, column=column, value=value)
    source = read_dataset(tmp_path)
    check_form(source)
    image = row(source, "sample/images/00000001_000.png")
    assert (source.name, image.patient_id, image.study_id, image.age) == ("nih", "00000001", "00000001_000", 60)
    assert source.table["split"].isna().all() and (image[list(NIH_CLASSES)] == 0).all() and image["no_finding"] == 1
    (warning,) = source.warnings
    assert warning.startswith(
        "no train_val_list.txt and test_list.txt next to sample_labels.csv: the split is made here"
    )


def test_nih_sample_with_the_lists_of_all_images(tmp_path):
    make_nih(tmp_path, name="sample_labels.csv", images=False)
    with (tmp_path / "test_list.txt").open("a") as stream:
        stream.write("00009999_000.png\n")
    source = read_dataset(tmp_path)
    assert source.problems == () and source.table["split"].value_counts().to_dict() == {"train": 8, "test": 4}
    assert source.warnings == ("images in the lists that sample_labels.csv does not list: 1 (00009999_000.png)",)


def test_nih_column_called_sex(tmp_path):
    file = make_nih(tmp_path, images=False) / "Data_Entry_2017_v2020.csv"
    file.write_text(file.read_text().replace("Patient Gender", "Patient Sex"))
    assert set(read_dataset(tmp_path).context["sex"]) == {"F", "M"}


def test_a_folder_above_that_of_the_data_set_is_told_which(tmp_path):
    make_nih(tmp_path / "NIH", images=False)
    refused(tmp_path, "its folder NIH does (nih), so pass that folder")
