"""Stage 5: blend the models, with weights chosen on validation alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.calibration_record import Calibration, read_calibration
from src.artifacts.io import MODELS, as_stored, clear, refuse_overwrite, sha256, write_json, write_table
from src.artifacts.lineage import check_tested, recorded_flags, refuse_busy
from src.artifacts.probs import Probs, read_outside_probs, read_stage_probs, write_probs
from src.artifacts.truth import EvalLabels, Truth, Units, read_truth, respelled_patients
from src.config import AlphaConfig
from src.evaluate import masked_metrics
from src.plots import results as plots
from src.runtime.csv_files import table_name
from src.runtime.locks import exclusive
from src.runtime.tables import format_table, plural, undefined_note, with_interval
from src.stages.inherited_flags import flags_of, inherit_flags, policy_of, units_of
from src.stages.metric_tables import all_views
from src.stages.opening import open_manifest
from src.stats.bootstrap import bootstrap_metrics, interval, with_intervals
from src.stats.ensemble import alpha_grid, blend, choose_alpha, greedy_weights

OUTPUTS = ("probs.json", "probs_*.csv", "metrics_*.json", "alpha*")
BLENDS = ENSEMBLE, RAW, MEAN = ("ensemble", "ensemble of raw sigmoids", "plain mean")


@dataclass(frozen=True)
class Members:
    """What is blended: probabilities [M, N, C] per split, the truth of each, and where they come from."""

    names: tuple[str, ...]
    stacks: dict[str, np.ndarray]
    truths: dict[str, Truth]
    origin: dict[str, Any]
    raw_test: np.ndarray | None = None  # [M, N, C] the raw sigmoid, where a calibration can be undone


@dataclass(frozen=True)
class Counted:
    """The units of a split and their labels: what the metrics count."""

    units: Units
    view: EvalLabels

    def score(self, probs: np.ndarray) -> dict[str, Any]:
        """`masked_metrics` of the units, from probabilities of the images [N, C]."""
        return masked_metrics(self.units.probs(probs), **self.view.arrays())


def search_alpha(config: AlphaConfig) -> None:
    """Choose the weights on validation, write the blend, and print how it does on test."""
    folder = config.run_dir / "ensemble"
    refuse_overwrite([folder / "alpha.json", folder / "probs_val.csv"], overwrite=config.overwrite)
    outside = bool(config.members or config.labels)
    members = _outside(config) if outside else _of_run(config.run_dir)
    earlier = [] if outside else [config.run_dir / model / "probs.json" for model in MODELS]
    config, inherited = inherit_flags(config, earlier=earlier)
    policy = policy_of(config, members.truths["val"].classes)
    units = {split: units_of(config, truth) for split, truth in members.truths.items()}
    counted = {split: Counted(one, EvalLabels.of(one.truth, policy)) for split, one in units.items()}
    print(*inherited, sep="\n", end="\n" if inherited else "")
    with exclusive(folder):
        _write_blend(config, members, counted)


def _write_blend(config: AlphaConfig, members: Members, counted: dict[str, Counted]) -> None:
    """Choose the weights, write what they give, and print it."""
    folder = config.run_dir / "ensemble"
    choose = _choose_alpha if len(members.names) == 2 else _choose_weights
    weights = choose(config, members.names, members.stacks["val"], counted["val"])
    choice = {"members": members.names, "weights": weights, "select": config.select, "step": config.step}
    choice["alpha"] = weights[0] if len(weights) == 2 else None
    blended = {split: as_stored(blend(stack, weights)) for split, stack in members.stacks.items()}
    for split, probs in blended.items():
        truth = members.truths[split]
        write_probs(folder / f"probs_{split}.csv", ids=truth.ids, classes=truth.classes, values=probs)
    digests = {split: sha256(folder / f"probs_{split}.csv") for split in members.stacks}
    story = members.origin | flags_of(config) | {"probs_sha256": digests, "weights": weights}
    write_json(folder / "probs.json", story)
    write_json(folder / "alpha.json", choice)
    split = "test" if "test" in members.stacks else "val"
    _compare(config, members, weights, counted, split)
    probs, view = counted[split].units.probs(blended[split]), counted[split].view
    metrics = all_views(probs, view, resamples=config.resamples, seed=config.seed)
    write_json(folder / f"metrics_{split}.json", {"unit": config.unit} | metrics)
    print(f"wrote to {folder}:", *sorted(path.name for pattern in OUTPUTS for path in folder.glob(pattern)))


def _of_run(run_dir: Path) -> Members:
    """Both models' probabilities of every split, as the test scripts left them."""
    manifest = open_manifest(run_dir)
    refuse_busy(run_dir)
    truths = {split: Truth.of_split(manifest, split) for split in manifest.scored}
    stacks = {
        split: np.stack(
            [read_stage_probs(run_dir / m, split, manifest).aligned(truth.ids, truth.classes) for m in MODELS]
        )
        for split, truth in truths.items()
    }
    stories = [check_tested(run_dir / model) for model in MODELS]
    calibrated = _calibrations(run_dir, stories, manifest.classes)
    raw = None
    if all(calibration.can_be_undone for calibration in calibrated):
        raw = np.stack([one.undo(probs) for one, probs in zip(calibrated, stacks["test"], strict=True)])
    origin = {
        "manifest_sha256": manifest.sha256,
        "checkpoint_sha256": [story["checkpoint_sha256"] for story in stories],
        "members_sha256": {model: story["probs_sha256"] for model, story in zip(MODELS, stories, strict=True)},
        "members_flags": {model: recorded_flags(story) for model, story in zip(MODELS, stories, strict=True)},
        "calibration": {model: one.as_json() for model, one in zip(MODELS, calibrated, strict=True)},
    }
    return Members(tuple(MODELS), stacks, truths, origin, raw)


