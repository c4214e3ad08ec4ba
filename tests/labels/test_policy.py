"""What blanks and uncertain labels are taken to mean, by hand."""

import numpy as np
import pytest

from src.labels.policy import LabelPolicy, said_absent

CLASSES = ("Edema", "Lung Lesion")
LABELS = np.array([[1, 0], [-1, -1], [np.nan, np.nan]])


def policy(*words):
    return LabelPolicy.parse(uncertain=words, classes=CLASSES).uncertain


def test_words_set_all_classes_or_one_and_later_ones_win():
    np.testing.assert_array_equal(policy(), [np.nan, np.nan])
    np.testing.assert_array_equal(policy("mask"), [np.nan, np.nan])
    np.testing.assert_array_equal(policy("mask", "Edema=0.6"), [0.6, np.nan])
    np.testing.assert_array_equal(policy("1", "Lung Lesion=mask"), [1, np.nan])
    np.testing.assert_array_equal(policy("Edema=1", "0"), [0, 0])


@pytest.mark.parametrize("word", ["2", "-0.1", "yes", "nan", "Edema=", "", "Edema=U-Ones"])
def test_a_value_that_is_no_target_is_refused(word):
    with pytest.raises(ValueError, match="neither 'mask' nor a target from 0 to 1"):
        policy(word)


def test_an_unknown_class_is_refused_and_the_known_ones_named():
    with pytest.raises(ValueError, match="no class 'Edma'; the classes are Edema, Lung Lesion"):
        policy("Edma=1")


@pytest.mark.parametrize("uncertain", [("mask", "mask"), ("0", "0"), ("1", "1"), ("0.6", "mask"), ("mask", "0.3")])
@pytest.mark.parametrize("missing", [("mask", "mask"), ("0", "0"), ("1", "mask")])
def test_targets_and_mask_for_every_policy(uncertain, missing):
    words = {
        "uncertain": [f"{c}={v}" for c, v in zip(CLASSES, uncertain, strict=True)],
        "missing": [f"{c}={v}" for c, v in zip(CLASSES, missing, strict=True)],
    }
    targets, mask = LabelPolicy.parse(**words, classes=CLASSES).apply(LABELS)
    expected = [("1", "0"), uncertain, missing]
    for row, values in enumerate(expected):
        for column, value in enumerate(values):
            assert mask[row, column] == (value != "mask")
            assert targets[row, column] == (np.float32(0) if value == "mask" else np.float32(value))
    assert targets.dtype == np.float32 and mask.dtype == bool


def test_a_metric_refuses_a_soft_target_and_takes_a_hard_one():
    with pytest.raises(ValueError, match="--missing 0.3: metrics need mask, 0 or 1"):
        LabelPolicy.parse(missing=["0", "Edema=0.3"], classes=CLASSES).check_hard()
    LabelPolicy.parse(uncertain=["1"], missing=["0", "Edema=mask"], classes=CLASSES).check_hard()


def test_no_finding_speaks_of_the_blanks_of_its_row_and_of_no_device():
    labels = np.array([[np.nan, np.nan, np.nan], [np.nan, 0, 1], [np.nan, -1, np.nan]])
    said = said_absent(labels, np.array([True, True, False]), classes=("Edema", "Lung Lesion", "Support_Devices"))
    assert said.tolist() == [[True, True, False], [True, False, False], [False, False, False]]
