"""Work per 1,000 studies and precision at another prevalence, by hand."""

import numpy as np
import pytest

from src.stages.thresholds import parse_prevalence
from src.stats.workload import per_thousand, precision_at

CLASSES = ("A", "B C")


def test_counts_are_per_labeled_study():
    # Four studies; the first has two images, of which the second is flagged.
    studies = np.array(["s1", "s1", "s2", "s3", "s4"])
    targets = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 0]])
    mask = np.array([[1, 1], [1, 1], [1, 0], [1, 1], [0, 0]], bool)
    flags = np.array([[0, 1], [1, 0], [0, 1], [1, 1], [1, 1]], bool)
    table = per_thousand(flags, targets=targets, mask=mask, studies=studies, classes=CLASSES).set_index("class")
    assert table.loc["A"].tolist() == pytest.approx([3, 2000 / 3, 1000 / 3, 1000 / 3])
    assert table.loc["B C"].tolist() == pytest.approx([2, 1000, 0, 500])
    assert table.loc["at least one finding"].tolist() == pytest.approx([3, 2000 / 3, 1000 / 3, 2000 / 3])


def test_a_class_without_labels_has_no_rate():
    table = per_thousand(
        np.ones((2, 1), bool), targets=np.zeros((2, 1)), mask=np.zeros((2, 1), bool), studies=np.arange(2), classes="A"
    )
    assert table["flagged"].isna().all() and table["studies"].tolist() == [0, 0]


def test_precision_at_a_prevalence_is_bayes_rule_and_agrees_with_a_count():
    assert precision_at(0.9, 0.8, prevalence=0.5) == pytest.approx(0.45 / 0.55)
    # 1,000 people, 50 with the finding: 45 found, 190 of 950 falsely flagged.
    assert precision_at(0.9, 0.8, prevalence=0.05) == pytest.approx(45 / 235)
    assert np.isnan(precision_at(0.0, 1.0, prevalence=0.1))
    assert np.isnan(precision_at(np.nan, 0.8, prevalence=0.1))


def test_prevalence_from_words_or_from_a_csv(tmp_path):
    assert parse_prevalence(["A=0.05", "B C=0.2"], classes=CLASSES) == {"A": 0.05, "B C": 0.2}
    assert parse_prevalence([], classes=CLASSES) == {}
    path = tmp_path / "clinic.csv"
    path.write_text("class,prevalence\nB C,0.2\n")
    assert parse_prevalence([str(path)], classes=CLASSES) == {"B C": 0.2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["X=0.1"], "no class 'X'; the classes are A, B C"),
        (["A=5%"], "A=5%: expected a share"),
        (["A=0"], "expected a share above 0"),
        (["A=1"], "below 1"),
        (["A=0.1", "A=0.2"], "names A twice"),
    ],
)
def test_a_bad_prevalence_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_prevalence(words, classes=CLASSES)


def test_a_prevalence_csv_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "clinic.csv"
    path.write_text("finding,share\nA,0.2\n")
    with pytest.raises(ValueError, match="has columns finding, share; expected class,prevalence"):
        parse_prevalence([str(path)], classes=CLASSES)