def _calibrations(run_dir: Path, stories: list[dict[str, Any]], classes: tuple[str, ...]) -> list[Calibration]:
    """How each model was calibrated; raises ValueError where they were by different methods."""
    found = [
        read_calibration(story.get("calibration"), classes, path=run_dir / model / "probs.json")
        for model, story in zip(MODELS, stories, strict=True)
    ]
    if len({calibration.method for calibration in found}) > 1:
        methods = " and ".join(f"{one.method} for {model}" for model, one in zip(MODELS, found, strict=True))
        raise ValueError(f"--calibration-method was {methods}; run both test scripts with the same one")
    return found


def _outside(config: AlphaConfig) -> Members:
    """Probability files from another program, beside the labels that were named, else the manifest's."""
    if not config.members:
        raise ValueError("--labels needs --members; name the files of probabilities with --members")
    if len(set(config.members)) < len(config.members):
        raise ValueError(f"--members {' '.join(map(str, config.members))} names a file twice; name each once")
    beside = _beside_labels(config, config.labels) if config.labels else _beside_manifest(config)
    files, truths, others, origin = beside
    stacks = {
        split: np.stack([probs.aligned(truth.ids, truth.classes, others=others) for probs in files])
        for split, truth in truths.items()
    }
    names = [table_name(path) for path in config.members]
    if len({*names, *BLENDS}) < len(names) + len(BLENDS):
        names = [str(path) for path in config.members]
    origin |= {"members": {str(path): sha256(path) for path in config.members}}
    return Members(tuple(names), stacks, truths, origin)


# The files, the labels of each split, the ids that the files may have beyond them, and where the labels come from.
Beside = tuple[list[Probs], dict[str, Truth], set[str], dict[str, Any]]


def _beside_labels(config: AlphaConfig, labels: Path) -> Beside:
    """The members as val, under the ids of a file of labels."""
    files = [read_outside_probs(path) for path in config.members]
    truth, understood = read_truth(labels, files[0].classes)
    files = [probs.known_as(truth.ids) for probs in files]
    print(*(probs.said for probs in files), *understood, *respelled_patients(truth), sep="\n")
    return files, {"val": truth}, set(), {"labels": sha256(labels)}


