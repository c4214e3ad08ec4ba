"""thresholds.json as predict.py reads it: whole, of this run, and with what its thresholds are of."""

import json

import numpy as np
import pytest

from src.artifacts.thresholds_file import read_thresholds

ORIGIN = {"manifest_sha256": "m", "probs_val_sha256": "p"}
CLASSES = ("Edema", "Rare")
POINT = {"threshold": 0.5, "status": "ok", "positives_needed": 0}
WHOLE = {**ORIGIN, "rule": "certified", "confidence": 0.95, "unit": "study", "aggregate": "mean", "weights": "study"}
WHOLE |= {"chosen_on": "calib", "classes": list(CLASSES), "recall": {"0.85": dict.fromkeys(CLASSES, POINT)}}
STUDY = "; the probability of a study is the mean over its images"
PATIENT = "a random study of a random patient"
NEXT = "for the recall of the next study"


def read(path, content, *, recall=None):
    path.write_text(json.dumps(content))
    return read_thresholds(path, recall=recall, classes=CLASSES, origin=ORIGIN)


def without(*keys):
    return {key: value for key, value in WHOLE.items() if key not in keys}


def page(**chosen):
    """A file that the page saved, with its choice per finding."""
    return WHOLE | {"report": {"run": "other", "chosen": chosen}}


@pytest.mark.parametrize(
    ("content", "promise"),
    [
        (WHOLE, f"certified at 95% {NEXT}{STUDY}"),
        (WHOLE | {"weights": "patient"}, f"certified at 95% {NEXT}{STUDY}".replace("the next study", PATIENT)),
        (WHOLE | {"unit": "image", "weights": "image"}, "certified at 95% for the recall of the next image"),
        (WHOLE | {"family_wise": True}, f"certified at 95%, all findings together, {NEXT}{STUDY}"),
        (WHOLE | {"rule": "empirical"}, "empirical, for the recall of a random study of calib" + STUDY),
        (without("unit", "aggregate", "weights"), "certified at 95% for the recall of the next image"),
        (without("weights", "aggregate"), f"certified at 95% {NEXT}{STUDY}".replace("mean", "max")),
        (page(Edema={"recall": 0.9, "confidence": 0.8}), f"certified at 80% or more {NEXT}{STUDY}"),
        (page(Edema={"recall": 0.9, "confidence": 0}), "empirical, for the recall of a random study of calib" + STUDY),
        (page(Edema=0.9), f"certified at 95% {NEXT}{STUDY}"),
    ],
)  # fmt: skip
def test_what_the_thresholds_are_of_comes_with_them(tmp_path, content, promise):
    assert read(tmp_path / "t.json", content).promise == promise


def test_targets_and_confidences_chosen_in_the_report_stay_with_their_findings(tmp_path):
    points = {"Edema": POINT, "Rare": {"threshold": 0, "status": "infeasible", "positives_needed": 7}}
    content = page(Rare={"recall": 0.97, "confidence": 0.9}) | {"recall": {"0.85": points}}
    saved = read(tmp_path / "t.json", content)
    assert (saved.recall, saved.targets, saved.confidences) == (0.85, (0.85, 0.97), (0.95, 0.9))
    assert (saved.rule, saved.confidence, saved.unit, saved.aggregate) == ("certified", 0.9, "study", "mean")
    none = read(tmp_path / "n.json", WHOLE | {"recall": {"0.85": dict.fromkeys(CLASSES, points["Rare"])}})
    assert none.promise == "none, because too few patients have any finding in calib; every study is flagged"
    assert saved.needed == {"Rare": 7} and saved.flags(np.array([[0.4, 0.0]])).tolist() == [[False, True]]


