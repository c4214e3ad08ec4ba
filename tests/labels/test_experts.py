"""Labels of experts: files read, matched by image or study, and compared."""

import numpy as np
import pandas as pd
import pytest

from src.labels.experts import agreement, expert_files, match, read_experts
from tests.trees import write_csv

CLASSES = ("Edema", "Lung Opacity", "Pleural_Thickening")


def experts(folder, rows):
    return read_experts(write_csv(folder / "experts.csv", rows), classes=CLASSES)


def table(images, studies=None):
    return pd.DataFrame({"image_id": images, "study_id": studies or images}, dtype=str)


def test_a_column_id_beside_studies_numbers_the_rows(tmp_path):
    assert experts(tmp_path, [{"id": "1", "study_id": "s51", "Edema": "1"}]).unit == "study"


def test_values_and_names_of_columns_are_read_generously(tmp_path):
    first = {"Image Index": "a.png", "edema": "YES", "Airspace Opacity": "-1", "Pleural Thickening": "1.0"}
    first["Other"] = "NO"
    second = first | {"Image Index": "b.png", "edema": "no", "Airspace Opacity": "", "Pleural Thickening": "0"}
    read = experts(tmp_path, [first, second])
    np.testing.assert_array_equal(read.labels, [[1, -1, 1], [0, np.nan, 0]])
    assert list(read.labels) == list(CLASSES) and read.unit == "image"
    assert read.masked == () and read.unused == ("Other",) and read.no_finding.isna().all()


def test_classes_without_a_column_are_masked_and_no_finding_is_read(tmp_path):
    read = experts(tmp_path, [{"study_id": "50", "Edema": "1", "No Finding": "0", "Age": "70"}])
    assert read.masked == ("Lung Opacity", "Pleural_Thickening")
    assert read.labels[list(read.masked)].isna().all(axis=None)
    assert read.unit == "study" and read.no_finding.tolist() == [0] and read.unused == ()


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"Name": "a", "Edema": "1"}], ("no column of images or studies; it has Name, Edema", "study_id")),
        ([{"Path": "a.png", "Mass": "1"}], ("no column of Edema, Lung Opacity", "it has Path, Mass")),
        ([{"Path": "a.png", "Edema": "2"}], ("line 2, column 'Edema': '2'", "YES or NO")),
        ([{"Path": " ", "Edema": "1"}], ("line 2", "'Path' is blank")),
        (
            [{"Path": "a.png", "Edema": "1"}] * 3,
            ("3 rows for 'a.png', perhaps one per reader", "see also test_labels.csv"),
        ),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path, rows, words):
    (tmp_path / "test_labels.csv").write_text("")
    with pytest.raises(ValueError) as caught:
        experts(tmp_path, rows)
    assert "\n" not in str(caught.value) and all(word in str(caught.value) for word in words)


CHEXPERT = table([f"{part}/patient0000{n}/study1/view1_frontal.jpg" for n, part in ((1, "train"), (2, "valid"))],
                 ["patient00001/study1", "patient00002/study1"])  # fmt: skip
MIMIC = table(["files/p10/p100/s50/a-b.jpg", "files/p10/p100/s51/c-d.jpg"], ["s50", "s51"])
NIH = table(["images_001/images/00000001_000.png", "images_002/00000002_000.png"], ["00000001_000", "00000002_000"])


@pytest.mark.parametrize(
    ("rows", "column", "name"),
    [
        (NIH, "Image ID", "00000002_000.png"),
        (NIH, "Image Index", "00000002_000"),
        (NIH, "image", "elsewhere/00000002_000.PNG"),
        (NIH, "id", "00000002_000"),
        (MIMIC, "study_id", "51"),
        (MIMIC, "study", "s51"),
        (MIMIC, "dicom_id", "c-d"),
        (CHEXPERT, "Path", "CheXpert-v1.0/valid/patient00002/study1/view1_frontal.jpg"),
        (CHEXPERT, "Path", "val/patient00002/study1/view1_frontal.jpg"),
        (CHEXPERT, "Path", "CheXpert-v1.0-small\\valid\\patient00002\\study1\\view1_frontal.jpg"),
        (CHEXPERT, "Study", "CheXpert-v1.0/valid/patient00002/study1"),
    ],
)
def test_an_id_is_known_by_its_path_or_the_end_of_it(tmp_path, rows, column, name):
    read = experts(tmp_path, [{column: "other", "Edema": "0"}, {column: name, "Edema": "1"}])
    assert match(read, rows).tolist() == [-1, 1]


