"""Prediction: new radiographs in, a table of probabilities and flags out."""

import functools
import hashlib
import itertools
import json
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from src.artifacts import likeness_file
from src.artifacts.calibration_record import Calibration, read_calibration
from src.artifacts.io import as_stored, entry, read_json, writer_of
from src.artifacts.lineage import check_blended_checkpoint, checkpoints_of, refuse_busy
from src.artifacts.manifest import Manifest
from src.artifacts.prediction_rows import NOT_CHECKED, mark
from src.artifacts.predictions import PredictionTable, image_id
from src.artifacts.probs import read_stage_probs
from src.artifacts.thresholds_file import SavedThresholds, read_thresholds
from src.checkpoint import load_best
from src.config import PredictConfig
from src.dataset import Batch, ImageDataset, eval_loader, on_device
from src.images import files, heatmaps
from src.models import ARCHITECTURES, FusedInference
from src.runtime.cpu import CPU_STEP
from src.runtime.distributed import world_size
from src.runtime.tables import plural
from src.stages import prediction_tables as tables
from src.stages.opening import open_manifest
from src.stats.ensemble import blend
from src.stats.likeness import Likeness
from src.train_utils import pick_device
from src.transforms import prepare

SAVE_SECONDS = 10.0  # between rewrites of the table: what a kill can cost


@dataclass(frozen=True)
class Member:
    """One model of the blend."""

    arch: str
    net: FusedInference
    describe: FusedInference
    image_size: int
    calibration: Calibration
    weight: float
    likeness: Likeness | None

    def probs(self, images: torch.Tensor, *, full: int) -> np.ndarray:
        """Probabilities [B, C] float64 of images uint8 [B, 1, S, S]; the same for an image in any company."""
        raw = self._outputs(self.net, images, full=full).sigmoid().numpy()
        return self.calibration.apply(raw)

    def unlike(self, images: torch.Tensor, *, full: int) -> np.ndarray:
        """Which images are unlike the training images, bool [B]; none where the run cannot say."""
        if self.likeness is None:
            return np.zeros(len(images), bool)
        return self.likeness.unlike(self._outputs(self.describe, images, full=full).numpy())

    @torch.no_grad()
    def _outputs(self, net: FusedInference, images: torch.Tensor, *, full: int) -> torch.Tensor:
        """What a network makes of images, float64 on the CPU.

        Filled up with zeros to a multiple of `full`, so that each image passes the same kernels in any company: they
        depend on the size of a batch, and what they compute does in the last digits.
        """
        filled = F.pad(images, (0, 0, 0, 0, 0, 0, 0, -len(images) % full))
        return net(prepare(filled, draws=None))[: len(images)].float().cpu().double()


def predict_images(config: PredictConfig) -> int:
    """Write one row per image, print a short table; returns the exit status, 1 where an image could not be read."""
    _check_arguments(config)
    device = pick_device(config.device)
    manifest = open_manifest(config.run_dir)
    members, origin = _load_members(config.run_dir, manifest, device)
    path = config.thresholds or config.run_dir / "ensemble" / "thresholds.json"
    thresholds = read_thresholds(path, recall=config.recall, classes=manifest.classes, origin=origin)
    if config.study and thresholds.unit != "study":
        raise ValueError(f"--study is {config.study}, but the thresholds in {path} are for images; leave --study out")
    origin |= {"recall": thresholds.recall, "thresholds": dict(zip(manifest.classes, thresholds.values, strict=True))}
    origin |= {"unit": thresholds.unit, "equalize": config.equalize}
    if thresholds.unit == "study":
        origin |= {"aggregate": thresholds.aggregate, "study": config.study or "auto"}
    found, others = files.find_images(config.images, skip=config.heatmaps)
    if found and all(found.values()):  # nothing but folders without images, or that cannot be searched
        raise ValueError(next(iter(found.values())))
    if manifest.meta["dataset"] == "mimic" and not config.equalize:
        _say_what_is_not_equalized([path for path, fault in found.items() if not fault])
    for path in PredictionTable(config.out, thresholds).written:
        if os.path.abspath(path) in map(os.path.abspath, found):
            raise ValueError(f"{path} is both an output file and one of the images; pass another --out")
    flags = {"append": config.append, "overwrite": config.overwrite}
    table = PredictionTable.open(config.out, thresholds, origin=json.loads(json.dumps(origin)), **flags)
    if config.heatmaps:
        config.heatmaps.mkdir(parents=True, exist_ok=True)
    print(f"thresholds: {thresholds.promise}")
    if others:
        count = plural(len(others), "file")
        print(f"skipped in folders, neither named as an image nor DICOM: {count}, such as {others[0]}")
    _say_what_is_not_checked(members, config.run_dir)
    _fill(config, table, found, members, device)
    names = [table.id_of(path) for path in found]
    tables.print_predictions(table, names, by=config.study or "auto")
    return int(any(map(table.fault, names)))


