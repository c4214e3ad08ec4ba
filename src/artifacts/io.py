"""How the files that pass between stages are written in one step and read with checks."""

import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import pandas as pd

from src.runtime.csv_files import read_table, require_columns

MODELS = {"resnet50": "resnet", "efficientnet_b1": "efficientnet"}  # folder of each: how its two scripts are called


def writer_of(path: Path) -> str:
    """The script that writes a file of a run."""
    folder, name = Path(path).parent.name, Path(path).name
    if name.startswith(("manifest.", "context.")):
        return "check_split.py"
    if folder in MODELS:
        tested = name.startswith(("probs", "metrics", "reliability", "training_features"))
        return f"{'test' if tested else 'train'}_{MODELS[folder]}.py"
    if folder == "ensemble":
        searched = name.startswith(("threshold", "subgroups", "readers"))
        return "ensemble_threshold_search.py" if searched else "ensemble_alpha_search.py"
    return "the script that writes it"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it replaces `path` in one step when the block ends well.

    After an error or a kill, `path` is what it was before. An OSError names `path`, not the temporary one.
    """
    path = Path(os.path.realpath(path))  # what a link leads to, not the link, is replaced
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            with open(temporary, "rb+") as handle:
                os.fsync(handle.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename in (None, *map(str, (temporary, path.parent))):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        raise


def refuse_overwrite(paths: Iterable[Path], *, overwrite: bool, another: str = "--run-dir") -> None:
    """Raise ValueError where an output is already there and may not be replaced; a folder never may.

    `another` is the flag that names another place for it.
    """
    there = [path for path in map(Path, paths) if path.exists()]
    for path in there:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; expected the name of a file to write")
    if there and not overwrite:
        raise ValueError(f"{there[0]} already exists; pass --overwrite to replace it, or write to another {another}")


def clear(folder: Path, *patterns: str) -> None:
    """Remove what an earlier run of the stage left, whole or half-written, in a folder that nobody else writes to."""
    for pattern in (*patterns, ".*.tmp.*"):
        for path in Path(folder).glob(pattern):
            path.unlink()


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hex; raises ValueError if it does not exist."""
    try:
        with open(path, "rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run {writer_of(path)} first") from None


def to_plain(value: Any) -> Any:
    """A value that json can write: no NumPy types and no paths, and None for a number that is not finite."""
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value


def write_json(path: Path, value: Any) -> None:
    """Write JSON; a number that is not finite becomes null."""
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(to_plain(value), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raise ValueError if the file is missing or does not parse."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; run {writer_of(path)} first") from None
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits is a ValueError of its own
        raise ValueError(f"{path} is not valid JSON ({error}); run {writer_of(path)} --overwrite") from None
    if not isinstance(value, dict):
        raise ValueError(
            f"{path} holds a {type(value).__name__}; expected names and values in braces; run {writer_of(path)} "
            "--overwrite"
        )
    return value


def entry(content: Mapping[str, Any], key: str, kind: type, *, path: Path) -> Any:
    """The value of a key of the JSON file at `path`; raises ValueError where it is missing or of another kind."""
    value = content.get(key)
    if not isinstance(value, kind):
        raise ValueError(
            f"{path}: its {key} is {value!r}; expected a {kind.__name__}; run {writer_of(path)} --overwrite"
        )
    return value


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a JSON file is a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < math.inf


def write_table(path: Path, table: pd.DataFrame, *, exact: bool = False) -> None:
    """Write a CSV without the index, NaN as blank.

    Floats as `%.9g`, so that a float32 survives the trip, or with `exact` so that a float64 does.
    """
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format=None if exact else "%.9g")


def as_stored(probs: np.ndarray) -> np.ndarray:
    """Probabilities as they come back from a probability file: rounded to nine significant digits, float64.

    Thresholds are chosen on such numbers and metrics computed from them, so that a probability equal to its
    threshold is flagged wherever it is computed. A float32 would round every logit above 17 to exactly 1.
    """
    return np.char.mod("%.9g", np.asarray(probs, np.float64)).astype(np.float64)


def read_stage_table(path: Path, columns: Iterable[str], **kwargs: Any) -> pd.DataFrame:
    """`read_table` of a table that a stage left; raises ValueError where it lacks one of `columns`."""
    table = read_table(path, **kwargs)
    require_columns(table, columns, path=path, remedy=f"; run {writer_of(path)} --overwrite")
    return table
