import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss

from src.stats.calibration import (
    brier_score,
    calibration_error,
    chance_error,
    correct_probs,
    masked_calibration,
    reliability,
)


def test_correction_divides_the_odds():
    assert correct_probs(0.5, pos_weight=4) == pytest.approx(0.2)  # odds 1 become 1/4
    assert correct_probs([[0.5, 0.5]], pos_weight=[1, 0.25]).tolist() == [[0.5, 0.8]]


def test_it_is_logit_minus_log_pos_weight_and_safe_at_the_ends():
    logits = np.array([-800, -20, -1, 0, 3, 20, 800.0])
    corrected = correct_probs(expit(logits), pos_weight=30)
    np.testing.assert_allclose(corrected, expit(logits - np.log(30)), rtol=1e-7)
    assert (corrected[0], corrected[-1]) == (0, 1)


@pytest.mark.parametrize("weight", [0.02, 50])
def test_correction_keeps_the_ranks(weight):
    probs = np.unique(np.random.default_rng(0).random(10_000).astype(np.float32))
    assert np.all(np.diff(correct_probs(probs, pos_weight=weight)) > 0)


@pytest.mark.parametrize("weight", [0, -1, np.inf, np.nan, [1, 0]])
def test_bad_weight_is_refused(weight):
    with pytest.raises(ValueError, match="pos_weight is"):
        correct_probs([0.5, 0.5], pos_weight=weight)


def test_a_model_trained_with_pos_weight_is_calibrated_after_correction():
    """Known truth: logit P(y) = 1.2 x - 3. Calibration error of a true model at this size is about 0.003."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40_000, 1))
    truth = expit(1.2 * x[:, 0] - 3)
    y = (rng.random(40_000) < truth).astype(float)
    weight = (y == 0).sum() / y.sum()
    model = LogisticRegression(C=1e6, class_weight={0: 1, 1: weight}).fit(x, y)
    raw = model.predict_proba(x)[:, 1]
    corrected = correct_probs(raw, pos_weight=weight)
    assert calibration_error(reliability(raw, targets=y)) > 0.2
    assert calibration_error(reliability(corrected, targets=y)) < 0.01
    assert np.abs(corrected - truth).max() < 0.05 and np.abs(raw - truth).max() > 0.3
    assert brier_score(corrected, targets=y) < brier_score(raw, targets=y) / 2


def test_brier_is_scikit_learns():
    rng = np.random.default_rng(1)
    probs, y = rng.random(200), rng.random(200) < 0.3
    assert brier_score(probs, targets=y) == pytest.approx(brier_score_loss(y, probs), abs=1e-15)
    assert np.isnan(brier_score([], targets=[]))


def test_reliability_by_hand():
    probs, y = [0.1, 0.2, 0.3, 0.4, 0.8, 0.9], [0, 0, 1, 0, 1, 1]
    groups = reliability(probs, targets=y, bins=3)
    np.testing.assert_allclose(groups.prob, [0.15, 0.35, 0.85])
    np.testing.assert_allclose(groups.rate, [0, 0.5, 1])
    assert groups.counts.tolist() == [2, 2, 2]
    assert calibration_error(groups) == pytest.approx((0.15 + 0.15 + 0.15) / 3)
    assert np.isnan(calibration_error(reliability([], targets=[])))


def test_equal_probabilities_share_a_group_whatever_the_order():
    rng = np.random.default_rng(2)
    probs, y = np.round(rng.random(500), 1), (rng.random(500) < 0.4).astype(float)
    groups, order = reliability(probs, targets=y, bins=4), rng.permutation(500)
    for one, other in zip(groups, reliability(probs[order], targets=y[order], bins=4), strict=True):
        np.testing.assert_allclose(one, other)
    assert groups.counts.sum() == 500
    tied = reliability([0.1, 0.2, 0.2, 0.2, 0.2, 0.9], targets=np.zeros(6), bins=3)
    assert tied.counts.tolist() == [1, 4, 1]
    constant = reliability(np.full(10, 0.3), targets=np.arange(10) < 3, bins=4)
    assert constant.counts.tolist() == [10] and calibration_error(constant) == pytest.approx(0)


def test_groups_are_of_equal_size():
    probs = np.random.default_rng(3).random(1003) ** 4
    count = reliability(probs, targets=probs > 0.5, bins=10).counts
    assert len(count) == 10 and count.max() - count.min() <= 1


def test_masked_calibration():
    rng = np.random.default_rng(4)
    probs, targets = rng.random((100, 3)), (rng.random((100, 3)) < 0.5).astype(float)
    mask = rng.random((100, 3)) < 0.6
    mask[:, 2] = False
    probs[~mask], targets[~mask] = np.nan, -1
    found = masked_calibration(probs, targets=targets, mask=mask, classes=list("abc"))
    expected = brier_score(probs[mask[:, 0], 0], targets=targets[mask[:, 0], 0])
    per_class = found["per_class"]
    assert per_class["a"]["brier"] == expected
    assert np.isnan(per_class["c"]["brier"]) and np.isnan(per_class["c"]["calibration_error"])
    for key in ("brier", "calibration_error"):
        assert found["macro"][key] == pytest.approx((per_class["a"][key] + per_class["b"][key]) / 2)


def test_bad_bins_are_refused():
    with pytest.raises(ValueError, match="bins is 0"):
        reliability([0.5], targets=[1], bins=0)


@pytest.mark.parametrize("rows", [100, 3000])
def test_right_probabilities_show_the_error_of_chance(rows):
    rng = np.random.default_rng(5)
    probs = rng.beta(2, 2, rows)
    seen = [calibration_error(reliability(probs, targets=rng.random(rows) < probs)) for _ in range(300)]
    assert chance_error(probs) == pytest.approx(np.mean(seen), rel=0.1)
    assert np.isnan(chance_error([]))
