"""Label files in, one form out: every data set's layout, and what must not pass."""

import gzip

import numpy as np
import pandas as pd
import pytest

from src.data import read_dataset
from src.labels.chexpert import CHEXPERT_CLASSES
from src.labels.files import study_order
from src.labels.nih import NIH_CLASSES
from tests.reading import check_form, refused, row
from tests.trees import drop_column, drop_rows, make_chexpert, make_csv, make_mimic, make_nih, set_cell, write_csv

# --- CheXpert


@pytest.mark.parametrize("prefix", ["", "CheXpert-v1.0-small/", "CheXpert-v1.0/", "CheXpert-v1.0-resized/"])
@pytest.mark.parametrize("gz", [False, True])
def test_chexpert_layouts_read_alike(tmp_path, prefix, gz):
    source = read_dataset(make_chexpert(tmp_path, prefix=prefix, gz=gz))
    check_form(source)
    assert source.name == "chexpert" and source.image_root == tmp_path and source.classes == CHEXPERT_CLASSES
    assert len(source.table) == 40 and all((tmp_path / name).is_file() for name in source.table["image_id"])
    first = row(source, "train/patient00001/study2/view2_lateral.jpg")
    assert (first.patient_id, first.study_id) == ("patient00001", "patient00001/study2")
    assert (first["view"], first.sex, first.age, first.study_order) == ("lateral", "F", 41.0, 1)


def test_chexpert_labels_belong_to_their_class_and_row(tmp_path):
    make_chexpert(tmp_path, images=False)
    for column, value in (("Edema", "1.0"), ("Fracture", "-1.0"), ("Pneumonia", ""), ("Lung Opacity", "0.0")):
        set_cell(tmp_path / "train.csv", line=4, column=column, value=value)
    labels = row(read_dataset(tmp_path), "train/patient00001/study2/view1_frontal.jpg")
    assert (labels["Edema"], labels["Fracture"], labels["Lung Opacity"]) == (1, -1, 0)
    assert np.isnan(labels["Pneumonia"])


def test_chexpert_valid_is_the_published_test_split(tmp_path):
    source = read_dataset(make_chexpert(tmp_path, images=False))
    folders = source.table["image_id"].str.split("/").str[0]
    assert source.table["split"].tolist() == folders.map({"train": "train", "valid": "test"}).tolist()
    assert "valid.csv is test" in source.split_note and len(source.files) == 2


def test_chexpert_without_valid_has_no_published_split(tmp_path):
    make_chexpert(tmp_path, images=False)
    by_file = read_dataset(tmp_path / "train.csv")
    (tmp_path / "valid.csv").unlink()
    by_folder = read_dataset(tmp_path)
    for source, said in (
        (by_file, "train.csv was read without valid.csv, so that the split is made here"),
        (by_folder, "no valid.csv and test_labels.csv next to train.csv: the split is made here"),
    ):
        check_form(source)
        assert source.table["split"].isna().all() and source.split_note == "" and len(source.table) == 24
        assert said in source.warnings[0]


def test_chexpert_without_train_is_known_by_valid_and_names_what_is_missing(tmp_path):
    make_chexpert(tmp_path, images=False)
    (tmp_path / "train.csv").unlink()
    refused(tmp_path, "holds no train.csv or train.csv.gz")


def test_chexpert_folder_inside_the_given_one(tmp_path):
    make_chexpert(tmp_path / "CheXpert-v1.0-small", images=False)
    assert read_dataset(tmp_path).image_root == tmp_path / "CheXpert-v1.0-small"
    make_chexpert(tmp_path / "CheXpert-v1.0", images=False)
    refused(tmp_path, "CheXpert-v1.0/train.csv, CheXpert-v1.0-small/train.csv", "one of them")


def test_chexpert_refuses_two_train_files(tmp_path):
    make_chexpert(tmp_path, images=False)
    make_chexpert(tmp_path, images=False, gz=True)
    refused(tmp_path, "train.csv, train.csv.gz")


