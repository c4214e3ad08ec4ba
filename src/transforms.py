"""Image file -> uint8 [1, S, S]; augmentation and normalization of whole batches."""

import io
import warnings
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from src.jpeg import decoded_jpeg

# Mean and standard deviation of ImageNet's channels, on the 0-1 scale: what the pretrained weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

CPU_STEP = 4  # images prepared at once on a CPU, so that what is computed in between stays in its cache
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's RGB -> L

# Pillow warns above 89 megapixels, which some radiographs have, and refuses above twice that, which none has.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(ValueError):
    """An image that cannot be read: `reason` says why; the whole text adds which stage of a run helps, if one does."""

    def __init__(self, reason: str, advice: str = ""):
        super().__init__(reason, advice)  # what it takes to make it again in another process
        self.reason = reason

    def __str__(self) -> str:
        return "; ".join(filter(None, self.args))


class AccessError(ImageError):
    """The file could not be read, for now at least; that says nothing of what is in it."""


def access_error(path: Path, error: OSError) -> AccessError:
    """What to tell the user of a file that the system does not open."""
    if isinstance(error, FileNotFoundError):
        return AccessError(f"image {path} is not there", "run check_split.py to see what is missing")
    return AccessError(f"image {path} cannot be read ({error.strerror}); see that it is a file this user may read")


def read_image(path: Path, *, size: int) -> torch.Tensor:
    """Read a radiograph as gray and resize it to a square: uint8 [1, size, size].

    A JPEG much larger than `size` is decoded at a reduced scale. 16-bit images are scaled by their own range. The
    aspect ratio is not kept, so that nothing at the rim is cut off; horizontal proportions (cardiothoracic ratio) are.
    Raises ImageError (a ValueError) naming the file where it is truncated or not an image, AccessError (an ImageError)
    where it is missing or the system does not let it be read.
    """
    try:
        with open(path, "rb", buffering=0) as stream:
            data = stream.read()
    except OSError as error:
        raise access_error(path, error) from None
    try:
        gray = _decoded(data, size)
    except UnidentifiedImageError:
        raise ImageError(f"{path} is not an image", "run check_split.py --images open to list all like it") from None
    except Exception as error:  # each decoder of Pillow raises its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ImageError(f"image {path} cannot be read ({reason})", "run check_split.py --images open") from None
    return resized(gray, size).unsqueeze(0)


def resized(gray: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased bilinear resize of a gray image, uint8 [H, W] -> [size, size].

    One axis after the other, with four lines of the other axis side by side as channels: torch's kernel for uint8
    works on four channels at once, so that this takes a quarter of the time of one channel, or of Pillow's resize.
    """
    height, width = gray.shape
    columns = F.pad(gray, (0, -width % 4)) if width % 4 else gray
    columns = columns.view(1, height, -1, 4).permute(0, 3, 1, 2)  # [1, 4, H, W / 4]
    gray = _interpolated(columns, (size, columns.shape[3])).permute(0, 2, 3, 1).reshape(size, -1)[:, :width]
    rows = F.pad(gray, (0, 0, 0, -size % 4)).contiguous().view(1, 4, -1, width)
    return _interpolated(rows, (rows.shape[2], size)).view(-1, size)[:size]


def stretched(values: np.ndarray) -> torch.Tensor:
    """Numbers [H, W] from lowest to highest as 0 .. 255, zeros where they are all the same: uint8 [H, W]."""
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ValueError("some of its values are not finite")
    if low == high:
        return torch.zeros(values.shape, dtype=torch.uint8)
    stretched = np.subtract(values, low, dtype=np.float32)
    stretched *= 255 / (float(high) - float(low))
    return torch.from_numpy(np.rint(stretched, out=stretched).astype(np.uint8))


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


def _decoded(data: bytes, size: int) -> torch.Tensor:
    """An image file as gray, uint8 [H, W] about `size` or larger: 16-bit ones stretched over their own range.

    Transparency is ignored.
    """
    jpeg = decoded_jpeg(data, size)
    if jpeg is not None:
        return torch.from_numpy(jpeg)
    with Image.open(io.BytesIO(data)) as image:
        if image.format == "PNG" and image.tile and image.tile[0][3] in ("LA;16B", "RGB;16B", "RGBA;16B"):
            return stretched(_deep_color(data, image.tile[0][3]) @ LUMA)
        if image.mode in ("I", "F") or image.mode.startswith("I;16"):
            return stretched(np.asarray(image))
        if image.mode == "P":
            image = image.convert("RGBA")  # straight to gray, Pillow warns of a transparent palette
        return torch.from_numpy(np.array(image if image.mode == "L" else image.convert("L")))


def _deep_color(data: bytes, packing: str) -> np.ndarray:
    """A PNG of 16 bits per color as float32 [H, W, 3]; Pillow reads one byte of the two, so this asks it twice."""
    if packing == "LA;16B":
        raise ValueError("16-bit gray with transparency; expected it without")
    colors = 0
    for byte, weight in (("B", 256), ("L", 1)):  # big-endian takes the high byte, little-endian the other
        with Image.open(io.BytesIO(data)) as image:
            image.tile = [(*image.tile[0][:3], packing[:-1] + byte)]
            colors = colors + np.asarray(image)[..., :3] * np.float32(weight)
    return colors


def _interpolated(channels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(channels, size, mode="bilinear", antialias=True)
