"""Before stage 3: a study of trainings that differ in the flags that matter most."""

import os
import shlex
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import MODELS, clear, read_json, refuse_overwrite, write_json
from src.artifacts.manifest import Manifest
from src.config import EfficientNetConfig, RecipeConfig, ResNetConfig, TrainConfig, TuneConfig
from src.engine import Diverged
from src.runtime.distributed import world_size
from src.runtime.flags import as_flags
from src.runtime.locks import exclusive
from src.runtime.tables import format_table, plural
from src.stages.opening import open_manifest
from src.stages.train import MAY_CHANGE, Study, check_unchanged, plain_dict, train

try:
    import optuna
    from optuna.trial import FrozenTrial, Trial, TrialState
    from sqlalchemy.exc import SQLAlchemyError
except ImportError:
    raise ValueError("tune.py needs the package optuna; pip install -r requirements-tune.txt") from None

CONFIGS: dict[str, type[TrainConfig]] = {"resnet50": ResNetConfig, "efficientnet_b1": EfficientNetConfig}
# What is tried. Learning rate and weight decay are drawn on a logarithmic scale, between these ends.
RANGES = {"lr": (1e-5, 1e-2), "weight_decay": (1e-4, 1e-1)}
CHOICES: dict[str, tuple[Any, ...]] = {
    "loss": ("bce", "focal", "asymmetric"),
    "loss_weighting": ("entry", "class"),
    "sampling": ("shuffle", "balanced"),
}
# By architecture the flag of how much trains, and its values, of which the first leaves nothing frozen.
UNFREEZE: dict[str, tuple[str, tuple[Any, ...]]] = {
    "resnet50": ("unfreeze_from", ("all", "layer2", "layer3", "layer4", "fc")),
    "efficientnet_b1": ("unfreeze_last_n_blocks", (9, 5, 3, 2, 0)),
}
FIRST, EPOCHS_BEFORE = 5, 1  # trials, and epochs of a later one, before it may end for being worse than their median
MAY_DIFFER = MAY_CHANGE - {"epochs", "patience"} | {"trials"}  # flags, between a study and its continuation
COMPARED = (TrialState.COMPLETE, TrialState.PRUNED)
MANIFEST = ("manifest.csv", "manifest.json", "context.csv")


def tune(config: TuneConfig) -> None:
    """Try flags until so many trials have been compared, and print them and the command of the best."""
    if world_size() > 1:
        raise ValueError("tune.py runs in one process; start it without torchrun")
    if config.monitor == "loss":
        raise ValueError("--monitor is loss, whose values differ in scale between losses; expected auprc or auroc")
    manifest = open_manifest(config.run_dir)
    folder = config.run_dir / "tuning" / config.arch
    with exclusive(folder):
        study = _open_study(config, folder, manifest)
        while (compared := len(study.get_trials(states=COMPARED))) < config.trials:
            _try(config, folder, study, number=compared + 1)
        _report(config, folder, study)


def _open_study(config: TuneConfig, folder: Path, manifest: Manifest) -> optuna.Study:
    """The study of an earlier call with --resume, else a new one, whose first trial has the defaults.

    Trials that were killed are marked as failed. Raises ValueError where the study was begun with other flags.
    """
    path = folder / "study.db"
    if not config.resume:
        refuse_overwrite([path], overwrite=config.overwrite)
        for left in folder.glob("trial_*"):
            shutil.rmtree(left)
        clear(folder, "study.db*")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    recipe = plain_dict(config) | {"classes": list(manifest.classes), "manifest_sha256": manifest.sha256}
    try:
        study = optuna.create_study(
            storage=f"sqlite:///{path.resolve()}", study_name=config.arch, direction="maximize", load_if_exists=True
        )
        check_unchanged(study.user_attrs.get("recipe", recipe), recipe, may_change=MAY_DIFFER)
        if not study.user_attrs:
            study.set_user_attr("recipe", recipe)
            study.enqueue_trial({name: getattr(CONFIGS[config.arch](), name) for name in _tried(config)})
        for killed in study.get_trials(states=(TrialState.RUNNING,)):
            _drop(folder, study, killed)
    except SQLAlchemyError as error:
        raise ValueError(f"{path} is corrupt, or not a study ({type(error).__name__}); pass --overwrite") from None
    study.sampler = optuna.samplers.TPESampler(seed=config.seed + len(study.trials))
    study.pruner = optuna.pruners.MedianPruner(n_startup_trials=FIRST, n_warmup_steps=EPOCHS_BEFORE + 1)  # from 1
    return study


def _tried(config: TuneConfig) -> tuple[str, ...]:
    """The flags that a study tries; without pretrained weights nothing may stay frozen."""
    depth = () if config.weights == "none" else (UNFREEZE[config.arch][0],)
    return (*RANGES, *depth, *CHOICES)


def _folder_of(folder: Path, number: int) -> Path:
    """The run folder of a trial."""
    return folder / f"trial_{number:03d}"


def _drop(folder: Path, study: optuna.Study, trial: FrozenTrial) -> None:
    """Mark a trial that did not end as failed, so that it does not count, and let the next one try the same."""
    study.tell(trial.number, state=TrialState.FAIL)
    study.enqueue_trial(trial.params)
    shutil.rmtree(_folder_of(folder, trial.number), ignore_errors=True)


