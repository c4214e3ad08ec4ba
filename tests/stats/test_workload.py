"""Work per 1,000 studies and precision at another prevalence, by hand."""

import numpy as np
import pandas as pd
import pytest

from src.stats.workload import ANY, by_study, count_any, count_studies, per_thousand, precision_at


def test_counts_are_per_labeled_study():
    # Four studies; the first has two images, of which the second is flagged.
    flags = np.array([[0, 1], [1, 0], [0, 1], [1, 1], [1, 1]])
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    mask = np.array([[1, 1], [1, 1], [1, 0], [1, 1], [0, 0]], bool)
    studies = by_study(0.1 + 0.8 * flags, targets=targets, mask=mask, studies=["s1", "s1", "s2", "s3", "s4"])
    rows = per_thousand(studies, thresholds=np.array([0.5, 0.9]), classes=("A", "B C"))
    assert [name for name, *_ in rows] == ["A", "B C", ANY]
    assert rows[0][1:] == pytest.approx((3, 2000 / 3, 1000 / 3, 1000 / 3))
    assert rows[1][1:] == pytest.approx((2, 1000, 0, 500))
    assert rows[2][1:] == pytest.approx((3, 2000 / 3, 1000 / 3, 2000 / 3))


def test_a_class_without_labels_has_no_rate():
    studies = by_study(np.ones((2, 1)), targets=np.zeros((2, 1)), mask=np.zeros((2, 1), bool), studies=np.arange(2))
    for _, labeled, *rates in per_thousand(studies, thresholds=np.zeros(1), classes="A"):
        assert labeled == 0 and np.isnan(rates).all()


@pytest.mark.parametrize("cuts", [(0.0, 0.5, 1.0), (0.25, 0.9, 0.4)])
def test_studies_are_counted_as_pandas_groups_them(cuts):
    rng = np.random.default_rng(2)
    probs, targets, mask = rng.random((300, 3)).round(2), rng.integers(0, 2, (300, 3)), rng.random((300, 3)) < 0.5
    names = np.array([f"study {i}" for i in rng.integers(120, size=300)])
    flagged, present = (
        pd.DataFrame(values & mask).groupby(names).any().to_numpy() for values in (probs >= cuts, targets == 1)
    )
    events = flagged, present & ~flagged, flagged & ~present
    studies = by_study(probs, targets=targets, mask=mask, studies=names)
    assert count_any(studies, thresholds=np.array(cuts)) == tuple(event.any(axis=1).sum() for event in events)
    for c, cut in enumerate(cuts):
        expected = [event[:, c].sum() for event in events]
        assert count_studies(studies, c, thresholds=np.array([2.0, cut]))[:, 1].tolist() == expected
        assert count_studies(studies, c, thresholds=np.array([2.0, cut]))[:, 0].tolist() == [0, present[:, c].sum(), 0]


def test_precision_at_a_prevalence_is_bayes_rule_and_agrees_with_a_count():
    assert precision_at(0.9, 0.8, prevalence=0.5) == pytest.approx(0.45 / 0.55)
    # 1,000 people, 50 with the finding: 45 found, 190 of 950 falsely flagged.
    assert precision_at(0.9, 0.8, prevalence=0.05) == pytest.approx(45 / 235)
    assert np.isnan(precision_at(0.0, 1.0, prevalence=0.1))
    assert np.isnan(precision_at(np.nan, 0.8, prevalence=0.1))
