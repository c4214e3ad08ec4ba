"""The two architectures; nothing else knows what is inside them."""

import copy
import pickle
import warnings
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision import models
from torchvision.ops import SqueezeExcitation

from src.runtime.cpu import CPU_STEP
from src.runtime.system_errors import in_words
from src.runtime.tables import plural

# ResNet50's stages from input to output, by the value of `unfreeze` that trains them and all after them.
RESNET_STAGES = {"all": ("conv1", "bn1", "relu"), "layer1": ("maxpool", "layer1")}
RESNET_STAGES |= {f"layer{n}": (f"layer{n}",) for n in range(2, 5)}
WRAPPERS = ("state_dict", "model_state_dict", "model")  # of Lightning, of many scripts, of timm and this program
COMPILED = "_orig_mod."  # what torch.compile puts before the names of a module, at any depth
ARCHITECTURES = {
    "resnet50": (models.resnet50, models.ResNet50_Weights.IMAGENET1K_V2),
    "efficientnet_b1": (models.efficientnet_b1, models.EfficientNet_B1_Weights.IMAGENET1K_V2),
}
REDUCTION = 16  # of the channels within a module of attention, as published
OPEN = 3.0  # logit of every gate before training, which only makes the features smaller: 0.95 of them passes


class SEAttention(SqueezeExcitation):
    """Squeeze-and-excitation (Hu, Shen & Sun 2018, arXiv:1709.01507): each channel times a gate of its own."""

    def __init__(self, channels: int):
        super().__init__(channels, channels // REDUCTION)
        _open_gate(self.fc2, OPEN)


class CBAMAttention(nn.Module):
    """CBAM (Woo, Park, Lee & Kweon 2018, arXiv:1807.06521): channels are gated by their means and maxima over the
    image, then places by the mean and maximum over the channels."""

    def __init__(self, channels: int):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // REDUCTION, 1)
        self.fc2 = nn.Conv2d(channels // REDUCTION, channels, 1)
        self.places = nn.Conv2d(2, 1, 7, padding=3)
        _open_gate(self.fc2, OPEN / 2)  # added up for the mean and the maximum
        _open_gate(self.places, OPEN)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, C, h, w] -> the same, gated."""
        mean, most = features.mean((2, 3), keepdim=True), features.amax((2, 3), keepdim=True)
        gated = features * torch.sigmoid(self.fc2(self.fc1(mean).relu()) + self.fc2(self.fc1(most).relu()))
        planes = torch.cat([gated.mean(1, keepdim=True), gated.amax(1, keepdim=True)], dim=1)
        return gated * torch.sigmoid(self.places(planes))


ATTENTION: dict[str, type[SEAttention] | type[CBAMAttention]] = {"se": SEAttention, "cbam": CBAMAttention}


class Pooled(nn.Module):
    """Feature maps [B, K, h, w] -> the mean of each quarter of each, and the logarithm of its spread: [B, 5 * K]."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """See the class."""
        quarters = F.adaptive_avg_pool2d(maps, 2).flatten(1)
        return torch.cat([quarters, maps.std(dim=(2, 3), correction=0).add(1e-4).log()], dim=1)


class FusedInference(nn.Module):
    """A copy of stages for inference: each BatchNorm folded into the convolution before it, no autograd.

    Equal to the stages in eval mode but for rounding. Does not follow later changes of their weights.
    """

    def __init__(self, stages: list[list[nn.Module]]):
        super().__init__()
        modules = copy.deepcopy([module for stage in stages for module in stage])
        with torch.inference_mode(False), torch.no_grad():  # made in inference mode, it could not serve training
            self.layers = nn.Sequential(*modules)
            self.eval().requires_grad_(False)
            _fold_batchnorms(self.layers)
            self.to(memory_format=torch.channels_last)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, S, S] -> what the last stage makes of them."""
        if images.device.type != "cpu":
            return self.layers(images)
        return torch.cat([self.layers(part) for part in images.split(CPU_STEP)])

    def width(self) -> int:
        """The number of values that it makes of an image."""
        weight = next(self.parameters())
        return self(torch.zeros(1, 3, 32, 32, device=weight.device)).shape[1]

    def compile_layers(self) -> None:
        """Compile in place, once for each size of batch; on a CPU with the weights laid out for it beforehand."""
        on_cpu = next(self.parameters()).device.type == "cpu"
        self.layers.compile(dynamic=False, options={"freezing": on_cpu})


class ChestNet(nn.Module):
    """A torchvision network run stage by stage, its first `frozen` stages without autograd and in eval mode.

    `net` keeps torchvision's own names, so its state dict is one torchvision reads. Its frozen modules are only read: a
    folded copy runs in their place; it is not in the state dict and is rebuilt when their weights change.
    With `freeze_batchnorm` the BatchNorms of the other stages stay in eval mode too, and their weights do not train.
    """

    def __init__(self, net: nn.Module, stages: list[list[nn.Module]], frozen: int, *, freeze_batchnorm: bool = False):
        super().__init__()
        self.net = net
        self._stages = stages  # a plain list: the modules are registered in `net` already
        self._frozen = frozen
        self._freeze_batchnorm = freeze_batchnorm
        self._folded: tuple[tuple, FusedInference] | None = None  # a tuple for the same reason
        for module in self._untrained_modules():
            module.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, S, S] -> logits [B, C]."""
        frozen = self.frozen_part()
        return self.run_trained(frozen(images) if frozen else images)

    def frozen_part(self) -> FusedInference | None:
        """The frozen stages, folded: the same copy until their weights change or move; None where all stages train."""
        if self._frozen == 0:
            return None
        # Buffers change with the weights only, and DistributedDataParallel rewrites them, as they are, in each step.
        weights = [parameter for module in self._frozen_modules() for parameter in module.parameters()]
        stamp = tuple((parameter.data_ptr(), parameter._version) for parameter in weights)
        if self._folded is None or self._folded[0] != stamp:
            self._folded = stamp, FusedInference(self._stages[: self._frozen])
        return self._folded[1]

    def run_trained(self, features: torch.Tensor) -> torch.Tensor:
        """The other stages: what the frozen ones made of images (images where there are none) -> logits [B, C]."""
        for stage in self._stages[self._frozen :]:
            for module in stage:
                features = module(features)
        return features

    def head(self) -> list[nn.Parameter]:
        """The parameters after the last feature block, which begin at random."""
        return [parameter for module in self._stages[-1] for parameter in module.parameters()]

    def folded(self) -> FusedInference:
        """The whole network as it is now, for inference: images [B, 3, S, S] -> logits [B, C]."""
        return FusedInference(self._stages)

    def describing(self) -> FusedInference:
        """The first stage as it is now: images [B, 3, S, S] -> features [B, K] that tell what is not a radiograph.

        Later stages tell less of it: what they were trained for is findings (docs/unlike_training.md).
        """
        return FusedInference([self._stages[0], [Pooled()]])

    def train(self, mode: bool = True) -> "ChestNet":
        """Train or eval mode; what does not train stays in eval mode."""
        super().train(mode)
        for module in self._untrained_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        return [module for stage in self._stages[: self._frozen] for module in stage]

    def _untrained_modules(self) -> list[nn.Module]:
        norms = [module for module in self.net.modules() if isinstance(module, nn.BatchNorm2d)]
        return self._frozen_modules() + (norms if self._freeze_batchnorm else [])


def build_model(
    arch: str,
    *,
    num_classes: int,
    unfreeze: str | int = "all",
    weights: str = "none",
    freeze_batchnorm: bool = False,
    attention: str = "none",
) -> ChestNet:
    """A network with a fresh classifier of `num_classes` logits.

    `unfreeze`: `all`; for resnet50 else the first stage that trains (`layer1` .. `layer4`, `fc`), for
    efficientnet_b1 how many of its 9 feature blocks train, from the end. `weights`: `imagenet`, `none` (random), or
    a file with a torchvision state dict or a best.pt of an earlier run. `attention`: `none`, or the module of ATTENTION
    that the last features pass before they are pooled; it trains as the classifier does, and starts afresh unless
    `weights` has one like it. Raises ValueError for weights that cannot be had or do not fit.
    """
    build, imagenet = ARCHITECTURES[arch]
    state = None
    if weights != "none":
        state = _download(imagenet) if weights == "imagenet" else _read_state(Path(weights))
    net = build(weights=None)
    if attention != "none":
        channels = (net.fc if arch == "resnet50" else net.classifier[1]).in_features
        net.avgpool = nn.Sequential(OrderedDict(attention=ATTENTION[attention](channels), pool=net.avgpool))
    if state is not None:
        _load_backbone(net, state, weights)
    if arch == "resnet50":
        net.fc = nn.Linear(net.fc.in_features, num_classes)
        stages = [[getattr(net, module) for module in modules] for modules in RESNET_STAGES.values()]
        stages += [[net.avgpool, nn.Flatten(), net.fc]]
        frozen = [*RESNET_STAGES, "fc"].index(str(unfreeze))
    else:
        net.classifier[1] = nn.Linear(net.classifier[1].in_features, num_classes)
        stages = [[block] for block in net.features]
        frozen = 0 if unfreeze == "all" else len(stages) - int(unfreeze)
        stages += [[net.avgpool, nn.Flatten(), net.classifier]]
    return ChestNet(net, stages, frozen, freeze_batchnorm=freeze_batchnorm)


def compile_for_training(model: ChestNet) -> nn.Module:
    """What a training step calls in place of `model`, compiled; weights and mode are those of `model`.

    Compiling happens in the first step of each size of batch. Dropout draws as it does uncompiled. Raises ValueError
    where nothing can be compiled for the device of the model.
    """
    device = next(model.parameters()).device
    try:
        torch.compile(torch.sin)(torch.ones(1, device=device))
    except Exception as error:  # each layer of the compiler raises its own
        reason = str(error).splitlines()[0].rstrip(".")
        need = "Triton (it comes with PyTorch for Linux)" if device.type == "cuda" else "a C++ compiler, such as g++,"
        raise ValueError(
            f"--compile cannot be used on {device.type} here ({reason}); install {need} or leave out the flag"
        ) from None
    return _Compiled(model)


class _Compiled(nn.Module):
    """A ChestNet whose frozen and whose trained part are compiled, each by itself."""

    def __init__(self, model: ChestNet):
        super().__init__()
        self.model = model
        self._run_trained = torch.compile(model.run_trained, dynamic=False, options={"fallback_random": True})
        self._frozen_part: list[FusedInference | None] = [None]  # a list, so that it is not registered

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [B, 3, S, S] -> logits [B, C]."""
        frozen = self.model.frozen_part()
        if frozen and frozen is not self._frozen_part[0]:
            frozen.compile_layers()
            self._frozen_part[0] = frozen
        return self._run_trained(frozen(images) if frozen else images)


