"""The story of prediction: new radiographs in, a table of probabilities and flags out."""

import csv
import hashlib
import json
import math
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from src import heatmaps
from src.artifacts import Manifest, atomic_path, clear_temporary, read_json, read_manifest, sha256, write_json
from src.calibration import correct_probs
from src.checkpoint import load_best
from src.config import PredictConfig
from src.dataset import eval_loader, on_device
from src.dicom import is_dicom, read_dicom
from src.distributed import world_size
from src.ensemble import blend
from src.models import ARCHITECTURES, CPU_STEP, Folded
from src.tables import format_table, plural
from src.train_utils import pick_device
from src.transforms import access_error, prepare, read_image, resized, stretched

SUFFIXES = (".jpg", ".jpeg", ".png")
SAVE_SECONDS = 10.0  # between rewrites of the table: what a kill can cost
SHOWN = 20  # images in the table on stdout


class Images(NamedTuple):
    """Images uint8 [B, 1, S, S] of every size S that a model takes, their rows [B], and what is wrong with each."""

    by_size: dict[int, torch.Tensor]
    rows: torch.Tensor
    faults: list[str]

    def to(self, device: torch.device) -> "Images":
        """The images on their way to a device."""
        return self._replace(by_size={size: x.to(device, non_blocking=True) for size, x in self.by_size.items()})


class ImageFiles(Dataset):
    """Rows -> Images, from files of any kind that can be read; zeros stand for those that cannot."""

    def __init__(self, paths: Sequence[Path], *, sizes: Sequence[int]):
        self.paths = list(paths)
        self.sizes = sorted(set(sizes))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: list[int]) -> Images:
        by_size = {size: torch.zeros(len(rows), 1, size, size, dtype=torch.uint8) for size in self.sizes}
        faults = [""] * len(rows)
        for index, row in enumerate(rows):
            try:
                for size, image in read_file(self.paths[row], sizes=self.sizes).items():
                    by_size[size][index] = image
            except (ValueError, MemoryError) as error:
                reason = str(error) or type(error).__name__
                faults[index] = reason.partition("; run check_split.py")[0]  # the stages' advice does not help here
        return Images(by_size, torch.tensor(rows), faults)


@dataclass(frozen=True)
class Member:
    """One model of the blend; pos_weight [C] is what the prior correction undoes, None where none was applied."""

    arch: str
    net: Folded
    image_size: int
    pos_weight: np.ndarray | None
    weight: float

    @torch.no_grad()
    def probs(self, images: torch.Tensor, *, full: int) -> np.ndarray:
        """Probabilities [B, C] float64 of images uint8 [B, 1, S, S].

        Filled up with zeros to a multiple of `full`, so that each image passes the same kernels in any company: they
        depend on the size of a batch, and what they compute does in the last digits.
        """
        filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % full))
        raw = self.net(prepare(filled, draws=None))[: len(images)].float().cpu().double().sigmoid().numpy()
        return raw if self.pos_weight is None else correct_probs(raw, pos_weight=self.pos_weight)


@dataclass(frozen=True)
class Thresholds:
    """What flags: prob >= values [C]; `needed` has the classes that flag all, with the positives they lack."""

    recall: float
    values: np.ndarray
    needed: dict[str, int]


