"""Augmentation and normalization of batches."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from src.transforms import IMAGENET_MEAN, IMAGENET_STD, draw_augmentation, prepare
from tests.trees import picture

RAMP = np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1))  # 0 .. 252 from left to right


def in_0_1(out):
    """The first channel of prepared images before it was normalized, [B, S, S]."""
    return out[:, 0] * IMAGENET_STD[0] + IMAGENET_MEAN[0]


def test_normalization_is_imagenets_with_channels_last():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(11, 1, 1, 1)
    out = prepare(images, draws=None)
    assert out.shape == (11, 3, 16, 16) and out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    for channel in range(3):
        expected = (images[:, 0].double() / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(out[:, channel].double(), expected, atol=5e-7, rtol=0)


def test_draws_are_repeatable_and_uniform():
    draws = draw_augmentation(4000, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draws, draw_augmentation(4000, generator=torch.Generator().manual_seed(1)))
    assert draws.shape == (4000, 7) and draws.device.type == "cpu"
    assert draws.abs().max() <= 1
    torch.testing.assert_close(draws.mean(dim=0), torch.zeros(7), atol=0.04, rtol=0)
    torch.testing.assert_close(draws.std(dim=0), torch.full((7,), 3**-0.5), atol=0.02, rtol=0)


def test_augmentation_is_the_affine_map_and_the_change_of_contrast_that_it_says():
    images = torch.from_numpy(np.stack([np.asarray(picture(48, 48, seed=n)) for n in range(20)])).unsqueeze(1)
    draws = draw_augmentation(20, generator=torch.Generator().manual_seed(0))
    flip, angle, scale, right, down, brightness, contrast = draws.T
    flip, angle, scale = torch.sign(flip), angle * 10 * torch.pi / 180, 1 + 0.1 * scale
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    matrix = torch.stack([flip * cos, -sin, 0.1 * right, flip * sin, cos, 0.1 * down], dim=1).view(20, 2, 3)
    grid = F.affine_grid(matrix, [20, 1, 48, 48], align_corners=False)
    moved = F.grid_sample(images / 255, grid, padding_mode="zeros", align_corners=False)[:, 0]
    expected = (moved - 0.5) * (1 + 0.2 * contrast).view(-1, 1, 1) + 0.5 + 0.1 * brightness.view(-1, 1, 1)
    out = prepare(images, draws=draws)
    assert out.shape == (20, 3, 48, 48) and out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(in_0_1(out), expected.clamp(0, 1), atol=1e-4, rtol=0)


def test_draws_of_zero_change_nothing():
    images = torch.from_numpy(RAMP).view(1, 1, 64, 64)
    torch.testing.assert_close(prepare(images, draws=torch.zeros(1, 7)), prepare(images, draws=None), atol=1e-4, rtol=0)


def test_a_part_of_a_batch_is_augmented_as_in_the_whole():
    images = torch.randint(0, 256, (21, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    draws = draw_augmentation(21, generator=torch.Generator().manual_seed(0))
    whole = prepare(images, draws=draws)
    parts = [prepare(images[rows], draws=draws[rows]) for rows in (slice(0, 5), slice(5, 6), slice(6, 21))]
    torch.testing.assert_close(torch.cat(parts), whole)
    assert prepare(images[:0], draws=draws[:0]).shape == (0, 3, 32, 32)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_prepares_as_the_cpu_does():
    images = torch.randint(0, 256, (20, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for draws in (None, draw_augmentation(20, generator=torch.Generator().manual_seed(0))):
        out = prepare(images.cuda(), draws=draws)
        assert out.is_cuda and out.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(out.cpu(), prepare(images, draws=draws), atol=1e-3, rtol=0)
