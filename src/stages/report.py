"""The report: a run as one page, with the thresholds to explore."""

from pathlib import Path

from src.artifacts.io import MODELS, atomic_path, refuse_overwrite
from src.config import ReportConfig
from src.report.explorer import explore
from src.report.render import is_page, render
from src.report.sections import (
    alpha_part,
    data_part,
    history_part,
    labels_part,
    metrics_part,
    readers_part,
    reliability_part,
    subgroups_part,
)
from src.report.source import read_search, read_splits
from src.runtime.tables import data_size, plural
from src.stages.opening import open_manifest

LARGEST = 3_000_000  # bytes; more is slow to open on a phone


def write_report(config: ReportConfig) -> None:
    """Write report.html of a run, and print its size and where it is."""
    path = config.out or config.run_dir / "report.html"
    if path.suffix.lower() != ".html":
        raise ValueError(f"--out is {path}; expected a name that ends in .html")
    if path.is_file() and not is_page(path):
        raise ValueError(f"{path} exists and was not written by report.py; pass another --out")
    refuse_overwrite([path], overwrite=config.overwrite, another="--out")
    search = read_search(config.run_dir)
    chosen_on, test = read_splits(config.run_dir, search)
    name = config.run_dir.resolve().name
    manifest = open_manifest(config.run_dir) if (config.run_dir / "manifest.csv").exists() else None
    evaluated = test or chosen_on
    page = {
        "run": name,
        "explorer": explore(chosen_on, test, search=search),
        "subgroups": subgroups_part(search.folder, search.chosen, split=evaluated.name),
        "readers": readers_part(search.folder, split=evaluated.name),
        "data": data_part(manifest),
        "labels": labels_part(config.run_dir, manifest),
        "histories": {model: history_part(config.run_dir, model, manifest) for model in MODELS},
        "metrics": _metrics(config.run_dir),
        "alpha": alpha_part(config.run_dir / "ensemble"),
        "reliability": reliability_part(config.run_dir, evaluated, manifest, flags=search.recorded),
    }
    text = render(page, title=f"{name}: thresholds under a recall target")
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    size = path.stat().st_size
    if size > LARGEST:
        print(f"warning: the page has {data_size(size)}, for its {plural(len(search.classes), 'finding')}")
    print(f"wrote {path}: {data_size(size)}, open it in a browser")


def _metrics(run_dir: Path) -> list[dict]:
    """Of each model on val and test, then of the blend."""
    parts = [
        {"name": model, "split": split} | metrics_part(run_dir / model, split, script=f"test_{short}.py")
        for model, short in MODELS.items()
        for split in ("val", "test")
    ]
    folder, script = run_dir / "ensemble", "ensemble_alpha_search.py"
    split = "val" if (folder / "metrics_val.json").exists() else "test"
    return [*parts, {"name": "ensemble", "split": split} | metrics_part(folder, split, script=script)]
