"""Augmentation and normalization of whole batches."""

import torch
import torch.nn.functional as F

from src.runtime.cpu import CPU_STEP

# Mean and standard deviation of ImageNet's channels, on the 0-1 scale: what the pretrained weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
FLIP = 0  # column of the draws; those after it move an image and change its brightness and contrast


def draw_augmentation(count: int, *, generator: torch.Generator) -> torch.Tensor:
    """What augments `count` images, for `prepare`: float32 [count, 7] on the CPU, uniform in -1..1.

    Columns: flip, angle, scale, shift right, shift down, brightness, contrast. A process that prepares a part of a
    batch takes those rows of the draws for all of it.
    """
    return 2 * torch.rand(count, 7, generator=generator) - 1


def prepare(images: torch.Tensor, *, draws: torch.Tensor | None) -> torch.Tensor:
    """What a model takes: uint8 [B, 1, S, S] -> float32 [B, 3, S, S], channels last, on the device of `images`.

    (x / 255 - mean) / std with ImageNet's mean and std of each channel. With draws [B, 7] of `draw_augmentation`, each
    image is first augmented its own way: flipped where its draw is negative, rotated up to 10 degrees, scaled within
    10%, shifted within 5% of the side, zeros where it moved out of sight; contrast changed within 20%, brightness
    within 0.1, clamped to 0..1.
    """
    batch, _, height, width = images.shape
    out = torch.empty(batch, 3, height, width, device=images.device, memory_format=torch.channels_last)
    step = CPU_STEP if images.device.type == "cpu" else max(batch, 1)
    for start in range(0, batch, step):
        part = slice(start, start + step)
        gray = images[part].float() if draws is None else _augmented(images[part], draws[part])  # 0..255
        for channel, (mean, std) in enumerate(zip(IMAGENET_MEAN, IMAGENET_STD, strict=True)):
            offset = torch.tensor(-mean / std)
            torch.add(offset, gray, alpha=1 / (255 * std), out=out[part, channel : channel + 1])
    return out


def _augmented(images: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Moved images with their brightness and contrast changed: float32 [B, 1, S, S] in 0..255."""
    side, draws = images.shape[-1], draws.to(images.device)
    # A rim of zeros with its border repeated is what padding with zeros is, at half the time on a CPU.
    rimmed = F.pad(images, (1, 1, 1, 1)).float()
    moved = F.grid_sample(rimmed, _grid(draws, side), padding_mode="border", align_corners=True)
    brightness, contrast = draws[:, 5:].T.reshape(2, -1, 1, 1, 1)
    gain, lift = 1 + 0.2 * contrast, 0.1 * brightness
    return moved.mul_(gain).add_(127.5 * (1 - gain) + 255 * lift).clamp_(0, 255)


def _grid(draws: torch.Tensor, side: int) -> torch.Tensor:
    """Where each pixel comes from: [B, S, S, 2] as (x, y), -1..1 from center to center of a rim of one pixel around.

    x and y lie apart in memory, since a sum over a last axis of two is slow.
    """
    flip, angle, scale, right, down = draws[:, :5].T
    flip, angle, scale = torch.where(flip < 0, -1.0, 1.0), angle * torch.pi / 18, 1 + 0.1 * scale
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    centers = torch.arange(1 - side, side, 2, device=draws.device) / (side + 1)
    shift = 0.1 * side / (side + 1)
    columns = torch.stack([flip * cos, flip * sin], dim=1).view(-1, 2, 1, 1) * centers
    rows = torch.stack([-sin, cos], dim=1).view(-1, 2, 1, 1) * centers.view(-1, 1)
    shifted = torch.stack([right, down], dim=1).view(-1, 2, 1, 1) * shift + rows
    return (columns + shifted).permute(0, 2, 3, 1)
