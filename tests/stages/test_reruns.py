"""What a stage does when outputs of an earlier run exist: it keeps, replaces, resumes, or refuses them."""

import json
from functools import partial

import pandas as pd
import pytest

import check_split
import eda_labels
import ensemble_alpha_search
import ensemble_threshold_search
import test_resnet
import train_resnet
import tuning_log
from tests.stages.test_pipeline import FAST, SMALL, run_stages
from tests.trees import copy_run, make_chexpert


@pytest.fixture(scope="module")
def run_dir(once):
    """A run folder that has gone through stages 0 to 6."""
    return once("reruns", partial(run_stages, patients=30)) / "run"


@pytest.fixture
def copied(run_dir, tmp_path):
    """A copy of the run that a test may spoil, and its flags."""
    return copy_run(run_dir, tmp_path / "run"), ["--run-dir", str(tmp_path / "run")]


def test_a_blend_that_is_refused_leaves_the_earlier_one(copied):
    run, flags = copied
    before = {path.name: path.read_bytes() for path in (run / "ensemble").iterdir()}
    with pytest.raises(ValueError, match="--select one-se needs resamples"):
        ensemble_alpha_search.main([*flags, "--resamples", "0", "--overwrite"])
    assert {path.name: path.read_bytes() for path in (run / "ensemble").iterdir()} == before


def test_a_blend_of_models_tested_under_other_label_flags_is_refused(copied):
    run, flags = copied
    story = json.loads((run / "resnet50" / "probs.json").read_text())
    (run / "resnet50" / "probs.json").write_text(json.dumps(story | {"missing": ["0"]}))  # as test_resnet.py does
    with pytest.raises(ValueError, match="resnet50 was tested again after it was blended"):
        ensemble_threshold_search.main([*flags, "--overwrite"])


def test_a_training_that_does_not_finish_leaves_no_pictures_of_an_earlier_one(copied, monkeypatch):
    run, flags = copied
    monkeypatch.setattr("src.stages.train._finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "fc", "--overwrite"])
    assert (run / "resnet50" / "history.csv").exists() and not list((run / "resnet50").glob("train_*.png"))


def test_the_earlier_model_stays_until_the_first_epoch_of_the_next_is_done(copied, monkeypatch):
    run, flags = copied
    folder = run / "resnet50"
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    with monkeypatch.context() as broken:
        broken.setattr("src.stages.train.fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_resnet.main([*flags, *SMALL, "--seed", "1", "--overwrite"])
    assert {
        path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file() and path.name in before
    } == before
    ensemble_alpha_search.main([*flags, "--resamples", "0", "--select", "best", "--overwrite", "--step", "0.5"])
    train_resnet.main([*flags, *SMALL, "--seed", "1", "--unfreeze-from", "fc", "--overwrite"])
    assert json.loads((folder / "config.json").read_text())["seed"] == 1
    assert (folder / "best.pt").read_bytes() != before["best.pt"]
    assert not (folder / ".begun").exists() and not (folder / "probs.json").exists()
    with pytest.raises(ValueError, match="--resume continues the training that --overwrite would replace"):
        train_resnet.main([*flags, *SMALL, "--resume", "--overwrite"])


def test_a_training_stopped_in_its_first_epoch_is_resumed_beside_the_earlier_model(copied, monkeypatch):
    run, flags = copied
    folder, more = run / "resnet50", [*SMALL, "--seed", "1", "--unfreeze-from", "fc", "--checkpoint-minutes", "0"]
    before = (folder / "best.pt").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr("src.stages.train._print_epoch", interrupted)
        broken.setattr("src.stages.train._move", interrupted)  # as a kill before it
        with pytest.raises(KeyboardInterrupt):
            train_resnet.main([*flags, *more, "--overwrite"])
    assert (folder / "best.pt").read_bytes() == before and (folder / ".begun" / "last.pt").exists()
    train_resnet.main([*flags, *more, "--resume", "--epochs", "2"])
    assert (folder / "best.pt").read_bytes() != before and not (folder / ".begun").exists()
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [1, 2]


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_label_flags_are_recorded_and_inherited(copied, capsys):
    run, flags = copied
    ensemble_alpha_search.main(
        [*flags, "--resamples", "0", "--select", "best", "--missing", "0", "--overwrite", "--step", "0.5"]
    )
    assert "note: --missing is 0 here and was mask in" in capsys.readouterr().out
    ensemble_threshold_search.main([*flags, "--resamples", "0", "--recall", "0.8", "--overwrite"])
    assert "--missing 0, as recorded in" in capsys.readouterr().out
    assert json.loads((run / "ensemble" / "thresholds.json").read_text())["missing"] == ["0"]


def test_a_stage_does_not_replace_what_is_there_unasked(copied):
    run, flags = copied
    before = {path: path.stat().st_mtime_ns for path in run.rglob("[!.]*") if path.is_file()}
    for script in (eda_labels, train_resnet, test_resnet, ensemble_alpha_search, ensemble_threshold_search):
        with pytest.raises(ValueError, match="already exists; pass --overwrite"):
            script.main(flags)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("[!.]*") if path.is_file()}


def test_a_run_of_another_data_set_is_refused_by_every_later_stage(copied, tmp_path):
    run, flags = copied
    data = make_chexpert(tmp_path / "other", images=False)
    check_split.main(["--data", str(data), "--images", "skip", "--val-fraction", "0.3", *flags, "--overwrite"])
    for script, message in (
        (test_resnet, "a different manifest"),
        (ensemble_alpha_search, "a different manifest"),
        (ensemble_threshold_search, "a different manifest"),
    ):
        with pytest.raises(ValueError, match=message):
            script.main([*flags, "--overwrite"])
    with pytest.raises(ValueError, match="--resume: the manifest has changed"):
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume"])


def test_resume_goes_on_and_refuses_a_changed_flag_that_matters(copied, capsys):
    run, flags = copied
    with pytest.raises(ValueError, match=r"--resume: --image-size was 32 and is 64 now"):
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume", "--image-size", "64"])
    bfloat16 = json.loads((run / "resnet50" / "config.json").read_text())["bfloat16"]
    assert isinstance(bfloat16, bool)
    with pytest.raises(ValueError, match=f"--resume: --bfloat16 was {bfloat16} and is {not bfloat16} now"):
        other = "--no-bfloat16" if bfloat16 else "--bfloat16"
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume", other])
    recorded = json.loads((run / "resnet50" / "config.json").read_text()) | {"bfloat16": not bfloat16}
    (run / "resnet50" / "config.json").write_text(json.dumps(recorded))  # as another machine's default would be
    train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume", "--epochs", "2"])
    assert json.loads((run / "resnet50" / "config.json").read_text())["bfloat16"] is not bfloat16
    assert "resuming after epoch 1" in capsys.readouterr().out
    history = pd.read_csv(run / "resnet50" / "history.csv")
    assert history["epoch"].tolist() == [1, 2]


def test_a_mistyped_flag_does_not_cost_the_trained_model(copied):
    run, flags = copied
    before = (run / "resnet50" / "best.pt").read_bytes()
    for mistake in (["--uncertain", "Edma=1"], ["--device", "nonsense"], ["--weights", str(run / "gone.pth")]):
        with pytest.raises(ValueError):
            train_resnet.main([*flags, *SMALL, "--overwrite", *mistake])
    (run / "resnet50" / "last.pt").unlink()
    with pytest.raises(ValueError, match="already exists; pass --overwrite"):
        train_resnet.main([*flags, *SMALL, "--resume"])
    assert (run / "resnet50" / "best.pt").read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "the other model's"])