def _say_what_is_not_equalized(paths: list[Path]) -> None:
    """Warn of DICOM files where the run was trained on MIMIC-CXR-JPG."""
    count = sum(map(files.may_be_dicom, paths))
    if count:
        print(
            f"warning: {count:,} of {plural(len(paths), 'image')} are DICOM, and the run was trained on MIMIC-CXR-JPG, "
            "whose images are histogram-equalized; pass --equalize, or the probabilities and flags may be wrong"
        )


def _fill(
    config: PredictConfig,
    table: PredictionTable,
    found: dict[Path, str],
    members: list[Member],
    device: torch.device,
) -> None:
    """Add the images that the table lacks and save it, also after an interrupt if there are results."""
    for path in config.images:  # such as a folder that was empty and may hold images now
        table.forget(path)
    new = {path: fault for path, fault in found.items() if not table.has(path)}
    if len(new) < len(found):
        drawn = "; no heat maps are drawn for them (pass --overwrite to draw all)" if config.heatmaps else ""
        print(f"{config.out} has results of {plural(len(found) - len(new), 'image')} already{drawn}")
    try:
        for path in [path for path, fault in new.items() if fault]:
            table.add_fault(path, new.pop(path), study=_study_of(config, table, path))
        _predict(config, list(new), members, table, device)
    except BaseException as error:
        if any(map(table.has, found)):
            table.save()
            if isinstance(error, KeyboardInterrupt | SystemExit):
                print(f"{config.out} holds the finished rows. Continue with --append", file=sys.stderr)
        raise
    table.save()


def _study_of(config: PredictConfig, table: PredictionTable, path: Path) -> Path | str:
    """What names the study of an image, where that matters."""
    return files.study_of(path, by=config.study or "auto") if table.of_studies else path


def _check_arguments(config: PredictConfig) -> None:
    if world_size() > 1:
        raise ValueError("predict.py runs in one process; start it without torchrun")
    if config.out.suffix.lower() != ".csv" or config.out.is_dir():
        raise ValueError(f"--out is {config.out}; expected a file whose name ends in .csv")
    if config.append and config.overwrite:
        raise ValueError("--append continues the table that --overwrite would replace; pass one of them")
    if not any(map(os.path.lexists, config.images)):
        raise ValueError(f"{config.images[0]} does not exist; expected images or folders of images")
    folder = config.heatmaps
    if folder is None or not folder.exists():
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"--heatmaps is {folder}, where you may not write; pass another folder")
    if any(path.exists() and path.samefile(folder) for path in config.images):
        raise ValueError(f"--heatmaps is {folder}, which is also searched for images; pass another folder")


