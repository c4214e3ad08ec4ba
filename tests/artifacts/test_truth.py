"""Truth files from elsewhere, and the studies that images are joined to."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from src.artifacts.io import as_stored
from src.artifacts.truth import EvalLabels, Truth, Units, read_truth, respelled_patients
from src.labels.policy import LabelPolicy
from tests.trees import write_text


def test_a_truth_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="t.csv does not exist; check the path"):
        read_truth(tmp_path / "t.csv", ["X"])
    with pytest.raises(ValueError, match="is a folder; expected a CSV table"):
        read_truth(tmp_path, ["X"])


def test_truth_takes_patients_from_the_column_the_id_or_the_row(tmp_path):
    text = "Study,No Finding,X,Patient ID,more\nr/patient7/study1,1,1.0,p,\nr/patient7/study2,,,q,\nz,0,-1,q,a\n"
    truth, lines = read_truth(write_text(tmp_path / "t.csv", text), ["X"])
    roles = "id 'Study', patient 'Patient ID', no finding 'No Finding'"
    of_study = "the study is read from the id, such as patient7/study1 from r/patient7/study1, and 1 of 3 rows name no"
    assert lines == [f"{tmp_path}/t.csv: {roles}; {of_study} study and count as one study each; not used: more"]
    assert list(truth.studies) == ["patient7/study1", "patient7/study2", "z"]
    assert truth.no_finding.tolist() == [True, False, False]
    np.testing.assert_array_equal(truth.labels, [[1], [np.nan], [-1]])
    assert list(truth.patients) == ["p", "q", "q"]
    text = text.replace(",Patient ID", ",other")
    truth, (said, warning) = read_truth(write_text(tmp_path / "t.csv", text), ["X"])
    assert "; the patient is read from the id, such as patient7 from r/patient7/study1, and 1 of 3 rows name no" in said
    assert said.endswith("; not used: other, more")
    assert "t.csv names no patient in 1 of 3 rows. If a patient has several of them" in warning
    assert list(truth.patients) == ["patient7", "patient7", "z"]


@pytest.mark.parametrize("name", ["patient_id", "Patient ID", "", "Subject"])
def test_images_of_few_patients_are_known_as_such_whatever_the_column_is_called(tmp_path, name):
    """NIH's ids name the patient where no column does."""
    rows = [(f"{patient:08d}_{n:03d}.png", patient) for patient in range(12) for n in range(40)]
    header = f"Image Index,X,{name}\n" if name else "Image Index,X\n"
    text = header + "".join(f"{image},1,{patient}\n" if name else f"{image},1\n" for image, patient in rows)
    truth, lines = read_truth(write_text(tmp_path / "t.csv", text), ["X"])
    assert len(set(truth.patients)) == 12 and len(lines) == 1


def test_two_spellings_of_a_patient_are_warned_of_across_files(tmp_path):
    truths = [
        read_truth(write_text(tmp_path / f"{name}.csv", f"id,X,patient\n{name},1,{name}\nz,0,s\n"), ["X"])[0]
        for name in ("P7", "p7")
    ]
    (line,) = respelled_patients(*truths)
    assert line.startswith("warning: patients whose id is spelled") and line.endswith(": 1 ('P7' and 'p7')")
    assert respelled_patients(truths[0]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,X\na,2\n", "line 2, column 'X': '2' is not a label; expected 1 .yes., 0 .no., -1 .uncertain. or blank"),
        ("id,X\na,yes\n", "'yes' is not a label"),
        ("id,X\na,1\na,0\n", "'a' appears on lines 2 and 3"),
        ("id,X,Patient ID\na,1,7\nb,0,NA\n", "line 3: column 'Patient ID' is blank in 1 of 2 rows, here as 'NA'"),
        ("id,X,study_id\na,1,nan\nb,0,s1000\n", "line 2: column 'study_id' is blank in 1 of 2 rows"),
        ("id,X,split\na,1,val\nb,0,test\n", r"rows of several splits \(val, test\) in its column 'split'"),
        ("id,Lung_X,lung x\na,1,0\n", "two columns for Lung X: Lung_X and lung x"),
        ("id,Y\na,1\n", "has no column 'X'; it has Y"),
        ("id,X\n", "no rows"),
        ("id,X,X\na,1,0\n", "has two columns named 'X'"),
        (",X\na,1\n", "first column has no name"),
        ("", "no rows"),
    ],
)
def test_bad_truth_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=f"t.csv.*{message}"):
        read_truth(write_text(tmp_path / "t.csv", text), ["Lung X" if "Lung" in text else "X"])


