"""What changed from run to run, and what it brought."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from src.artifacts.io import read_json
from src.runtime.csv_files import read_table
from src.runtime.tables import format_table

# Settings that say where or how long a run went, not what was tried.
NOT_TUNED = {"run_dir", "overwrite", "resume", "workers", "device", "compared_runs"}


def tuning_log(runs: Sequence[Path]) -> str:
    """A table with one row per run and model: what changed against the run before, best val AUROC, best val AUPRC.

    Each figure is the best over the epochs. Raises ValueError where a folder holds no
    trained model.
    """
    rows = []
    before: dict[str, dict[str, Any]] = {}
    for run in runs:
        folders = sorted(path.parent for path in Path(run).glob("*/history.csv"))
        if not folders:
            raise ValueError(f"{run} holds no trained model (no */history.csv); expected a run folder of train_*.py")
        for folder in folders:
            settings, history = read_json(folder / "config.json"), read_table(folder / "history.csv")
            change = _changes(before.get(folder.name), settings)
            figures = (float(history[key].max()) for key in ("val_auroc", "val_auprc"))
            rows.append((str(run), folder.name, change, len(history), *figures))
            before[folder.name] = settings
    headers = ("Run", "Model", "What changed", "Epochs", "Best val AUROC", "Best val AUPRC")
    return format_table(headers, rows, digits=4)


def _changes(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """`lr=0.001 -> 0.0001, ...`, `-` for the first run of a model."""
    if before is None:
        return "-"
    keys = [key for key in {**before, **now} if key not in NOT_TUNED and before.get(key) != now.get(key)]
    return ", ".join(_change(key, before.get(key), now.get(key)) for key in keys) or "nothing"


def _change(key: str, old: Any, new: Any) -> str:
    if key == "manifest_sha256":
        return "another manifest"
    return f"{key}={_text(old)} -> {_text(new)}"


def _text(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
