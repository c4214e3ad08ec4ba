"""The story of training and of testing a model, told once for both architectures."""

import dataclasses
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from src import plots
from src.artifacts import (
    Manifest,
    claim,
    clear,
    read_json,
    read_manifest,
    sha256,
    write_json,
    write_table,
)
from src.calibration import correct_probs
from src.config import ScoreConfig, TrainConfig
from src.dataset import ImageDataset, eval_loader, train_loader
from src.early_stopping import EarlyStopping
from src.engine import Run, Split, fit, predict
from src.labels import apply_policy
from src.models import build_model
from src.probs import Truth, View, write_probs
from src.report import (
    calibration_before_and_after,
    print_calibration,
    print_two_views,
    reliability_curves,
    two_views,
)
from src.tables import format_table, with_interval
from src.train_utils import (
    build_optimizer,
    build_scheduler,
    class_pos_weight,
    load_checkpoint,
    masked_bce,
    pick_device,
    save_checkpoint,
)

OUTPUTS = ("config.json", "best.pt", "last.pt", "history.csv")
# Flags that may differ between a run and its continuation.
MAY_CHANGE = {"run_dir", "overwrite", "resume", "epochs", "patience", "workers", "device"}


def train(config: TrainConfig) -> None:
    """Fine-tune one model; leaves config, checkpoints, history and learning curves in its folder."""
    manifest = read_manifest(config.run_dir)
    folder = config.run_dir / config.arch
    recipe = _plain_dict(config) | {"manifest_sha256": manifest.sha256, "classes": list(manifest.classes)}
    earlier = _earlier_run(config, folder, recipe)
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    train_split = _split(config, manifest.part("train"), device, shuffled=True)
    val_split = _split(config, manifest.part("val"), device, shuffled=False)
    pos_weight = class_pos_weight(
        train_split.targets.cpu().numpy(),
        mask=train_split.mask.cpu().numpy(),
        classes=manifest.classes,
        limit=config.pos_weight_max,
    )
    run = _build_run(config, len(manifest.classes), device, earlier)
    _print_plan(config, train_split, val_split, run.model, device)
    if earlier is None:  # every argument has been checked by now
        clear(folder, *OUTPUTS)
    write_json(folder / "config.json", recipe)
    identity = {
        "arch": config.arch,
        "classes": list(manifest.classes),
        "image_size": config.image_size,
        "manifest_sha256": manifest.sha256,
        "pos_weight": pos_weight.tolist(),
    }
    epochs = fit(
        run,
        train=train_split,
        val=val_split,
        pos_weight=torch.from_numpy(pos_weight).to(device),
        classes=manifest.classes,
        epochs=config.epochs,
        seed=config.seed,
        augmented=config.augment,
    )
    for record, improved in epochs:
        _keep_epoch(folder, run, record, improved=improved, identity=identity)
        _print_epoch(record, improved=improved, planned=config.epochs)
    _finish(folder, run, arch=config.arch)


def score(config: ScoreConfig) -> None:
    """Write the best checkpoint's probabilities and metrics of val and test, and print them."""
    manifest = read_manifest(config.run_dir)
    folder = config.run_dir / config.arch
    claim([folder / name for name in ("probs_val.csv", "probs_test.csv")], overwrite=config.overwrite)
    checkpoint = load_checkpoint(folder / "best.pt")
    if checkpoint["arch"] != config.arch:
        raise ValueError(f"{folder / 'best.pt'} is a checkpoint of {checkpoint['arch']}; expected {config.arch}")
    if checkpoint["manifest_sha256"] != manifest.sha256:
        raise ValueError(f"{folder / 'best.pt'} was trained on another manifest than the run's; train again")
    views = {
        split: View.of(Truth.of_split(manifest, split), uncertain=config.uncertain, missing=config.missing)
        for split in ("val", "test")
    }
    device = pick_device(config.device)
    model = build_model(config.arch, num_classes=len(manifest.classes))
    model.net.load_state_dict(checkpoint["model"])
    model = model.to(device, memory_format=torch.channels_last)
    logits = {}
    for split in views:
        loader = _eval_loader(manifest.part(split), config, device, size=checkpoint["image_size"])
        logits[split] = predict(model, loader, device=device, title=f"{config.arch} {split}")
    clear(folder, "probs.json", "probs_*.csv", "metrics_*.json", "reliability_*.png")
    results = {
        split: _evaluate(config, logits[split], view, checkpoint["pos_weight"], folder, split)
        for split, view in views.items()
    }
    story = {
        "manifest_sha256": manifest.sha256,
        "checkpoint_sha256": sha256(folder / "best.pt"),
        "prior_correction": config.prior_correction,
        "pos_weight": dict(zip(manifest.classes, checkpoint["pos_weight"], strict=True)),
        "probs_sha256": {split: sha256(folder / f"probs_{split}.csv") for split in results},
    }
    write_json(folder / "probs.json", story)
    _print_scores(config.arch, results, config.resamples)
    print(f"\nwrote to {folder}: probs_*.csv metrics_*.json reliability_*.png")


