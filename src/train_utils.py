"""What a training run is made of: loss, pos_weight, optimizer, scheduler, moving average, device."""

import contextlib
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from src.labels.imbalance import label_counts
from src.runtime.distributed import local_device


@dataclass(frozen=True)
class MaskedLoss:
    """What training minimizes: a binary loss per entry, weighted by class, averaged over the valid entries.

    With target y and p = sigmoid(logit), an entry costs
    class_weight * (pos_weight * y * (1 - p)^g1 * -log p + (1 - y) * q^g0 * -log(1 - q)), where q = max(p - margin, 0).

    pos_weight and class_weight: [C] float32. gamma: (g1, g0). At (0, 0) and margin 0 it is the binary cross-entropy;
    equal exponents make the focal loss (Lin et al. 2017, arXiv:1708.02002), different ones and a margin the asymmetric
    loss (Ridnik et al. 2021, arXiv:2009.14119). A soft target mixes the costs of both labels. With `hard_fraction`
    below 1, training averages over that share of the valid entries of an optimizer step, those of the highest cost
    (Fan et al. 2017, arXiv:1705.08826).
    """

    pos_weight: torch.Tensor
    class_weight: torch.Tensor
    gamma: tuple[float, float] = (0.0, 0.0)
    margin: float = 0.0
    hard_fraction: float = 1.0

    def entries(self, logits: torch.Tensor, *, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The cost of each entry, 0 where the mask is false: float32 [B, C], as are logits and targets (in [0, 1])."""
        pos_weight, class_weight = (weight.to(logits.device) for weight in (self.pos_weight, self.class_weight))
        if self.gamma == (0, 0) and self.margin == 0:
            costs = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
        else:
            costs = self._focused(logits, targets, pos_weight)
        return torch.where(mask, costs * class_weight, 0)

    def _focused(self, logits: torch.Tensor, targets: torch.Tensor, pos_weight: torch.Tensor) -> torch.Tensor:
        log_p, log_q = F.logsigmoid(logits), F.logsigmoid(-logits)
        missed = (self.gamma[0] * log_q).exp()  # (1 - p)^g1; by logarithms, whose gradient is finite at p = 0 and 1
        false = (self.gamma[1] * log_p).exp()
        if self.margin:
            shifted = (logits.sigmoid() - self.margin).clamp(min=1e-12)
            false, log_q = shifted ** self.gamma[1], torch.log1p(-shifted)
        return -(pos_weight * targets * missed * log_p + (1 - targets) * false * log_q)

    def mean(self, logits: torch.Tensor, *, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mean cost of all valid entries; 0 if there are none."""
        return self.entries(logits, targets=targets, mask=mask).sum() / mask.sum().clamp(min=1)


def masked_bce(
    logits: torch.Tensor, *, targets: torch.Tensor, mask: torch.Tensor, pos_weight: torch.Tensor
) -> torch.Tensor:
    """Mean over the valid entries of the class-weighted BCE-with-logits; 0 if there are none.

    logits, targets (in [0, 1]), mask (bool): [B, C]; pos_weight: [C].
    """
    return MaskedLoss(pos_weight, torch.ones_like(pos_weight)).mean(logits, targets=targets, mask=mask)


def hard_weights(costs: torch.Tensor, *, among: torch.Tensor, count: int) -> torch.Tensor:
    """1 for each of `costs` that is one of the `count` highest `among` [n] costs of all parts of a step, else 0.

    Costs that equal the lowest of those share what is left of `count`, so that the order does not matter.
    """
    lowest = among.topk(count).values[-1]
    share = (count - (among > lowest).sum()) / (among == lowest).sum()
    return (costs > lowest) + share * (costs == lowest)


def class_pos_weight(
    targets: np.ndarray, *, mask: np.ndarray, classes: Sequence[str], limit: float | None = None
) -> np.ndarray:
    """Negatives over positives per class among the valid training targets [N, C]: float32 [C].

    A soft target counts as that share of a positive. A class without one of the two gets 1 and is named in a
    warning. `limit` clips the weights to [1 / limit, limit].
    """
    positives, negatives = label_counts(targets, mask=mask)
    usable = (positives > 0) & (negatives > 0)
    if not usable.all():
        names = ", ".join(name for name, ok in zip(classes, usable, strict=True) if not ok)
        warnings.warn(f"no positive or no negative training label for {names}: pos_weight 1", stacklevel=2)
    weights = np.divide(negatives, positives, out=np.ones_like(positives), where=usable)
    return np.clip(weights, 1 / limit, limit).astype(np.float32) if limit else weights.astype(np.float32)


def build_optimizer(
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    head: Collection[nn.Parameter] = (),
    head_lr_factor: float = 1.0,
) -> AdamW:
    """AdamW over the parameters that train; norms and biases (one dimension) are not decayed.

    The parameters of `head` have `head_lr_factor` times the learning rate.
    """
    in_head = {id(p) for p in head} if head_lr_factor != 1 else set()
    trainable = [p for p in model.parameters() if p.requires_grad]
    groups = []
    for rate, part in (
        (lr, [p for p in trainable if id(p) not in in_head]),
        (lr * head_lr_factor, [p for p in trainable if id(p) in in_head]),
    ):
        groups += [
            {"params": [p for p in part if p.ndim > 1], "weight_decay": weight_decay, "lr": rate},
            {"params": [p for p in part if p.ndim <= 1], "weight_decay": 0.0, "lr": rate},
        ]
    return AdamW([group for group in groups if group["params"]])


@contextlib.contextmanager
def scaled_lr(optimizer: torch.optim.Optimizer, factor: float) -> Iterator[None]:
    """A block with every learning rate multiplied by `factor`, as in warmup; the scheduler sees those outside it."""
    before = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] *= factor
    yield
    for group, lr in zip(optimizer.param_groups, before, strict=True):
        group["lr"] = lr


def build_average(model: nn.Module, *, decay: float) -> AveragedModel:
    """The exponential moving average of a model's weights and buffers, updated by `update_parameters` after a step.

    After n steps the decay is min(decay, (1 + n) / (10 + n)), so that the first, random weights are soon forgotten
    (as in TensorFlow's ExponentialMovingAverage).
    """

    average = AveragedModel(model, use_buffers=True)

    def update(averaged: Any, current: Any, _: Any) -> None:
        n = int(average.n_averaged)  # on the CPU, unlike what is passed
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, n)

    average.multi_avg_fn = update
    return average


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
