import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from src.evaluate import masked_metrics


def masked_case():
    """Six classes: continuous, tied, constant, only negatives, only positives, nothing valid."""
    rng, shape = np.random.default_rng(0), (400, 6)
    targets = (rng.random(shape) < 0.3).astype(float)
    probs = 1 / (1 + np.exp(-(rng.normal(size=shape) + targets)))
    mask = rng.random(shape) < 0.7
    probs[:, 1] = np.round(probs[:, 1], 1)
    probs[:, 2] = 0.25
    targets[:, 3], targets[:, 4], mask[:, 5] = 0, 1, False
    targets[~mask], probs[~mask] = -1, np.nan
    return {"probs": probs, "targets": targets, "mask": mask, "classes": list("abcdef")}


def test_equal_to_scikit_learn_on_masked_data():
    case = masked_case()
    metrics = masked_metrics(case.pop("probs"), **case)
    probs = masked_case()["probs"]
    expected = []
    for c, name in enumerate("abc"):
        valid = case["mask"][:, c]
        y, p = case["targets"][valid, c], probs[valid, c]
        expected.append((roc_auc_score(y, p), average_precision_score(y, p)))
        found = metrics["per_class"][name]
        np.testing.assert_allclose((found["auroc"], found["auprc"]), expected[-1], rtol=0, atol=1e-12)
        assert found["accuracy"] == pytest.approx(np.mean((p >= 0.5) == y), abs=1e-15)
        assert (found["positives"], found["negatives"]) == (y.sum(), (1 - y).sum())
        assert found["prevalence"] == y.mean()
    macro = metrics["macro"]
    np.testing.assert_allclose((macro["auroc"], macro["auprc"]), np.mean(expected, axis=0), atol=1e-12)
    assert macro["classes"] == 3


def test_one_label_only_is_undefined():
    case = masked_case()
    per_class = masked_metrics(case.pop("probs"), **case)["per_class"]
    for name in "def":
        assert np.isnan(per_class[name]["auroc"]) and np.isnan(per_class[name]["auprc"])
    assert per_class["d"]["positives"] == 0 and per_class["d"]["accuracy"] > 0
    assert np.isnan(per_class["f"]["accuracy"]) and np.isnan(per_class["f"]["prevalence"])


def test_nothing_valid_makes_every_macro_undefined():
    metrics = masked_metrics(np.zeros((2, 1)), targets=np.zeros((2, 1)), mask=np.zeros((2, 1), bool), classes=["a"])
    assert metrics["macro"]["classes"] == 0
    assert all(np.isnan(metrics["macro"][key]) for key in ("auroc", "auprc", "accuracy"))


def test_hand_computed():
    probs, targets = np.array([[0.9], [0.8], [0.8], [0.1]]), np.array([[1], [1], [0], [0]])
    found = masked_metrics(probs, targets=targets, mask=targets >= 0, classes=["a"])["per_class"]["a"]
    assert found["auroc"] == 3.5 / 4
    assert found["auprc"] == pytest.approx(1 / 2 * 1 + 1 / 2 * 2 / 3)


def test_accuracy_is_over_all_valid_entries_at_the_given_thresholds():
    probs = np.array([[0.4, 0.2], [0.6, 0.3], [0.1, 0.9]])
    targets = np.array([[1, 1], [0, 1], [0, 0]])
    mask = np.array([[True, True], [True, False], [True, False]])
    arguments = {"targets": targets, "mask": mask, "classes": ["a", "b"]}
    assert masked_metrics(probs, **arguments)["macro"]["accuracy"] == 1 / 4
    metrics = masked_metrics(probs, thresholds=[0.4, 0.2], **arguments)  # flagged at the threshold itself
    assert metrics["per_class"]["a"]["accuracy"] == 2 / 3 and metrics["per_class"]["b"]["accuracy"] == 1
    assert metrics["macro"]["accuracy"] == 3 / 4


@pytest.mark.parametrize(
    ("array", "value", "message"),
    [
        ("targets", 0.6, r"target 0.6 in row 3 of class b .*hard view"),
        ("targets", np.nan, r"target nan in row 3 of class b"),
        ("probs", np.nan, r"probability nan in row 3 of class b"),
        ("probs", 1.77, r"probability 1.77 in row 3 of class b .*\[0, 1\]"),
        ("probs", -0.01, r"probability -0.01 in row 3 of class b"),
    ],
)
def test_bad_values_are_refused_under_the_mask_only(array, value, message):
    case = {"probs": np.full((5, 2), 0.5), "targets": np.ones((5, 2)), "mask": np.ones((5, 2), bool)}
    case[array][3, 1] = value
    with pytest.raises(ValueError, match=message):
        masked_metrics(case["probs"], targets=case["targets"], mask=case["mask"], classes=["a", "b"])
    case["mask"][3, 1] = False
    masked_metrics(case["probs"], targets=case["targets"], mask=case["mask"], classes=["a", "b"])


def test_shapes_that_differ_are_refused():
    square, column = np.ones((2, 2)), np.ones((2, 1))
    with pytest.raises(ValueError, match=r"shapes \(2, 2\), \(2, 1\)"):
        masked_metrics(square, targets=column, mask=square == 1, classes=["a", "b"])
    with pytest.raises(ValueError, match="2 columns, but 1 class names"):
        masked_metrics(square, targets=square, mask=square == 1, classes=["a"])
    with pytest.raises(ValueError, match="dtype float64, expected bool"):
        masked_metrics(square, targets=square, mask=square, classes=["a", "b"])
