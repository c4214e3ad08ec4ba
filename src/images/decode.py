"""Image file -> uint8 [1, S, S], gray."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F

from src.images.pixels import gray_pixels, read_bytes, why_unreadable
from src.runtime.system_errors import in_words


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
        return AccessError(f"image {path} does not exist", "run check_split.py with --overwrite to list all such files")
    return AccessError(f"image {path} cannot be read ({in_words(error)}); make sure that you may read it")


def read_image(path: Path, *, size: int, equalize: bool = False) -> torch.Tensor:
    """Read a radiograph as gray and resize it to a square: uint8 [1, size, size].

    The pixels are those of `gray_pixels`. The aspect ratio is not kept, so that nothing at the rim is cut off;
    horizontal proportions (cardiothoracic ratio) are. Raises ImageError (a ValueError) naming the file where it is
    truncated or not an image, AccessError (an ImageError) where it is missing or the system does not let it be read.
    """
    try:
        data = read_bytes(path)
    except OSError as error:
        raise access_error(path, error) from None
    try:
        gray = torch.from_numpy(gray_pixels(path, data, size=size, equalize=equalize))
    except Exception as error:  # each decoder raises its own
        advice = "run check_split.py --images open to list all such files"
        raise ImageError(f"{path} {why_unreadable(data, error)}", advice) from None
    return resized(gray, size).unsqueeze(0)


def read_images(path: Path, *, sizes: Sequence[int], equalize: bool = False) -> dict[int, torch.Tensor]:
    """`read_image` at each size S: uint8 [1, S, S]."""
    return {size: read_image(path, size=size, equalize=equalize) for size in sizes}


def resized(gray: torch.Tensor, size: int) -> torch.Tensor:
    """Antialiased bilinear resize of a gray image, uint8 [H, W] -> [size, size].

    One axis after the other, with four lines of the other axis side by side as channels: torch's kernel for uint8
    works on four channels at once, so that this takes a quarter of the time of one channel, or of Pillow's resize.
    """
    height, width = gray.shape
    columns = F.pad(gray, (0, -width % 4)) if width % 4 else gray
    columns = columns.view(1, height, -1, 4).permute(0, 3, 1, 2)  # [1, 4, H, W / 4]
    gray = _interpolated(columns, (size, columns.shape[3])).permute(0, 2, 3, 1).reshape(size, -1)[:, :width]
    rows = F.pad(gray, (0, 0, 0, -size % 4)) if size % 4 else gray
    rows = rows.contiguous().view(1, 4, -1, width)
    return _interpolated(rows, (rows.shape[2], size)).view(-1, size)[:size]


def _interpolated(channels: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    return F.interpolate(channels, size, mode="bilinear", antialias=True)
