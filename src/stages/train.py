"""Stage 3: fine-tune one model, for both architectures."""

import dataclasses
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Collection
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from src.artifacts import likeness_file
from src.artifacts.io import clear, read_json, refuse_overwrite, write_json, write_table
from src.artifacts.lineage import BEGUN
from src.artifacts.manifest import Manifest
from src.checkpoint import load_checkpoint, save_checkpoint
from src.config import RecipeConfig, TrainConfig
from src.early_stopping import EarlyStopping
from src.engine import Run, Task, fit
from src.models import build_model, compile_for_training
from src.plots import results as plots
from src.runtime.distributed import all_reduce_sum, is_main, launcher, process_group, world_size, wrap_ddp
from src.runtime.flags import as_flags, flag_of
from src.runtime.interrupts import Interrupts
from src.runtime.locks import exclusive
from src.runtime.tables import plural
from src.stages.opening import open_manifest
from src.stages.train_task import build_task
from src.train_utils import bfloat16_is_faster, build_average, build_optimizer, build_scheduler, pick_device

OUTPUTS = ("config.json", "best.pt", "last.pt", "history.csv")
# Flags that may differ between a run and its continuation.
MAY_CHANGE = {"run_dir", "overwrite", "resume", "epochs", "patience", "checkpoint_minutes", "compared_runs"}
MAY_CHANGE |= {"workers", "device", "cache", "compile"}


@dataclass(frozen=True)
class Study:
    """What a training is a part of: who hears of every epoch, and the command that goes on after a stop."""

    after_epoch: Callable[[dict[str, float]], None]
    command: str


def train(config: TrainConfig, *, study: Study | None = None) -> None:
    """Fine-tune one model; leaves config, checkpoints, history and learning curves in its folder.

    An exception of `study.after_epoch`, which is given the record of the epoch, ends the training.
    """
    device = pick_device(config.device)
    with process_group(device):
        _train(dataclasses.replace(config, bfloat16=_arithmetic(config, device)), device, study)


def _arithmetic(config: TrainConfig, device: torch.device) -> bool:
    """Whether to train in bfloat16: as asked, else as the run began, else where that is faster for every process."""
    if config.bfloat16 is not None:
        return config.bfloat16
    faster = all_reduce_sum([bfloat16_is_faster(config.arch, device)])[0] == world_size()
    folder = config.run_dir / config.arch
    if config.resume and (folder / "last.pt").exists():
        return bool(read_json(folder / "config.json").get("bfloat16", faster))
    return faster


def _train(config: TrainConfig, device: torch.device, study: Study | None) -> None:
    manifest = open_manifest(config.run_dir)
    folder = config.run_dir / config.arch
    with exclusive(folder) if is_main() else nullcontext():
        _train_in(folder, config, manifest, device, study)


def _train_in(folder: Path, config: TrainConfig, manifest: Manifest, device: torch.device, study: Study | None) -> None:
    """Train in a folder that nobody else writes to; until the first epoch is done, beside what is there already."""
    recipe = plain_dict(config) | {"classes": list(manifest.classes), "manifest_sha256": manifest.sha256}
    home = _home(folder, config)
    earlier = _earlier_run(config, home, recipe)
    if home != folder and earlier and earlier["history"]:  # a kill came between the first epoch and the move
        if is_main():
            _move(home, folder)
        home = folder
    torch.manual_seed(config.seed)
    task = build_task(config, manifest, device)
    run = _build_run(config, len(manifest.classes), device, earlier)
    _print_plan(config, task, run.model)
    identity = {
        "arch": config.arch,
        "attention": config.attention,
        "classes": list(manifest.classes),
        "image_size": config.image_size,
        "manifest_sha256": manifest.sha256,
        "pos_weight": task.loss.pos_weight.tolist(),
        "class_weight": task.loss.class_weight.tolist(),
        "recipe": json.dumps({key: value for key, value in recipe.items() if key not in MAY_CHANGE}),
    }
    if is_main():  # every argument has been checked by now
        clear(home, *(OUTPUTS if earlier is None else ()), *(f"{name}.png" for name in plots.CURVES))
        write_json(home / "config.json", recipe)
    with Interrupts(config.checkpoint_minutes) as interrupts:
        for finished in fit(run, task, epochs=config.epochs, interrupts=interrupts):
            interrupts.reached()
            if is_main():
                _keep(home, run, identity, finished, monitor=config.monitor)
                if finished is not None and home != folder:
                    _move(home, folder)
            home = home if finished is None else folder
            if finished is not None:
                _print_epoch(*finished, planned=config.epochs)
            interrupts.saved()
            if all_reduce_sum([interrupts.stop])[0]:  # all stop where one was asked to
                interrupts.ask()
                assert interrupts.signal is not None
                _stop(config, run, interrupts.signal, study)
            if finished is not None and study is not None:
                study.after_epoch(finished[0])
    if is_main():
        _finish(folder, run, config)