def _evaluate(
    config: ScoreConfig, logits: torch.Tensor, view: View, pos_weight: list[float], folder: Path, split: str
) -> dict[str, Any]:
    """Write one split's probabilities, metrics and reliability diagram; returns the metrics, the loss among them."""
    targets, mask = torch.from_numpy(view.targets), torch.from_numpy(view.mask)
    loss = masked_bce(logits, targets=targets, mask=mask, pos_weight=torch.tensor(pos_weight)).item()
    raw = logits.double().sigmoid().numpy()
    corrected = correct_probs(raw, pos_weight=pos_weight)
    probs = corrected if config.prior_correction else raw
    metrics = two_views(probs, view, resamples=config.resamples, seed=config.seed)
    calibration = calibration_before_and_after(raw, corrected, view)
    metrics |= {"loss": loss, "calibration": calibration}
    plots.reliability(reliability_curves(raw, corrected, view), path=folder / f"reliability_{split}.png", split=split)
    write_probs(folder / f"probs_{split}.csv", ids=view.truth.ids, classes=view.truth.classes, values=probs)
    write_json(folder / f"metrics_{split}.json", metrics)
    return metrics


def _print_scores(arch: str, results: dict[str, dict[str, Any]], resamples: int) -> None:
    """The table of both splits, then per class both views and the calibration."""
    keys = ("accuracy", "auroc", "auprc")
    rows = [
        (f"{arch} ({split})", metrics["loss"], *(with_interval(metrics["macro"], key) for key in keys))
        for split, metrics in results.items()
    ]
    print(format_table(("Model", "Loss", "Accuracy", "Macro AUROC", "Macro AUPRC"), rows))
    for split, metrics in results.items():
        print_two_views(metrics, title=split, resamples=resamples)
        print_calibration(metrics["calibration"], title=split)


def _plain_dict(config: TrainConfig) -> dict[str, Any]:
    """The config as config.json holds it."""
    values = dataclasses.asdict(config)
    return {k: list(v) if isinstance(v, tuple) else str(v) if isinstance(v, Path) else v for k, v in values.items()}


