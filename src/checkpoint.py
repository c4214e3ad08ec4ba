"""Checkpoints: written in one step, read without running what is in them."""

import errno
import io
import pickle
from pathlib import Path
from typing import Any

import torch

from src.artifacts.io import atomic_path, writer_of
from src.artifacts.manifest import Manifest
from src.models import ATTENTION, ChestNet, build_model
from src.runtime.system_errors import in_words

BEST_KEYS = ("model", "classes", "image_size", "manifest_sha256", "pos_weight")


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values in one step; the same state makes the same bytes.

    Raises ValueError, and leaves the file as it was, where the system does not let it be written.
    """
    content = io.BytesIO()  # a file's name would be stored, and torch hides why a file cannot be written
    torch.save(state, content)
    try:
        with atomic_path(path) as temporary, open(temporary, "wb") as stream:
            stream.write(content.getbuffer())
    except OSError as error:
        raise ValueError(
            f"{path} cannot be written ({in_words(error)}); fix that, then run again with --resume"
        ) from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint to the CPU with `weights_only=True`, so that it cannot run code.

    Raises ValueError where it is missing, damaged or holds anything but tensors and plain values.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run {writer_of(path)} first") from None
    except (OSError, pickle.UnpicklingError, RuntimeError, EOFError, LookupError, ValueError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which torch gets where a file was cut off
            raise ValueError(f"{path} cannot be read ({in_words(error)})") from None
        raise ValueError(
            f"{path} is corrupt, or not written by this program ({type(error).__name__}); train again with --overwrite"
        ) from None
    if not isinstance(state, dict):
        raise ValueError(
            f"{path} holds a {type(state).__name__}; expected a checkpoint written by this program; train again"
        )
    return state


def load_best(folder: Path, *, arch: str, manifest: Manifest | None = None) -> tuple[ChestNet, dict[str, Any]]:
    """The model of a folder's best.pt, on the CPU in eval mode, and what else the file holds.

    That is arch, attention, classes, image_size, manifest_sha256, pos_weight, epoch and score. Raises ValueError where
    it is missing, damaged, of another architecture or, where a manifest is given, of another one.
    """
    path = Path(folder) / "best.pt"
    checkpoint = load_checkpoint(path)
    if checkpoint.get("arch") != arch:
        raise ValueError(f"{path} is a checkpoint of {checkpoint.get('arch')}; expected {arch}")
    absent = [key for key in BEST_KEYS if key not in checkpoint]
    if absent:
        raise ValueError(f"{path} has no {absent[0]!r}, which {writer_of(path)} writes; train again")
    if manifest is not None:
        trained_on = checkpoint["manifest_sha256"], tuple(checkpoint["classes"])
        if trained_on != (manifest.sha256, manifest.classes):
            raise ValueError(f"{path} was trained on a different manifest than the run's; train again")
    attention = checkpoint.get("attention", "none")  # which earlier versions did not have
    if attention not in ("none", *ATTENTION):
        raise ValueError(
            f"{path}: its attention is {attention!r}; expected {', '.join(ATTENTION)} or none; train again"
        )
    with torch.device("meta"):  # skips drawing random weights, which those of the checkpoint replace
        model = build_model(arch, num_classes=len(checkpoint["classes"]), attention=attention)
    model.to_empty(device="cpu")
    try:
        model.net.load_state_dict(checkpoint.pop("model"))
    except (RuntimeError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold the weights of {arch} ({reason}); train again") from None
    return model.eval(), checkpoint
