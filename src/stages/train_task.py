"""What stage 3 trains on: both splits, what their labels count as, and the loss over them."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from src.artifacts.manifest import Manifest
from src.artifacts.truth import Truth
from src.config import TrainConfig
from src.dataset import ImageDataset, eval_loader, train_loader
from src.engine import Split, Task
from src.labels.audit import FEW_NEGATIVES
from src.labels.imbalance import class_weights, effective_importance, repeat_factors
from src.labels.policy import LabelPolicy
from src.runtime.csv_files import check_unique, read_table, require_columns
from src.train_utils import MaskedLoss, class_pos_weight

EVAL_BATCHES = 4  # validation needs no gradients, so that larger batches fit


def build_task(config: TrainConfig, manifest: Manifest, device: torch.device) -> Task:
    """Both splits and their labels, under the training policy."""
    policy = LabelPolicy.parse(uncertain=config.uncertain, missing=config.missing, classes=manifest.classes)
    parts = {name: manifest.part(name) for name in ("train", "val")}
    raw = {name: _raw_labels(config, manifest, name) for name in parts}
    labels = {name: policy.apply(values) for name, values in raw.items()}
    for name, (_, mask) in labels.items():
        if not mask.any():
            raise ValueError(f"no label of {name} takes part in the loss: all are blank or uncertain; see --missing")
    targets, mask = labels["train"]
    repeats = repeat_factors(targets, mask=mask, threshold=config.repeat_threshold)
    datasets = {
        name: ImageDataset.open(part.image_paths(), size=config.image_size, cache=config.cache, workers=config.workers)
        for name, part in parts.items()
    }
    speed: Any = {"workers": config.workers, "pin": device.type == "cuda"}
    train = train_loader(
        datasets["train"],
        batch_size=config.batch_size,
        seed=config.seed,
        accumulate=config.accumulate,
        repeats=repeats if config.sampling == "balanced" else None,
        **speed,
    )
    val = eval_loader(datasets["val"], batch_size=EVAL_BATCHES * config.batch_size, **speed)
    scored = _scored(config, raw["val"], *labels["val"], manifest.classes)
    return Task(
        Split(train, torch.from_numpy(targets), torch.from_numpy(mask)),
        Split(val, *map(torch.from_numpy, (*labels["val"], scored))),
        _loss(config, targets, mask, manifest.classes, device),
        manifest.classes,
        seed=config.seed,
        augmented=config.augment,
        flipped=config.flip,
        bfloat16=bool(config.bfloat16),
        warmup_epochs=config.warmup_epochs,
        monitor=config.monitor,
    )


def _raw_labels(config: TrainConfig, manifest: Manifest, split: str) -> np.ndarray:
    """Raw labels [N, C] of a split, those that "No Finding" denies as --no-finding says."""
    truth = Truth.of_split(manifest, split)
    said = int(truth.said_absent.sum())
    if said and config.no_finding == "negative":
        print(f'{split}: {said:,} blanks of images marked "No Finding" count as negatives (--no-finding negative)')
    return truth.with_no_finding(config.no_finding).labels


def _scored(
    config: TrainConfig, labels: np.ndarray, targets: np.ndarray, mask: np.ndarray, classes: tuple[str, ...]
) -> np.ndarray:
    """Entries [N, C] that the validation scores count: the valid ones, and masked blanks where negatives are few."""
    blank = np.isnan(labels) & ~mask
    few = blank.any(axis=0) & ((mask & (targets == 0)).sum(axis=0) < FEW_NEGATIVES)
    if config.monitor_blanks == "mask" or not few.any():
        return mask
    names = ", ".join(name for name, chosen in zip(classes, few, strict=True) if chosen)
    print(f"note: fewer than {FEW_NEGATIVES} negatives in val, so val scores count their blanks as negative: {names}")
    return mask | (blank & few)


def _loss(
    config: TrainConfig, targets: np.ndarray, mask: np.ndarray, classes: tuple[str, ...], device: torch.device
) -> MaskedLoss:
    """The loss that the flags describe, with weights from the counts of the training labels."""
    pos_weight = class_pos_weight(targets, mask=mask, classes=classes, limit=config.pos_weight_max)
    importance = None
    if config.class_weights == "effective":
        importance = effective_importance(targets, mask=mask)
    elif config.class_weights is not None:
        importance = _read_class_weights(Path(config.class_weights), classes)
    balanced = config.loss_weighting == "class"
    weights = class_weights(targets, mask=mask, pos_weight=pos_weight, balanced=balanced, importance=importance)
    return MaskedLoss(
        torch.from_numpy(pos_weight).to(device),
        torch.from_numpy(weights).to(device),
        hard_fraction=config.hard_fraction,
        **config.focus,
    )


def _read_class_weights(path: Path, classes: tuple[str, ...]) -> np.ndarray:
    """The weight of each class in a CSV: float64 [C]; ValueError where one is missing, unknown or not above 0."""
    table = read_table(path)
    require_columns(table, ("class", "weight"), path=path)
    check_unique(table["class"], f"{path}: class")
    weights = pd.to_numeric(table.set_index("class")["weight"], errors="coerce")
    for name in {*classes} ^ {*weights.index}:
        raise ValueError(f"{path}: its classes differ from the data's by {name!r}; expected {', '.join(classes)}")
    bad = weights[~((weights > 0) & np.isfinite(weights))]
    if len(bad):
        raise ValueError(f"{path}: the weight of {bad.index[0]} is not a number above 0; correct it")
    return weights.reindex(list(classes)).to_numpy(np.float64)
