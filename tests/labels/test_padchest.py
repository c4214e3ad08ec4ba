"""PadChest: lists of findings, a tree of labels, and the images about which nothing is stated."""

import numpy as np
import pytest

from src.data import read_dataset
from src.labels.nih import NIH_CLASSES
from tests.reading import check_form, refused, row
from tests.trees import drop_column, make_padchest, set_cell

FILE = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"


def labeled(tmp_path, labels, **options):
    """The row of one image after its list of labels was changed."""
    set_cell(make_padchest(tmp_path, images=False) / FILE, line=2, column="Labels", value=labels)
    return row(read_dataset(tmp_path, **options), "0/000000_00.png")


def test_padchest(tmp_path):
    source = read_dataset(make_padchest(tmp_path))
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("padchest", NIH_CLASSES, tmp_path)
    assert all((tmp_path / name).is_file() for name in source.table["image_id"])
    assert source.table["split"].isna().all() and source.split_note == "" and len(source.table) == 32
    image = row(source, "1/001001_01.png")
    assert (image.patient_id, image.study_id, image["view"]) == ("700001", "001001", "lateral")
    assert (image.sex, image.age, image.study_order) == ("M", 64, 0)  # its date is the earlier one
    counted = "16 of 32 images, counted before --views and --images"
    assert source.warnings == (f"the labels of {counted}, were read from the report by a network (MethodLabel)",)


def test_an_image_has_a_class_by_its_own_label_and_by_those_below_it(tmp_path):
    image = labeled(
        tmp_path, "['loculated fissural effusion', ' Air Bronchogram ', 'callus rib fracture', 'loc basal']"
    )
    assert [name for name in NIH_CLASSES if image[name] == 1] == ["Consolidation", "Effusion", "Infiltration"]
    assert not np.isnan(image[list(NIH_CLASSES)].astype(float)).any()


def test_any_label_can_be_a_class(tmp_path):
    classes = ("Fracture", "Pleural Effusion", "NSG tube", "aortic elongation")
    image = labeled(tmp_path, "['callus rib fracture', 'nsg tube', 'supra aortic elongation']", classes=classes)
    assert image[list(classes)].tolist() == [1, 0, 1, 1]
    refused(tmp_path, "'Cough'", "Atelectasis, Cardiomegaly", "--classes", classes=("Cough",))


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("Labels", "", "because of a report without labels"),
        ("Labels", "['']", "because of a report without labels"),
        ("Labels", "['Unchanged', 'cardiomegaly']", "because of label 'unchanged'"),
        ("Labels", "['suboptimal study']", "because of label 'suboptimal study'"),
        ("Labels", "['exclude', 'unchanged']", "because of label 'exclude'"),
        ("Projection", "EXCLUDE", "because of projection 'EXCLUDE'"),
    ],
)
def test_images_without_a_statement_are_left_out_and_counted(tmp_path, column, value, why):
    set_cell(make_padchest(tmp_path, images=False) / FILE, line=2, column=column, value=value)
    source = read_dataset(tmp_path)
    check_form(source)
    assert len(source.table) == 31 and source.warnings[0] == f"images left out {why}: 1 (000000_00.png)"
    assert len(source.warnings) == 2 and "of 31 images" in source.warnings[1]


@pytest.mark.parametrize(("projection", "view"), [("AP_horizontal", "frontal"), ("AP", "frontal"), ("COSTAL", "")])
def test_projections(tmp_path, projection, view):
    set_cell(make_padchest(tmp_path, images=False) / FILE, line=2, column="Projection", value=projection)
    assert row(read_dataset(tmp_path), "0/000000_00.png")["view"] == view


def test_age_is_unknown_where_it_cannot_be(tmp_path):
    file = make_padchest(tmp_path, images=False) / FILE
    for line, birth in enumerate(("None", "", "2030.0"), start=2):
        set_cell(file, line=line, column="PatientBirth", value=birth)
    source = read_dataset(tmp_path)
    assert source.context["age"][:3].isna().all() and "1 (000001_00.png)" in source.warnings[0]


def test_patient_ids_that_share_a_study_are_one_patient(tmp_path):
    set_cell(make_padchest(tmp_path, images=False) / FILE, line=2, column="StudyID", value="007000")
    source = read_dataset(tmp_path)
    assert source.table["patient_id"][:2].tolist() == ["700000"] * 2 == source.table["patient_id"][28:30].tolist()
    assert source.warnings[0].endswith("are treated as the same patient: 1 (700007)")


def test_images_in_other_folders(tmp_path):
    make_padchest(tmp_path)
    (tmp_path / "images").mkdir()
    for folder in ("0", "1"):
        (tmp_path / folder).rename(tmp_path / "images" / folder)
    (tmp_path / "images" / "0" / "000000_00.png").unlink()
    table = read_dataset(tmp_path).table
    assert table["image_id"][:2].tolist() == ["0/000000_00.png", "images/0/000000_01.png"]


@pytest.mark.parametrize("value", ["pleural effusion", "[1]", "['a'", "5"])
def test_labels_that_are_no_list(tmp_path, value):
    set_cell(make_padchest(tmp_path, images=False) / FILE, line=4, column="Labels", value=value)
    message = refused(tmp_path, FILE, "column 'Labels'", repr(value), "expected a Python list")
    assert "line " in message


def test_files_and_columns_that_are_missing_or_too_many(tmp_path):
    file = make_padchest(tmp_path / "label", images=False) / FILE
    refused(tmp_path, "its folder label does (padchest)")
    assert read_dataset(file).name == "padchest"
    drop_column(file, "StudyID")
    refused(file.parent, FILE, "'StudyID'")
    (file.parent / "PADCHEST_chest_x_ray_images_labels_160K.csv").write_bytes(file.read_bytes())
    refused(file.parent, f"160K.csv, {FILE}", "keep the one to read")
    refused(tmp_path, "holds no PADCHEST", dataset="padchest")
