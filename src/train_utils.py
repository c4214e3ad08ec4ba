"""What a training run is made of: loss, pos_weight, optimizer, scheduler, device."""

import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau

from src.runtime.distributed import local_device


def masked_bce(
    logits: torch.Tensor,
    *,
    targets: torch.Tensor,
    mask: torch.Tensor,
    pos_weight: torch.Tensor,
    count: float | None = None,
) -> torch.Tensor:
    """Sum over the valid entries of the class-weighted BCE-with-logits, over their number; 0 if there are none.

    logits, targets (in [0, 1]), mask (bool): [B, C]; pos_weight: [C]. `count` is the number to divide by where these
    entries are a part of those the loss is over.
    """
    losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
    return torch.where(mask, losses, 0).sum() / (mask.sum().clamp(min=1) if count is None else count)


def class_pos_weight(
    targets: np.ndarray, *, mask: np.ndarray, classes: Sequence[str], limit: float | None = None
) -> np.ndarray:
    """Negatives over positives per class among the valid training targets [N, C]: float32 [C].

    A soft target counts as that share of a positive. A class without one of the two gets 1 and is named in a
    warning. `limit` clips the weights to [1 / limit, limit].
    """
    positives = np.where(mask, targets, 0).sum(axis=0, dtype=np.float64)
    negatives = np.where(mask, 1 - targets, 0).sum(axis=0, dtype=np.float64)
    usable = (positives > 0) & (negatives > 0)
    if not usable.all():
        names = ", ".join(name for name, ok in zip(classes, usable, strict=True) if not ok)
        warnings.warn(f"no positive or no negative training label for {names}: pos_weight 1", stacklevel=2)
    weights = np.divide(negatives, positives, out=np.ones_like(positives), where=usable)
    return np.clip(weights, 1 / limit, limit).astype(np.float32) if limit else weights.astype(np.float32)


def build_optimizer(model: nn.Module, *, lr: float, weight_decay: float) -> AdamW:
    """AdamW over the parameters that train; norms and biases (one dimension) are not decayed."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr)


def build_scheduler(optimizer: AdamW, *, factor: float, patience: int) -> ReduceLROnPlateau:
    """Lower the learning rate by `factor` once more than `patience` epochs bring no better (higher) score."""
    return ReduceLROnPlateau(optimizer, mode="max", factor=factor, patience=patience)


def pick_device(name: str) -> torch.device:
    """The device of a name, for this process; `auto` is a GPU where there is one.

    Raises ValueError for one that cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = local_device(torch.device(name))
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {name} cannot be used here: {str(error).splitlines()[0][:200]}") from None
    if device.type == "meta":
        raise ValueError("--device meta computes nothing; expected auto, cpu, cuda, cuda:1, mps ...")
    return device


def bfloat16_is_faster(arch: str, device: torch.device) -> bool:
    """Whether a training step of `arch` gains from bfloat16: on a GPU that has it both do, on such a CPU ResNet50.

    A GPU before NVIDIA's Ampere, such as a V100 or a T4, only emulates it. EfficientNet's depthwise convolutions gain
    nothing on a CPU and lose at small sizes (benchmarks/README.md).
    """
    if device.type == "cuda":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    native = any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16"))
    return native and arch == "resnet50"