def _try(config: TuneConfig, folder: Path, study: optuna.Study, *, number: int) -> None:
    """Train with flags that the study suggests, until the end or until it is worse than the median of those before."""
    trial, scores = study.ask(), []
    trained = _config_of(config, _folder_of(folder, trial.number), _suggest(trial, config))
    flags = as_flags(trained, **{f.name: f.default for f in fields(RecipeConfig) if f.name not in _tried(config)})
    print(f"\n{trained.run_dir.name}, {number} of {config.trials}: {shlex.join(flags) or 'the defaults'}")

    def after_epoch(record: dict[str, float]) -> None:
        score = record[f"val_{config.monitor}"]
        if np.isnan(score):
            raise ValueError("no finding has both labels in val, so no trial has a score; see check_split.py")
        scores.append(score)
        trial.report(score, len(scores))
        if trial.should_prune():
            raise optuna.TrialPruned

    command = shlex.join(["tune.py", *as_flags(config, resume=True, overwrite=False)])
    try:
        _link_manifest(config.run_dir, trained.run_dir)
        train(trained, study=Study(after_epoch, command))
    except (optuna.TrialPruned, Diverged) as ended:
        print(f"this trial was stopped early: {str(ended) or 'it is worse than the median of the earlier trials'}")
        study.tell(trial, state=TrialState.PRUNED)
    except BaseException:
        _drop(folder, study, study.trials[trial.number])
        raise
    else:
        study.tell(trial, max(scores))
    _keep_the_best(config, folder, study)


def _suggest(trial: Trial, config: TuneConfig) -> dict[str, Any]:
    """What a trial tries."""
    choices = CHOICES | dict([UNFREEZE[config.arch]])
    for name in _tried(config):
        if name in choices:
            trial.suggest_categorical(name, choices[name])
        else:
            trial.suggest_float(name, *RANGES[name], log=True)
    return _legible(trial.params)


def _legible(params: dict[str, Any]) -> dict[str, Any]:
    """What a trial tries, numbers to three digits, so that they fit a command."""
    return {name: float(f"{value:.3g}") if name in RANGES else value for name, value in params.items()}


def _config_of(config: TuneConfig, run_dir: Path, tried: dict[str, Any]) -> TrainConfig:
    """The training of a trial."""
    shared = {f.name: getattr(config, f.name) for f in fields(RecipeConfig)}
    depth, (all_of_it, *_) = UNFREEZE[config.arch]
    own = {"run_dir": run_dir, "resume": False, "overwrite": False, depth: all_of_it}
    return CONFIGS[config.arch](**shared | own | tried)


def _link_manifest(run_dir: Path, folder: Path) -> None:
    """Make a run folder of the same manifest; the files are linked, where the system can."""
    folder.mkdir(parents=True)
    for name in MANIFEST:
        try:
            os.link(run_dir / name, folder / name)
        except OSError:
            shutil.copy2(run_dir / name, folder / name)


def _best(study: optuna.Study) -> FrozenTrial | None:
    """The trial with the best score of those that ran to their end."""
    ended = study.get_trials(states=(TrialState.COMPLETE,))
    return max(ended, key=lambda trial: trial.value or 0.0, default=None)


def _keep_the_best(config: TuneConfig, folder: Path, study: optuna.Study) -> None:
    """Remove the checkpoints of all trials but the best, whose config.json says among how many it was the best."""
    best = _best(study)
    for path in folder.glob("trial_*"):
        model = path / config.arch
        (model / "last.pt").unlink(missing_ok=True)
        if best is None or path != _folder_of(folder, best.number):
            (model / "best.pt").unlink(missing_ok=True)
        else:
            compared = len(study.get_trials(states=COMPARED))
            write_json(model / "config.json", read_json(model / "config.json") | {"compared_runs": compared})


def _report(config: TuneConfig, folder: Path, study: optuna.Study) -> None:
    """A table of the trials, and the command of the best."""
    compared, best, rows = study.get_trials(states=COMPARED), _best(study), []
    if best is None:
        raise ValueError(f"none of {plural(len(compared), 'trial')} ran to the end; pass other flags and --overwrite")
    for trial in compared:
        scores = list(trial.intermediate_values.values())
        tried = [f"{value:g}" if name in RANGES else value for name, value in _legible(trial.params).items()]
        ended = "yes" if trial.state == TrialState.COMPLETE else "no"
        rows.append((_folder_of(folder, trial.number).name, *tried, len(scores), ended, max(scores, default=np.nan)))
    score = config.monitor.upper()
    print()
    print(format_table(("Trial", *_tried(config), "Epochs", "To the end", f"Best val {score}"), rows, digits=4))
    flags = as_flags(_config_of(config, config.run_dir, _legible(best.params)), compared_runs=len(compared))
    run_dir = _folder_of(folder, best.number)
    print(
        f"\n{plural(len(compared), 'trial')} compared on val; the best is {run_dir.name}, with a val {score} of "
        f"{best.value:.4f}. Val flatters the best of several: judge it on test, once. To train it again:\n"
        f"  python train_{MODELS[config.arch]}.py {shlex.join(flags)}\n"
        f"Or use the trained model: move {run_dir / config.arch} to {config.run_dir / config.arch}."
    )
