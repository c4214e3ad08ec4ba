"""Whether probabilities are still those of the checkpoints of a run: asked by every stage that uses them."""

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.artifacts.io import MODELS, entry, read_json, sha256, writer_of
from src.runtime.locks import holder

COUNTED = ("uncertain", "missing", "unit", "aggregate", "no_finding")  # flags that say what metrics count
BEGUN = ".begun"  # folder of a training in its first epoch, beside the model that it will replace


def refuse_busy(run_dir: Path) -> None:
    """Raise ValueError where a model of a run is being trained or tested, saying who does it."""
    for model in MODELS:
        if busy := holder(run_dir / model):
            raise ValueError(f"{run_dir / model} is being written by {busy}; wait for it to finish, then run again")


def check_tested(folder: Path) -> dict[str, Any]:
    """What probs.json of a model says, if its best.pt made the probabilities; raises as `check_checkpoint` does."""
    path = folder / "probs.json"
    story = read_json(path)
    made_by = entry(story, "checkpoint_sha256", str, path=path)
    check_checkpoint(folder, made_by=made_by, since="tested", remedy=f"run {writer_of(path)} --overwrite")
    return story


def check_blend(run_dir: Path) -> None:
    """Raise ValueError where a model was trained or tested again since stage 5 blended it, or is about to be."""
    refuse_busy(run_dir)
    path = run_dir / "ensemble" / "probs.json"
    blended = {"members_sha256": {}, "checkpoint_sha256": []} | read_json(path)  # of other programs' files: neither
    members, made_by = entry(blended, "members_sha256", dict, path=path), checkpoints_of(blended, path)
    recorded = blended.get("members_flags") or blended.get("members_labels") or {}  # earlier versions: labels alone
    for model, digests in members.items():
        story = run_dir / model / "probs.json"
        found, flags = read_json(story) if story.exists() else {}, recorded.get(model, [])
        if found and (found.get("probs_sha256") != digests or recorded_flags(found)[: len(flags)] != flags):
            raise ValueError(f"{model} was tested again after it was blended; run {writer_of(path)} --overwrite")
        check_blended_checkpoint(run_dir, model, made_by=made_by.get(model, ""))


def checkpoints_of(blended: Mapping[str, Any], path: Path) -> dict[str, str]:
    """SHA-256 of the checkpoint of each model, as the probs.json of the blend at `path` records them."""
    return dict(zip(MODELS, entry(blended, "checkpoint_sha256", list, path=path), strict=False))


def check_blended_checkpoint(run_dir: Path, model: str, *, made_by: str) -> None:
    """`check_checkpoint` of a model that was blended."""
    scripts = [writer_of(run_dir / folder / "probs.json") for folder in (model, "ensemble")]
    remedy = f"run {scripts[0]} --overwrite, then {scripts[1]} --overwrite"
    check_checkpoint(run_dir / model, made_by=made_by, since="blended", remedy=remedy)


def check_checkpoint(folder: Path, *, made_by: str, since: str, remedy: str) -> None:
    """Raise ValueError where the best.pt of a model is not the one of SHA-256 `made_by`, which made its probabilities.

    since: what they were made for; remedy: what to run where the model was trained again. Without best.pt, it raises
    if another training left files, and warns if there is no checkpoint at all, for example because they were deleted
    to save space: the probabilities are still valid.
    """
    best, begun = folder / "best.pt", folder / BEGUN
    if best.exists():
        if sha256(best) != made_by:
            raise ValueError(f"{folder.name} was trained again after it was {since}; {remedy}")
    elif begun.exists() or (folder / "last.pt").exists():
        flag = "--resume" if begun.exists() else "--overwrite"
        raise ValueError(
            f"{best}, which the probabilities come from, is missing, and its folder holds a newer training run; run "
            f"{writer_of(best)} {flag} and then the later stages"
        )
    else:
        warnings.warn(f"{best} is missing; its probabilities are used, but predict.py needs it", stacklevel=1)


def recorded_flags(story: Mapping[str, Any]) -> list[Any]:
    """The flags of `COUNTED` in a probs.json."""
    return [story.get(key) for key in COUNTED]
