"""Heat maps with known answers, where its heat is drawn, and the overlay."""

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.pointing_game import score
from src.images.heatmaps import METHODS, SIDE, best_heat, class_heat, enlarged, overlay
from src.models import build_model

WHOLE_NETWORKS = True

GRAD_CAM = METHODS["grad-cam"]


@pytest.fixture
def tiny():
    """Two feature maps, the image's first channel and its second, whose means the two logits take: a - b and b."""
    layers = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]])[..., None, None])
        layers[3].weight.copy_(torch.tensor([[1.0, -1], [0, 1]]))
    return layers.requires_grad_(False)


@pytest.fixture
def detector():
    """Images [1, 3, S, S] -> logits of a bright spot and of a dark one, found in maps 8 times smaller than the image.

    It halves as both networks do: odd kernels, padded alike on both sides.
    """
    smooth = torch.tensor([1.0, 2, 1])[:, None] * torch.tensor([1.0, 2, 1]) / 16
    halving = [nn.Conv2d(1, 1, 3, stride=2, padding=1, bias=False) for _ in range(2)]
    signs = nn.Conv2d(1, 2, 1)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False)]
    layers = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), *halving, nn.MaxPool2d(3, 2, 1), signs, nn.ReLU(), *head)
    with torch.no_grad():
        layers[0].weight.fill_(1 / 3)
        for layer in halving:
            layer.weight.copy_(smooth)
        signs.weight.copy_(torch.tensor([1.0, -1]).view(2, 1, 1, 1))
        signs.bias.copy_(torch.tensor([-0.1, -0.9]))
        layers[-1].weight.copy_(torch.eye(2))
    return layers.requires_grad_(False)


def image_with_spot(row, column):
    """A black image [1, 3, 64, 64] with a bright spot about a place."""
    image = torch.zeros(1, 3, 64, 64)
    image[..., row - 2 : row + 3, column - 2 : column + 3] = 1
    return image


def peak(layers, image):
    """Row and column of the hottest pixel of the first logit's heat, at the size of the image."""
    heat = enlarged(class_heat(layers, image, logits=[0], weigh=GRAD_CAM, cells=8)[0], (64, 64), side=64)
    return np.unravel_index(heat.argmax(), heat.shape)


@pytest.mark.parametrize("method", METHODS)
def test_heat_is_where_the_evidence_lies(tiny, method):
    image = torch.zeros(1, 3, 8, 8)
    image[0, 0, 1, 2], image[0, 0, 5, 5], image[0, 1, 6, 3] = 4, 2, 3
    heat = class_heat(tiny, image, logits=[0, 1], weigh=METHODS[method], cells=8)
    expected = torch.zeros(2, 8, 8)
    expected[0, 1, 2], expected[0, 5, 5], expected[1, 6, 3] = 1, 0.5, 1  # what speaks against a finding is cut off
    torch.testing.assert_close(heat, expected)


def test_each_method_weights_the_cells_its_own_way():
    draw = torch.Generator().manual_seed(0)
    image, gradient = torch.rand(1, 3, 4, 4, generator=draw), torch.randn(3, 4, 4, generator=draw) + 0.5
    layers = nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(48, 1)).requires_grad_(False)
    layers[2].weight.copy_(gradient.view(1, 48))
    means = gradient.mean(dim=(1, 2), keepdim=True)
    for method, weights in (("grad-cam", means), ("hires-cam", gradient)):
        heat = class_heat(layers, image, logits=[0], weigh=METHODS[method], cells=4)[0]
        expected = (weights * image[0]).sum(dim=0).clamp(min=0)
        torch.testing.assert_close(heat, expected / expected.max())


def test_heat_is_zero_where_nothing_speaks_for_the_finding(tiny):
    image = torch.zeros(1, 3, 8, 8)
    image[0, 1] = 1
    options = {"weigh": GRAD_CAM, "cells": 8}
    assert not class_heat(tiny, image, logits=[0], **options).any()
    assert class_heat(tiny, image, logits=[], **options).shape == (0, 8, 8)


def test_the_layer_is_the_last_with_cells_enough(tiny):
    layers = nn.Sequential(nn.AvgPool2d(2), nn.ReLU(inplace=True), *tiny[:1], nn.AvgPool2d(2), *tiny[1:])
    options = {"logits": [1], "weigh": GRAD_CAM}
    image = torch.rand(1, 3, 16, 16)
    assert [class_heat(layers, image, cells=c, **options).shape[1] for c in (8, 7, 4, 1)] == [8, 8, 4, 1]
    with pytest.raises(ValueError, match="9 x 9"):
        class_heat(layers, image, cells=9, **options)