def test_chexpert_unknown_sex_and_impossible_age(tmp_path):
    make_chexpert(tmp_path, images=False, prefix="")
    set_cell(tmp_path / "train.csv", line=2, column="Sex", value="Unknown")
    set_cell(tmp_path / "train.csv", line=2, column="Age", value="412")
    set_cell(tmp_path / "train.csv", line=3, column="Age", value="")
    source = read_dataset(tmp_path)
    assert source.context["sex"][0] == "" and source.context["age"][:2].isna().all()
    assert len(source.warnings) == 1 and source.warnings[0].endswith(": 1 (412)")


def test_chexpert_no_finding_can_be_asked_for(tmp_path):
    make_chexpert(tmp_path, images=False)
    source = read_dataset(tmp_path, classes=("No Finding", "Edema"))
    assert source.classes == ("No Finding", "Edema") and list(source.table)[5:] == ["No Finding", "Edema"]


def test_chexpert_image_in_both_files(tmp_path):
    make_chexpert(tmp_path, images=False)
    name = pd.read_csv(tmp_path / "train.csv")["Path"][5]
    set_cell(tmp_path / "valid.csv", line=2, column="Path", value=name)
    refused(tmp_path, name.removeprefix("CheXpert-v1.0-small/"), "valid.csv")


@pytest.mark.parametrize("value", ["train/study1/a.jpg", "patient1.jpg"])
def test_chexpert_path_without_patient_and_study(tmp_path, value):
    make_chexpert(tmp_path, images=False)
    set_cell(tmp_path / "train.csv", line=7, column="Path", value=value)
    refused(tmp_path, "train.csv, line 7", value, "patient00001/study1")


def test_chexpert_ten_studies_in_order_of_number(tmp_path):
    source = read_dataset(make_chexpert(tmp_path, patients=1, studies=11, images=False))
    assert row(source, "train/patient00001/study10/view1_frontal.jpg").study_order == 9


# --- MIMIC-CXR-JPG


@pytest.mark.parametrize("gz", [False, True])
def test_mimic(tmp_path, gz):
    source = read_dataset(make_mimic(tmp_path, gz=gz))
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("mimic", CHEXPERT_CLASSES, tmp_path)
    assert len(source.files) == 3 and source.problems == source.warnings == ()
    assert all((tmp_path / name).is_file() for name in source.table["image_id"])
    assert source.table.groupby("split")["patient_id"].nunique().to_dict() == {"train": 4, "val": 1, "test": 1}
    image = row(source, "files/p11/p11000032/s50000101/00000001-00000001-00000001.jpg")
    assert (image.patient_id, image.study_id, image["view"]) == ("p11000032", "s50000101", "lateral")
    assert image.study_order == 1 and image.sex == "" and np.isnan(image.age)  # the lower id is the later study


