"""Stage 4: the best checkpoint's probabilities and metrics, for both architectures."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch

from src.artifacts import likeness_file
from src.artifacts.calibration_record import Calibration
from src.artifacts.io import MODELS, as_stored, clear, refuse_overwrite, sha256, write_json
from src.artifacts.manifest import Manifest
from src.artifacts.probs import write_probs
from src.artifacts.truth import EvalLabels, Truth
from src.checkpoint import load_best
from src.config import ScoreConfig
from src.dataset import ImageDataset, Loader, eval_loader
from src.engine import predict
from src.models import ChestNet
from src.plots import results as plots
from src.runtime.distributed import is_main, process_group
from src.runtime.locks import exclusive
from src.stages.inherited_flags import counted, flags_of, inherit_flags, policy_of, units_of
from src.stages.metric_tables import (
    all_views,
    calibration_before_and_after,
    print_fit,
    print_scores,
    reliability_curves,
)
from src.stages.opening import open_manifest
from src.stats.calibration import correct_probs
from src.stats.calibration_maps import fit_maps
from src.stats.likeness import Likeness
from src.train_utils import masked_bce, pick_device

MOST_FEATURES = 5000  # images of a split by which new ones are compared with the training images


def score(config: ScoreConfig) -> None:
    """Write the best checkpoint's probabilities and metrics of every split but train, and print them."""
    device = pick_device(config.device)
    with process_group(device):
        _score(config, device)


def _score(config: ScoreConfig, device: torch.device) -> None:
    manifest = open_manifest(config.run_dir)
    folder = config.run_dir / config.arch
    refuse_overwrite([folder / name for name in ("probs_val.csv", "probs_test.csv")], overwrite=config.overwrite)
    with exclusive(folder) if is_main() else nullcontext():
        _score_folder(config, manifest, folder, device)


def _score_folder(config: ScoreConfig, manifest: Manifest, folder: Path, device: torch.device) -> None:
    """Score the best checkpoint of a folder that nobody else writes to."""
    model, checkpoint = load_best(folder, arch=config.arch, manifest=manifest)
    config, inherited = inherit_flags(config, earlier=[config.run_dir / arch / "probs.json" for arch in MODELS])
    policy = policy_of(config, manifest.classes)
    policy.check_hard()
    truths = {split: counted(config, Truth.of_split(manifest, split)) for split in manifest.scored}
    print(*inherited, sep="\n", end="\n" if inherited else "")
    folded = model.to(device).folded()
    paths = {split: manifest.part(split).image_paths() for split in ("train", *truths)}
    logits = {split: _logits(config, paths[split], folded, checkpoint, device, title=split) for split in truths}
    features = [_features(config, paths[split], model, checkpoint, device) for split in ("train", "val")]
    if not is_main():
        return
    images = {split: EvalLabels.of(truth, policy) for split, truth in truths.items()}
    calibration, kept = _calibrate(config, logits["val"], images["val"], checkpoint["pos_weight"])
    clear(folder, "probs.json", "probs_*.csv", "metrics_*.json", "reliability_*.png", likeness_file.NAME)
    shared: Any = {"pos_weight": checkpoint["pos_weight"], "calibration": calibration, "folder": folder}
    results = {split: _evaluate(config, logits[split], images[split], split=split, **shared) for split in truths}
    digest = sha256(folder / "best.pt")
    likeness_file.write_likeness(folder, Likeness.fit(features[0], val=features[1]), checkpoint_sha256=digest)
    story = {
        "manifest_sha256": manifest.sha256,
        "checkpoint_sha256": digest,
        **flags_of(config),
        "calibration": calibration.as_json(),
        "probs_sha256": {split: sha256(folder / f"probs_{split}.csv") for split in results},
    }
    write_json(folder / "probs.json", story)
    print_scores(config.arch, results, resamples=config.resamples)
    print_fit(calibration, kept, results["val"])
    print(f"\nwrote to {folder}: probs_*.csv metrics_*.json reliability_*.png {likeness_file.NAME}")