def test_an_end_that_does_not_tell_is_no_match(tmp_path):
    """`study1` is in every path of CheXpert, so patients that are not in the data set fit nobody."""
    others = [{"Study": f"CheXpert-v1.0/test/patient{n}/study1", "Edema": "1"} for n in (64741, 64742)]
    assert match(experts(tmp_path, others), CHEXPERT).tolist() == [-1, -1]
    assert match(experts(tmp_path, others[:1]), CHEXPERT).tolist() == [-1, -1]
    with pytest.raises(ValueError, match="'view1_frontal' matches several images"):
        match(experts(tmp_path, [{"Path": "view1_frontal.jpg", "Edema": "1"}]), CHEXPERT)


def test_ids_of_several_depths_are_matched_each_by_its_own_end(tmp_path):
    rows = table([f"images/{n:08d}_000.png" for n in range(4)])
    ids = ["00000000_000.png", "images/00000001_000.png", "elsewhere/images/00000002_000", "other/00000003_000.png"]
    assert match(experts(tmp_path, [{"Path": name, "Edema": "1"} for name in ids]), rows).tolist() == [0, 1, 2, 3]
    turned = table(["images/00000000_000.png", "00000001_000.png"])
    assert match(experts(tmp_path, [{"Path": name, "Edema": "1"} for name in ids[:2]]), turned).tolist() == [0, 1]


def test_an_id_that_both_sides_have_is_taken_before_an_end_that_several_share(tmp_path):
    rows = table(["a.png", "d/a.png", "d/b.png", "e/b.png"])
    assert match(experts(tmp_path, [{"Path": "a.png", "Edema": "1"}]), rows).tolist() == [0, -1, -1, -1]
    with pytest.raises(ValueError, match="experts.csv: 'b' matches several images; expected whole paths or unique ids"):
        match(experts(tmp_path, [{"Path": name, "Edema": "1"} for name in ("a.png", "b.png")]), rows)


def test_studies_counted_within_a_patient(tmp_path):
    rows = [{"patient": patient, "study": "1", "Edema": "1"} for patient in ("A", "B")]
    assert match(experts(tmp_path, rows), table(["x.png", "y.png"], ["B/1", "A/1"])).tolist() == [1, 0]


def test_agreement_counts_every_pair_of_labels():
    ours = np.array([[1], [1], [0], [-1], [np.nan], [np.nan], [1]])
    theirs = np.array([[1], [0], [1], [1], [0], [1], [np.nan]], dtype=float)
    row = agreement(ours, theirs, classes=["Edema"]).iloc[0]
    counts = {key: row[key] for key in row.index if "/" in key and row[key]}
    assert counts == {"1/1": 1, "1/0": 1, "0/1": 1, "-1/1": 1, "blank/0": 1, "blank/1": 1}
    assert row["sensitivity"] == 0.25 and row["specificity"] == 0.5
    none = agreement(ours, np.zeros_like(theirs), classes=["Edema"]).iloc[0]
    assert np.isnan(none["sensitivity"]) and none["specificity"] == pytest.approx(4 / 7)


def test_known_files_beside_the_data_are_found_if_they_are_about_it(tmp_path):
    read = write_csv(tmp_path / "nih" / "Data_Entry_2017.csv", [{"Image Index": "x"}])
    about = [{"Image ID": "00000002_000.png", "Edema": "YES"}]
    for place, rows in (
        ("nih/test_labels.csv", about),
        ("nih_expert_labels/four_findings_test_labels.csv", about),
        ("nih_expert_labels/test_individual_readers.csv", about),  # not by this name
        ("chexpert/groundtruth.csv", [{"Study": "patient1/study1", "Edema": "1"}]),  # of another data set
        ("nih/groundtruth.csv", [{"Image ID": "00000002_000.png", "Mass": "YES"}]),  # of other findings
    ):
        write_csv(tmp_path / place, rows)
    write_csv(tmp_path / "home" / "groundtruth.csv", about)  # in the folder that was given, above that of the files
    found = list(expert_files([read], NIH, classes=CLASSES, home=tmp_path / "home"))
    assert [(file.relative_to(tmp_path).as_posix(), images) for file, images in found] == [
        ("nih/test_labels.csv", 1),
        ("home/groundtruth.csv", 1),
        ("nih_expert_labels/four_findings_test_labels.csv", 1),
    ]