def predict_images(config: PredictConfig) -> int:
    """Write one row per image, print a short table; returns the exit status, 1 where an image could not be read."""
    if world_size() > 1:
        raise ValueError("predict.py runs in one process; start it without torchrun")
    if config.out.suffix.lower() != ".csv":
        raise ValueError(f"--out is {config.out}; expected a name that ends in .csv")
    device = pick_device(config.device)
    manifest = read_manifest(config.run_dir)
    members, origin = _load_members(config.run_dir, manifest, device)
    path = config.thresholds or config.run_dir / "ensemble" / "thresholds.json"
    thresholds = read_thresholds(path, recall=config.recall, classes=manifest.classes, origin=origin)
    origin |= {"recall": thresholds.recall, "thresholds": dict(zip(manifest.classes, thresholds.values, strict=True))}
    table = Table.open(config, manifest.classes, json.loads(json.dumps(origin)))
    if config.heatmaps:
        config.heatmaps.mkdir(parents=True, exist_ok=True)
        clear_temporary(config.heatmaps)
    found = find_images(config.images, skip=config.heatmaps)
    new = {path: fault for path, fault in found.items() if not table.has(image_id(path))}
    if len(new) < len(found):
        print(f"{config.out} has results of {plural(len(found) - len(new), 'image')} already")
    try:
        for path in [path for path, fault in new.items() if fault]:
            table.add_fault(path, new.pop(path))
        _predict(config, list(new), members, thresholds, table, device)
    finally:  # after an interrupt too
        table.save()
    _print(table, found, manifest.classes, thresholds)
    failed = sum(bool(table.rows[image_id(path)][-1]) for path in found)
    print(f"wrote {config.out}: {plural(len(table.rows), 'row')}" + (f", {failed} could not be read" if failed else ""))
    return int(failed > 0)


