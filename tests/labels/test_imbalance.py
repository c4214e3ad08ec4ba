"""Weights and repeats that follow from the counts of labels, by hand."""

import numpy as np
import pytest

from src.labels.imbalance import EFFECTIVE_BETA, class_weights, effective_importance, repeat_factors

# Class A: 1 positive, 3 negatives; B: 3 positives, 1 negative, one of each masked; C: a soft target; D: nothing valid.
TARGETS = np.array([[1, 1, 0.5, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]], np.float32)
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 1, 0], [0, 0, 0, 0]], bool)
POS_WEIGHT = np.array([3.0, 0.5, 7.0, 1.0], np.float32)
TOTALS = np.array([1 * 3 + 3, 2 * 0.5 + 1, 0.5 * 7 + 3.5, 0])  # 6, 2, 7, 0


def test_class_weighting_gives_every_class_the_same_total_and_leaves_the_sum():
    weights = class_weights(TARGETS, mask=MASK, pos_weight=POS_WEIGHT, balanced=True)
    np.testing.assert_allclose(weights[:3] * TOTALS[:3], [5, 5, 5], rtol=1e-6)
    assert weights.dtype == np.float32 and weights[3] == 0
    np.testing.assert_array_equal(class_weights(TARGETS, mask=MASK, pos_weight=POS_WEIGHT, balanced=False), [1] * 4)


@pytest.mark.parametrize("balanced", [False, True])
def test_importance_multiplies_and_only_its_ratios_count(balanced):
    importance = np.array([1.0, 2, 4, 8])
    options = {"mask": MASK, "pos_weight": POS_WEIGHT, "balanced": balanced}
    base = class_weights(TARGETS, **options)
    weights = class_weights(TARGETS, importance=importance, **options)
    np.testing.assert_allclose(weights[:3] / base[:3], importance[:3] * weights[0] / base[0], rtol=1e-6)
    assert (weights * TOTALS).sum() == pytest.approx(15)
    np.testing.assert_allclose(class_weights(TARGETS, importance=3 * importance, **options), weights, rtol=1e-6)


def test_the_effective_number_of_positives_is_a_geometric_sum():
    targets = np.zeros((400, 3), np.float32)
    targets[:1, 0], targets[:300, 1] = 1, 1
    importance = effective_importance(targets, mask=np.ones((400, 3), bool))
    expected = [1 / sum(EFFECTIVE_BETA**i for i in range(n)) for n in (1, 300, 1)]  # no positive: as one
    np.testing.assert_allclose(importance, expected, rtol=1e-9)


def test_an_image_is_repeated_as_its_rarest_finding():
    targets, mask = np.zeros((100, 3), np.float32), np.ones((100, 3), bool)
    targets[:1, 0], targets[:4, 1], targets[:50, 2] = 1, 1, 0.6
    mask[3, 1] = False
    factors = repeat_factors(targets, mask=mask, threshold=0.12)
    np.testing.assert_allclose(factors[[0, 1, 2, 3, 40, 99]], [np.sqrt(12), 2, 2, 1, 1, 1])
