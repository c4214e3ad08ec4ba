"""The epoch loop: explicit objects in, plain dicts out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader
from tqdm import tqdm

from src.dataset import batches, epoch_generator
from src.early_stopping import EarlyStopping
from src.evaluate import masked_metrics
from src.train_utils import masked_bce
from src.transforms import augment, normalize


@dataclass(frozen=True)
class Split:
    """What the engine needs of one split: images by row, and their targets [N, C] float32 and mask [N, C] bool.

    Targets and mask are those of the training policy, on the device.
    """

    loader: DataLoader
    targets: torch.Tensor
    mask: torch.Tensor


@dataclass
class Run:
    """All that changes while a model trains; `history` has one record per finished epoch."""

    model: nn.Module
    optimizer: Optimizer
    scheduler: ReduceLROnPlateau
    stopping: EarlyStopping
    history: list[dict[str, float]] = field(default_factory=list)

    def state_dict(self) -> dict:
        """Everything a resume needs."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "scheduler", "stopping")}
        return {**parts, "history": self.history}

    def load_state_dict(self, state: dict) -> None:
        """Go on from `state`."""
        for name in ("model", "optimizer", "scheduler", "stopping"):
            getattr(self, name).load_state_dict(state[name])
        self.history = list(state["history"])


def train_one_epoch(
    run: Run, split: Split, *, pos_weight: torch.Tensor, epoch: int, seed: int, augmented: bool
) -> float:
    """Train on every batch once; returns the loss, weighted by valid entries.

    Order, augmentation and dropout depend on seed and epoch alone. Raises ValueError where the loss is not finite,
    naming the images of the batch.
    """
    device = pos_weight.device
    generator = epoch_generator(seed + 1, epoch)
    torch.manual_seed(seed * 1_000_003 + epoch)
    loader = split.loader
    loader.batch_sampler.epoch = epoch
    run.model.train()
    total, valid = 0.0, 0
    for images, rows in tqdm(batches(loader), desc=f"epoch {epoch}", total=len(loader), unit="batch", leave=False):
        images = images.to(device, non_blocking=True).float().div_(255)
        images = normalize(augment(images, generator=generator) if augmented else images)
        rows = rows.to(device)
        mask = split.mask[rows]
        loss = masked_bce(run.model(images), targets=split.targets[rows], mask=mask, pos_weight=pos_weight)
        if not torch.isfinite(loss):
            names = ", ".join(str(loader.dataset.paths[row]) for row in rows.tolist())
            raise ValueError(f"the loss is {loss.item()} in epoch {epoch}; lower --lr. Images of the batch: {names}")
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        run.optimizer.step()
        count = int(mask.sum())
        total, valid = total + loss.item() * count, valid + count
    return total / max(valid, 1)


@torch.inference_mode()
def predict(model: nn.Module, loader: DataLoader, *, device: torch.device, title: str) -> torch.Tensor:
    """Logits [N, C] float32 on the CPU, in row order."""
    model.eval()
    logits = []
    for images, _ in tqdm(batches(loader), desc=title, total=len(loader), unit="batch", leave=False):
        images = normalize(images.to(device, non_blocking=True).float().div_(255))
        logits.append(model(images).float().cpu())
    return torch.cat(logits)


def validate(model: nn.Module, split: Split, *, pos_weight: torch.Tensor, classes: tuple[str, ...]) -> dict[str, float]:
    """Masked loss, and macro AUROC and AUPRC over the entries whose target, under the training policy, is 0 or 1."""
    device = pos_weight.device
    logits = predict(model, split.loader, device=device, title="validation")
    loss = masked_bce(logits.to(device), targets=split.targets, mask=split.mask, pos_weight=pos_weight)
    probs = logits.double().sigmoid().numpy()
    targets = split.targets.cpu().numpy()
    hard = split.mask.cpu().numpy() & np.isin(targets, (0, 1))
    macro = masked_metrics(probs, targets=targets, mask=hard, classes=classes)["macro"]
    return {"val_loss": loss.item(), "val_auroc": macro["auroc"], "val_auprc": macro["auprc"]}


def fit(
    run: Run,
    *,
    train: Split,
    val: Split,
    pos_weight: torch.Tensor,
    classes: tuple[str, ...],
    epochs: int,
    seed: int,
    augmented: bool,
) -> Iterator[tuple[dict[str, float], bool]]:
    """Train until `epochs` are done or the validation macro AUPRC stops rising; yields (record, improved) per epoch.

    The record also stands at the end of `run.history`. Goes on after the last epoch there.
    """
    for epoch in range(len(run.history) + 1, epochs + 1):
        if run.stopping.should_stop:
            return
        lr = run.optimizer.param_groups[0]["lr"]
        loss = train_one_epoch(run, train, pos_weight=pos_weight, epoch=epoch, seed=seed, augmented=augmented)
        scores = validate(run.model, val, pos_weight=pos_weight, classes=classes)
        record = {"epoch": epoch, "train_loss": loss, **scores, "lr": lr}
        run.history.append(record)
        improved = run.stopping.step(scores["val_auprc"])
        run.scheduler.step(scores["val_auprc"])
        yield record, improved
