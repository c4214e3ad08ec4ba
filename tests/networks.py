"""Small networks with the stages of the two architectures, for tests of the code around them."""

import runpy
import sys

from torch import nn
from torchvision.models import resnet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from src.models import ARCHITECTURES


def small_resnet(weights: None = None) -> nn.Module:
    """ResNet50 with one narrow block per stage, two in the last, and as many features."""
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 2], width_per_group=16)


def small_efficientnet(weights: None = None) -> nn.Module:
    """EfficientNet-B1 with one block per stage, each with at most 80 output channels, and as many features.

    The last block has a shortcut, so that stochastic depth draws.
    """
    strides, kernels, channels = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3), (8, 8, 8, 16, 24, 40, 80, 80)
    shapes = zip(kernels, strides, channels, channels[1:], strict=False)
    stages = [MBConvConfig(6 if index else 1, *shape, num_layers=1) for index, shape in enumerate(shapes)]
    return EfficientNet(stages, dropout=0.2, last_channel=1280)


BUILDERS = {"resnet50": small_resnet, "efficientnet_b1": small_efficientnet}
SMALL_NETWORKS = {arch: (build, ARCHITECTURES[arch][1]) for arch, build in BUILDERS.items()}

if __name__ == "__main__":  # run a script with the small networks: python tests/networks.py SCRIPT FLAGS
    ARCHITECTURES.update(SMALL_NETWORKS)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
