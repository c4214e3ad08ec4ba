"""Stage 6: the rule it is asked for, and what it refuses."""

import json

import numpy as np
import pandas as pd
import pytest

import ensemble_threshold_search
from src.stages.thresholds import parse_prevalence

CLASSES = ("A", "B C")


@pytest.fixture
def flags(tmp_path):
    """Flags for a run of one class: 80 patients, two in five with the finding."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 5 < 2
    pd.DataFrame({"id": range(80), "A": (labels + 2 * rng.random(80)) / 3}).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame({"id": range(80), "A": labels.astype(int)}).to_csv(tmp_path / "t.csv", index=False)
    files = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv")]
    return [*files, "--run-dir", str(tmp_path / "run"), "--resamples", "0", "--no-pictures", "--recall", "0.85"]


def test_the_empirical_rule_alone_is_printed_and_recorded_where_it_is_asked_for(flags, tmp_path, capsys):
    ensemble_threshold_search.main(flags)
    certified = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
    assert " certified " in capsys.readouterr().out
    ensemble_threshold_search.main([*flags, "--rule", "empirical", "--overwrite"])
    out = capsys.readouterr().out
    assert "certified" not in out and "== recall >= 0.85 ==  empirical: on val\n" in out
    assert "at the empirical thresholds" in out
    empirical = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
    thresholds = empirical["threshold"], empirical["empirical_threshold"], certified["empirical_threshold"]
    assert len({*thresholds}) == 1 and thresholds[0] > certified["threshold"]
    assert np.isnan(empirical["val_recall_lower"])
    found = json.loads((tmp_path / "run" / "ensemble" / "thresholds.json").read_text())
    assert (found["rule"], found["confidence"]) == ("empirical", None)
    assert found["recall"]["0.85"]["A"]["threshold"] == thresholds[0]


@pytest.mark.parametrize("confidence", ["0", "0.49", "-1", "0.99999", "95"])
def test_a_confidence_out_of_range_is_refused_and_the_rule_without_one_is_named(flags, tmp_path, confidence):
    match = rf"--confidence is {float(confidence)}; expected a number from 0\.5 to 0\.9999, or --rule empirical"
    with pytest.raises(ValueError, match=match):
        ensemble_threshold_search.main([*flags, "--confidence", confidence])
    assert not (tmp_path / "run").exists()


def test_family_wise_without_a_confidence_is_refused(flags, tmp_path):
    with pytest.raises(ValueError, match="--family-wise needs a confidence, and --rule empirical has none"):
        ensemble_threshold_search.main([*flags, "--rule", "empirical", "--family-wise"])
    assert not (tmp_path / "run").exists()


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
