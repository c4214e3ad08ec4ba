"""The bytes of an image file -> its gray pixels, as every stage that looks at images sees them. Needs no torch."""

import io
import os
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from src.images.dicom import looks_like_dicom, read_dicom
from src.images.jpeg import MARK, decoded_jpeg
from src.runtime.system_errors import in_words

LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, as Pillow's RGB -> L
ORIENTATION = 0x0112  # the EXIF tag
BODY = (1, 95)  # percentiles of what is not background; burnt-in markers have fewer pixels than lie above the upper one
MARGIN = 0.5  # of the range between them: how far beyond it a value may lie and still belong to the picture
GAP = 0.05  # of the same range: what lies beyond such a gap in the values does not belong to the picture
SLIVER = 0.01  # of the range
NEARLY_ALL = 0.995  # of the pixels

SMALLEST = 8  # px on a side
# Pillow has decoders that start other programs, such as Ghostscript.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
WHITE_IS_ZERO = {0x0106: 0}  # the photometric interpretation of a TIFF

# Pillow warns above 89 megapixels, which some radiographs have, and refuses above twice that, which none has.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def read_bytes(path: Path) -> bytes:
    """The content of a file; raises OSError if there is none; a pipe raises it too, without waiting."""
    with open(path, "rb", buffering=0, opener=_without_waiting) as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            raise OSError("it is not a regular file")
        return stream.read()


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def why_unreadable(data: bytes, error: Exception) -> str:
    """What is wrong with a file, whose content made `gray_pixels` raise an error, as the end of a sentence."""
    if not data:
        return "is empty"
    if isinstance(error, Image.DecompressionBombError):
        return f"has more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels, which no radiograph has"
    if not isinstance(error, UnidentifiedImageError):
        return f"cannot be read ({in_words(error)})"
    if data.startswith(MARK):
        return "is a JPEG of an unsupported kind, such as one with 12 bits, or is damaged"
    return "is not an image, or is of an unsupported kind"


def gray_pixels(path: Path, data: bytes, *, size: int, equalize: bool = False) -> np.ndarray:
    """An image file and its content as gray, upright by its EXIF orientation, uint8 [H, W] about `size` or larger.

    A JPEG much larger than `size` is decoded at a reduced scale. DICOM, as a viewer shows it, and images of more than 8
    bits are `stretched`, and with `equalize` every image is `equalized`. Transparency is ignored. Raises an error of
    the decoder for what is damaged, and ValueError for one of several frames, without contrast, or of a few pixels.
    """
    if looks_like_dicom(path, data):
        gray = stretched(read_dicom(data))
    else:
        jpeg = decoded_jpeg(data, size)
        gray = _by_pillow(data) if jpeg is None else _turned(jpeg, _jpeg_orientation(data))
    if min(gray.shape) < SMALLEST:
        raise ValueError(f"it has {gray.shape[1]} x {gray.shape[0]} pixels; expected {SMALLEST} or more on a side")
    check_contrast(gray)
    return equalized(gray) if equalize else gray


def equalized(gray: np.ndarray) -> np.ndarray:
    """A picture with each gray value replaced by the share of the pixels up to it: uint8 [H, W] -> the same.

    As OpenCV's equalizeHist, by which the images of MIMIC-CXR-JPG were made of the DICOM files (Johnson et al. 2019,
    arXiv:1901.07042). An equalized picture hardly changes. It must have two gray values at least.
    """
    up_to = np.bincount(gray.ravel(), minlength=256).cumsum()
    darkest = up_to[gray.min()]
    return np.rint((up_to - darkest) * (255 / (gray.size - darkest))).clip(0).astype(np.uint8)[gray]