def _predict(
    config: PredictConfig,
    paths: list[Path],
    members: list[Member],
    thresholds: Thresholds,
    table: "Table",
    device: torch.device,
) -> None:
    """Add a row per image to the table, saving it now and then."""
    files = ImageFiles(paths, sizes=[member.image_size for member in members])
    workers = min(config.workers, -(-len(paths) // config.batch_size))
    loader = eval_loader(files, batch_size=config.batch_size, workers=workers, pin=device.type == "cuda")
    full = CPU_STEP if device.type == "cpu" else config.batch_size
    with tqdm(total=len(paths), desc="images", unit="image", leave=False) as bar:
        for images in on_device(loader, device):
            single = np.stack([member.probs(images.by_size[member.image_size], full=full) for member in members])
            probs = blend(single, [member.weight for member in members])
            for index, row in enumerate(images.rows.tolist()):
                if images.faults[index]:
                    table.add_fault(paths[row], images.faults[index])
                    continue
                if config.heatmaps:
                    _draw(config.heatmaps, paths[row], images, index, members, single, probs[index], thresholds, table)
                table.add(paths[row], probs[index], thresholds.values)
            bar.update(len(images.rows))
            table.save(every=SAVE_SECONDS)


def _draw(
    folder: Path,
    path: Path,
    images: Images,
    index: int,
    members: list[Member],
    single: np.ndarray,
    probs: np.ndarray,
    thresholds: Thresholds,
    table: "Table",
) -> None:
    """Write a heat map per flagged finding and model of one image; single [M, B, C], probs [C]."""
    flagged = np.flatnonzero(probs >= thresholds.values)
    for m, member in enumerate(members):
        image = images.by_size[member.image_size][index : index + 1]
        heats = heatmaps.grad_cam(member.net.layers, prepare(image, draws=None), logits=flagged.tolist())
        for c, heat in zip(flagged, heats, strict=True):
            name, threshold = table.classes[c], f"threshold {thresholds.values[c]:.3f}"
            if name in thresholds.needed:
                threshold = "no threshold, flags all"
            source = f"{member.arch} (alone {single[m, index, c]:.3f})"
            heated = "heat: Grad-CAM" if heat.any() else "nothing in the image speaks for it"
            caption = (f"{name}: probability {probs[c]:.3f}, {threshold}", f"{source}, {heated}")
            target = folder / heatmap_name(path, finding=name, arch=member.arch)
            heatmaps.write_overlay(target, image[0, 0].cpu().numpy(), heat, caption=caption)


def heatmap_name(path: Path, *, finding: str, arch: str) -> str:
    """File name of a heat map: readable, safe anywhere, and its own for each image and finding."""
    digest = hashlib.sha256(f"{image_id(path)}\n{finding}".encode()).hexdigest()[:10]
    place = image_id(Path(*path.parts[-3:]).with_suffix(""))  # data sets name images by patient and study above them
    parts = (re.sub(r"[^A-Za-z0-9._-]+", "-", text)[-60:].strip(".-") for text in (place, finding))
    return "_".join((*parts, arch, digest)) + ".png"


def read_file(path: Path, *, sizes: Sequence[int]) -> dict[int, torch.Tensor]:
    """An image of any kind as uint8 [1, S, S] for each size S. Raises ValueError saying what is wrong with it.

    DICOM goes the way of 16-bit PNG once it is as the viewer shows it: stretched over its own range, then resized.
    """
    if os.path.exists(path) and not os.path.isfile(path):
        raise ValueError(f"{path} is not a regular file")
    try:
        if not is_dicom(path):
            return {size: read_image(path, size=size) for size in sizes}
    except OSError as error:
        raise access_error(path, error) from None
    gray = stretched(read_dicom(path))
    return {size: resized(gray, size).unsqueeze(0) for size in sizes}


def image_id(path: Path) -> str:
    """The path as it was given, as text that any file can hold."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def find_images(paths: Sequence[Path], *, skip: Path | None = None) -> dict[Path, str]:
    """The images among files and in and below folders, each once, in order, with what is wrong where it is known.

    A file that was named is taken whatever its name; in folders those count that end in .jpg, .jpeg or .png or are
    DICOM by name or content. Hidden files and folders are left out, and the folder `skip`.
    """
    found: dict[str, tuple[Path, str]] = {}
    for path in paths:
        inside = _walk(path, skip=skip) if os.path.isdir(path) else [(path, "")]
        for file, fault in inside:
            found.setdefault(os.path.abspath(file), (file, fault))
    return dict(found.values())


def _walk(folder: Path, *, skip: Path | None) -> Iterator[tuple[Path, str]]:
    errors: list[OSError] = []
    count = 0
    for root, folders, files in os.walk(folder, onerror=errors.append):
        skipped = skip is not None and os.path.exists(skip) and os.path.samefile(root, skip)
        folders[:] = [] if skipped else sorted(name for name in folders if not name.startswith("."))
        for name in [] if skipped else sorted(files):
            if not name.startswith(".") and _is_image(Path(root, name)):
                count += 1
                yield Path(root, name), ""
    for error in errors:
        yield Path(error.filename), f"folder {error.filename} cannot be read ({error.strerror})"
    if not count and not errors:
        yield folder, f"folder {folder} holds no JPEG, PNG or DICOM file"


def _is_image(path: Path) -> bool:
    try:
        return path.suffix.lower() in SUFFIXES or (os.path.isfile(path) and is_dicom(path))
    except OSError:
        return False


def _load_members(run_dir: Path, manifest: Manifest, device: torch.device) -> tuple[list[Member], dict[str, Any]]:
    """Both models with their weights in the blend, and the digests that say which; raises ValueError on a mismatch."""
    folder, again = run_dir / "ensemble", "run ensemble_alpha_search.py --overwrite"
    story, choice = read_json(folder / "probs.json"), read_json(folder / "alpha.json")
    names, weights = choice.get("members"), choice.get("weights")
    if names != list(ARCHITECTURES) or not isinstance(weights, list) or len(weights) != len(names):
        raise ValueError(f"{folder / 'alpha.json'} blends {names}; expected {', '.join(ARCHITECTURES)}; {again}")
    if not all(_is_number(weight) and 0 <= weight <= 1 for weight in weights) or abs(sum(weights) - 1) > 1e-9:
        raise ValueError(f"{folder / 'alpha.json'} has the weights {weights}; expected shares of 1; {again}")
    if story.get("manifest_sha256") != manifest.sha256:
        raise ValueError(f"{folder / 'probs.json'} is of another manifest than the run's; {again}")
    val = sha256(folder / "probs_val.csv")
    if story.get("probs_sha256", {}).get("val") != val:
        raise ValueError(f"{folder / 'probs_val.csv'} is not the file that probs.json describes; {again}")
    members, digests = [], {}
    recorded = dict(zip(names, story.get("checkpoint_sha256", ()), strict=False))
    for arch, weight in zip(names, weights, strict=True):
        model, checkpoint = load_best(run_dir / arch, arch=arch)
        digests[arch] = sha256(run_dir / arch / "best.pt")
        if digests[arch] != recorded.get(arch):
            raise ValueError(f"{arch} was trained again since it was blended; test it again, then {again}")
        if checkpoint["manifest_sha256"] != manifest.sha256 or tuple(checkpoint["classes"]) != manifest.classes:
            raise ValueError(
                f"{run_dir / arch / 'best.pt'} was trained on another manifest than the run's; train again"
            )
        pos_weight = np.array(checkpoint["pos_weight"]) if story["prior_correction"] else None
        net = model.to(device).folded().eval()
        members.append(Member(arch, net, checkpoint["image_size"], pos_weight, weight))
    origin = {"manifest_sha256": manifest.sha256, "probs_val_sha256": val, "checkpoint_sha256": digests}
    return members, origin | {"weights": weights, "prior_correction": story["prior_correction"]}


def read_thresholds(path: Path, *, recall: float | None, classes: Sequence[str], origin: dict[str, Any]) -> Thresholds:
    """The thresholds of one recall target, in the order of `classes`.

    origin: the digests that the file must record too. Raises ValueError where it is of another run or other classes,
    has no such target (naming those it has), or a threshold is no number from 0 to 1.
    """
    content = read_json(path)
    again = "run ensemble_threshold_search.py --overwrite, or save it from the report again"
    for key in ("manifest_sha256", "probs_val_sha256"):
        if content.get(key) != origin[key]:
            what = "does not say" if key not in content else "says otherwise"
            raise ValueError(f"{path} is not of this run: its {key} {what}; {again}")
    targets = content.get("recall")
    if content.get("classes") != list(classes) or not isinstance(targets, dict) or not targets:
        raise ValueError(f"{path} has other classes than the run, or no thresholds; {again}")
    if recall is None and len(targets) > 1:
        raise ValueError(f"{path} has thresholds for recall {', '.join(targets)}; pass --recall with one of them")
    chosen = [key for key in targets if recall is None or math.isclose(float(key), recall, abs_tol=1e-9)]
    if not chosen:
        raise ValueError(f"{path} has no thresholds for recall {recall:g}; it has {', '.join(targets)}")
    points = targets[chosen[0]]
    if (
        not isinstance(points, dict)
        or set(points) != set(classes)
        or not all(isinstance(p, dict) for p in points.values())
    ):
        raise ValueError(f"{path}: recall {chosen[0]} has other classes than the run; {again}")
    values = [points[name].get("threshold") for name in classes]
    for name, value in zip(classes, values, strict=True):
        if not _is_number(value) or not 0 <= value <= 1:
            raise ValueError(f"{path}: the threshold of {name} is {value}; expected a number from 0 to 1; {again}")
    needed = {name: points[name].get("positives_needed") for name in classes if points[name].get("status") != "ok"}
    flags_all = [name in needed for name in classes]
    return Thresholds(float(chosen[0]), np.where(flags_all, 0.0, np.array(values, np.float64)), needed)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Table:
    """The rows of --out by image id, as the texts that stand in the file."""

    def __init__(self, path: Path, classes: Sequence[str]):
        self.path, self.classes = path, tuple(classes)
        self.header = ["image_id", *(n for c in classes for n in (c, f"{c} flagged")), "flags", "error"]
        self.rows: dict[str, list[str]] = {}
        self.saved: float | None = None  # when; None before the first time
        if len(set(self.header)) < len(self.header):
            raise ValueError("the run has a finding named as another column of the table; rename it")

    @classmethod
    def open(cls, config: PredictConfig, classes: Sequence[str], origin: dict[str, Any]) -> "Table":
        """A new table, or with --append the one that is there, if the same models and thresholds made it."""
        path = config.out
        table, story = cls(path, classes), path.with_name(path.name + ".json")
        if config.append and path.exists():
            made_by = read_json(story)
            changed = [key for key in origin if made_by.get(key) != origin[key]]
            if changed:
                raise ValueError(f"{path} was made with other {', '.join(changed)}; pass --overwrite or another --out")
            table._read()
            return table
        if path.exists() and not config.overwrite:
            raise ValueError(f"{path} is already there; pass --append to go on with it, or --overwrite to replace it")
        path.unlink(missing_ok=True)  # first, lest --append takes its rows for those of other models
        write_json(story, origin)
        return table

    def has(self, key: str) -> bool:
        """Whether there are results of an image; one that could not be read is tried again."""
        return key in self.rows and not self.rows[key][-1]

    def add(self, path: Path, probs: np.ndarray, thresholds: np.ndarray) -> None:
        """The row of an image: probs, thresholds [C]."""
        flags = probs >= thresholds
        cells = [text for p, flag in zip(probs, flags, strict=True) for text in (repr(float(p)), str(int(flag)))]
        self.rows[image_id(path)] = [image_id(path), *cells, str(int(flags.sum())), ""]

    def add_fault(self, path: Path, reason: str) -> None:
        """The row of an image that cannot be read."""
        blank = [""] * (2 * len(self.classes) + 1)
        text = reason.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        self.rows[image_id(path)] = [image_id(path), *blank, text]

    def save(self, *, every: float = 0.0) -> None:
        """Rewrite the file, unless that happened less than `every` seconds ago."""
        if every and self.saved is not None and time.monotonic() - self.saved < every:
            return
        with atomic_path(self.path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows([self.header, *self.rows.values()])
        self.saved = time.monotonic()

    def _read(self) -> None:
        try:
            with open(self.path, encoding="utf-8", newline="") as stream:
                header, *rows = list(csv.reader(stream)) or [[]]
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{self.path} is not a table of predict.py ({error}); pass another --out") from None
        if header != self.header or any(len(row) != len(header) for row in rows):
            raise ValueError(f"{self.path} has other columns than this run's table; pass --overwrite or another --out")
        self.rows = {row[0]: row for row in rows}


def _print(table: Table, found: Sequence[Path], classes: Sequence[str], thresholds: Thresholds) -> None:
    """The first images with what is flagged, then per finding how many."""
    rows = [table.rows[image_id(path)] for path in found]
    read = [row for row in rows if not row[-1]]
    lines = []
    for row in rows[:SHOWN]:
        flagged = ", ".join(name for name, flag in zip(classes, row[2:-2:2], strict=True) if flag == "1")
        lines.append((_printable(row[0]), row[-2] or "-", _printable(row[-1]) or flagged or "none"))
    print(format_table(("Image", "Flags", "Findings flagged, or why it could not be read"), lines))
    if len(rows) > SHOWN:
        print(f"... and {len(rows) - SHOWN:,} more")
    print(f"\nflagged among {plural(len(read), 'image')}, for recall >= {thresholds.recall:g}:")
    counts = [sum(row[2 + 2 * c] == "1" for row in read) for c in range(len(classes))]
    print(
        format_table(("Finding", "Threshold", "Flagged"), zip(classes, thresholds.values.tolist(), counts, strict=True))
    )
    for name, needed in thresholds.needed.items():
        more = f" ({needed} more positive patients needed)" if needed else ""
        print(f"{name}: no threshold is known to reach recall {thresholds.recall:g}{more}; it flags every image")


def _printable(text: str) -> str:
    """Without what would move a terminal's cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
