"""Checks of the image files of a split: which are missing, which cannot be read, which are the same."""

import contextlib
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from src.images.pixels import gray_pixels, read_bytes, why_unreadable
from src.runtime.system_errors import in_words
from src.runtime.workers import mapped

GONE = "does not exist"
SHOWN = 10  # groups of duplicates named; the rest is counted
WHOLE = 2**30  # px, so that no image is decoded at a reduced scale


@dataclass(frozen=True)
class ImageFault:
    """An image that cannot be used, and why."""

    image_id: str
    reason: str


@dataclass(frozen=True)
class OpenedImage:
    """What reading an image whole showed: digests of its bytes and pixels, or the reason why it cannot be used."""

    file_digest: str = ""
    pixel_digest: str = ""
    fault: str = ""


def existing(root: Path, ids: Iterable[str]) -> list[bool]:
    """Whether the file of each image exists."""
    return [os.path.isfile(os.path.join(root, name)) for name in ids]  # several times as fast as Path


def missing_images(root: Path, ids: Sequence[str]) -> list[ImageFault]:
    """Images whose file does not exist."""
    there = existing(root, ids)
    return [ImageFault(name, GONE) for name, found in zip(ids, there, strict=True) if not found]


def open_images(root: Path, ids: Sequence[str], *, workers: int) -> list[OpenedImage]:
    """Decode every image whole, in parallel, with a progress bar; in the order of `ids`."""
    opened = mapped(_open, [root / name for name in ids], workers=workers, remedy="run again with fewer --workers")
    with contextlib.closing(opened):
        return list(tqdm(opened, total=len(ids), desc="opening images", unit="image"))


def faults(ids: Sequence[str], opened: Sequence[OpenedImage]) -> list[ImageFault]:
    """The images that could not be used, with the reason."""
    return [ImageFault(name, image.fault) for name, image in zip(ids, opened, strict=True) if image.fault]


def duplicates(table: pd.DataFrame, opened: Sequence[OpenedImage]) -> list[str]:
    """Images under two names in different splits whose bytes, or else whose pixels, are the same."""
    seen = table[["image_id", "split"]].assign(
        file=[image.file_digest for image in opened], pixels=[image.pixel_digest for image in opened]
    )
    seen = seen[seen["pixels"] != ""]
    failed = []
    for _, group in seen.groupby("pixels", sort=False):
        if group["split"].nunique() > 1:
            kind = "the same file" if group["file"].nunique() == 1 else "the same pixels"
            names = ", ".join(f"{row.image_id} ({row.split})" for row in group.itertuples())
            failed.append(f"{kind} under {len(group)} names in different splits: {names}")
    more = len(failed) - SHOWN
    return failed if more <= 0 else [*failed[:SHOWN], f"{more:,} more groups of duplicates like these"]


def _open(path: Path) -> OpenedImage:
    """Read, decode and digest one image, by the function that training reads with; the pixels' digest is theirs."""
    try:
        data = read_bytes(path)
    except FileNotFoundError:
        return OpenedImage(fault=GONE)
    except OSError as error:
        return OpenedImage(fault=f"cannot be read ({in_words(error)})")
    try:
        pixels = gray_pixels(path, data, size=WHOLE)
        digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    except Exception as error:  # each decoder raises its own
        return OpenedImage(fault=why_unreadable(data, error))
    return OpenedImage(hashlib.sha256(data).hexdigest(), digest)
