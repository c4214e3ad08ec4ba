"""Image file -> uint8 [1, S, S], gray."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from src.images.jpeg import decoded_jpeg

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
        return AccessError(f"image {path} does not exist", "run check_split.py to see what is missing")
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


def read_images(path: Path, *, sizes: Sequence[int]) -> dict[int, torch.Tensor]:
    """`read_image` at each size S: uint8 [1, S, S]."""
    return {size: read_image(path, size=size) for size in sizes}


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
        # Straight to gray, Pillow warns of a transparent palette.
        shown = image.convert("RGBA") if image.mode == "P" else image
        return torch.from_numpy(np.array(shown if shown.mode == "L" else shown.convert("L")))


def _deep_color(data: bytes, packing: str) -> np.ndarray:
    """A PNG of 16 bits per color as float32 [H, W, 3]; Pillow reads one byte of the two, so this asks it twice."""
    if packing == "LA;16B":
        raise ValueError("16-bit gray with transparency; expected it without")
    parts = []
    for byte, weight in (("B", 256), ("L", 1)):  # big-endian takes the high byte, little-endian the other
        with Image.open(io.BytesIO(data)) as image:
            image.tile = [(*image.tile[0][:3], packing[:-1] + byte)]  # type: ignore[list-item]  # a tuple in Pillow 10
            parts.append(np.asarray(image)[..., :3] * np.float32(weight))
    return parts[0] + parts[1]


def _interpolated(channels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(channels, size, mode="bilinear", antialias=True)