def _beside_manifest(config: AlphaConfig) -> Beside:
    """The members under the ids of the manifest, in its splits; ValueError if the run has none."""
    if not (config.run_dir / "manifest.csv").exists():
        raise ValueError(
            f"--members needs labels: pass --labels, or run check_split.py --run-dir {config.run_dir} first, which "
            "splits them by patient"
        )
    manifest = open_manifest(config.run_dir)
    ids = manifest.table["image_id"].tolist()
    files = [read_outside_probs(path, asked=manifest.classes).known_as(ids) for path in config.members]
    print(*(probs.said for probs in files), sep="\n")
    truths = {split: Truth.of_split(manifest, split) for split in manifest.scored}
    known = set(ids)
    if manifest.filters:  # the files may have what these left out
        for probs in files:
            left_out = set(probs.ids) - known
            print(f"{probs.path}: {len(left_out):,} of {plural(len(probs.ids), 'id')} are not in the manifest")
        known = known.union(*(probs.ids for probs in files))
    return files, truths, known, {"manifest_sha256": manifest.sha256}


def _choose_alpha(config: AlphaConfig, names: tuple[str, ...], stack: np.ndarray, val: Counted) -> list[float]:
    """Search the grid, write, draw and print it; returns the weights of both members."""
    alphas = alpha_grid(config.step)
    blends = [blend(stack, (alpha, 1 - alpha)) for alpha in alphas]
    macros = [val.score(probs)["macro"] for probs in blends]
    keys = ("accuracy", "auroc", "auprc")
    table = pd.DataFrame({"alpha": alphas, **{key: [macro[key] for macro in macros] for key in keys}})
    if not np.isfinite(table["auprc"]).any():
        raise ValueError("no class has both labels in val, so no alpha can be chosen; see check_split.py")
    best = int(table["auprc"].argmax())
    chosen, errors = best, None
    if config.select == "one-se":
        if not config.resamples:
            raise ValueError("--select one-se needs resamples; raise --resamples or pass --select best")
        errors = _standard_errors(config, val, blends, best)
        chosen = choose_alpha(alphas, table["auprc"].to_numpy(), errors)
        table["standard_error"] = errors
    folder = _cleared(config)
    write_table(folder / "alpha_search.csv", table)
    path = folder / "alpha_search.png"
    plots.alpha_curve(table, chosen=alphas[chosen], path=path, standard_error=errors, members=names)
    print(f"p = alpha * {names[0]} + (1 - alpha) * {names[1]}")
    headers = ("alpha", "Val Accuracy", "Val Macro AUROC", "Val Macro AUPRC")
    print(format_table(headers, table[["alpha", *keys]].itertuples(index=False), digits=4))
    rule = "best validation AUPRC" if errors is None else "nearest 0.5 within one standard error of the best"
    print(f"chosen: alpha {alphas[chosen]:g} ({rule}; best: {alphas[best]:g})\n")
    return [float(alphas[chosen]), float(1 - alphas[chosen])]


def _cleared(config: AlphaConfig) -> Path:
    """The folder of the blend, without what an earlier run left; called when nothing can be refused any more."""
    folder = config.run_dir / "ensemble"
    clear(folder, *OUTPUTS)
    return folder


def _standard_errors(config: AlphaConfig, val: Counted, blends: list[np.ndarray], best: int) -> np.ndarray:
    """Standard error of (best AUPRC - AUPRC) per alpha, by paired patient bootstrap: [A] float64.

    A resample that lacks one label of a class still tells of the other classes: it averages over those.
    """
    per_class = [_replicates(config, probs, val)["per_class"] for probs in blends]
    auprc = np.array([[values["auprc"] for values in one.values()] for one in per_class])  # [A, C, R]
    defined = ~np.isnan(auprc[best])  # [C, R], the same for every alpha
    usable = defined.any(axis=0)
    if usable.sum() < 2:
        raise ValueError("too few resamples have both labels of a class; raise --resamples or pass --select best")
    gaps = np.where(defined, auprc[best] - auprc, 0).sum(axis=1)[:, usable] / defined.sum(axis=0)[usable]
    return gaps.std(axis=1, ddof=1)