def test_spaces_around_names_do_not_matter(tmp_path):
    truth, _ = read_truth(write_text(tmp_path / "t.csv", "Study, X, Y\na, 1,0\n"), ("X", "Y"))
    assert truth.labels.tolist() == [[1, 0]]


def test_truth_takes_studies_and_groups_from_their_usual_columns(tmp_path):
    text = "Image Index,X,subject_id,study,Patient Gender,Patient Age,View Position\n"
    text += "a,1,p,1,F,058Y,PA\nb,0,p,2,F,59,LL\nc,0,q,1,,,\n"
    truth, lines = read_truth(write_text(tmp_path / "t.csv", text), ["X"])
    assert list(truth.studies) == ["p/1", "p/2", "q/1"]  # numbers that only count within a patient
    roles = "patient 'subject_id', study 'study', sex 'Patient Gender', age 'Patient Age', view 'View Position'"
    assert lines == [f"{tmp_path}/t.csv: id 'Image Index', {roles}"]
    assert truth.groups["sex"].tolist() == ["F", "F", ""] and truth.groups["view"].tolist() == [
        "frontal",
        "lateral",
        "",
    ]
    assert truth.groups["age"].tolist()[:2] == [58, 59] and np.isnan(truth.groups["age"][2])
    truth, lines = read_truth(write_text(tmp_path / "t.csv", "id,X\na,1\nb,0\n"), ["X"])
    assert list(truth.studies) == ["a", "b"]
    assert "; 2 of 2 rows name no study and count as one study each" in lines[0] and len(lines) == 2


def images(studies, labels, patients=None, **groups):
    """A truth of one class."""
    ids = tuple(f"i{n}" for n in range(len(studies)))
    owners = np.array(studies if patients is None else patients)
    labels = np.array(labels, float)[:, None]
    return Truth(ids, ("X",), labels, owners, np.array(studies), pd.DataFrame(groups, index=range(len(ids))))


NAN = np.nan


@pytest.mark.parametrize(
    ("labels", "study"), [([0, 1, -1], 1), ([0, -1, NAN], -1), ([NAN, 0, NAN], 0), ([NAN, NAN, NAN], NAN)]
)
def test_a_study_is_positive_else_uncertain_else_negative_else_blank(labels, study):
    units = Units.of(images(["s"] * 3, labels), unit="study", aggregate="max")
    np.testing.assert_array_equal(units.truth.labels, [[study]])


def test_a_study_has_the_highest_or_the_mean_probability_of_its_images_labeled_or_not():
    truth = images(["t", "s", "t", "s"], [1, NAN, NAN, 0])
    probs = as_stored(np.array([[0.2], [0.9], [0.7], [1 / 3]]))
    for aggregate, expected in (("max", [0.7, 0.9]), ("mean", [0.45, 0.616666667])):
        units = Units.of(truth, unit="study", aggregate=aggregate)
        assert units.truth.ids == ("t", "s")
        assert units.probs(probs)[:, 0].tolist() == expected  # as a file would hold them
    assert Units.of(truth, unit="image", aggregate="max").probs(probs) is probs


def test_studies_of_one_image_each_change_nothing():
    truth = images(["a", "b"], [1, 0])
    units = Units.of(truth, unit="study", aggregate="mean")
    assert units.truth is truth and units.probs(probs := np.array([[0.1], [0.2]])) is probs


def test_the_same_study_id_of_two_patients_is_two_studies():
    truth = images(["s", "s", "s"], [1, 0, 0], patients=["p", "q", "q"])
    units = Units.of(truth, unit="study", aggregate="max")
    assert units.truth.ids == ("p/s", "q/s") and list(units.truth.patients) == ["p", "q"]