def _by_pillow(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        frames = getattr(image, "n_frames", 1)
        if frames != 1 and image.format != "MPO":  # a camera's, whose first frame is the picture
            raise ValueError(f"it has {frames} frames; expected one")
        packing = image.tile[0][3] if image.format == "PNG" and image.tile else ""
        if packing == "LA;16B":
            values = _bytes_as(data, "RGBA")[..., :2] @ np.array([256, 1], np.float32)  # gray and alpha, 2 bytes each
            gray = stretched(values)
        elif packing in ("RGB;16B", "RGBA;16B"):
            high, low = (_bytes_as(data, packing[:-1] + byte)[..., :3] for byte in ("B", "L"))
            gray = stretched((256 * high + low) @ LUMA)
        elif image.mode in ("I", "F") or image.mode.startswith("I;16"):
            inverted = image.format == "TIFF" and WHITE_IS_ZERO.items() <= dict(image.getexif()).items()
            gray = stretched(-np.asarray(image, np.float64) if inverted else np.asarray(image))
        else:
            # Straight to gray, Pillow warns of a transparent palette.
            shown = image.convert("RGBA") if image.mode == "P" else image
            gray = np.array(shown if shown.mode == "L" else shown.convert("L"))
        return _turned(gray, image.getexif().get(ORIENTATION, 1))


def _bytes_as(data: bytes, packing: str) -> np.ndarray:
    """A PNG's pixels as float32 [H, W, C], read as another packing of as many bits.

    Pillow reads one byte of the two that a color of 16 bits has: "B" takes the high one and "L" the other.
    """
    with Image.open(io.BytesIO(data)) as image:
        image.tile = [(*image.tile[0][:3], packing)]  # type: ignore[list-item]  # a tuple in Pillow 10
        return np.asarray(image, np.float32)


def _jpeg_orientation(data: bytes) -> int:
    if data.find(b"Exif\0\0", 0, 2**17) < 0:  # which spares most files the second look
        return 1
    with Image.open(io.BytesIO(data)) as image:
        return image.getexif().get(ORIENTATION, 1)


def _turned(gray: np.ndarray, orientation: Any) -> np.ndarray:
    """An image [H, W] as it is to be looked at, by its EXIF orientation 1 to 8; any other number leaves it."""
    if orientation in (5, 6, 7, 8):  # stored sideways: rows are columns
        gray = gray.T
    if orientation in (2, 3, 6, 7):
        gray = gray[:, ::-1]
    if orientation in (3, 4, 7, 8):
        gray = gray[::-1]
    return np.ascontiguousarray(gray)


def stretched(values: np.ndarray) -> np.ndarray:
    """Numbers [H, W] from the darkest to the brightest of the picture as 0 .. 255: uint8 [H, W].

    The ends are the lowest and the highest value that lie within `MARGIN` of the `BODY` with no `GAP` between: hot
    pixels, and a burnt-in marker that stands apart from the rest, are clipped, and an image without such values is
    stretched over its whole range. Raises ValueError where values are not finite, or where all but a few pixels have
    the same value or nearly so.
    """
    lowest, highest = float(values.min()), float(values.max())
    if not (np.isfinite(lowest) and np.isfinite(highest)):
        raise ValueError("some of its values are not finite")
    if lowest == highest:
        raise ValueError("all of its pixels have the same value")
    low, high = _ends(values, lowest)
    if high - low < SLIVER * (highest - lowest):
        raise ValueError(f"all but a few of its pixels lie within {100 * SLIVER:g}% of its range of values")
    scaled = np.subtract(values, low, dtype=np.float32)
    scaled *= 255 / (high - low)
    np.rint(scaled, out=scaled)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)


def _ends(values: np.ndarray, lowest: float) -> tuple[float, float]:
    """The darkest and the brightest value that belong to the picture, of all from `lowest` on."""
    step = max(1, min(values.shape) // 512)  # of what percentiles are taken, which a sample gives as well
    sample = values[::step, ::step]
    inside = sample[sample > lowest]
    if not inside.size:
        return lowest, lowest
    first, last = np.percentile(inside, BODY, method="nearest")  # of the type of the values, which is compared faster
    dark, bright = values[values < first] - float(first), values[values > last] - float(last)
    span = float(last) - float(first)
    return float(first) - _reach(-dark, span), float(last) + _reach(bright, span)


def _reach(beyond: np.ndarray, span: float) -> float:
    """How far the picture goes beyond a body of pixels of range `span`, by the distances of all pixels beyond it."""
    steps = np.append(0.0, np.sort(beyond[beyond <= MARGIN * span]))
    return float(steps[np.argmax(np.append(np.diff(steps) > GAP * span, True))])  # where the first gap is, or the end


def check_contrast(gray: np.ndarray) -> None:
    """Raise ValueError where nearly all pixels of a picture, uint8 [H, W], have the same gray value."""
    sample = gray[:: gray.shape[0] // 64 + 1, :: gray.shape[1] // 64 + 1]
    # Each value beyond the third in a row is a pixel that no three values hold: enough of these spare the count.
    if sum(len(set(row.tobytes())) - 3 for row in sample[:: len(sample) // 4]) > (1 - NEARLY_ALL) * sample.size:
        return
    counts = np.bincount(sample.ravel(), minlength=256)
    together = (counts[:-2] + counts[1:-1] + counts[2:]).max()  # of neighboring gray values, about 1% of the range
    if together >= NEARLY_ALL * sample.size:
        raise ValueError("nearly all of its pixels have the same gray value")
