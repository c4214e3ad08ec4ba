"""The plan against the rule itself."""

import numpy as np
from scipy.special import ndtr, ndtri

from src.stats.planning import POSITIVES, plan
from src.stats.thresholds import build_curve, certified_rule


def test_the_plan_allows_the_misses_that_the_rule_allows():
    for row in plan(0.85, confidence=0.95, auroc=0.85, prevalence=0.1):
        scores = np.linspace(0.9, 0.1, row.positives)
        point = certified_rule(build_curve(scores, targets=np.ones(row.positives)), recall=0.85)
        assert row.misses == (scores < point.threshold).sum()
        assert row.val_recall == point.recall


def test_too_few_positives_are_infeasible():
    rows = plan(0.9, confidence=0.95, auroc=0.85, prevalence=0.1)
    assert [row.positives for row in rows if row.misses < 0] == [19]
    assert [row.positives for row in rows] == list(POSITIVES)


def test_the_cost_is_what_a_simulation_finds():
    rng = np.random.default_rng(0)
    shift = np.sqrt(2) * ndtri(0.85)
    row = next(row for row in plan(0.85, confidence=0.95, auroc=0.85, prevalence=0.1) if row.positives == 100)
    recall, precision = [], []
    for _ in range(2000):
        cut = np.sort(shift + rng.normal(size=100))[row.misses]
        recall.append(ndtr(shift - cut))
        precision.append(0.1 * recall[-1] / (0.1 * recall[-1] + 0.9 * ndtr(-cut)))
    assert abs(np.mean(recall) - row.true_recall) < 0.003
    assert abs(np.mean(precision) - row.precision) < 0.003
    assert 0 < row.lost < 0.2