def test_one_of_several_targets_must_be_named(tmp_path):
    content = WHOLE | {
        "recall": {"0.85": WHOLE["recall"]["0.85"], "0.9": dict.fromkeys(CLASSES, POINT | {"threshold": 0.3})}
    }
    assert read(tmp_path / "t.json", content, recall=0.9).values.tolist() == [0.3, 0.3]
    with pytest.raises(ValueError, match=r"no thresholds for recall 0\.8; pass one of 0\.85, 0\.9"):
        read(tmp_path / "t.json", content, recall=0.8)
    with pytest.raises(ValueError, match=r"recall 0\.85, 0\.9; pass --recall"):
        read(tmp_path / "t.json", content)
    with pytest.raises(ValueError, match=r"recall '0\.850'; expected each target once"):
        read(tmp_path / "t.json", WHOLE | {"recall": {"0.85": {}, "0.850": {}} | {"0.85": WHOLE["recall"]["0.85"]}})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (without("recall"), "holds no thresholds; expected thresholds.json of stage 6"),
        (WHOLE | {"manifest_sha256": "0"}, "not belong to this run: its manifest_sha256 differs"),
        (without("probs_val_sha256"), "not belong to this run: its probs_val_sha256 is missing"),
        (WHOLE | {"classes": ["Edema"]}, "lacks the class 'Rare'; expected those of the run"),
        (WHOLE | {"classes": ["Rare", "Edema"]}, "has the classes in a different order"),
        (WHOLE | {"classes": None}, "lacks the class 'Edema'; expected those of the run"),
        (WHOLE | {"unit": "banana"}, "its unit is 'banana'; expected study or image; run ensemble_threshold_search"),
        (WHOLE | {"unit": None}, "its unit is None; expected study or image"),
        (WHOLE | {"aggregate": "sum"}, "its aggregate is 'sum'; expected max or mean"),
        (WHOLE | {"weights": "image"}, "its weights are 'image'; expected study or patient"),
        (WHOLE | {"chosen_on": "test"}, "its chosen_on is 'test'; expected val or calib"),
        (WHOLE | {"rule": "best"}, "its rule is 'best'"),
        (WHOLE | {"confidence": 95}, "its confidence is 95"),
        (WHOLE | {"recall": {}}, "no thresholds"),
        (WHOLE | {"recall": {"0.85": {"Edema": POINT}}}, r"recall 0\.85 lacks the class 'Rare'"),
        (WHOLE | {"recall": {"0.85": None}}, r"recall 0\.85 lacks the class"),
        *((WHOLE | {"recall": {at: {}}}, f"recall '{at}'; expected a number") for at in ("high", "nan", "1e999", "-3")),
        (page(Edema={"recall": "high"}), "recall chosen for Edema is 'high'"),
        (page(Edema={"recall": 0}), "recall chosen for Edema is 0; expected"),
        (page(Edema={"recall": 1.5}), r"recall chosen for Edema is 1\.5"),
        (page(Edema={"recall": 0.9, "confidence": 1}), "confidence chosen for Edema is 1; expected a number below 1"),
        (WHOLE | {"report": {"chosen": None}}, "'report' is not in the format that the report writes"),
    ],
)  # fmt: skip
def test_a_file_of_another_run_or_that_no_stage_writes_is_refused(tmp_path, content, match):
    with pytest.raises(ValueError, match=rf"t\.json.*{match}"):
        read(tmp_path / "t.json", content)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        *(({"threshold": value}, "threshold of Edema is") for value in (None, "0.5", True, 1.5, 10**400)),
        *(({"status": value}, "status of Edema is") for value in ("fine", None)),
        *(
            ({"status": "infeasible", "positives_needed": value}, "Edema is infeasible and its positives_needed is")
            for value in (0, -1, 0.5, True, "many", float("nan"), [], None)
        ),
        ({"positives_needed": 3}, "Edema is ok and its positives_needed is 3"),
    ],
)
def test_an_operating_point_that_no_stage_writes_is_refused(tmp_path, changed, match):
    with pytest.raises(ValueError, match=match):
        read(tmp_path / "t.json", WHOLE | {"recall": {"0.85": {"Edema": POINT | changed, "Rare": POINT}}})


def test_a_mistyped_file_is_not_there(tmp_path):
    match = r"gone\.json does not exist; run ensemble_threshold_search\.py, or save one from the report"
    with pytest.raises(ValueError, match=match):
        read_thresholds(tmp_path / "gone.json", recall=None, classes=CLASSES, origin=ORIGIN)


def test_the_table_of_thresholds_is_not_called_broken_json(tmp_path):
    (tmp_path / "thresholds_recall_0.85.csv").write_text("class,threshold\n")
    with pytest.raises(ValueError, match=r"0\.85\.csv is a table; expected thresholds\.json"):
        read_thresholds(tmp_path / "thresholds_recall_0.85.csv", recall=None, classes=CLASSES, origin=ORIGIN)
