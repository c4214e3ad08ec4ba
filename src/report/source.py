"""What stage 6 searched and evaluated, read again from the files it names, for the report."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import entry, is_number, read_json, sha256
from src.artifacts.manifest import read_manifest
from src.artifacts.probs import read_blend, read_probs
from src.artifacts.thresholds_file import check_targets, read_confidence
from src.artifacts.truth import AGGREGATES, UNITS, EvalSplit, Truth, Units, read_truth
from src.labels.policy import LabelPolicy

SCRIPT = "ensemble_threshold_search.py"


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_policy(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)


# The flags that thresholds.json records beside the rule: what each may be, in code and in words.
RECORDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "unit": (lambda value: value in UNITS, "study or image"),
    "aggregate": (lambda value: value in AGGREGATES, "max or mean"),
    "weights": (lambda value: value in (*UNITS, "patient"), "study, image or patient"),
    "family_wise": (lambda value: isinstance(value, bool), "true or false"),
    "grid": (lambda value: is_number(value) and (value == 0 or 1e-5 <= value <= 0.5), "0, or a step from 1e-5 to 0.5"),
    "uncertain": (_is_policy, "a list of policies"),
    "missing": (_is_policy, "a list of policies"),
    "resamples": (_is_whole, "a whole number from 0"),
    "seed": (_is_whole, "a whole number from 0"),
}


BEFORE_UNITS = {"unit": "image", "aggregate": "max", "weights": "image"}  # what earlier versions counted


@dataclass(frozen=True)
class Search:
    """How stage 6 was run, and what it chose."""

    folder: Path
    confidence: float | None  # None: the empirical rule
    settings: dict[str, Any]  # the flags in `RECORDED`
    assumed: tuple[str, ...]  # those of them that thresholds.json does not hold
    origin: dict[str, Any]  # the entries of thresholds.json that say what the thresholds were chosen on
    classes: tuple[str, ...]
    chosen_on: str  # the split in which thresholds were chosen, val or calib
    chosen: dict[str, dict[str, dict[str, Any]]]  # per recall target (a text such as "0.85") and class

    @property
    def outside(self) -> bool:
        """Whether the probabilities were from another program."""
        return "sources" in self.origin


def read_search(run_dir: Path, *, defaults: Mapping[str, Any]) -> Search:
    """Stage 6's thresholds.json; a flag it does not hold has its value in `defaults`, and is named in `assumed`."""
    folder = Path(run_dir) / "ensemble"
    path = folder / "thresholds.json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; run {SCRIPT} --run-dir {run_dir} first")
    found = read_json(path)
    missing = [key for key in ("confidence", "family_wise", "grid", "classes", "recall") if key not in found]
    if missing or not ({"sources", "manifest_sha256"} & found.keys()):
        raise ValueError(f"{path} has no {(missing or ['manifest_sha256'])[0]!r}; run {SCRIPT} --overwrite")
    if "sources" in found and not all(
        isinstance(value, str) for pair in entry(found, "sources", dict, path=path).items() for value in pair
    ):
        raise ValueError(f"{path}: its sources are no paths with their digests; run {SCRIPT} --overwrite")
    settings = {key: found.get(key, (defaults | BEFORE_UNITS)[key]) for key in RECORDED}
    for key, (allowed, expected) in RECORDED.items():
        if not allowed(settings[key]):
            raise ValueError(f"{path}: its {key} is {settings[key]!r}; expected {expected}; run {SCRIPT} --overwrite")
    check_targets(path, found)
    return Search(
        folder=folder,
        confidence=read_confidence(path, found),
        settings=settings | {key: tuple(settings[key]) or ("mask",) for key in ("uncertain", "missing")},
        assumed=tuple(key for key in RECORDED if key not in found),
        origin={key: found[key] for key in ("manifest_sha256", "probs_val_sha256", "sources") if key in found},
        classes=tuple(found["classes"]),
        chosen_on=found.get("chosen_on", "val"),
        chosen=found["recall"],
    )


def read_splits(run_dir: Path, search: Search) -> tuple[EvalSplit, EvalSplit | None]:
    """The split in which thresholds were chosen, and test where there is one.

    Raises ValueError where a file is not the one that stage 6 read.
    """
    pairs = _outside(search) if search.outside else _of_run(Path(run_dir), search)
    flags = {key: search.settings[key] for key in ("uncertain", "missing")}
    policy = LabelPolicy.parse(**flags, classes=search.classes)
    counted = {key: search.settings[key] for key in ("unit", "aggregate")}
    splits = {
        name: EvalSplit.of(name, probs, Units.of(truth, **counted), policy) for name, (truth, probs) in pairs.items()
    }
    if search.chosen_on not in splits:
        path = search.folder / "thresholds.json"
        raise ValueError(
            f"{path}: its chosen_on is {search.chosen_on!r}; expected val or calib; run {SCRIPT} --overwrite"
        )
    return splits[search.chosen_on], splits.get("test")


def _of_run(run_dir: Path, search: Search) -> dict[str, tuple[Truth, np.ndarray]]:
    """The blend of each split that stage 5 left, if it is still the one stage 6 searched."""
    manifest = read_manifest(run_dir)
    path = search.folder / "thresholds.json"
    if search.origin["manifest_sha256"] != manifest.sha256:
        raise ValueError(f"{path} was made from another manifest than the run's; run the stages after check_split.py")
    pairs = read_blend(run_dir, manifest)
    if search.origin.get("probs_val_sha256") != sha256(search.folder / "probs_val.csv"):
        raise ValueError(f"{path} was made from another blend than the run's; run {SCRIPT} --overwrite")
    return pairs


def _outside(search: Search) -> dict[str, tuple[Truth, np.ndarray]]:
    """Probabilities from another program and their truth: stage 6 names val's two files, then test's."""
    paths = [Path(path) for path in search.origin["sources"]]
    for path, digest in zip(paths, search.origin["sources"].values(), strict=True):
        if not path.exists():
            raise ValueError(f"{path} does not exist, and {SCRIPT} read it; run report.py from where that was run")
        if sha256(path) != digest:
            raise ValueError(f"{path} has changed since {SCRIPT} read it; run {SCRIPT} --overwrite")
    pairs = {}
    for name, probs, labels in zip(("val", "test"), paths[::2], paths[1::2], strict=False):
        truth, _ = read_truth(labels, search.classes)
        pairs[name] = truth, read_probs(probs).aligned(truth.ids, search.classes)
    return pairs