def test_mimic_labels_are_joined_by_study(tmp_path):
    make_mimic(tmp_path)
    labels = pd.read_csv(tmp_path / "mimic-cxr-2.0.0-chexpert.csv")
    labels.sample(frac=1, random_state=0).to_csv(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", index=False)
    table = read_dataset(tmp_path).table
    truth = labels.assign(study_id="s" + labels["study_id"].astype(str)).set_index("study_id")
    for name in CHEXPERT_CLASSES:
        np.testing.assert_array_equal(table[name], truth.loc[table["study_id"], name])


def test_mimic_study_without_labels_is_left_out_and_said(tmp_path):
    make_mimic(tmp_path)
    drop_rows(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", 2)
    source = read_dataset(tmp_path)
    check_form(source)
    assert len(source.table) == 22 and "s50000002" not in set(source.table["study_id"])
    assert source.problems == () and len(source.warnings) == 1
    assert (
        "because mimic-cxr-2.0.0-chexpert.csv lacks their study: 2 (files/p10/p10000032/s50000002/"
        in source.warnings[0]
    )


def test_mimic_lists_that_do_not_agree_are_problems(tmp_path):
    make_mimic(tmp_path)
    drop_rows(tmp_path / "mimic-cxr-2.0.0-split.csv", 2)
    drop_rows(tmp_path / "mimic-cxr-2.0.0-metadata.csv", 4, 5)
    source = read_dataset(tmp_path)
    check_form(source)
    assert len(source.table) == 22 and source.table["split"].isna().sum() == 1
    unlisted, unknown = source.problems
    assert "mimic-cxr-2.0.0-split.csv does not list: 1 (files/p10" in unlisted
    assert "metadata.csv does not: 2 (files/p10" in unknown


@pytest.mark.parametrize("part", ["chexpert", "split", "metadata"])
def test_mimic_file_missing_or_doubled(tmp_path, part):
    make_mimic(tmp_path, images=False)
    file = tmp_path / f"mimic-cxr-2.0.0-{part}.csv"
    newer = file.with_name(f"mimic-cxr-2.1.0-{part}.csv")
    newer.write_bytes(file.read_bytes())
    refused(tmp_path, file.name, newer.name)
    file.unlink()
    newer.unlink()
    refused(tmp_path, f"mimic-cxr-2.*-{part}.csv")


def test_mimic_unknown_split_and_doubled_rows(tmp_path):
    make_mimic(tmp_path, images=False)
    refused(tmp_path / "mimic-cxr-2.0.0-split.csv", "folder")
    set_cell(tmp_path / "mimic-cxr-2.0.0-split.csv", line=3, column="split", value="holdout")
    refused(tmp_path, "split.csv, line 3", "'holdout'", "train, val, calib, test")
    make_mimic(tmp_path, images=False)
    set_cell(tmp_path / "mimic-cxr-2.0.0-chexpert.csv", line=3, column="study_id", value="50000002")
    refused(tmp_path, "chexpert.csv", "s50000002", "lines 2 and 3")


def test_mimic_ignores_other_releases_files(tmp_path):
    make_mimic(tmp_path, images=False)
    for name in ("mimic-cxr-2.0.0-negbio.csv", "mimic-cxr-2.1.0-test-set-labeled.csv"):
        (tmp_path / name).write_text("study_id,Edema\n1,1\n")
    assert len(read_dataset(tmp_path).files) == 3


def test_spellings_of_a_patient_of_a_public_data_set_are_merged_where_this_is_asked_for(tmp_path):
    file = make_nih(tmp_path, patients=8, studies=2, images=False) / "Data_Entry_2017_v2020.csv"
    set_cell(file, line=3, column="Patient ID", value="1.0")
    assert read_dataset(tmp_path).table["patient_id"].nunique() == 9
    merged = read_dataset(tmp_path, merge_patients=True)
    assert merged.table["patient_id"].nunique() == 8 and set(merged.table["patient_id"][:2]) == {"00000001"}
    assert merged.context["study_order"].tolist() == [0, 1] * 8
    assert "each treated as one patient: 1 ('00000001' and '000001.0')" in merged.warnings[-1]


# --- a CSV of one's own


def test_csv(tmp_path):
    """Every role by its usual name, classes are what remains, in the file's order."""
    splits = ["train", "TRAIN", "val", "valid", "validate", "validation", "test", "test"]
    more = {"Study ID": list("abcdefgh"), "view": ["PA", "lateral", "oblique", "", *["AP"] * 4], "split": splits}
    more |= {"Gender": ["female", "m", "X", "", *["F"] * 4], "age": ["40", "40.5", "", *["7"] * 5]}
    file = make_csv(tmp_path, patients=4, **more)
    source = read_dataset(file)
    check_form(source)
    assert (source.name, source.classes, source.image_root) == ("csv", ("Nodule", "Hernia"), tmp_path)
    table, context = source.table, source.context
    assert table["image_id"][0] == "png/0_0.png" and table["patient_id"].tolist()[:3] == ["P0", "P0", "P1"]
    assert table["study_id"].tolist() == list("abcdefgh") and context["study_order"].tolist() == [0, 1] * 4
    assert table["view"].tolist() == ["frontal", "lateral", "", "", *["frontal"] * 4]
    assert table["split"].tolist() == ["train"] * 2 + ["val"] * 4 + ["test"] * 2
    assert context["sex"].tolist() == ["F", "M", "", "", *["F"] * 4] and context["age"].tolist()[:2] == [40, 40.5]
    assert source.split_note == "column 'split' of labels.csv" and source.warnings == ()
    for name in source.classes:
        np.testing.assert_array_equal(table[name], pd.read_csv(file)[name])


def test_csv_alone_in_a_folder(tmp_path):
    make_csv(tmp_path, images=False)
    assert read_dataset(tmp_path).files == (tmp_path / "labels.csv",)
    make_csv(tmp_path, images=False, name="more.csv")
    refused(tmp_path, "labels.csv, more.csv")


@pytest.mark.parametrize(
    "name",
    ["Path", "image_path", "IMAGE", "image_id", "filename", "file", "file_name", "filepath", "Image Index", "ID"],
)
def test_csv_path_column_by_its_usual_names(tmp_path, name):
    write_csv(tmp_path / "a.csv", [{name: "x.png", "Subject ID": "7", "Mass": "1"}])
    source = read_dataset(tmp_path / "a.csv")
    assert source.classes == ("Mass",) and source.table.iloc[0].tolist()[:2] == ["x.png", "7"]


def test_csv_of_two_usual_names_the_more_telling_is_used_and_neither_is_a_class(tmp_path):
    cells = {"image_id": "i1", "path": "x.png", "subject_id": "S", "patient_id": "P", "Mass": "1"}
    source = read_dataset(write_csv(tmp_path / "a.csv", [cells]))
    assert source.classes == ("Mass",) and source.table.iloc[0].tolist()[:2] == ["x.png", "P"]


def test_csv_columns_by_the_callers_names(tmp_path):
    cells = {"pixels": "x.png", "who": "7", "visit": "e", "side": "LL", "part": "test", "Mass": "1", "path": "unused"}
    file = write_csv(tmp_path / "a.csv", [cells | {"W": "f", "Alter": "58"}])
    columns = {"path_column": "pixels", "patient_column": "who", "study_column": "visit"}
    columns |= {"sex_column": "W", "age_column": "Alter"}
    source = read_dataset(file, **columns, view_column="side", split_column="part")
    assert source.table.iloc[0].tolist() == ["x.png", "7", "e", "lateral", "test", 1.0]
    assert source.context.iloc[0].tolist()[:4] == ["x.png", "F", 58.0, 0]
    refused(file, "'visits'", "pixels, who, visit", study_column="visits")
    refused(write_csv(tmp_path / "b.csv", [{"pixels": "x.png", "Mass": "1"}]), "--path-column", "pixels, Mass")


def test_csv_image_root(tmp_path):
    file = make_csv(tmp_path, images=False)
    (tmp_path / "elsewhere").mkdir()
    assert read_dataset(file, image_root=tmp_path / "elsewhere").image_root == tmp_path / "elsewhere"
    refused(file, "nowhere", image_root=tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["PatientID", "MRN", "pid", "Patient Number"])
def test_usual_names_of_the_patient_column_are_known(tmp_path, name):
    rows = [{"path": f"{n}.png", name: f"p{n // 2}", "Mass": "1"} for n in range(4)]
    source = read_dataset(write_csv(tmp_path / "a.csv", rows))
    assert source.table["patient_id"].tolist() == ["p0", "p0", "p1", "p1"] and source.classes == ("Mass",)


def test_csv_without_patients(tmp_path):
    rows = [{"path": f"patient{n // 2}/{n}.png", "Mass": "1"} for n in range(4)]
    known = read_dataset(write_csv(tmp_path / "a.csv", rows))
    assert known.table["patient_id"].tolist() == ["patient0", "patient0", "patient1", "patient1"]
    said = "the patient is read from the id, such as patient0 from patient0/0.png"
    assert known.warnings == (f"a.csv has no patient column: {said}; name the column with --patient-column",)
    alone = read_dataset(write_csv(tmp_path / "b.csv", [*rows, {"path": "x.png", "Mass": "0"}]))
    assert alone.table["patient_id"].tolist()[-1] == "x.png" == alone.table["study_id"].tolist()[-1]
    assert (
        len(alone.warnings) == 1
        and "1 of 5 rows name no patient and count as one patient each" in alone.warnings[0]
        and "--patient-column" in alone.warnings[0]
    )


def test_csv_without_studies_reads_them_from_the_path_and_does_not_advise_them_as_patients(tmp_path):
    rows = [{"path": f"files/p10/p1000000{n // 4}/s5000000{n // 2}/{n}.jpg", "Mass": "1"} for n in range(8)]
    source = read_dataset(write_csv(tmp_path / "a.csv", rows))
    assert source.table["study_id"].tolist() == [f"s5000000{n // 2}" for n in range(8)]
    assert source.context["study_order"].tolist() == [0, 0, 1, 1] * 2
    said = "the study is read from the id, such as s50000000 from files/p10/p10000000/s50000000/0.jpg"
    assert source.understood.endswith(f"; {said}")
    own = read_dataset(write_csv(tmp_path / "b.csv", [row | {"study": f"s{n}000"} for n, row in enumerate(rows)]))
    assert "--patient-column study" not in own.warnings[0] and "is read from the id" not in own.understood
    names = [{"path": f"{n}.jpg", "study": f"s{n}000", "Mass": "1"} for n in range(2)]
    assert "--patient-column study would" in read_dataset(write_csv(tmp_path / "c.csv", names)).warnings[0]


@pytest.mark.parametrize("studies", [["1", "2", "1", "1"], ["study1", "study2", "study1", "study1"]])
def test_csv_studies_that_count_within_a_patient_are_told_apart(tmp_path, studies):
    source = read_dataset(make_csv(tmp_path, patients=2, images=False, study=studies))
    assert source.table["study_id"].tolist() == [f"P{n // 2}/{study}" for n, study in enumerate(studies)]
    assert source.context["study_order"].tolist() == [0, 1, 0, 0]


def test_csv_study_ids_of_their_own_stay_so_that_a_shared_one_shows(tmp_path):
    source = read_dataset(make_csv(tmp_path, patients=2, images=False, study=["s501", "s502", "s502", "s503"]))
    assert source.table["study_id"].tolist() == ["s501", "s502", "s502", "s503"]
    assert source.context["study_order"].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("value", "image_id"), [("./png//a.png", "png/a.png"), ("png\\a.png", "png/a.png"), (" a..b.png ", "a..b.png")]
)
def test_csv_paths_are_normalized(tmp_path, value, image_id):
    assert read_dataset(write_csv(tmp_path / "a.csv", [{"path": value, "Mass": "1"}])).table["image_id"][0] == image_id


@pytest.mark.parametrize("value", ["/data/a.png", "C:\\a.png", "../a.png", "png/../../a.png", "~/a.png", " "])
def test_csv_paths_that_leave_the_image_folder(tmp_path, value):
    file = make_csv(tmp_path, images=False)
    set_cell(file, line=4, column="path", value=value)
    refused(file, "labels.csv, line 4", "path")


@pytest.mark.parametrize("value", ["2", "yes", "0.5", "-2", "inf"])
@pytest.mark.parametrize("kind", ["csv", "chexpert"])
def test_label_that_is_none(tmp_path, kind, value):
    file = make_csv(tmp_path, images=False)
    if kind == "chexpert":
        file = make_chexpert(tmp_path, images=False) / "train.csv"
    column = {"csv": "Hernia", "chexpert": "Edema"}[kind]
    set_cell(file, line=9, column=column, value=value)
    message = refused(file, f"{file.name}, line 9, column '{column}'", repr(value), "0 (no), -1 (uncertain) or blank")
    assert ("--classes" in message) == (kind == "csv")


def test_blank_and_nan_and_spaces_are_read_as_meant(tmp_path):
    values = ["1", " 1.0 ", "-0.0", "-1", "-1,0", "", "nan", "NA", " N/A ", "null", "None", "<NA>"]
    file = write_csv(tmp_path / "a.csv", [{"path": f"{n}.png", "Mass": value} for n, value in enumerate(values)])
    np.testing.assert_array_equal(read_dataset(file).table["Mass"], [1, 1, 0, -1, -1, *[np.nan] * 7])


def test_ages_are_read_as_people_write_them_and_stop_nothing(tmp_path):
    values = {
        "58": 58,
        "058Y": 58,
        "58 years": 58,
        "90+": 90,
        ">89": 89,
        "18 months": 1.5,
        "58,5": 58.5,
        "6 yr. old": 6,
    }
    unknown = ["NA", "", "old", "412"]
    file = make_csv(tmp_path, patients=6, images=False, age=[*values, *unknown])
    source = read_dataset(file)
    np.testing.assert_allclose(source.context["age"], [*values.values(), *[np.nan] * 4])
    assert source.warnings == (
        "rows of labels.csv with an age that cannot be read or is above 120 years, treated as unknown: 2 (old, 412)",
    )


def test_a_column_of_sexes_or_views_of_which_nothing_can_be_read_is_named_with_an_example(tmp_path):
    file = make_csv(tmp_path, images=False, Gender=["", "NA", *["1"] * 10], Projection=["oblique"] * 12)
    source = read_dataset(file)
    assert set(source.context["sex"]) == set(source.table["view"]) == {""}
    assert source.warnings == (
        "no sex in column 'Gender' of labels.csv, such as '1', is known, so that it is unknown in all rows",
        "no view in column 'Projection' of labels.csv, such as 'oblique', is known, so that it is unknown in all rows",
    )


def test_csv_columns_of_0_and_1_that_are_no_findings_are_named_with_the_flag_that_leaves_them_out(tmp_path):
    yes = ["0", "1"] * 6
    names = ("Unnamed: 0", "Unnamed: 0.1", "fold", "cv_fold_id", "is_female", "sex_male", "gender_M", "train_flag",
             "label", "deceased", "Hernia.1")  # fmt: skip
    file = make_csv(tmp_path, images=False, **dict.fromkeys(names, yes), **{"Skin Fold": yes})
    source = read_dataset(file)
    assert f"otherwise: 11 ({', '.join(names)}); leave them out" in source.warnings[0]
    assert source.warnings[0].endswith("--classes 'Skin Fold' Nodule Hernia")
    assert "; findings: 14 (Unnamed: 0, Unnamed: 0.1, " in source.understood
    assert read_dataset(file, classes=("Nodule", "fold")).warnings == ()
    alone = read_dataset(make_csv(tmp_path / "alone", images=False, classes=("label",)))
    assert alone.classes == ("label",) and "rename them if they are findings" in alone.warnings[0]


def test_csv_columns_of_one_class_by_two_names_are_both_named(tmp_path):
    file = make_csv(tmp_path, images=False, classes=("Edema", "Mass", "edema"))
    refused(file, "labels.csv has two columns for the same class: 'Edema' and 'edema'", "--classes")
    assert read_dataset(file, classes=("edema", "Mass")).classes == ("edema", "Mass")


def test_csv_blank_patient_and_unknown_split(tmp_path):
    file = make_csv(tmp_path, images=False, split=["train"] * 12)
    set_cell(file, line=4, column="split", value="")
    refused(file, "line 4, column 'split'", "''", "train, val, calib, test")
    set_cell(file, line=5, column="patient_id", value=" ")
    refused(file, "line 5", "'patient_id' is blank")


@pytest.mark.parametrize("column", ["path", "patient_id", "study"])
@pytest.mark.parametrize("blank", ["NA", " nan", "None", "<NA>"])
def test_csv_blanks_of_labels_are_no_ids_of_one_patient_or_study(tmp_path, column, blank):
    file = make_csv(tmp_path, images=False, study=[f"s{n}00000" for n in range(12)])
    for line in (5, 6):
        set_cell(file, line=line, column=column, value=blank)
    message = refused(file, "line 5", f"{column!r} is blank in 2 of 12 rows, here as {blank.strip()!r}; give every row")
    assert "\n" not in message


def test_csv_doubled_image(tmp_path):
    file = make_csv(tmp_path, images=False)
    set_cell(file, line=6, column="path", value="./png/0_1.png")
    refused(file, "'png/0_1.png'", "lines 3 and 6")


def test_csv_classes(tmp_path):
    file = make_csv(tmp_path, images=False, note=["text"] * 12)
    refused(file, "line 2, column 'note'", "'text'", "--classes")
    assert read_dataset(file, classes=("Hernia", "Nodule")).classes == ("Hernia", "Nodule")
    refused(file, "'Edema'", "note, Nodule, Hernia", classes=("Nodule", "Edema"))
    refused(file, "'Nodule'", "twice", classes=("Nodule", "Nodule"))
    refused(file, "class", classes=())
    refused(write_csv(tmp_path / "b.csv", [{"path": "x.png", "patient": "1"}]), "no class column")
    refused(write_csv(tmp_path / "c.csv", [{"path": "x.png", "view": "1", "side": "PA"}]), "'view'", "rename",
            classes=("view",), view_column="side")  # fmt: skip


# --- "No Finding"


def no_findings(source):
    """What the labels say of "No Finding", per image."""
    return source.context.set_index("image_id")["no_finding"]


def test_no_finding_of_chexpert_is_context(tmp_path):
    make_chexpert(tmp_path, images=False)
    cells = pd.concat([pd.read_csv(tmp_path / f"{part}.csv") for part in ("train", "valid")])
    np.testing.assert_array_equal(no_findings(read_dataset(tmp_path)), cells["No Finding"])
    for part in ("train", "valid"):
        drop_column(tmp_path / f"{part}.csv", "No Finding")
    assert no_findings(read_dataset(tmp_path)).isna().all()


def test_no_finding_of_mimic_is_joined_by_study(tmp_path):
    make_mimic(tmp_path, images=False)
    file = tmp_path / "mimic-cxr-2.0.0-chexpert.csv"
    pd.read_csv(file).sample(frac=1, random_state=0).to_csv(file, index=False)
    source = read_dataset(tmp_path)
    said = pd.read_csv(file).set_index("study_id")["No Finding"]
    studies = source.table["study_id"].str.removeprefix("s").astype(int)
    np.testing.assert_array_equal(no_findings(source), said.loc[studies])


def test_no_finding_of_nih_is_the_finding_of_that_name(tmp_path):
    source = read_dataset(make_nih(tmp_path, images=False))
    said = no_findings(source)
    assert set(said) == {0.0, 1.0}
    assert ((source.table[list(NIH_CLASSES)] == 1).any(axis=1).to_numpy() == (said == 0).to_numpy()).all()


@pytest.mark.parametrize("column", ["No Finding", "no_finding"])
def test_no_finding_of_a_csv_is_context_unless_it_is_asked_for(tmp_path, column):
    values = ["1", "0", "", "-1"] * 3
    file = make_csv(tmp_path, images=False, **{column: values})
    source = read_dataset(file)
    assert source.classes == ("Nodule", "Hernia")
    np.testing.assert_array_equal(no_findings(source), [1, 0, np.nan, -1] * 3)
    asked = read_dataset(file, classes=(column, "Hernia"))
    assert asked.classes == (column, "Hernia") and no_findings(asked).tolist()[0] == 1
    assert read_dataset(make_csv(tmp_path / "alone", images=False, classes=(column,))).classes == (column,)
    set_cell(file, line=3, column=column, value="normal")
    refused(file, "labels.csv, line 3", repr(column), "'normal'")
    both = make_csv(tmp_path / "both", images=False, **{"No Finding": values, "NoFinding": values})
    refused(both, 'two columns for "No Finding": No Finding and NoFinding; remove one')


# --- whichever data set


def test_class_column_missing(tmp_path):
    make_chexpert(tmp_path, images=False)
    drop_column(tmp_path / "valid.csv", "Edema")
    refused(tmp_path, "valid.csv", "'Edema'", "Enlarged Cardiomediastinum, Cardiomegaly, Lung Opacity")


@pytest.mark.parametrize(
    ("make", "file", "column"),
    [
        (make_chexpert, "train.csv", "Edema"),
        (make_mimic, "mimic-cxr-2.0.0-metadata.csv", "StudyTime"),
        (make_nih, "Data_Entry_2017_v2020.csv", "Patient ID"),
    ],
)
def test_column_missing(tmp_path, make, file, column):
    make(tmp_path, images=False)
    drop_column(tmp_path / file, column)
    refused(tmp_path, file, repr(column))


@pytest.mark.parametrize(
    ("make", "file", "column", "value"),
    [
        (make_mimic, "mimic-cxr-2.0.0-metadata.csv", "StudyDate", "May"),
        (make_mimic, "mimic-cxr-2.0.0-split.csv", "dicom_id", ""),
        (make_nih, "Data_Entry_2017_v2020.csv", "Follow-up #", "first"),
        (make_nih, "Data_Entry_2017_v2020.csv", "Patient ID", " "),
    ],
)
def test_cell_that_cannot_be_read(tmp_path, make, file, column, value):
    make(tmp_path, images=False)
    set_cell(tmp_path / file, line=5, column=column, value=value)
    refused(tmp_path, f"{file}, line 5", repr(column))


def test_auto_says_what_it_looked_for(tmp_path):
    refused(tmp_path / "nowhere", "nowhere", "does not exist")
    refused(tmp_path, "train.csv", "mimic-cxr-2.*-chexpert.csv", "Data_Entry_2017*.csv")
    refused(tmp_path, "no CSV file", dataset="csv")
    for dataset, looked_for in (("chexpert", "train.csv"), ("mimic", "mimic-cxr"), ("nih", "Data_Entry_2017")):
        refused(tmp_path, looked_for, dataset=dataset)
    refused(tmp_path, "'chest'", "chexpert, chexpert-plus, mimic, nih, padchest, brax, vindr, csv", dataset="chest")


def test_auto_says_that_a_train_file_is_unreadable_and_not_that_it_is_unknown(tmp_path):
    make_chexpert(tmp_path, images=False, gz=True)
    (tmp_path / "train.csv.gz").write_bytes(b"not gzip")
    refused(tmp_path, "train.csv.gz", "cannot be read")


def test_auto_refuses_to_choose_between_two(tmp_path):
    make_chexpert(tmp_path, images=False)
    make_nih(tmp_path, images=False)
    refused(tmp_path, "chexpert and nih", "--dataset")
    assert read_dataset(tmp_path, dataset="nih").name == "nih"


def test_column_options_are_for_csv_only(tmp_path):
    make_chexpert(tmp_path, images=False)
    refused(tmp_path, "chexpert", "--patient-column Sex", patient_column="Sex")
    source = read_dataset(tmp_path / "train.csv", dataset="csv", classes=("Edema",), patient_column="Sex")
    assert source.name == "csv" and set(source.table["patient_id"]) == {"Male", "Female"}


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("a.csv", b"", "no rows"),
        ("a.csv", b"path,Mass\n\n", "no rows"),
        ("a.csv", b"path,Mass\nx.png,1\ny.p", "line 3: expected 2 cells as in the header, got 1"),
        ("a.csv", b"path,Mass\nx.png,1,1\n", "line 2: expected 2 cells as in the header, got 3"),
        ("a.csv", b'path,Mass\n"x.png,1\n', "cannot be read"),
        ("a.csv", b"path,Mass\n\xff\xfe,1\n", r"is not UTF-8 (line 2, read as Latin-1"),
        ("a.csv", b"path,Mass,Mass\nx.png,1,0\n", "two columns named 'Mass'"),
        ("a.csv.gz", b"path,Mass\nx.png,1\n", "cannot be read"),
        ("a.csv.gz", gzip.compress(b"path,Mass\n" + b"x.png,1\n" * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_file_that_cannot_be_read(tmp_path, name, content, word):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, name, word)


def test_blank_lines_byte_order_mark_and_index_column(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf,path, Mass \r\n\r\n0,x.png,1\r\n1,y.png,0\r\n,,\r\n")
    source = read_dataset(tmp_path / "a.csv")
    assert source.classes == ("Mass",) and source.table["image_id"].tolist() == ["x.png", "y.png"]
    (tmp_path / "a.csv").write_bytes(b"path,Mass,,\nx.png,1\ny.png,0,\n")
    assert read_dataset(tmp_path / "a.csv").table["Mass"].tolist() == [1, 0]
    (tmp_path / "a.csv").write_bytes(b"path,Mass\n\nx.png,1\n\ny.png,2\n")
    refused(tmp_path / "a.csv", "line 5")


def test_study_order():
    patients = ["A", "A", "A", "B", "A", "B", "A"]
    studies = ["z", "y", "x", "x", "x", "w", "v"]
    assert study_order(patients, studies, [np.nan, 5, 9, 1, 3, 1, 4]).tolist() == [3, 2, 0, 0, 0, 1, 1]
