"""Checks of a split: who stands on which side, which images are there, and what can be measured on each side.

A failed check is a sentence that says what is wrong; a warning one that says what will not mean much.
"""

import hashlib
import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image
from tqdm import tqdm

from src.jpeg import decoded_jpeg
from src.tables import plural
from src.thresholds import patients_needed

SHOWN = 10  # groups of duplicates named; the rest is counted
EXPECTED_MODES = {"L", "LA", "RGB", "RGBA", "P", "PA", "1", "I", "I;16", "I;16B", "I;16L"}
# Fewer negatives than this leave the AUROC's standard error above about 0.03 even at AUROC 0.9 (Hanley & McNeil 1982)
# and let one false alarm move the precision visibly.
FEW_NEGATIVES = 50


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


def leaks(table: pd.DataFrame) -> list[str]:
    """Patients and studies that stand in more than one split, seen from val and from test."""
    failed = []
    for key, name in (("patient_id", "patient"), ("study_id", "study")):
        splits_of = table.groupby(key)["split"].nunique()
        shared = table[table[key].isin(splits_of.index[splits_of > 1])]
        for split in ("val", "test"):
            here = shared[shared["split"] == split]
            if len(here):
                total = int((table["split"] == split).sum())
                failed.append(
                    f"{plural(here[key].nunique(), name)} with {len(here):,} of the {total:,} {split} images also in "
                    f"another split; first: {here[key].iloc[0]} (--split patient makes a sound one)"
                )
    return failed


def one_sided(table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Classes without a positive or without a negative label in val or in test."""
    failed = []
    for split in ("val", "test"):
        labels = table.loc[table["split"] == split, list(classes)]
        for value, name in ((1, "positive"), (0, "negative")):
            none = [c for c in classes if not (labels[c] == value).any()]
            if none:
                failed.append(f"{split} has no {name} label of {', '.join(none)}: nothing can be measured there")
    return failed


def too_few(table: pd.DataFrame, classes: Sequence[str], *, recalls: Sequence[float], confidence: float) -> list[str]:
    """Classes with too few val positives (patients) to certify a recall, or too few val or test negatives."""
    warned = []
    val = table[table["split"] == "val"]
    patients = {c: val.loc[val[c] == 1, "patient_id"].nunique() for c in classes}
    for recall in recalls:
        need = patients_needed(recall, confidence=confidence)
        short = [f"{c} ({n})" for c, n in patients.items() if n < need]
        if short:
            warned.append(
                f"recall {recall:g} cannot be certified at {100 * confidence:g}% confidence with fewer than {need} "
                f"positive patients in val: {', '.join(short)}"
            )
    for split in ("val", "test"):
        labels = table.loc[table["split"] == split, list(classes)]
        few = [f"{c} ({n})" for c in classes if (n := int((labels[c] == 0).sum())) < FEW_NEGATIVES]
        if few:
            names = ", ".join(few)
            warned.append(
                f"AUROC and precision mean little with fewer than {FEW_NEGATIVES} negatives in {split}: {names}"
            )
    return warned


def missing_images(root: Path, ids: Iterable[str]) -> list[ImageFault]:
    """Images whose file is not there."""
    return [ImageFault(name, "is not there") for name in ids if not (root / name).is_file()]


def open_images(root: Path, ids: Sequence[str], *, workers: int) -> list[OpenedImage]:
    """Decode every image whole, in parallel, with a progress bar; in the order of `ids`."""
    with ProcessPoolExecutor(workers) as pool:
        opened = pool.map(_open, [root / name for name in ids], chunksize=32)
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
    """Read, decode and digest one image; the pixels' digest is that of the gray image, whatever the encoding."""
    try:
        data = path.read_bytes()
        if not data:
            return OpenedImage(fault="is empty")
        decoded_jpeg(data, 1)  # which finds damage that Pillow passes over
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            if image.mode not in EXPECTED_MODES:
                return OpenedImage(fault=f"has mode {image.mode}; expected gray or RGB")
            pixels = image if image.mode.startswith("I") else image.convert("RGB").convert("L")
            digest = hashlib.sha256(f"{pixels.mode} {pixels.size}".encode() + pixels.tobytes()).hexdigest()
    except FileNotFoundError:
        return OpenedImage(fault="is not there")
    except Exception as error:  # each decoder of Pillow raises its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return OpenedImage(fault="is not an image" if "cannot identify" in reason else f"cannot be read ({reason})")
    return OpenedImage(hashlib.sha256(data).hexdigest(), digest)
