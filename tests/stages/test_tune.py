"""tune.py: what it tries and keeps, what a kill costs, and what it prints."""

import shlex
import signal
import sys

import optuna
import pandas as pd
import pytest

import check_split
import tune
import tuning_log
from src.artifacts.io import read_json, write_json, write_table
from src.config import EfficientNetConfig, ResNetConfig, TuneConfig, parse
from src.stages.tune import _suggest
from tests.page_runs import write_split
from tests.stages.test_survival import TINY, finish, start, wait_for
from tests.trees import make_csv

DEFAULT_SCORES = [0.5, 0.6, 0.55]


class Trainer:
    """In the place of the training: epochs with given scores; what is in `ends` is raised after the first epoch."""

    def __init__(self, scores=(), ends=()):
        self.scores, self.ends, self.configs = dict(enumerate(scores)), dict(ends), []

    def __call__(self, config, *, study):
        number = len(self.configs)
        self.configs.append(config)
        folder, history = config.run_dir / config.arch, []
        assert (config.run_dir / "manifest.csv").exists() and not folder.exists()
        write_json(folder / "config.json", {"lr": config.lr, "compared_runs": 1})
        for epoch, score in enumerate(self.scores.get(number, DEFAULT_SCORES), 1):
            history.append({"epoch": epoch, "val_auroc": 0.5, "val_auprc": score})
            write_table(folder / "history.csv", pd.DataFrame(history))
            for name in ("best.pt", "last.pt"):
                (folder / name).write_text(f"{number}")
            if number in self.ends:
                raise self.ends[number]
            study.after_epoch(history[-1])


@pytest.fixture
def run_dir(tmp_path):
    write_split(tmp_path / "run", patients=12, seed=0)
    return tmp_path / "run"


@pytest.fixture
def tuned(run_dir, monkeypatch):
    """Calls tune.py with a trainer and returns it."""

    def call(*flags, trainer=None, trials=3):
        trainer = trainer or Trainer()
        monkeypatch.setattr("src.stages.tune.train", trainer)
        tune.main(["--run-dir", str(run_dir), "--trials", str(trials), *flags])
        return trainer

    return call


def study_of(run_dir):
    return optuna.load_study(storage=f"sqlite:///{run_dir}/tuning/resnet50/study.db", study_name="resnet50")


def states(run_dir):
    return [trial.state.name for trial in study_of(run_dir).trials]


def test_the_best_trial_is_kept_and_its_command_trains_it_again(tuned, run_dir, capsys):
    better = Trainer([DEFAULT_SCORES, [0.5, 0.9, 0.7], [0.8]])
    tuned("--weights", "imagenet", "--image-size", "64", trainer=better)
    folder, out = run_dir / "tuning" / "resnet50", capsys.readouterr().out
    command = next(line for line in out.splitlines() if line.startswith("  python train_resnet.py"))
    found = parse(ResNetConfig(), None, shlex.split(command)[2:])
    expected = better.configs[1]
    assert found.compared_runs == 3 and found.run_dir == run_dir and found.image_size == 64
    for name in ("lr", "weight_decay", "unfreeze_from", "loss", "loss_weighting", "sampling"):
        assert getattr(found, name) == getattr(expected, name), name
    assert better.configs[0] == ResNetConfig(run_dir=folder / "trial_000", image_size=64)  # the defaults come first
    assert len({(config.lr, config.loss, config.unfreeze_from) for config in better.configs}) == 3
    assert [path.parent.parent.name for path in folder.rglob("best.pt")] == ["trial_001"]
    assert (
        not list(folder.rglob("last.pt"))
        and "3 trials compared on val; the best is trial_001, with a val AUPRC of 0.9000" in out
    )
    assert [read_json(path)["compared_runs"] for path in sorted(folder.rglob("config.json"))] == [1, 3, 1]
    tuning_log.main([str(path) for path in sorted(folder.glob("trial_*"))])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and f"lr=0.0001 -> {expected.lr}" in lines[3] and "0.9000" in lines[3]


def test_without_pretrained_weights_nothing_stays_frozen(tuned):
    trainer = tuned("--arch", "efficientnet_b1", "--weights", "none")
    assert {type(config) for config in trainer.configs} == {EfficientNetConfig}
    assert {config.unfreeze for config in trainer.configs} == {9}


