"""Networks with the stages of the two architectures and little in each, for the tests of what goes on around them."""

import runpy
import sys

from torch import nn
from torchvision.models import resnet
from torchvision.models.efficientnet import EfficientNet, MBConvConfig

from src.models import ARCHITECTURES


def small_resnet(weights: None = None) -> nn.Module:
    """One narrow block in each stage of ResNet50, whose names and number of features it has."""
    return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], width_per_group=16)


def small_efficientnet(weights: None = None) -> nn.Module:
    """One block of at most 80 channels in each stage of EfficientNet-B1, whose number of features it has."""
    strides, kernels, channels = (1, 2, 2, 2, 1, 2, 1), (3, 3, 5, 3, 5, 5, 3), (8, 8, 8, 16, 24, 40, 48, 80)
    shapes = zip(kernels, strides, channels, channels[1:], strict=False)
    stages = [MBConvConfig(6 if index else 1, *shape, num_layers=1) for index, shape in enumerate(shapes)]
    return EfficientNet(stages, dropout=0.2, last_channel=1280)


BUILDERS = {"resnet50": small_resnet, "efficientnet_b1": small_efficientnet}
SMALL = {arch: (build, ARCHITECTURES[arch][1]) for arch, build in BUILDERS.items()}

if __name__ == "__main__":  # what follows is a script and its flags
    ARCHITECTURES.update(SMALL)
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")