def test_a_study_takes_sex_and_age_where_known_and_all_its_views():
    truth = images(["s", "s", "t"], [1, 0, 0], sex=["", "F", ""], age=[NAN, 50, NAN], view=["lateral", "frontal", ""])
    groups = Units.of(truth, unit="study", aggregate="max").truth.groups
    assert groups["sex"].tolist() == ["F", ""] and groups["view"].tolist() == ["frontal+lateral", ""]
    assert groups["age"][0] == 50 and np.isnan(groups["age"][1])


def test_the_policy_is_applied_to_the_label_of_the_study():
    units = Units.of(images(["s", "s", "t"], [-1, 0, NAN]), unit="study", aggregate="max")
    view = EvalLabels.of(units.truth, LabelPolicy.parse(uncertain=["1"], classes=["X"]))
    assert view.mask[:, 0].tolist() == [True, False] and view.targets[0, 0] == 1
    assert list(view.other_views) == ["blank_as_negative"]
    negative = view.other_views["blank_as_negative"]
    assert negative.mask[:, 0].tolist() == [True, True] and negative.targets[1, 0] == 0


def test_no_finding_makes_negatives_of_blanks_alike_before_and_after_images_become_studies():
    rng = np.random.default_rng(0)
    labels, marked = rng.choice([1, 0, -1, NAN, NAN, NAN], (60, 3)), rng.random(60) < 0.5
    owners, groups = np.repeat(np.arange(20).astype(str), 3), pd.DataFrame(index=range(60))
    truth = Truth(tuple(map(str, range(60))), ("X", "Y", "Support Devices"), labels, owners, owners, groups, marked)
    before = Units.of(truth.with_no_finding("negative"), unit="study", aggregate="max").truth
    after = Units.of(truth, unit="study", aggregate="max").truth
    np.testing.assert_array_equal(before.labels, after.with_no_finding("negative").labels)
    changed = np.isnan(after.labels) & (before.labels == 0)
    assert changed[:, :2].any() and not changed[:, 2].any() and not before.said_absent.any()
    assert truth.with_no_finding("mask") is truth


def test_the_view_of_no_finding_stands_between_the_masked_one_and_all_blanks_negative():
    truth = images(["a", "b", "c"], [1, NAN, NAN])
    truth = replace(truth, no_finding=np.array([False, True, False]))
    view = EvalLabels.of(truth, LabelPolicy.parse(missing=["1"], classes=["X"]))
    other = view.other_views["no_finding_as_negative"]
    assert list(view.other_views) == ["no_finding_as_negative", "blank_as_negative"]
    assert other.targets[:, 0].tolist() == [1, 0, 1] and other.mask.all()
    masked = EvalLabels.of(truth, LabelPolicy.parse(classes=["X"]))
    assert masked.other_views["no_finding_as_negative"].mask[:, 0].tolist() == [True, True, False]


def test_without_a_patient_column_a_study_is_a_patient_of_its_own(tmp_path):
    truth, lines = read_truth(
        write_text(tmp_path / "t.csv", "id,X,study_id\na,1,s100001\nb,1,s100001\nc,0,s100002\n"), ["X"]
    )
    assert list(truth.patients) == list(truth.studies) == ["s100001", "s100001", "s100002"]
    assert "; each study counts as a patient" in lines[0] and "names no patient in 3 of 3 rows" in lines[1]
    assert len(Units.of(truth, unit="study", aggregate="max").truth.ids) == 2
    match = "the study in line 2 is '1', which only numbers the studies of a patient, and no column names the patient"
    with pytest.raises(ValueError, match=match):
        read_truth(write_text(tmp_path / "t.csv", "id,X,study\na,1,1\nb,0,2\n"), ["X"])
    truth, _ = read_truth(write_text(tmp_path / "t.csv", "id,X,study\npatient7/a,1,1\npatient8/a,0,1\n"), ["X"])
    assert list(truth.studies) == ["patient7/1", "patient8/1"]