def _predict(
    config: PredictConfig,
    paths: list[Path],
    members: list[Member],
    table: PredictionTable,
    device: torch.device,
) -> None:
    """Add a row per image to the table, saving it now and then."""
    read = functools.partial(files.read_file, equalize=config.equalize)
    dataset = ImageDataset(paths, sizes=[member.image_size for member in members], read=read)
    workers = min(config.workers, -(-len(paths) // config.batch_size))
    loader = eval_loader(dataset, batch_size=config.batch_size, workers=workers, pin=device.type == "cuda")
    full = CPU_STEP if device.type == "cpu" else config.batch_size
    with tqdm(total=len(paths), desc="images", unit="image", leave=False) as bar:
        for images in on_device(loader, device):
            raw = [member.probs(images.by_size[member.image_size], full=full) for member in members]
            single = as_stored(np.stack(raw))
            probs = as_stored(blend(single, [member.weight for member in members]))
            unlike = _unlike(members, images, full=full)
            for index, row in enumerate(images.rows.tolist()):
                study = _study_of(config, table, paths[row])
                if images.faults[index]:
                    table.add_fault(paths[row], images.faults[index], study=study)
                    continue
                if config.heatmaps:
                    seen = [images.by_size[member.image_size][index : index + 1] for member in members]
                    result = {"single": single[:, index], "probs": probs[index], "unlike": unlike[index]}
                    _draw(config.heatmaps, paths[row], members, seen, thresholds=table.thresholds, **result)
                table.add(paths[row], probs[index], study=study, unlike=unlike[index])
            bar.update(len(images.rows))
            table.save(every=SAVE_SECONDS)


def _unlike(members: list[Member], images: Batch, *, full: int) -> list[str]:
    """The models that find each image of a batch unlike the training images, as the table names them."""
    if any(member.likeness is None for member in members):
        return [NOT_CHECKED] * len(images.rows)
    found = [member.unlike(images.by_size[member.image_size], full=full) for member in members]
    names = np.array([member.arch for member in members])
    return [" and ".join(names[by]) for by in np.transpose(found)]


def _say_what_is_not_checked(members: list[Member], run_dir: Path) -> None:
    for member in members:
        if member.likeness is None:
            path = run_dir / member.arch / likeness_file.NAME
            print(
                f"note: images unlike the training images are not marked, since {path} is missing; to make it, run "
                f"python {writer_of(path)} --run-dir {run_dir} --overwrite"
            )


def _draw(
    folder: Path,
    path: Path,
    members: list[Member],
    images: list[torch.Tensor],
    *,
    single: np.ndarray,
    probs: np.ndarray,
    unlike: str,
    thresholds: SavedThresholds,
) -> None:
    """Write a heat map per flagged finding and model of one image.

    images: what each member sees, uint8 [1, 1, S, S]; single [M, C] the members' probabilities, probs [C] the blend's;
    unlike: the members that find it unlike the training images.
    """
    flagged = np.flatnonzero(thresholds.flags(probs))
    for member, name in itertools.product(members, thresholds.classes):  # heat maps drawn at other thresholds
        (folder / heatmap_name(path, finding=name, arch=member.arch)).unlink(missing_ok=True)
    for member, image, alone in zip(members, images, single, strict=True):
        seen = prepare(image, draws=None)
        method, cells = heatmaps.best_heat(member.arch, member.image_size)
        layers, weigh = member.net.layers, heatmaps.METHODS[method]
        heats = heatmaps.class_heat(layers, seen, logits=flagged.tolist(), weigh=weigh, cells=cells)
        for c, heat in zip(flagged, heats, strict=True):
            name, threshold = thresholds.classes[c], f"threshold {thresholds.values[c]:.3f}"
            if name in thresholds.needed:
                threshold = "no threshold, flags all"
            heated = f"heat: {method}" if heat.any() else "nothing in the image supports it"
            source = f"{member.arch} (alone {alone[c]:.3f}), {heated}"
            caption = [f"{name}: probability {probs[c]:.3f}, {threshold}", source, *filter(None, [mark(unlike)])]
            target = folder / heatmap_name(path, finding=name, arch=member.arch)
            heatmaps.write_overlay(target, image[0, 0].cpu().numpy(), heat, caption=caption)


def heatmap_name(path: Path, *, finding: str, arch: str) -> str:
    """File name of a heat map: readable, safe anywhere, and its own for each image and finding."""
    digest = hashlib.sha256(f"{image_id(Path(os.path.abspath(path)))}\n{finding}".encode()).hexdigest()[:10]
    place = image_id(Path(*path.parts[-3:]).with_suffix(""))  # data sets name images by patient and study above them
    plain = (re.sub(r"[^\w.-]+", "-", text).encode()[-60:] for text in (place, finding))  # letters of any script
    parts = (part.decode(errors="ignore").strip(".-") for part in plain)
    return "_".join((*parts, arch, digest)) + files.HEATMAP_SUFFIX


def _load_members(run_dir: Path, manifest: Manifest, device: torch.device) -> tuple[list[Member], dict[str, Any]]:
    """Both models with their weights in the blend, and the digests that say which; raises ValueError on a mismatch."""
    folder, again = run_dir / "ensemble", "run ensemble_alpha_search.py --overwrite"
    refuse_busy(run_dir)
    read_stage_probs(folder, "val", manifest)  # on which the thresholds were chosen
    path = folder / "probs.json"
    story, choice = read_json(path), read_json(folder / "alpha.json")
    if choice.get("members") != list(ARCHITECTURES):
        found, expected = choice.get("members"), ", ".join(ARCHITECTURES)
        raise ValueError(f"{folder / 'alpha.json'} blends {found}; expected {expected}; {again}")
    if "weights" not in story:
        raise ValueError(f"{path} records no weights because an earlier version wrote it; {again}")
    if story["weights"] != choice.get("weights"):
        raise ValueError(f"{folder / 'alpha.json'} does not hold the weights that the blend was made with; {again}")
    calibrations = entry(story, "calibration", dict, path=path)
    members, digests = [], checkpoints_of(story, path)
    for arch, weight in zip(ARCHITECTURES, story["weights"], strict=True):
        model, checkpoint = load_best(run_dir / arch, arch=arch, manifest=manifest)
        check_blended_checkpoint(run_dir, arch, made_by=digests.get(arch, ""))
        calibration = read_calibration(calibrations.get(arch), manifest.classes, path=path)
        model = model.to(device)
        likeness = likeness_file.read_likeness(run_dir / arch, checkpoint_sha256=digests[arch])
        networks = model.folded().eval(), model.describing()
        members.append(Member(arch, *networks, checkpoint["image_size"], calibration, weight, likeness))
    origin = {"manifest_sha256": manifest.sha256, "probs_val_sha256": story["probs_sha256"]["val"]}
    origin |= {"checkpoint_sha256": digests, "weights": story["weights"]}
    origin |= {"calibration_method": {member.arch: member.calibration.method for member in members}}
    return members, origin
