"""Blending and the choice of weights, on validation data."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from src.stats.ensemble import alpha_grid, blend, choose_alpha, greedy_weights


def test_blend_is_the_weighted_mean():
    members = np.array([[[0.2, 1.0]], [[0.6, 0.0]]])
    np.testing.assert_allclose(blend(members, [0.25, 0.75]), [[0.5, 0.25]])
    np.testing.assert_array_equal(blend(members, [1, 0]), members[0])


def test_the_grid_is_exact_and_a_step_that_does_not_divide_1_is_refused():
    assert alpha_grid(0.1).tolist() == [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1]
    with pytest.raises(ValueError, match="--step is 0.3; expected a step that divides 1"):
        alpha_grid(0.3)


def test_one_standard_error_moves_towards_a_half_but_no_further_than_the_error():
    alphas = np.array([0, 0.25, 0.5, 0.75, 1])
    scores = np.array([0.70, 0.74, 0.76, 0.79, 0.80])
    assert alphas[choose_alpha(alphas, scores, np.full(5, 0.0))] == 1
    assert alphas[choose_alpha(alphas, scores, np.full(5, 0.02))] == 0.75
    assert alphas[choose_alpha(alphas, scores, np.full(5, 0.05))] == 0.5


def test_of_two_alphas_as_near_to_a_half_the_better_wins():
    alphas = alpha_grid(0.1)
    scores = np.where(np.isclose(alphas, 0.4), 0.81, 0.0) + np.where(np.isclose(alphas, 0.6), 0.82, 0.0)
    assert alphas[choose_alpha(alphas, scores, np.full(11, 0.05))] == 0.6


def test_greedy_selection_leaves_out_noise_and_beats_every_single_member():
    rng = np.random.default_rng(0)
    truth = rng.random(600) < 0.3
    good = [1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, 1.5, 600)))) for _ in range(2)]
    members = np.stack([*good, rng.random(600)])[:, :, None]

    def score(probs):
        return average_precision_score(truth, probs[:, 0])

    weights = greedy_weights(members, score=score)
    assert weights.sum() == pytest.approx(1) and (weights >= 0).all()
    assert weights[2] < 0.1 < weights[:2].min()
    assert score(blend(members, weights)) >= max(score(member) for member in members)
