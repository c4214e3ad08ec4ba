"""The two architectures; nothing else knows what is inside them."""

import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn
from torchvision import models

# Feature blocks of each architecture from input to output: (name, names of the torchvision modules in it).
RESNET_STAGES = (
    ("all", ("conv1", "bn1", "relu", "maxpool")),
    ("layer1", ("layer1",)),
    ("layer2", ("layer2",)),
    ("layer3", ("layer3",)),
    ("layer4", ("layer4",)),
)
ARCHITECTURES = {
    "resnet50": (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V2),
    "efficientnet_b1": (models.efficientnet_b1, models.EfficientNet_B1_Weights.IMAGENET1K_V2),
}


class ChestNet(nn.Module):
    """A torchvision network run stage by stage, its first `frozen` stages without autograd and in eval mode.

    Eval mode keeps the frozen BatchNorm buffers bit-identical. `net` keeps torchvision's own names, so its state
    dict is one torchvision reads.
    """

    def __init__(self, net: nn.Module, stages: list[list[nn.Module]], frozen: int):
        super().__init__()
        self.net = net
        self._stages = stages  # a plain list: the modules are registered in `net` already
        self._frozen = frozen
        for module in self._frozen_modules():
            module.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, S, S] -> logits [B, C]."""
        with torch.no_grad():
            for stage in self._stages[: self._frozen]:
                images = _apply(stage, images)
        for stage in self._stages[self._frozen :]:
            images = _apply(stage, images)
        return images

    def train(self, mode: bool = True) -> "ChestNet":
        """Train or eval mode; frozen stages stay in eval mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        return [module for stage in self._stages[: self._frozen] for module in stage]


def build_model(arch: str, *, num_classes: int, unfreeze: str | int = "all", weights: str = "none") -> ChestNet:
    """A network with a fresh classifier of `num_classes` logits.

    `unfreeze`: `all`; for resnet50 else the first stage that trains (`layer1` .. `layer4`, `fc`), for
    efficientnet_b1 how many of its 9 feature blocks train, from the end. `weights`: `imagenet`, `none` (random), or
    a file with a torchvision state dict. Raises ValueError for weights that cannot be had or do not fit.
    """
    build, imagenet = ARCHITECTURES[arch]
    net = build(weights=None)
    if weights != "none":
        state = _download(imagenet) if weights == "imagenet" else _read_state(Path(weights))
        _load_backbone(net, state, weights)
    if arch == "resnet50":
        net.fc = nn.Linear(net.fc.in_features, num_classes)
        names = [name for name, _ in RESNET_STAGES] + ["fc"]
        stages = [[getattr(net, module) for module in modules] for _, modules in RESNET_STAGES]
        return ChestNet(net, [*stages, [net.avgpool, nn.Flatten(), net.fc]], names.index(unfreeze))
    net.classifier[1] = nn.Linear(net.classifier[1].in_features, num_classes)
    stages = [[block] for block in net.features]
    head = [net.avgpool, nn.Flatten(), net.classifier]
    return ChestNet(net, [*stages, head], 0 if unfreeze == "all" else len(stages) - unfreeze)


def _apply(stage: list[nn.Module], images: torch.Tensor) -> torch.Tensor:
    for module in stage:
        images = module(images)
    return images


def _download(weights: models.WeightsEnum) -> dict[str, torch.Tensor]:
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"the ImageNet weights could not be downloaded from {weights.url} ({error}); download that file elsewhere "
            "and pass --weights FILE, or train from scratch with --weights none"
        ) from None


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"--weights {path}: no such file; expected imagenet, none or a state dict's file") from None
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"--weights {path} is not a torchvision state dict ({reason})") from None
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"--weights {path} holds no state dict; expected tensors by name, as torchvision saves them")
    return state


def _load_backbone(net: nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Load all but the classifier, whose size depends on the classes it was trained for."""
    own = net.state_dict()
    classifier = [key for key in own if key.startswith(("fc.", "classifier."))]
    missing = sorted(set(own) - set(state) - set(classifier))
    extra = sorted(set(state) - set(own))
    wrong = [key for key in own if key in state and key not in classifier and own[key].shape != state[key].shape]
    for keys, what in ((missing, "lacks"), (extra, "has unknown"), (wrong, "has another shape for")):
        if keys:
            raise ValueError(f"--weights {name} is for another architecture: it {what} {keys[0]} ({len(keys)} such)")
    net.load_state_dict({**state, **{key: own[key] for key in classifier}})