def _logits(
    config: ScoreConfig,
    paths: list[Path],
    model: torch.nn.Module,
    checkpoint: dict[str, Any],
    device: torch.device,
    *,
    title: str,
) -> torch.Tensor:
    """Logits [N, C] of a split; raises ValueError where an image cannot be read, since each needs its probability."""
    loader = _loader(config, paths, checkpoint, device)
    classes = len(checkpoint["classes"])
    logits, faults = predict(model, loader, width=classes, device=device, title=f"{config.arch} {title}")
    if faults:
        more = f" ({len(faults)} such images in {title})" if len(faults) > 1 else ""
        raise ValueError(f"{next(iter(faults.values()))}{more}")
    return logits


def _loader(config: ScoreConfig, paths: list[Path], checkpoint: dict[str, Any], device: torch.device) -> Loader:
    dataset = ImageDataset.open(paths, size=checkpoint["image_size"], cache=config.cache, workers=config.workers)
    pin = device.type == "cuda"
    return eval_loader(dataset, batch_size=config.batch_size, workers=config.workers, pin=pin)


def _features(
    config: ScoreConfig, paths: list[Path], model: ChestNet, checkpoint: dict[str, Any], device: torch.device
) -> np.ndarray:
    """Features [N, K] of a sample of a split, without the images that cannot be read."""
    sample = np.random.default_rng(0).permutation(len(paths))[:MOST_FEATURES]
    describe = model.describing()
    loader = _loader(config, [paths[row] for row in sorted(sample)], checkpoint, device)
    title = f"{config.arch} features"
    features, faults = predict(describe, loader, width=describe.width(), device=device, title=title)
    return np.delete(features.numpy(), list(faults), axis=0)


def _calibrate(
    config: ScoreConfig, logits: torch.Tensor, images: EvalLabels, pos_weight: list[float]
) -> tuple[Calibration, dict[str, str]]:
    """The calibration, as fitted to the units of val, and for each class that keeps to the prior correction, why.

    Fitted on val where there is a calib, too: its labels are for the thresholds alone, and the ranks of a blend depend
    on the maps of its members. The maximum over the images of a study is the same before and after a map that rises.
    """
    units = units_of(config, images.truth)
    view = EvalLabels.of(units.truth, policy_of(config, images.truth.classes))
    raw, method = units.probs(_raw(logits)), config.calibration_method
    maps, kept = fit_maps(method, raw, **view.arrays(), pos_weight=pos_weight)
    return Calibration(method, images.truth.classes, tuple(maps)), kept


def _raw(logits: torch.Tensor) -> np.ndarray:
    return logits.double().sigmoid().numpy()


def _evaluate(
    config: ScoreConfig,
    logits: torch.Tensor,
    images: EvalLabels,
    *,
    pos_weight: list[float],
    calibration: Calibration,
    folder: Path,
    split: str,
) -> dict[str, Any]:
    """Write one split's probabilities, and the metrics and reliability diagram of its units; returns the metrics.

    The loss among them is that of the images, as in training.
    """
    targets, mask = torch.from_numpy(images.targets), torch.from_numpy(images.mask)
    loss = masked_bce(logits, targets=targets, mask=mask, pos_weight=torch.tensor(pos_weight)).item()
    raw = _raw(logits)
    probs = as_stored(calibration.apply(raw))
    write_probs(folder / f"probs_{split}.csv", ids=images.truth.ids, classes=images.truth.classes, values=probs)
    units = units_of(config, images.truth)
    view = EvalLabels.of(units.truth, policy_of(config, images.truth.classes))
    method, after = calibration.method, probs
    if method == "none":  # what the prior correction would have brought
        method, after = "prior", correct_probs(raw, pos_weight=pos_weight)
    probs, raw, after = units.probs(probs), units.probs(raw), units.probs(after)
    metrics = {"unit": config.unit} | all_views(probs, view, resamples=config.resamples, seed=config.seed)
    metrics |= {"loss": loss, "calibration": calibration_before_and_after(raw, after, view, method=method)}
    curves = reliability_curves(raw, after, view, method=method)
    plots.reliability(curves, path=folder / f"reliability_{split}.png", split=split)
    write_json(folder / f"metrics_{split}.json", metrics)
    return metrics