def _earlier_run(config: TrainConfig, folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """What last.pt holds where --resume finds one, else None.

    Raises ValueError where outputs are there and neither flag was given, or a flag that matters has changed.
    """
    if config.resume and (folder / "last.pt").exists():
        before = read_json(folder / "config.json")
        changed = [key for key in recipe if key not in MAY_CHANGE and before.get(key) != recipe[key]]
        if changed:
            key = changed[0]
            raise ValueError(
                f"--resume: {key} was {before.get(key)} and is {recipe[key]} now; give the old value, or --overwrite"
            )
        return load_checkpoint(folder / "last.pt")
    if not config.resume or (folder / "history.csv").exists():
        claim([folder / name for name in OUTPUTS], overwrite=config.overwrite)
    return None


def _split(config: TrainConfig, part: Manifest, device: torch.device, *, shuffled: bool) -> Split:
    """Loader and labels of one split, the loss's targets under the training policy."""
    labels = part.labels()
    targets, mask = apply_policy(labels, uncertain=config.uncertain, missing=config.missing, classes=part.classes)
    if not mask.any():
        raise ValueError("no label of a split takes part in the loss: all are blank or uncertain; see --missing")
    if shuffled:
        dataset = ImageDataset(_paths(part), size=config.image_size)
        pin = device.type == "cuda"
        loader = train_loader(dataset, batch_size=config.batch_size, seed=config.seed, workers=config.workers, pin=pin)
    else:
        loader = _eval_loader(part, config, device, size=config.image_size)
    return Split(loader, torch.from_numpy(targets).to(device), torch.from_numpy(mask).to(device))


def _eval_loader(part: Manifest, config: TrainConfig | ScoreConfig, device: torch.device, *, size: int):
    dataset = ImageDataset(_paths(part), size=size)
    return eval_loader(dataset, batch_size=config.batch_size, workers=config.workers, pin=device.type == "cuda")


def _paths(part: Manifest) -> list[Path]:
    return [part.image_root / name for name in part.table["image_id"]]


def _build_run(config: TrainConfig, num_classes: int, device: torch.device, earlier: dict[str, Any] | None) -> Run:
    """Model, optimizer, scheduler and early stopping, as they were in an earlier run where there is one."""
    weights = config.weights if earlier is None else "none"
    model = build_model(config.arch, num_classes=num_classes, unfreeze=config.unfreeze, weights=weights)
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = build_optimizer(model, lr=config.lr, weight_decay=config.weight_decay)
    scheduler = build_scheduler(optimizer, factor=config.lr_factor, patience=config.lr_patience)
    run = Run(model, optimizer, scheduler, EarlyStopping(config.patience))
    if earlier is not None:
        run.load_state_dict(earlier)
        print(f"resuming after epoch {len(run.history)}")
    return run


def _keep_epoch(folder: Path, run: Run, record: dict, *, improved: bool, identity: dict[str, Any]) -> None:
    """Write best.pt where the score is the best so far, then history and last.pt."""
    if improved:
        best = {"model": run.model.net.state_dict(), "epoch": record["epoch"], "score": record["val_auprc"]}
        clear(folder, "probs.json")  # its probabilities are those of an older best.pt
        save_checkpoint(folder / "best.pt", identity | best)
    write_table(folder / "history.csv", pd.DataFrame(run.history))
    save_checkpoint(folder / "last.pt", run.state_dict())


def _finish(folder: Path, run: Run, *, arch: str) -> None:
    """Draw the learning curves and say which epoch was kept."""
    history = pd.DataFrame(run.history)
    defined = history["val_auprc"].notna().any()
    best = history.loc[history["val_auprc"].idxmax()] if defined else history.iloc[-1]
    paths = plots.learning_curves(history, folder=folder, title=arch)
    print(f"best: epoch {best['epoch']:.0f}, val AUPRC {best['val_auprc']:.4f}, val AUROC {best['val_auroc']:.4f}")
    print("wrote", folder / "best.pt", *paths)


def _print_plan(config: TrainConfig, train: Split, val: Split, model: torch.nn.Module, device: torch.device) -> None:
    """One line on what is about to train, and a note where frozen layers are random."""
    total = sum(p.numel() for p in model.parameters())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(
        f"{config.arch} on {device}: {len(train.targets):,} training and {len(val.targets):,} validation images of "
        f"{config.image_size} px, {trainable / 1e6:.1f} of {total / 1e6:.1f} million weights train"
    )
    if config.weights == "none" and trainable < total:
        print("note: --weights none leaves the frozen layers random; unfreeze all of them to train from scratch")


def _print_epoch(record: dict[str, float], *, improved: bool, planned: int) -> None:
    print(
        f"epoch {record['epoch']}/{planned}  train loss {record['train_loss']:.4f}  val loss {record['val_loss']:.4f}  "
        f"val AUROC {record['val_auroc']:.4f}  val AUPRC {record['val_auprc']:.4f}  lr {record['lr']:.1e}"
        f"{'  *' if improved else ''}",
        flush=True,
    )
