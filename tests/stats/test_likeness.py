"""The distance from the training images: the textbook's, with one false alarm in a hundred, in any unit."""

import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis
from sklearn.covariance import LedoitWolf

from src.stats.likeness import Likeness

MIX = np.random.default_rng(0).normal(size=(12, 12))


def draw(count, *, seed, units=1.0):
    """Correlated features [count, 12], the first of them in other units than the others."""
    features = np.random.default_rng(seed).normal(size=(count, 12)) @ MIX + 3
    return features * np.array([units, *[1.0] * 11])


def test_distances_are_mahalanobis_by_a_shrunk_covariance():
    train, new = draw(30, seed=1), draw(5, seed=2)
    likeness = Likeness.fit(train, val=draw(50, seed=3))
    scaled = (train - train.mean(axis=0)) / train.std(axis=0)
    precision = LedoitWolf().fit(scaled).precision_
    at = (new - train.mean(axis=0)) / train.std(axis=0)
    expected = [mahalanobis(row, np.zeros(12), precision) for row in at]
    assert likeness.distances(new) == pytest.approx(expected)


@pytest.mark.parametrize("units", [1e-4, 1.0, 1e4])
def test_one_in_a_hundred_like_the_training_images_is_marked_and_all_others_are(units):
    likeness = Likeness.fit(draw(2000, seed=1, units=units), val=draw(2000, seed=2, units=units))
    alike = draw(5000, seed=3, units=units)
    assert 0.005 < likeness.unlike(alike).mean() < 0.02
    assert likeness.unlike(alike + 40 * alike.std(axis=0)).all()
    swapped = np.random.default_rng(0).permuted(alike, axis=0)  # each feature as in training, but not together
    assert likeness.unlike(swapped).mean() > 0.9


@pytest.mark.parametrize("train", [draw(5, seed=1), np.zeros((9, 12))])
def test_few_images_and_constant_features_give_finite_distances(train):
    train[:, 3] = 1.0
    likeness = Likeness.fit(train, val=train)
    assert np.isfinite(likeness.distances(draw(3, seed=2))).all() and np.isfinite(likeness.threshold)
    assert not likeness.unlike(train).any()
