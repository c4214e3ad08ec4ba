"""Stage 4: the best checkpoint's probabilities and metrics, for both architectures."""

from pathlib import Path
from typing import Any

import torch

from src.artifacts.io import MODELS, clear, refuse_overwrite, sha256, write_json
from src.artifacts.manifest import read_manifest
from src.artifacts.probs import EvalLabels, Truth, as_stored, write_probs
from src.checkpoint import load_best
from src.config import ScoreConfig
from src.dataset import ImageDataset, eval_loader
from src.engine import predict
from src.labels.policy import LabelPolicy
from src.plots import results as plots
from src.runtime.distributed import is_main, process_group
from src.stages.label_flags import inherit_label_flags, label_flags
from src.stages.metric_tables import calibration_before_and_after, print_scores, reliability_curves, two_views
from src.stats.calibration import correct_probs
from src.train_utils import masked_bce, pick_device


def score(config: ScoreConfig) -> None:
    """Write the best checkpoint's probabilities and metrics of val and test, and print them."""
    device = pick_device(config.device)
    with process_group(device):
        _score(config, device)


def _score(config: ScoreConfig, device: torch.device) -> None:
    manifest = read_manifest(config.run_dir)
    folder = config.run_dir / config.arch
    refuse_overwrite([folder / name for name in ("probs_val.csv", "probs_test.csv")], overwrite=config.overwrite)
    model, checkpoint = load_best(folder, arch=config.arch, manifest=manifest)
    config, inherited = inherit_label_flags(config, earlier=[config.run_dir / arch / "probs.json" for arch in MODELS])
    policy = LabelPolicy.parse(**label_flags(config), classes=manifest.classes)
    views = {split: EvalLabels.of(Truth.of_split(manifest, split), policy) for split in ("val", "test")}
    print(*inherited, sep="\n", end="\n" if inherited else "")
    folded = model.to(device).folded()
    logits = {
        split: _logits(config, manifest.part(split).image_paths(), folded, checkpoint, device, title=split)
        for split in views
    }
    if not is_main():
        return
    clear(folder, "probs.json", "probs_*.csv", "metrics_*.json", "reliability_*.png")
    results = {
        split: _evaluate(config, logits[split], view, checkpoint["pos_weight"], folder, split)
        for split, view in views.items()
    }
    story = {
        "manifest_sha256": manifest.sha256,
        "checkpoint_sha256": sha256(folder / "best.pt"),
        **label_flags(config),
        "prior_correction": config.prior_correction,
        "pos_weight": dict(zip(manifest.classes, checkpoint["pos_weight"], strict=True)),
        "probs_sha256": {split: sha256(folder / f"probs_{split}.csv") for split in results},
    }
    write_json(folder / "probs.json", story)
    print_scores(config.arch, results, resamples=config.resamples)
    print(f"\nwrote to {folder}: probs_*.csv metrics_*.json reliability_*.png")


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
    dataset = ImageDataset.open(paths, size=checkpoint["image_size"], cache=config.cache, workers=config.workers)
    pin = device.type == "cuda"
    loader = eval_loader(dataset, batch_size=config.batch_size, workers=config.workers, pin=pin)
    classes = len(checkpoint["classes"])
    logits, faults = predict(model, loader, num_classes=classes, device=device, title=f"{config.arch} {title}")
    if faults:
        more = f" ({len(faults)} such images in {title})" if len(faults) > 1 else ""
        raise ValueError(f"{next(iter(faults.values()))}{more}")
    return logits


def _evaluate(
    config: ScoreConfig, logits: torch.Tensor, view: EvalLabels, pos_weight: list[float], folder: Path, split: str
) -> dict[str, Any]:
    """Write one split's probabilities, metrics and reliability diagram; returns the metrics, the loss among them."""
    targets, mask = torch.from_numpy(view.targets), torch.from_numpy(view.mask)
    loss = masked_bce(logits, targets=targets, mask=mask, pos_weight=torch.tensor(pos_weight)).item()
    raw = logits.double().sigmoid().numpy()
    corrected = correct_probs(raw, pos_weight=pos_weight)
    probs = as_stored(corrected if config.prior_correction else raw)
    metrics = two_views(probs, view, resamples=config.resamples, seed=config.seed)
    calibration = calibration_before_and_after(raw, corrected, view)
    metrics |= {"loss": loss, "calibration": calibration}
    plots.reliability(reliability_curves(raw, corrected, view), path=folder / f"reliability_{split}.png", split=split)
    write_probs(folder / f"probs_{split}.csv", ids=view.truth.ids, classes=view.truth.classes, values=probs)
    write_json(folder / f"metrics_{split}.json", metrics)
    return metrics