def _choose_weights(config: AlphaConfig, names: tuple[str, ...], stack: np.ndarray, val: Counted) -> list[float]:
    """Greedy forward selection by validation macro AUPRC; prints and returns the weights."""

    def macro(probs: np.ndarray) -> dict[str, float]:
        return val.score(probs)["macro"]

    weights = greedy_weights(stack, score=lambda probs: macro(probs)["auprc"]).tolist()
    _cleared(config)
    keys = ("accuracy", "auroc", "auprc")
    rows = [(name, w, *(macro(p)[key] for key in keys)) for name, w, p in zip(names, weights, stack, strict=True)]
    headers = ("Member", "Weight", "Val Accuracy", "Val Macro AUROC", "Val Macro AUPRC")
    print(format_table(headers, rows, digits=4), end="\n\n")
    return weights


def _compare(
    config: AlphaConfig, members: Members, weights: list[float], counted: dict[str, Counted], split: str
) -> None:
    """Print members and ensemble side by side, and paired differences."""
    stack, here = members.stacks[split], counted[split]
    blends = {ENSEMBLE: as_stored(blend(stack, weights))}
    if members.raw_test is not None and split == "test":
        blends[RAW] = blend(members.raw_test, weights)
    blends[MEAN] = stack.mean(axis=0)
    candidates = dict(zip(members.names, stack, strict=True)) | (blends if len(stack) > 1 else {})
    metrics = {name: here.score(probs) for name, probs in candidates.items()}
    replicates = {}
    if config.resamples:
        replicates = {name: _replicates(config, probs, here) for name, probs in candidates.items()}
        metrics = {name: with_intervals(metrics[name], replicates[name]) for name in candidates}
    headers = [f"{split.capitalize()} {what}" for what in ("Accuracy", "Macro AUROC", "Macro AUPRC")]
    rows = [(name, *(with_interval(m["macro"], key) for key in ("accuracy", "auroc", "auprc")))
            for name, m in metrics.items()]  # fmt: skip
    print(format_table(("Model", *headers), rows))
    if replicates:
        print(undefined_note(metrics[members.names[0]]["macro"], config.resamples), end="")
    if replicates and len(stack) > 1:
        single = [counted["val"].score(p)["macro"]["auprc"] for p in members.stacks["val"]]
        better = members.names[int(np.argmax(single))]
        _print_differences(better, metrics, replicates, split)


def _print_differences(better: str, metrics: dict, replicates: dict, split: str) -> None:
    """Paired intervals of what the choice and the ensemble gain in macro AUPRC; `better` was so on validation."""
    for text, name in (
        (f"chosen minus the {MEAN} (alpha 0.5 of two)", MEAN),
        (f"ensemble minus the better single model on val, {better}", better),
    ):
        gain = metrics[ENSEMBLE]["macro"]["auprc"] - metrics[name]["macro"]["auprc"]
        low, high = interval(replicates[ENSEMBLE]["macro"]["auprc"] - replicates[name]["macro"]["auprc"])
        print(f"{text}: {split} macro AUPRC {gain:+z.4f} [{low:+z.4f}, {high:+z.4f}]")


def _replicates(config: AlphaConfig, probs: np.ndarray, counted: Counted) -> dict:
    options: dict[str, Any] = {"resamples": config.resamples, "seed": config.seed}
    patients = counted.view.truth.patients
    return bootstrap_metrics(counted.units.probs(probs), **counted.view.arrays(), patients=patients, **options)