@pytest.mark.parametrize(
    ("arch", "side", "cells"),
    [
        *(("resnet50", side, cells) for side, cells in ((512, 16), (224, 14), (112, 14), (96, 12), (64, 8))),
        *(("efficientnet_b1", side, cells) for side, cells in ((512, 32), (224, 28), (112, 14), (96, 12), (64, 8))),
    ],
)
def test_small_images_have_fewer_cells_of_eight_pixels(arch, side, cells):
    halving = nn.Sequential(*(nn.AvgPool2d(2) for _ in range(5)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    method, least = best_heat(arch, side)
    heat = class_heat(halving, torch.rand(1, 3, side, side), logits=[0], weigh=METHODS[method], cells=least)
    assert heat.shape == (1, cells, cells)


@pytest.mark.parametrize("place", [(8, 8), (16, 40), (48, 24), (40, 48)])
def test_the_peak_is_on_a_planted_spot_and_moves_with_it(detector, place):
    image = image_with_spot(*place)
    assert np.abs(np.subtract(peak(detector, image), place)).max() <= 1
    row, column = peak(detector, image.flip(3))  # its place lies between two cells now
    assert abs(row - place[0]) <= 1 and abs(column - (63 - place[1])) <= 1


def test_heat_leans_to_no_side_of_a_spot(detector):
    places, pixels = np.random.default_rng(0).integers(16, 48, (40, 2)), np.arange(64)
    misses = []
    for place in places:
        heat = class_heat(detector, image_with_spot(*place), logits=[0], weigh=GRAD_CAM, cells=8)[0]
        heat = enlarged(heat, (64, 64), side=64)
        center = [(heat.sum(axis=axis) * pixels).sum() / heat.sum() for axis in (1, 0)]
        misses.append(np.subtract(center, place))
    assert np.abs(misses).max() < 5 and np.abs(np.mean(misses, axis=0)).max() < 0.5


@pytest.mark.parametrize("arch", ["resnet50", "efficientnet_b1"])
def test_a_cell_of_either_network_looks_at_the_pixel_where_its_heat_is_drawn(arch):
    """By the gradient of one cell over the image, all kernels being flat; noise keeps ties out of max pooling."""
    side, cell = 128, 8
    model = build_model(arch, num_classes=1).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.fill_(1 / module.weight[0].numel())
    features = image = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    for layer in model.folded().layers:
        features = layer(features.clone())
        if features.shape[2] == 16:
            break
    (seen,) = torch.autograd.grad(features[0, :, cell, cell].sum(), image)
    seen = seen[0].sum(dim=0).abs()
    seen = (seen - seen.median()).relu()  # without what squeeze-and-excitation sees of the whole image
    center = (seen.sum(dim=1) * torch.arange(side)).sum() / seen.sum()
    heat = torch.zeros(16, 16)
    heat[cell, cell] = 1
    drawn = np.unravel_index(enlarged(heat, (side, side), side=side).argmax(), (side, side))
    assert drawn == (64, 64) and abs(center - 64) < 1


def test_heat_keeps_its_place_at_any_size():
    heat = torch.zeros(4, 4)  # of 112 px: 112, 56, 28, 14, 7, 4
    heat[1, 2] = 1
    for shape in ((112, 112), (224, 448)):
        large = enlarged(heat, shape, side=112)
        row, column = np.unravel_index(large.argmax(), shape)
        assert abs((row + 0.5) / shape[0] - 32.5 / 112) < 0.005 and abs((column + 0.5) / shape[1] - 64.5 / 112) < 0.005
    with pytest.raises(ValueError, match="side halved"):
        enlarged(torch.zeros(5, 5), (64, 64), side=64)


def test_the_pointing_game_holds_a_peak_against_another_patient():
    heats, regions = torch.zeros(3, 8, 8), np.zeros((3, 64, 64), bool)
    for at, (row, column) in enumerate([(1, 2), (1, 2), (5, 4)]):  # two radiographs of one patient, one of another
        heats[at, row, column] = 1
        regions[at, 8 * row - 2 : 8 * row + 3, 8 * column - 2 : 8 * column + 3] = True
    options = {"side": 64, "tolerance": 0}
    peaks, chance, times, other, energy, share = score(list(heats), list(regions), ["a", "a", "b"], **options)
    assert (peaks, other) == (1, 0) and chance == share == 25 / 4096 and times == 1 / chance
    assert 0.1 < energy < 1
    assert score(list(heats), list(regions), ["a", "b", "c"], **options)[3] == 1 / 3  # b's is where a's is


def test_an_overlay_is_colored_where_the_heat_is_and_gray_elsewhere():
    heat = torch.zeros(8, 8)
    heat[1, 6] = 1  # of 128 px: pixel 16, 96
    picture = np.asarray(overlay(np.full((128, 128), 90, np.uint8), heat, caption=("one", "two")))
    scale = SIDE // 128
    spread = picture[:SIDE].max(axis=2).astype(int) - picture[:SIDE].min(axis=2)
    assert spread[16 * scale, 96 * scale] > 40
    assert spread[33 * scale :].max() == 0 and (picture[33 * scale : SIDE] == 90).all()
    assert (picture[SIDE:] < 128).any()  # the caption
