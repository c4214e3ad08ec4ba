"""Stages that use probabilities notice what has become of the models that made them."""

import pytest

import ensemble_alpha_search
import ensemble_threshold_search
import predict
import report
from tests.page_runs import random_run
from tests.trees import copy_run

FLAGS = {
    ensemble_alpha_search: ["--select", "best", "--resamples", "0"],
    ensemble_threshold_search: ["--rule", "empirical", "--resamples", "0", "--no-pictures"],
    report: [],
    predict: ["--recall", "0.85", "--workers", "0"],
}
AFTER_BLEND = [ensemble_threshold_search, report]
BEFORE_PREDICT = [ensemble_alpha_search, *AFTER_BLEND]


@pytest.fixture
def run_dir(once, tmp_path):
    """A run that has gone through stages 1 to 6, with checkpoints of random weights, to be spoilt."""
    return copy_run(next(once("random_run", random_run).glob("*/run")), tmp_path / "run")


def start(script, run_dir):
    flags = [*FLAGS[script], "--run-dir", str(run_dir), "--overwrite"]
    script.main([str(run_dir), "--out", str(run_dir / "p.csv"), *flags] if script is predict else flags)


@pytest.mark.parametrize("script", FLAGS, ids=lambda script: script.__name__)
def test_a_model_that_is_being_trained_is_waited_for(run_dir, monkeypatch, script):
    monkeypatch.setattr("src.artifacts.lineage.holder", lambda folder: f"train_{folder.name}")
    with pytest.raises(ValueError, match="resnet50 is being written by train_resnet50; wait for it to finish"):
        start(script, run_dir)


@pytest.mark.parametrize("script", BEFORE_PREDICT, ids=lambda script: script.__name__)
def test_probabilities_of_another_model_are_refused(run_dir, script):
    path = run_dir / "resnet50" / "best.pt"
    path.unlink()
    path.write_bytes(b"other weights")
    then = ", then ensemble_alpha_search.py --overwrite" if script in AFTER_BLEND else ""
    since = "blended" if script in AFTER_BLEND else "tested"
    match = f"^resnet50 was trained again after it was {since}; run test_resnet.py --overwrite{then}$"
    with pytest.raises(ValueError, match=match):
        start(script, run_dir)


@pytest.mark.parametrize(("left", "flag"), [("last.pt", "--overwrite"), (".begun", "--resume")])
@pytest.mark.parametrize("script", FLAGS, ids=lambda script: script.__name__)
def test_a_model_that_a_training_lost_is_refused(run_dir, script, left, flag):
    (run_dir / "resnet50" / "best.pt").unlink()
    (run_dir / "resnet50" / left).touch()
    reason = "does not exist; run train_resnet.py first"
    if script is not predict:
        reason = f".* is missing, .* run train_resnet.py {flag} and then the later stages"
    with pytest.raises(ValueError, match=rf"resnet50/best\.pt,? {reason}"):
        start(script, run_dir)


def test_checkpoints_deleted_to_save_space_stop_prediction_alone(run_dir):
    for path in run_dir.glob("*/*.pt"):
        path.unlink()
    for script in BEFORE_PREDICT:
        with pytest.warns(UserWarning, match=r"resnet50/best\.pt is missing; its probabilities are used, but predict"):
            start(script, run_dir)
    with pytest.raises(ValueError, match=r"resnet50/best\.pt does not exist; run train_resnet\.py first"):
        start(predict, run_dir)