def test_a_damaged_or_foreign_checkpoint_is_one_clear_line(copied, damage):
    run, flags = copied
    path = run / "resnet50" / "best.pt"
    data = {"empty": b"", "truncated": path.read_bytes()[:5000]}
    path.unlink()
    path.write_bytes(data.get(damage, (run / "efficientnet_b1" / "best.pt").read_bytes()))
    with pytest.raises(ValueError, match=r"best.pt is (corrupt|a checkpoint of efficientnet_b1; expected resnet50)"):
        test_resnet.main([*flags, *FAST, "--overwrite"])
    assert (run / "resnet50" / "probs_val.csv").exists()
    if damage != "the other model's":
        with pytest.raises(ValueError, match="best.pt is corrupt.*; train again with --overwrite"):
            train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume"])


def test_probabilities_older_than_the_model_or_the_blend_are_refused(copied):
    run, flags = copied
    test_resnet.main([*flags, *FAST, "--overwrite"])
    ensemble_threshold_search.main([*flags, "--resamples", "0", "--overwrite"])  # the same probabilities: fine
    train_resnet.main([*flags, *SMALL, "--unfreeze-from", "fc", "--overwrite"])
    with pytest.raises(ValueError, match=r"probs.json does not exist; run test_resnet\.py first"):
        ensemble_alpha_search.main([*flags, "--overwrite"])
    with pytest.raises(ValueError, match="resnet50 was trained again after it was blended"):
        ensemble_threshold_search.main([*flags, "--overwrite"])
    test_resnet.main([*flags, *FAST, "--overwrite"])
    with pytest.raises(ValueError, match="resnet50 was tested again after it was blended"):
        ensemble_threshold_search.main([*flags, "--overwrite"])
    ensemble_alpha_search.main([*flags, "--resamples", "20", "--overwrite", "--step", "0.5"])
    path = run / "ensemble" / "probs_test.csv"
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    with pytest.raises(ValueError, match="probs_test.csv does not match probs.json"):
        ensemble_threshold_search.main([*flags, "--overwrite"])


def test_another_choice_leaves_nothing_of_the_one_before(copied):
    run, flags = copied
    with pytest.raises(ValueError, match="--recall 1 cannot be promised"):
        ensemble_threshold_search.main([*flags, "--recall", "0.85", "1", "--overwrite"])
    assert (run / "ensemble" / "thresholds_recall_0.9.csv").exists()
    ensemble_threshold_search.main([*flags, "--recall", "0.8", "--resamples", "0", "--no-pictures", "--overwrite"])
    left = sorted(path.name for path in (run / "ensemble").glob("*recall*"))
    assert left == ["thresholds_recall_0.8.csv"]


def test_the_tuning_log_says_what_changed(run_dir, copied, capsys):
    run, flags = copied
    train_resnet.main([*flags, *SMALL, "--unfreeze-from", "fc", "--overwrite"])
    capsys.readouterr()
    tuning_log.main([str(run_dir), str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert sum("unfreeze_from=layer4 -> fc" in line for line in lines) == 1
    assert any("efficientnet_b1" in line and "nothing" in line for line in lines)
    best = pd.read_csv(run_dir / "resnet50" / "history.csv").max()
    assert any(f"{best['val_auroc']:.4f} |         {best['val_auprc']:.4f}" in line for line in lines)
    with pytest.raises(ValueError, match="holds no trained model"):
        tuning_log.main([str(run / "eda")])