def test_trials_worse_than_the_median_and_those_that_diverge_end_early_and_count(tuned, run_dir, capsys):
    from src.engine import Diverged

    bad = Trainer([*[DEFAULT_SCORES] * 6, [0.1, 0.1, 0.9]], {2: Diverged("the loss is nan in epoch 1; lower --lr")})
    tuned(trainer=bad, trials=8)
    assert states(run_dir) == ["COMPLETE", "COMPLETE", "PRUNED", *["COMPLETE"] * 3, "PRUNED", "COMPLETE"]
    assert len(pd.read_csv(run_dir / "tuning" / "resnet50" / "trial_006" / "resnet50" / "history.csv")) == 2
    out = capsys.readouterr().out
    assert (
        "this trial was stopped early: the loss is nan" in out and "worse than the median of the earlier trials" in out
    )
    assert "8 trials compared on val; the best is trial_000" in out


def test_a_trial_that_was_stopped_or_killed_does_not_count_and_is_tried_again(tuned, run_dir):
    with pytest.raises(KeyboardInterrupt):
        tuned(trainer=Trainer(ends={1: KeyboardInterrupt()}))
    assert states(run_dir)[:2] == ["COMPLETE", "FAIL"] and not (run_dir / "tuning/resnet50/trial_001").exists()
    stopped = study_of(run_dir).trials[1]
    running = study_of(run_dir).ask()
    _suggest(running, TuneConfig())  # as a kill leaves it
    (run_dir / "tuning" / "resnet50" / f"trial_{running.number:03d}").mkdir()
    trainer = tuned("--resume")
    assert states(run_dir) == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"] and len(trainer.configs) == 2
    assert stopped.params in [trial.params for trial in study_of(run_dir).trials[3:]]
    assert len(tuned("--resume", trials=4).configs) == 1 and len(tuned("--resume", trials=4).configs) == 0


def test_a_study_is_not_mixed_with_another(tuned, run_dir):
    tuned(trials=1)
    with pytest.raises(ValueError, match="study.db already exists; pass --overwrite"):
        tuned(trials=1)
    with pytest.raises(ValueError, match="--resume: --image-size was 224 and is 64 now"):
        tuned("--resume", "--image-size", "64")
    with pytest.raises(ValueError, match="--resume: --epochs was 20 and is 5 now"):
        tuned("--resume", "--epochs", "5")
    write_split(run_dir, patients=15, seed=1)
    with pytest.raises(ValueError, match="--resume: the manifest has changed"):
        tuned("--resume")
    assert len(tuned("--overwrite", trials=1).configs) == 1 and states(run_dir) == ["COMPLETE"]
    (run_dir / "tuning" / "resnet50" / "study.db").write_text("no database" * 100)
    with pytest.raises(ValueError, match="study.db is corrupt, or not a study .*; pass --overwrite"):
        tuned("--resume")


@pytest.mark.parametrize(
    ("flags", "trainer", "match"),
    [
        (["--monitor", "loss"], None, "--monitor is loss, whose values differ in scale between losses"),
        ([], Trainer([[float("nan")]]), "no finding has both labels in val, so no trial has a score"),
        (["--trials", "0"], None, "--trials is 0; expected a number of at least 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(tuned, flags, trainer, match):
    with pytest.raises(ValueError, match=match):
        tuned(*flags, trainer=trainer)


def test_several_processes_are_refused(tuned, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="tune.py runs in one process; start it without torchrun"):
        tuned()


def test_without_optuna_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "src.stages.tune", raising=False)
    with pytest.raises(ValueError, match="needs the package optuna; pip install -r requirements-tune.txt"):
        tune.main([])


def test_the_real_script_killed_and_resumed(tmp_path, capfd):
    """It trains, which takes seconds: nothing else shows that a kill leaves a study that can be read."""
    run_of_images, data = tmp_path / "run", make_csv(tmp_path / "data", patients=20)
    check_split.main(["--run-dir", str(run_of_images), "--data", str(data), "--val-fraction", "0.3"])
    flags = [*TINY, "--arch", "efficientnet_b1", "--epochs", "1", "--trials", "2"]
    folder = run_of_images / "tuning" / "efficientnet_b1"
    process = start("tune.py", run_of_images, *flags)
    wait_for(folder / "trial_001" / "efficientnet_b1" / "config.json", process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    finish(start("tune.py", run_of_images, *flags, "--resume"))
    out = capfd.readouterr().out
    assert "2 trials compared on val" in out and out.count(", 2 of 2: ") == 2
    assert {path.name for path in folder.glob("trial_*")} == {"trial_000", "trial_002"}
