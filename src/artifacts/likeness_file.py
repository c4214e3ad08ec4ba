"""The file that says which images are unlike the training images, beside the checkpoint whose features it is about."""

import zipfile
from pathlib import Path

import numpy as np

from src.artifacts.io import atomic_path, writer_of
from src.stats.likeness import Likeness

NAME = "training_features.npz"


def write_likeness(folder: Path, likeness: Likeness, *, checkpoint_sha256: str) -> None:
    """Write the file of a model's folder; the same content makes the same bytes."""
    with atomic_path(folder / NAME) as temporary:
        np.savez(
            temporary,
            checkpoint_sha256=np.array(checkpoint_sha256),
            mean=likeness.mean,
            scale=likeness.scale,
            precision=likeness.precision,
            threshold=np.array(likeness.threshold),
        )


def read_likeness(folder: Path, *, checkpoint_sha256: str) -> Likeness | None:
    """Read the file of a model's folder; None if it does not exist, since earlier versions wrote none.

    Raises ValueError where it is corrupt, or was made from another checkpoint.
    """
    path = folder / NAME
    again = f"run {writer_of(path)} --overwrite"
    try:
        with np.load(path, allow_pickle=False) as content:
            made_from = str(content["checkpoint_sha256"])
            mean, scale, precision, threshold = (
                content[name].astype(np.float64) for name in ("mean", "scale", "precision", "threshold")
            )
    except FileNotFoundError:
        return None
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError) as error:
        raise ValueError(f"{path} is corrupt ({type(error).__name__}); {again}") from None
    if made_from != checkpoint_sha256:
        raise ValueError(f"{path} was made from a different checkpoint than {folder / 'best.pt'}; {again}")
    count = mean.size
    shapes = (mean.shape, scale.shape, precision.shape, threshold.shape)
    finite = all(np.isfinite(array).all() for array in (mean, scale, precision, threshold))
    if shapes != ((count,), (count,), (count, count), ()) or not finite or not (scale > 0).all():
        raise ValueError(f"{path} does not hold what {writer_of(path)} writes; {again}")
    return Likeness(mean, scale, precision, float(threshold))