def _open_gate(layer: nn.Conv2d, logit: float) -> None:
    """Let a gate start at sigmoid(logit) for any input."""
    assert layer.bias is not None
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, logit)


def _fold_batchnorms(module: nn.Module) -> None:
    """Fold, in place, each BatchNorm that is registered right after a convolution, as torchvision's run, into it."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, nn.Identity().eval())
    for _, child in children:
        _fold_batchnorms(child)


def _download(weights: models.WeightsEnum) -> dict[str, torch.Tensor]:
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the ImageNet weights could not be downloaded from {weights.url} ({in_words(error)}); download that file "
            "elsewhere and pass --weights FILE, or train from scratch with --weights none; a better start than that "
            "may be a network trained on drawings (docs/synthetic_pretraining.md)"
        ) from None


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """The state dict of a file: as torchvision saves it, wrapped as in `WRAPPERS`, or as safetensors."""
    state = _load_tensors(path)
    while isinstance(state, dict) and (wrapped := next((key for key in WRAPPERS if key in state), "")):
        state = state[wrapped]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()) or not state:
        raise ValueError(f"--weights {path} holds no state dict; expected tensors by name, as torchvision saves them")
    broken = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if broken:
        raise ValueError(f"--weights {path}: {broken[0]} holds NaN or infinity ({plural(len(broken), 'such tensor')})")
    return state


def _named_as(net: nn.Module, state: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    """The tensors of a state dict that are a network's, under its own names.

    A prefix such as `module.` of DataParallel or `model.` of an attribute, or several, is taken off. What does not
    belong to the network, such as the weights of a loss, is left out with a warning. Raises ValueError where there are
    several such networks.
    """
    state = {key.replace(COMPILED, ""): value for key, value in state.items()}
    own = list(net.state_dict())
    prefixes = {key.removesuffix(own[0]) for key in state if f".{key}".endswith(f".{own[0]}")}
    found = {prefix: sum(prefix + key in state for key in own) for prefix in sorted(prefixes)}
    most = [prefix for prefix, count in found.items() if count == max(found.values())] or [""]
    if len(most) > 1:
        raise ValueError(f"--weights {name} holds several networks ({', '.join(most)}); save the state dict of one")
    parts = tuple(f"{most[0]}{part}." for part, _ in net.named_children())
    left_out = [key for key in state if not key.startswith(parts)]
    if left_out and most[0] + own[0] in state:
        count = plural(len(left_out), "such tensor")
        said = f"{left_out[0]} in --weights {name} does not belong to the network and is left out ({count})"
        warnings.warn(said, stacklevel=3)
        state = {key: value for key, value in state.items() if key not in left_out}
    return {key.removeprefix(most[0]): value for key, value in state.items()}


def _load_tensors(path: Path) -> Any:
    """What a file holds, read without running what is in it."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except ImportError:
        raise ValueError(f"--weights {path} needs the package safetensors; pip install safetensors") from None
    except FileNotFoundError:
        raise ValueError(f"--weights {path}: no such file; expected imagenet, none or a state dict's file") from None
    except pickle.UnpicklingError:  # torch's own text advises to load it without the check
        raise ValueError(
            f"--weights {path} is not a torchvision state dict: it is corrupt, or holds more than tensors and plain "
            "values; save its state_dict() alone"
        ) from None
    except Exception as error:  # torch and safetensors raise many, some with escape codes in their text
        raise ValueError(f"--weights {path} is not a torchvision state dict ({type(error).__name__})") from None


def _load_backbone(net: nn.Module, state: dict[str, torch.Tensor], name: str) -> None:
    """Load all but the classifier, whose size depends on the classes it was trained for, and attention of another kind.

    Warns where the file has attention that the network has not.
    """
    own, state = net.state_dict(), _named_as(net, state, name)
    kept = [key for key in own if key.startswith(("fc.", "classifier."))]
    attention, other = (sorted(key for key in keys if key.startswith("avgpool.")) for keys in (own, state))
    if attention != other:
        kept += attention
        state = {key: value for key, value in state.items() if key not in other}
        if other:
            warnings.warn(f"the attention in --weights {name} is of a different kind and is ignored", stacklevel=2)
    missing = sorted(set(own) - set(state) - set(kept))
    extra = sorted(set(state) - set(own))
    wrong = [key for key in own if key in state and key not in kept and own[key].shape != state[key].shape]
    for keys, what in ((missing, "lacks"), (extra, "has unknown"), (wrong, "has a different shape for")):
        if keys:
            raise ValueError(
                f"--weights {name} is for another architecture: it {what} {keys[0]} ({plural(len(keys), 'such key')})"
            )
    net.load_state_dict({**state, **{key: own[key] for key in kept}})
