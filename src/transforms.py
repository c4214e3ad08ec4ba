"""Image file -> uint8 [1, S, S]; augmentation of whole batches; normalization."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

# Mean and standard deviation of ImageNet's channels, on the 0-1 scale: what the pretrained weights expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def read_image(path: Path, *, size: int) -> torch.Tensor:
    """Read a radiograph as gray and resize it to a square: uint8 [1, size, size].

    A JPEG much larger than `size` is decoded at a reduced scale. 16-bit images are scaled by their own range. The
    aspect ratio is not kept, so that nothing at the rim is cut off; horizontal proportions (cardiothoracic ratio) are.
    Raises ValueError naming the file where it is missing, truncated or not an image.
    """
    try:
        with Image.open(path) as image:
            image.draft("L", (2 * size, 2 * size))
            gray = _gray(image).resize((size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
    except FileNotFoundError:
        raise ValueError(f"image {path} is not there; run check_split.py to see what is missing") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not an image; run check_split.py --images open to list all like it") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"image {path} cannot be read ({error}); run check_split.py --images open") from None
    return torch.from_numpy(np.array(gray)).unsqueeze(0)


def augment(images: torch.Tensor, *, generator: torch.Generator) -> torch.Tensor:
    """Augment a batch, float [B, 1, S, S] in 0..1, each image with its own parameters drawn from `generator`.

    Horizontal flip of every second image, rotation up to 10 degrees, scale within 10%, shift within 5% of the side,
    brightness within 0.1, contrast within 20%.
    """
    batch = images.shape[0]
    draws = 2 * torch.rand(7, batch, generator=generator) - 1  # [7, B] in -1..1
    flip, angle, scale, dx, dy, brightness, contrast = draws
    flip, angle, scale = torch.where(flip < 0, -1.0, 1.0), angle * torch.pi / 18, 1 + 0.1 * scale
    cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
    rows = torch.stack([flip * cos, -sin, 0.1 * dx, flip * sin, cos, 0.1 * dy], dim=1)  # [B, 6]; the side is 2 long
    grid = F.affine_grid(rows.view(batch, 2, 3).to(images.device), list(images.shape), align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="zeros", align_corners=False)
    gain = (1 + 0.2 * contrast).view(-1, 1, 1, 1).to(images.device)
    lift = (0.1 * brightness).view(-1, 1, 1, 1).to(images.device)
    return ((moved - 0.5) * gain + 0.5 + lift).clamp(0, 1)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """Float [B, 1, S, S] in 0..1 -> float [B, 3, S, S] on the scale of ImageNet's channels, channels last."""
    mean = torch.tensor(IMAGENET_MEAN, device=images.device).view(1, 3, 1, 1)
    std = torch.tensor(IMAGENET_STD, device=images.device).view(1, 3, 1, 1)
    return ((images - mean) / std).contiguous(memory_format=torch.channels_last)


def _gray(image: Image.Image) -> Image.Image:
    """The image as 8-bit gray: 16-bit ones stretched over their own range, transparency ignored."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image, dtype=np.float64)
        low, high = values.min(), values.max()
        stretched = (values - low) * (255 / (high - low)) if high > low else np.zeros_like(values)
        return Image.fromarray(np.rint(stretched).astype(np.uint8))
    if image.mode in ("P", "PA"):
        image = image.convert("RGB")
    return image.convert("L")
