"""The maps that calibrate a finding: their formulas, that they rise, and the findings that cannot be fitted."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn import calibration
from sklearn.metrics import log_loss

from src.stats.calibration import correct_probs, masked_calibration
from src.stats.calibration_maps import METHODS, OddsMap, StepMap, apply_maps, fit_maps

FITTED = [method for method in METHODS if method not in ("prior", "none")]
WEIGHT = 4.0


def draw(rows=400, *, seed=0):
    """Raw sigmoids [N] of a model trained with a pos_weight of 4, whose logits are twice too far apart, and labels."""
    rng = np.random.default_rng(seed)
    truth = 1.2 * rng.normal(size=rows) - 1.5
    return expit(2 * truth + np.log(WEIGHT)), rng.random(rows) < expit(truth)


def fitted(method, probs, positive):
    """The map of the one class of these entries, and why it is not fitted, "" where it is."""
    columns = {"targets": positive[:, None].astype(float), "mask": np.ones((len(probs), 1), bool)}
    maps, kept = fit_maps(method, probs[:, None], **columns, classes=["a"], pos_weight=[WEIGHT])
    return maps[0], kept.get("a", "")


def test_platt_scaling_is_scikit_learns():
    probs, positive = draw()
    expected = calibration._SigmoidCalibration().fit(logit(probs), positive.astype(int)).predict(logit(probs))
    np.testing.assert_allclose(fitted("platt", probs, positive)[0](probs), expected, atol=1e-4)


def test_temperature_is_the_slope_of_the_corrected_logit_with_the_best_likelihood():
    probs, positive = draw(20_000)
    corrected = logit(correct_probs(probs, pos_weight=WEIGHT))
    best = minimize_scalar(lambda slope: log_loss(positive, expit(slope * corrected)), bounds=(0.1, 10)).x
    found = fitted("temperature", probs, positive)[0]
    assert found.slope == pytest.approx(best, rel=1e-3) and found.slope == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(found(probs), expit(found.slope * corrected), rtol=1e-9)


def test_isotonic_regression_by_hand():
    """Neighbors that fall are pooled, and no level is surer than Laplace's rule: 1/4 of no positive, 5/6 of 4."""
    probs, positive = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]), np.array([0, 1, 0, 1, 1, 1], bool)
    found = fitted("isotonic", probs, positive)[0]
    assert found.raw == (0.1, 0.2, 0.3, 0.4, 0.6)
    assert found.prob == pytest.approx((1 / 4, 1 / 2, 1 / 2, 5 / 6, 5 / 6))
    assert found(np.array([0.0, 0.15, 0.35, 1.0])) == pytest.approx([1 / 4, 3 / 8, 2 / 3, 5 / 6])


@pytest.mark.parametrize("method", METHODS)
def test_every_map_rises_and_stays_within_0_and_1(method):
    probs, positive = draw()
    found = fitted(method, probs, positive)[0]
    after = found(np.concatenate([[0.0], np.sort(probs), [1.0]]))
    assert (np.diff(after) >= 0).all() and after[0] >= 0 and after[-1] <= 1 and np.ptp(after) > 0.3
    if method != "isotonic":
        assert (np.diff(found(np.unique(probs))) > 0).all()
        np.testing.assert_allclose(found.inverse()(found(probs)), probs, rtol=1e-9)


def test_prior_and_none_are_what_they_were_to_the_last_bit():
    probs, positive = draw()
    assert np.array_equal(fitted("prior", probs, positive)[0](probs), probs / (probs + WEIGHT * (1 - probs)))
    assert np.array_equal(fitted("none", probs, positive)[0](probs), probs)


@pytest.mark.parametrize("method", FITTED)
def test_fitted_maps_are_better_than_the_prior_on_new_data(method):
    found, new = fitted(method, *draw(2000))[0], draw(2000, seed=1)

    def error(probs):
        columns = {"targets": new[1][:, None].astype(float), "mask": np.ones((2000, 1), bool)}
        return masked_calibration(probs[:, None], **columns, classes=["a"])["macro"]

    before, after = error(correct_probs(new[0], pos_weight=WEIGHT)), error(found(new[0]))
    assert all(after[key] < before[key] for key in ("brier", "log_loss", "calibration_error"))


@pytest.mark.parametrize("method", FITTED)
def test_a_finding_that_cannot_be_fitted_keeps_the_prior_and_says_why(method):
    probs, positive = draw()
    prior = OddsMap(1.0, WEIGHT)
    assert fitted(method, probs, np.ones_like(positive)) == (prior, "it has only one label")
    assert fitted(method, probs, np.zeros_like(positive)) == (prior, "it has only one label")
    assert fitted(method, probs, probs < 0.5) == (prior, "it ranks the labels no better than chance")
    separated = fitted(method, probs, probs > np.sort(probs)[-4])  # a likelihood without a maximum
    assert separated[1] == "" and separated[0](probs).min() > 0 and separated[0](probs).max() < 1


def test_each_class_has_its_own_map_from_its_valid_entries():
    (one, first), (two, second) = draw(), draw(seed=1)
    probs, targets = np.stack([one, two], axis=1), np.stack([first, second], axis=1).astype(float)
    mask = np.ones((400, 2), bool)
    mask[:100, 1] = False
    targets[:100, 1], probs[:50, 1] = np.nan, np.nan
    maps, _ = fit_maps("platt", probs, targets=targets, mask=mask, classes=["a", "b"], pos_weight=[WEIGHT, WEIGHT])
    assert maps == [fitted("platt", one, first)[0], fitted("platt", two[100:], second[100:])[0]]
    after = apply_maps(maps, probs)
    assert np.array_equal(after[:, 0], maps[0](one)) and np.array_equal(after[100:, 1], maps[1](two[100:]))


@pytest.mark.parametrize(
    "made",
    [
        lambda: OddsMap(0.0, 1.0),
        lambda: OddsMap(-1.0, 1.0),
        lambda: OddsMap(1.0, float("nan")),
        lambda: StepMap((), ()),
        lambda: StepMap((0.1,), (0.1, 0.2)),
        lambda: StepMap((0.1, 0.1), (0.1, 0.2)),
        lambda: StepMap((0.1, 0.2), (0.3, 0.2)),
        lambda: StepMap((0.1, 0.2), (0.3, 1.2)),
    ],
)
def test_a_map_that_does_not_rise_is_refused(made):
    with pytest.raises(ValueError, match="; expected "):
        made()
