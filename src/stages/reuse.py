"""What else was chosen or fitted on the split on which thresholds are certified, and what that costs the promise."""

from pathlib import Path
from typing import Any

from src.artifacts.io import MODELS, is_number, read_json
from src.artifacts.truth import EvalSplit
from src.config import ThresholdConfig
from src.runtime.tables import plural

FEW_CLASSES = 3  # with so few, choosing epoch, alpha and thresholds on one split costs more than a point of confidence

MAYBE = "the model may have been chosen on val too"


def notes_on_reuse(config: ThresholdConfig, split: EvalSplit, *, of_run: bool) -> list[str]:
    """Lines to print where thresholds are certified on val; `of_run` says that the run's own blend is."""
    if config.rule != "certified" or split.name != "val":
        return []
    begin, remedy = MAYBE, "choose thresholds on separate data"
    if of_run:
        begin, remedy = _chosen_on_val(config.run_dir), "make a split calib (check_split.py --calibration)"
    classes, notes = len(split.view.truth.classes), []
    reasons = [plural(classes, "finding")] if classes <= FEW_CLASSES else []
    if of_run:
        siblings = _siblings(config.run_dir)
        reasons += [f"{plural(siblings, 'other run')} of this split to choose from"] if siblings else []
        compared = _compared_runs(config.run_dir)
        reasons += [f"flags of {model} chosen as the best of {plural(runs, 'run')}" for model, runs in compared.items()]
    if reasons:
        cost = "that costs some of the confidence (docs/recall_coverage.md)"
        notes.append(f"note: {begin}. With {' and '.join(reasons)}, {cost}; to avoid it, {remedy}")
    if of_run and _isotonic_blend(config.run_dir):
        notes.append(
            "warning: both models were calibrated on val too, by isotonic regression, by which the positives of val "
            "look better in a blend than those of new patients; in simulations a promise at 95% was kept in 89% to 94% "
            f"of the cases (docs/calibration.md). Test with --calibration-method platt, or {remedy}"
        )
    return notes


def _chosen_on_val(run_dir: Path) -> str:
    """What the run chose on val before its thresholds."""
    story = read_json(run_dir / "ensemble" / "probs.json")
    if "members" not in story:
        return "epoch and alpha were chosen on val too"
    return "the weights of the blend were chosen on val too" if len(story["weights"]) > 1 else MAYBE


def _compared_runs(run_dir: Path) -> dict[str, int]:
    """Of the models whose flags were chosen among several runs, as tune.py does, how many these were."""
    paths = {model: run_dir / model / "config.json" for model in MODELS}
    found = {model: read_json(path).get("compared_runs", 1) for model, path in paths.items() if path.exists()}
    return {model: int(runs) for model, runs in found.items() if is_number(runs) and runs > 1}


def _isotonic_blend(run_dir: Path) -> bool:
    """Whether the blend adds up probabilities of several models that isotonic regression made."""
    story = read_json(run_dir / "ensemble" / "probs.json")
    methods = [found.get("method") for found in story.get("calibration", {}).values()]
    return "isotonic" in methods and sum(weight > 0 for weight in story["weights"]) > 1


def _siblings(run_dir: Path) -> int:
    """How many other runs beside this one have a blend of the same manifest, from which this one may be chosen."""
    digest = read_json(run_dir / "manifest.json").get("manifest_sha256")
    stories = run_dir.resolve().parent.glob("*/ensemble/probs.json")
    others = [path for path in stories if path.parent.parent != run_dir.resolve()]
    return sum(_manifest_of(path) == digest for path in others)


def _manifest_of(path: Path) -> Any:
    """The manifest that a probs.json records; None where the file of another run cannot be read."""
    try:
        return read_json(path).get("manifest_sha256")
    except (ValueError, OSError):
        return None
