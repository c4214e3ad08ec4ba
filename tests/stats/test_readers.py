"""A reader's point beside the model's curve."""

import numpy as np
import pytest
from scipy.special import ndtr

from src.stats.readers import compare_reader


def compared(probs, targets, calls, patients=None, resamples=200):
    patients = np.arange(len(probs)) if patients is None else patients
    data = {"targets": np.asarray(targets), "calls": np.asarray(calls), "patients": patients}
    return compare_reader(np.asarray(probs), **data, resamples=resamples, seed=0)


def test_the_models_precision_is_that_of_the_first_cut_with_the_readers_recall():
    found = compared([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [1, 0, 1, 1, 0, 0], [1, 0, 1, 0, 1, 0])
    assert (found["recall"], found["precision"], found["specificity"]) == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert found["model_precision"] == pytest.approx(2 / 3)  # 2 of the first 3
    assert found["gain"] == pytest.approx(0)
    assert (found["cases"], found["positives"]) == (6, 3)


def test_equal_probabilities_are_flagged_together():
    assert compared([0.9, 0.5, 0.5, 0.5], [1, 1, 0, 0], [1, 1, 0, 0])["model_precision"] == 0.5


def test_a_reader_who_calls_nothing_has_no_precision():
    found = compared([0.9, 0.5], [1, 0], [0, 0])
    assert found["recall"] == 0 and np.isnan(found["precision"]) and np.isnan(found["gain"])
    assert np.isnan(found["gain_ci"]).all()


def test_the_gain_is_paired_by_patient_and_its_interval_covers_the_truth():
    """Model and reader see the same score, so that the true gain is 0; 150 data sets, each with 2 images a patient."""
    rng = np.random.default_rng(0)
    covered, width = [], []
    for _ in range(150):
        patients = np.repeat(np.arange(150), 2)
        targets = (rng.random(150) < 0.3).astype(float)[patients]
        scores = 1.5 * targets + 0.7 * rng.normal(size=150)[patients] + 0.7 * rng.normal(size=300)
        reader = scores + 1e-3 * rng.normal(size=300) > 0.7
        found = compared(ndtr(scores), targets, reader, patients, resamples=100)
        low, high = found["gain_ci"]
        covered.append(low <= found["gain"] <= high and low < 0.02 and high > -0.02)
        width.append(high - low)
    assert np.mean(covered) > 0.9
    assert np.mean(width) < 0.1  # unpaired, it would be three times as wide
