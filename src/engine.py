"""The epoch loop: explicit objects in, plain dicts out.

Whatever is drawn in a step (order, augmentation, dropout) depends on seed, epoch and step alone: a run's place in its
epoch stands for the state of every random generator, and a resumed run draws what the first one would have.
"""

import contextlib
import math
import random
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm

from src.dataset import Batch, Loader, TrainLoader, derived_seed, generator, on_device, steps
from src.early_stopping import EarlyStopping
from src.evaluate import masked_metrics
from src.models import ChestNet
from src.runtime.distributed import (
    all_reduce_rows,
    all_reduce_sum,
    gathered,
    is_main,
    no_sync,
    rank,
    shard,
    share_buffers,
    world_size,
)
from src.runtime.interrupts import Interrupts
from src.train_utils import MaskedLoss, hard_weights, scaled_lr
from src.transforms import FLIP, draw_augmentation, prepare

MOST_UNREADABLE = 0.01  # share of the training images
NAMED = 20  # at most this many unreadable images are named in a run
LOOK_EVERY = 50  # steps between looks at the loss on a GPU, which has to be waited for


class Diverged(ValueError):
    """Loss or weights are not finite any more."""


AnyLoader = TypeVar("AnyLoader", bound=Loader)


@dataclass(frozen=True)
class Split(Generic[AnyLoader]):
    """What the engine needs of one split: images by row, and their targets [N, C] float32 and mask [N, C] bool.

    Targets and mask are those of the training policy, on the CPU. `scored` [N, C] bool are the entries that the
    validation AUROC and AUPRC count, where they are others; a masked entry has target 0.
    """

    loader: AnyLoader
    targets: torch.Tensor
    mask: torch.Tensor
    scored: torch.Tensor | None = None

    def labels(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets and mask [B, C] of a batch; nothing is valid of an image that cannot be read."""
        readable = torch.tensor([not fault for fault in batch.faults])
        return self.targets[batch.rows], self.mask[batch.rows] & readable[:, None]


@dataclass(frozen=True)
class Task:
    """What does not change while a model trains; the loss is on the device.

    The learning rates rise linearly from step to step over the first `warmup_epochs`. `monitor`: the score that early
    stopping and the scheduler follow, `auprc`, `auroc` or `loss`.
    """

    train: Split[TrainLoader]
    val: Split
    loss: MaskedLoss
    classes: tuple[str, ...]
    seed: int
    augmented: bool = True
    flipped: bool = False
    bfloat16: bool = False
    warmup_epochs: float = 0.0
    monitor: str = "auprc"

    @property
    def device(self) -> torch.device:
        """Where the model trains."""
        return self.loss.pos_weight.device


@dataclass
class Progress:
    """Where in an epoch a run is: optimizer steps done, and what all processes met in them.

    `loss` is the sum over the `valid` entries that took part; `skipped` images could not be read.
    """

    step: int = 0
    loss: float = 0.0
    valid: int = 0
    skipped: int = 0


@dataclass
class Run:
    """All that changes while a model trains; `history` has one record per finished epoch.

    `net` is what a training step calls: the model, or that model compiled or shared among processes. `average` is the
    moving average of the model's weights, where there is one; it is what is validated and kept.
    """

    model: ChestNet
    optimizer: Optimizer
    scheduler: ReduceLROnPlateau
    stopping: EarlyStopping
    net: nn.Module
    average: AveragedModel | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    progress: Progress = field(default_factory=Progress)
    known_faults: set[str] = field(default_factory=set)

    @property
    def kept(self) -> ChestNet:
        """The model that is validated and kept."""
        return self.model if self.average is None else self.average.module  # type: ignore[return-value]

    def _parts(self) -> tuple[str, ...]:
        return ("model", "optimizer", "scheduler", "stopping", *([] if self.average is None else ["average"]))

    def state_dict(self) -> dict:
        """Everything a resume needs."""
        parts = {name: getattr(self, name).state_dict() for name in self._parts()}
        return {**parts, "history": self.history, "progress": asdict(self.progress)}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`."""
        for name in self._parts():
            getattr(self, name).load_state_dict(state[name])
        self.history = list(state["history"])
        self.progress = Progress(**state["progress"])


def fit(run: Run, task: Task, *, epochs: int, interrupts: Interrupts) -> Iterator[tuple[dict[str, float], bool] | None]:
    """Train until `epochs` are done or the monitored validation score stops rising.

    Yields (record, improved) after each epoch, whose record is also appended to `run.history`, and None when
    `interrupts` asks to save within an epoch. Training resumes from the state of `run`.
    """
    while len(run.history) < epochs and not run.stopping.should_stop:
        epoch, lr = len(run.history) + 1, run.optimizer.param_groups[0]["lr"]
        yield from train_one_epoch(run, task, epoch=epoch, interrupts=interrupts)
        share_buffers(run.model)
        if run.average is not None:
            share_buffers(run.average)
        scores = validate(run.kept.folded(), task, interrupts=interrupts, known_faults=run.known_faults)
        if scores is None:  # asked to stop: the epoch's steps are done, its validation is not
            yield None
            continue
        done, run.progress = run.progress, Progress()
        skipped = done.skipped + scores.pop("val_skipped")
        record = {"epoch": epoch, "train_loss": done.loss / max(done.valid, 1), **scores, "lr": lr, "skipped": skipped}
        run.history.append(record)
        score = -scores["val_loss"] if task.monitor == "loss" else scores[f"val_{task.monitor}"]
        improved = run.stopping.step(score)
        run.scheduler.step(score)
        yield record, improved


def train_one_epoch(run: Run, task: Task, *, epoch: int, interrupts: Interrupts) -> Iterator[None]:
    """Train on the batches of the epoch that are not done; yields where `interrupts` says to save.

    Raises Diverged where the loss is not finite, naming the images of the step, and where more than 1% of the
    training images cannot be read.
    """
    progress, loader = run.progress, task.train.loader
    sampler = loader.sampler
    sampler.epoch, sampler.start = epoch, progress.step
    run.model.train()
    look_every = LOOK_EVERY if task.device.type == "cuda" else 1
    unseen: list[torch.Tensor] = []
    bar = tqdm(total=sampler.steps, initial=progress.step, desc=f"epoch {epoch}", leave=False, disable=not is_main())
    with bar:
        for parts in steps(loader, task.device):
            valid, skipped, due = _agree(parts, task.train, run, interrupts)
            count = max(1, math.ceil(task.loss.hard_fraction * valid))
            unseen.append(_optimize(run, task, parts, count=count, epoch=epoch))
            progress.step += 1
            progress.valid += min(count, valid)
            progress.skipped += skipped
            bar.update()
            if due or len(unseen) >= look_every or progress.step == sampler.steps:
                _look_at(unseen, progress, task, epoch=epoch)
            if due or progress.step == sampler.steps:
                _check_weights(run, task, epoch=epoch)
            _check_skipped(progress.skipped, len(task.train.targets), run.known_faults, what="training")
            if due:
                yield None


def _agree(parts: list[Batch], split: Split, run: Run, interrupts: Interrupts) -> tuple[int, int, bool]:
    """Valid entries and unreadable images of a step over all processes, and whether one of them is to save."""
    faults = [fault for part in parts for fault in part.faults if fault]
    _warn_of(faults, run.known_faults)
    valid = sum(int(split.labels(part)[1].sum()) for part in parts)
    total, skipped, due, stop = all_reduce_sum([valid, len(faults), interrupts.due, interrupts.stop])
    if stop:
        interrupts.ask()
    return int(total), int(skipped), due > 0


def _optimize(run: Run, task: Task, parts: list[Batch], *, count: int, epoch: int) -> torch.Tensor:
    """One optimizer step over `count` entries; returns the sum of this process's [] on the device, not waited for."""
    done = epoch - 1 + (run.progress.step + 1) / task.train.loader.sampler.steps
    _seed_all(derived_seed(task.seed, epoch, run.progress.step, rank()))
    run.optimizer.zero_grad(set_to_none=True)
    share = count / world_size()  # gradients are averaged over the processes; the loss is over all of them
    total = torch.zeros((), device=task.device)
    passes = _passes(run, task, parts, epoch)
    for costs in passes if task.loss.hard_fraction == 1 else [_hardest(list(passes), count)]:
        loss = costs.sum() / share
        loss.backward()
        total += loss.detach() * share
    with scaled_lr(run.optimizer, min(1.0, done / task.warmup_epochs) if task.warmup_epochs else 1.0):
        run.optimizer.step()
    if run.average is not None:
        run.average.update_parameters(run.model)
    return total


def _passes(run: Run, task: Task, parts: list[Batch], epoch: int) -> Iterator[torch.Tensor]:
    """The costs [B, C] of the entries of each pass of a step, to be differentiated before the next is made."""
    step, sampler = run.progress.step, task.train.loader.sampler
    for index, part in enumerate(parts):
        images = prepare(part.images, draws=_draws(task, sampler.sizes(step), epoch, step, index))
        targets, mask = (labels.to(task.device, non_blocking=True) for labels in task.train.labels(part))
        last = index == len(parts) - 1
        with contextlib.nullcontext() if last else no_sync(run.net):
            with torch.autocast(task.device.type, torch.bfloat16, enabled=task.bfloat16):
                logits = run.net(images)
            yield task.loss.entries(logits.float(), targets=targets, mask=mask)


def _hardest(passes: list[torch.Tensor], count: int) -> torch.Tensor:
    """The costs of a step with those 0 that are not among the `count` highest of all its passes and processes."""
    costs = torch.cat(passes)
    of_all = torch.tensor(gathered(costs.flatten().tolist()), device=costs.device)
    return costs * hard_weights(costs.detach(), among=of_all, count=count)


def _draws(task: Task, sizes: list[int], epoch: int, step: int, index: int) -> torch.Tensor | None:
    """This process's draws for one batch of a step; an image gets the same in however many parts the step is made."""
    if not task.augmented and not task.flipped:
        return None
    draws = draw_augmentation(sum(sizes), generator=generator(task.seed, epoch, step))
    draws[:, FLIP] = draws[:, FLIP] if task.flipped else 1
    draws[:, FLIP + 1 :] *= task.augmented
    return draws.split(sizes)[index][shard(sizes[index])].to(task.device, non_blocking=True)


def _look_at(unseen: list[torch.Tensor], progress: Progress, task: Task, *, epoch: int) -> None:
    """Add the losses of the latest steps to the epoch's; raises Diverged where one is not finite."""
    first = progress.step - len(unseen)
    for step, loss in enumerate(all_reduce_sum(torch.stack(unseen).tolist()), first):
        if not math.isfinite(loss):
            names = _images_of(step, task)
            raise Diverged(f"the loss is {loss} in epoch {epoch}; lower --lr. Images of the step: {names}")
        progress.loss += loss
    unseen.clear()


def _check_weights(run: Run, task: Task, *, epoch: int) -> None:
    """Raise Diverged where the last step left weights that must not be kept, though its loss was finite."""
    trained = [parameter for parameter in run.model.parameters() if parameter.requires_grad]
    if not all(torch.isfinite(parameter).all() for parameter in trained):
        names = _images_of(run.progress.step - 1, task)
        raise Diverged(f"weights are not finite in epoch {epoch}; lower --lr. Images of the last step: {names}")


def _images_of(step: int, task: Task) -> str:
    loader = task.train.loader
    return ", ".join(str(loader.dataset.paths[row]) for row in loader.sampler.rows_of(step))


def _warn_of(faults: Iterable[str], known: set[str]) -> None:
    """Name the first images that cannot be read, each once in a run, and say where the others are."""
    for fault in faults:
        if fault not in known:
            known.add(fault)
            if len(known) <= NAMED:
                tqdm.write(f"warning: skipped: {fault}", file=sys.stderr)
            elif len(known) == NAMED + 1:
                text = "warning: more images were skipped; list them with check_split.py --images open"
                tqdm.write(text, file=sys.stderr)


def _check_skipped(skipped: int, images: int, known: set[str], *, what: str) -> None:
    if skipped > MOST_UNREADABLE * images:
        example = f" ({next(iter(known))})" if known else ""  # another process may know them
        raise ValueError(
            f"{skipped} of {images} {what} images could not be read so far{example}, more than "
            f"{MOST_UNREADABLE:.0%}; list them with check_split.py --images open, fix them, and run again with --resume"
        )


def _seed_all(seed: int) -> None:
    """Seed every generator a layer may draw from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@torch.inference_mode()
def predict(
    model: nn.Module,
    loader: Loader,
    *,
    width: int,
    device: torch.device,
    title: str,
    interrupts: Interrupts | None = None,
) -> tuple[torch.Tensor, dict[int, str]]:
    """What a model makes of the images, such as logits [N, C], and what is wrong with those that cannot be read.

    The former is float32 [N, width] on the CPU in row order, from all processes; the latter by row number, and their
    logits mean nothing. Ends early where `interrupts` is asked to stop.
    """
    model.eval()
    outputs = torch.zeros(len(loader.dataset), width)
    faults: dict[int, str] = {}
    bar = tqdm(total=len(loader), desc=title, leave=False, disable=not is_main())
    with bar:
        for batch in on_device(loader, device):
            outputs[batch.rows] = model(prepare(batch.images, draws=None)).float().cpu()
            faults |= {row: fault for row, fault in zip(batch.rows.tolist(), batch.faults, strict=True) if fault}
            bar.update()
            if interrupts is not None and interrupts.stop:
                break
    return all_reduce_rows(outputs), dict(gathered(list(faults.items())))


def validate(
    model: nn.Module, task: Task, *, interrupts: Interrupts, known_faults: set[str]
) -> dict[str, float] | None:
    """Masked loss, and macro AUROC and AUPRC over the scored entries whose training target is 0 or 1.

    None where somebody asked to stop meanwhile. Images that cannot be read are left out, named unless among
    `known_faults`, and counted; raises ValueError where they are more than 1%.
    """
    split, classes = task.val, task.classes
    logits, faults = predict(
        model, split.loader, width=len(classes), device=task.device, title="validation", interrupts=interrupts
    )
    if all_reduce_sum([interrupts.stop])[0]:
        interrupts.ask()
        return None
    if is_main():
        _warn_of(faults.values(), known_faults)
    _check_skipped(len(faults), len(split.targets), set(faults.values()), what="validation")
    readable = torch.ones(len(split.targets), 1, dtype=torch.bool)
    readable[list(faults)] = False
    loss = task.loss.mean(logits, targets=split.targets, mask=split.mask & readable)
    targets, scored = split.targets.numpy(), split.mask if split.scored is None else split.scored
    hard = (scored & readable).numpy() & np.isin(targets, (0, 1))
    macro = masked_metrics(logits.double().sigmoid().numpy(), targets=targets, mask=hard, classes=classes)["macro"]
    scores = {"val_loss": loss.item(), "val_auroc": macro["auroc"], "val_auprc": macro["auprc"]}
    return scores | {"val_skipped": len(faults)}