def _home(folder: Path, config: TrainConfig) -> Path:
    """Where the run writes: its folder, or a folder in it as long as that holds an earlier model to be replaced."""
    begun = folder / BEGUN
    if config.resume:
        return begun if (begun / "last.pt").exists() else folder
    if is_main() and begun.exists():  # what a training that was stopped in its first epoch has left
        shutil.rmtree(begun)
    return begun if config.overwrite and (folder / "best.pt").exists() else folder


def _move(begun: Path, folder: Path) -> None:
    """Replace the earlier model and all that was made from it by the first epoch of the new one."""
    clear(folder, "probs.json", *OUTPUTS, "probs_*.csv", "metrics_*.json", likeness_file.NAME, "*.png")
    for name in (*OUTPUTS[1:], OUTPUTS[0]):  # config.json last
        (begun / name).replace(folder / name)
    shutil.rmtree(begun)


def plain_dict(config: RecipeConfig) -> dict[str, Any]:
    """The config as config.json holds it."""
    values = dataclasses.asdict(config)
    return {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in values.items()}


def _earlier_run(config: TrainConfig, folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """What last.pt holds where --resume finds one, else None.

    Raises ValueError where outputs are there and neither flag was given, and where a flag that matters has changed.
    """
    earlier = None
    if config.resume and (folder / "last.pt").exists():
        check_unchanged({"no_finding": "mask"} | read_json(folder / "config.json"), recipe)  # of an earlier version
        earlier = load_checkpoint(folder / "last.pt")
        if "progress" not in earlier:
            raise ValueError(f"{folder / 'last.pt'} was written by another version; pass --overwrite instead")
        if earlier["history"]:
            _check_best(folder / "best.pt")
    elif not config.resume or (folder / "history.csv").exists():
        refuse_overwrite([folder / name for name in OUTPUTS], overwrite=config.overwrite)
    _check_same_start(folder, earlier)
    return earlier


def _check_best(path: Path) -> None:
    """Raise ValueError where the best weights of a training that is to be resumed are missing or damaged."""
    if not path.exists():
        raise ValueError(f"{path} is missing, and the best weights with it; pass --overwrite to train again")
    load_checkpoint(path)


def check_unchanged(
    before: dict[str, Any], now: dict[str, Any], *, may_change: Collection[str] = frozenset(MAY_CHANGE)
) -> None:
    """Raise ValueError where a flag of `now` that matters was another one `before`."""
    changed = [key for key in now if key not in may_change and before.get(key) != now[key]]
    if not changed:
        return
    key = changed[0]
    if key not in before:
        raise ValueError(f"--resume: another version of this program made the run, without {key}; pass --overwrite")
    if key == "manifest_sha256":
        raise ValueError("--resume: the manifest has changed; pass --overwrite instead to train on this one")
    flag = key if key == "classes" else flag_of(key)
    raise ValueError(
        f"--resume: {flag} was {before.get(key)} and is {now[key]} now; pass the old value, or --overwrite instead"
    )


def _check_same_start(folder: Path, earlier: dict[str, Any] | None) -> None:
    """Raise ValueError where the processes do not see the same checkpoint; none goes on before all have looked."""
    found = 0 if earlier is None else 1 + len(earlier["history"]) * 10**9 + earlier["progress"]["step"]
    if all_reduce_sum([found])[0] != found * world_size():
        raise ValueError(f"the processes find different checkpoints in {folder}; it must be on a shared file system")


def _build_run(config: TrainConfig, num_classes: int, device: torch.device, earlier: dict[str, Any] | None) -> Run:
    """Model, optimizer, scheduler and early stopping, as they were in an earlier run where there is one."""
    model = build_model(
        config.arch,
        num_classes=num_classes,
        unfreeze=config.unfreeze,
        weights=config.weights if earlier is None else "none",
        freeze_batchnorm=config.freeze_batchnorm,
        attention=config.attention,
    )
    model = model.to(device).to(memory_format=torch.channels_last)
    optimizer = build_optimizer(
        model,
        lr=config.lr,
        weight_decay=config.weight_decay,
        head=model.head(),
        head_lr_factor=config.head_lr_factor,
    )
    scheduler = build_scheduler(optimizer, factor=config.lr_factor, patience=config.lr_patience)
    net = wrap_ddp(compile_for_training(model) if config.compile else model, device)
    average = None if config.ema is None else build_average(model, decay=config.ema)
    run = Run(model, optimizer, scheduler, EarlyStopping(config.patience), net, average)
    if earlier is not None:
        run.load_state_dict(earlier)
        within = f", at step {run.progress.step} of the next" if run.progress.step else ""
        print(f"resuming after epoch {len(run.history)}{within}")
    return run


def _keep(
    folder: Path, run: Run, identity: dict[str, Any], finished: tuple[dict, bool] | None, *, monitor: str
) -> None:
    """Write last.pt; before it, after an epoch whose score is the best so far, best.pt, and after it the history.

    In this order a kill between two of them loses nothing: what last.pt does not know of is made again.
    """
    if finished is not None and finished[1]:
        record = finished[0]
        best = {"model": run.kept.net.state_dict(), "epoch": record["epoch"], "score": record[f"val_{monitor}"]}
        clear(folder, "probs.json")  # its probabilities are those of an older best.pt
        save_checkpoint(folder / "best.pt", identity | best)
    save_checkpoint(folder / "last.pt", run.state_dict())
    if finished is not None:
        write_table(folder / "history.csv", pd.DataFrame(run.history))


def _stop(config: TrainConfig, run: Run, number: int, study: Study | None) -> None:
    """Say how to go on, and end with the exit status of the signal."""
    command = shlex.join([Path(sys.argv[0]).name, *as_flags(config, resume=True, overwrite=False)])
    command = study.command if study else command
    print(f"stopped in epoch {len(run.history) + 1} at step {run.progress.step}. Progress saved. Resume with:")
    print(f"  {launcher()} {command}", flush=True)
    sys.exit(128 + number)


def _finish(folder: Path, run: Run, config: TrainConfig) -> None:
    """Draw the learning curves and say which epoch was kept."""
    history = pd.DataFrame(run.history)
    write_table(folder / "history.csv", history)  # a kill may have come between the last last.pt and it
    best = plots.kept_epoch(history, monitor=config.monitor)
    best = history.iloc[-1] if best is None else best
    paths = plots.learning_curves(history, folder=folder, title=config.arch, monitor=config.monitor)
    print(f"best: epoch {best['epoch']:.0f}, val AUPRC {best['val_auprc']:.4f}, val AUROC {best['val_auroc']:.4f}")
    print("wrote", folder / "best.pt", *paths)


def _print_plan(config: TrainConfig, task: Task, model: torch.nn.Module) -> None:
    """One line on what is about to train, and a note where frozen layers are random."""
    total_weights = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    several = f" in {world_size()} processes" if world_size() > 1 else ""
    arithmetic = " in bfloat16" if task.bfloat16 else ""
    print(
        f"{config.arch} on {task.device}{several}{arithmetic}: {len(task.train.targets):,} training and "
        f"{len(task.val.targets):,} validation images of {config.image_size} px, {trainable / 1e6:.1f} of "
        f"{total_weights / 1e6:.1f} million weights train"
    )
    if config.weights == "none" and trainable < total_weights:
        print("note: --weights none leaves the frozen layers random; unfreeze all of them to train from scratch")


def _print_epoch(record: dict[str, float], improved: bool, *, planned: int) -> None:
    skipped = f"  skipped {plural(int(record['skipped']), 'unreadable image')}" if record["skipped"] else ""
    print(
        f"epoch {record['epoch']}/{planned}  train loss {record['train_loss']:.4f}  val loss {record['val_loss']:.4f}  "
        f"val AUROC {record['val_auroc']:.4f}  val AUPRC {record['val_auprc']:.4f}  lr {record['lr']:.1e}"
        f"{'  *' if improved else ''}{skipped}",
        flush=True,
    )
