"""Work per 1,000 units and precision at another prevalence, by hand."""

import numpy as np
import pandas as pd
import pytest

from src.stats.workload import ANY, answers, count, per_thousand, precision_at

FLAGS = np.array([[1, 1], [0, 1], [1, 1], [1, 0]], bool)
LABELS = np.array([[1, 0], [1, np.nan], [0, 1], [np.nan, -1]])


def test_labeled_units_alone_and_every_flag_with_blanks_as_negatives():
    labeled, everybody = answers(np.nan_to_num(LABELS), mask=np.isin(LABELS, (0, 1)), blank=np.isnan(LABELS))
    rows = per_thousand(FLAGS, labeled, classes=("A", "B C"))
    assert [name for name, *_ in rows] == ["A", "B C", ANY]
    assert rows[0][1:] == pytest.approx((3, 2000 / 3, 1000 / 3, 1000 / 3))
    assert rows[1][1:] == pytest.approx((2, 1000, 0, 500))
    assert rows[2][1:] == pytest.approx((3, 2000 / 3, 1000 / 3, 2000 / 3))
    rows = per_thousand(FLAGS, everybody, classes=("A", "B C"))
    assert rows[0][1:] == (4, 750, 250, 500)  # the flag of the blank is a false one
    assert rows[1][1:] == (4, 750, 0, 500)
    assert rows[2][1:] == (4, 1000, 250, 1000)


def test_a_flag_on_an_uncertain_label_is_counted_and_not_called_false():
    labels = np.array([[-1.0], [0.0]])
    mask, blank = labels == 0, np.isnan(labels)
    labeled, everybody = answers(np.zeros((2, 1)), mask=mask, blank=blank)
    flags = np.ones((2, 1), bool)
    assert count(flags, labeled).tolist() == [[1, 1, 0, 1]] * 2
    assert count(flags, everybody).tolist() == [[2, 2, 0, 1]] * 2


def test_a_blank_that_the_policy_takes_for_a_positive_stays_one():
    """--missing 1."""
    ones = np.ones((1, 1))
    _, everybody = answers(ones, mask=ones == 1, blank=ones == 1)
    assert count(ones == 1, everybody).tolist() == [[1, 1, 0, 0]] * 2


def test_a_class_without_labels_has_no_rate():
    labeled, _ = answers(np.zeros((2, 1)), mask=np.zeros((2, 1), bool), blank=np.ones((2, 1), bool))
    for _, units, *rates in per_thousand(np.ones((2, 1), bool), labeled, classes="A"):
        assert units == 0 and np.isnan(rates).all()


def test_counts_are_those_of_pandas():
    rng = np.random.default_rng(2)
    flags, targets, mask = rng.random((300, 3)) < 0.5, rng.integers(0, 2, (300, 3)), rng.random((300, 3)) < 0.5
    labeled, _ = answers(targets, mask=mask, blank=~mask)
    ill, well = mask & (targets == 1), mask & (targets == 0)
    events = [pd.DataFrame(event) for event in (mask, flags & mask, ill & ~flags, flags & well)]
    expected = [[*event.sum(), event.any(axis=1).sum()] for event in events]
    assert count(flags, labeled).T.tolist() == expected


def test_precision_at_a_prevalence_is_bayes_rule_and_agrees_with_a_count():
    assert precision_at(0.9, 0.8, prevalence=0.5) == pytest.approx(0.45 / 0.55)
    # 1,000 people, 50 with the finding: 45 found, 190 of 950 falsely flagged.
    assert precision_at(0.9, 0.8, prevalence=0.05) == pytest.approx(45 / 235)
    assert np.isnan(precision_at(0.0, 1.0, prevalence=0.1))
    assert np.isnan(precision_at(np.nan, 0.8, prevalence=0.1))
