"""What stage 6 searched and evaluated, read again from the files it names, for the report."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.artifacts.io import entry, is_number, read_json, sha256
from src.artifacts.manifest import read_manifest
from src.artifacts.probs import read_blend, read_outside_probs
from src.artifacts.thresholds_file import check_targets, read_confidence, read_counted
from src.artifacts.truth import EvalSplit, Truth, Units, read_truth
from src.labels.policy import NO_FINDING, LabelPolicy

SCRIPT = "ensemble_threshold_search.py"


def _is_policy(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, str) for item in value)


# What the page needs of a thresholds.json beside rule and points: what each may be, in code and in words.
RECORDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "family_wise": (lambda value: isinstance(value, bool), "true or false"),
    "grid": (lambda value: is_number(value) and (value == 0 or 1e-5 <= value <= 0.5), "0, or a step from 1e-5 to 0.5"),
    "uncertain": (_is_policy, "a list of policies"),
    "missing": (_is_policy, "a list of policies"),
    "no_finding": (lambda value: value in NO_FINDING, " or ".join(NO_FINDING)),
}


@dataclass(frozen=True)
class Search:
    """How stage 6 was run, and what it chose."""

    folder: Path
    confidence: float | None  # None: the empirical rule
    recorded: dict[str, Any]  # all of thresholds.json but the thresholds
    chosen: dict[str, dict[str, dict[str, Any]]]  # per recall target (a text such as "0.85") and class

    @property
    def classes(self) -> list[str]:
        """The findings."""
        return self.recorded["classes"]


def read_search(run_dir: Path) -> Search:
    """Stage 6's thresholds.json; raises ValueError where it is not what this version of stage 6 writes."""
    folder = Path(run_dir) / "ensemble"
    path = folder / "thresholds.json"
    if not path.exists():
        raise ValueError(f"{path} does not exist; run {SCRIPT} --run-dir {run_dir} first")
    found = {"no_finding": "mask"} | read_json(path)  # which earlier versions did not record
    if "unit" not in found:
        raise ValueError(
            f"{path} does not record its unit, because an earlier version wrote it, which counted images; run {SCRIPT} "
            "--overwrite, with --unit image to count images again"
        )
    missing = [key for key in ("classes", "recall", *RECORDED) if key not in found]
    if missing or not ({"sources", "manifest_sha256"} & found.keys()):
        raise ValueError(f"{path} has no {(missing or ['manifest_sha256'])[0]!r}; run {SCRIPT} --overwrite")
    if "sources" in found and not all(
        isinstance(value, str) for pair in entry(found, "sources", dict, path=path).items() for value in pair
    ):
        raise ValueError(f"{path}: its sources are not paths with digests; run {SCRIPT} --overwrite")
    for key, (allowed, expected) in RECORDED.items():
        if not allowed(found[key]):
            raise ValueError(f"{path}: its {key} is {found[key]!r}; expected {expected}; run {SCRIPT} --overwrite")
    check_targets(path, found)
    recorded = {key: value for key, value in found.items() if key != "recall"} | read_counted(path, found)
    return Search(folder, read_confidence(path, found), recorded, found["recall"])


def read_splits(run_dir: Path, search: Search) -> tuple[EvalSplit, EvalSplit | None]:
    """The split in which thresholds were chosen, and test where there is one.

    Raises ValueError where a file is not the one that stage 6 read.
    """
    recorded = search.recorded
    pairs = _outside(search) if "sources" in recorded else _of_run(Path(run_dir), search)
    policy = LabelPolicy.parse(uncertain=recorded["uncertain"], missing=recorded["missing"], classes=search.classes)
    counted = {key: recorded[key] for key in ("unit", "aggregate")}
    splits = {
        name: EvalSplit.of(name, probs, Units.of(truth.with_no_finding(recorded["no_finding"]), **counted), policy)
        for name, (truth, probs) in pairs.items()
    }
    if recorded["chosen_on"] not in splits:
        raise ValueError(
            f"{search.folder / 'thresholds.json'}: its chosen_on is {recorded['chosen_on']!r}, and the run has no such "
            f"split; run {SCRIPT} --overwrite"
        )
    return splits[recorded["chosen_on"]], splits.get("test")


def _of_run(run_dir: Path, search: Search) -> dict[str, tuple[Truth, np.ndarray]]:
    """The blend of each split that stage 5 left, if it is still the one stage 6 searched."""
    manifest = read_manifest(run_dir)
    path = search.folder / "thresholds.json"
    if search.recorded["manifest_sha256"] != manifest.sha256:
        raise ValueError(f"{path} was made from another manifest; run the stages after check_split.py again")
    pairs = read_blend(run_dir, manifest)
    if search.recorded.get("probs_val_sha256") != sha256(search.folder / "probs_val.csv"):
        raise ValueError(f"{path} was made from a different blend than the run's; run {SCRIPT} --overwrite")
    return pairs


def _outside(search: Search) -> dict[str, tuple[Truth, np.ndarray]]:
    """Probabilities from another program and their truth: stage 6 names val's two files, then test's."""
    paths = [Path(path) for path in search.recorded["sources"]]
    for path, digest in zip(paths, search.recorded["sources"].values(), strict=True):
        if not path.exists():
            raise ValueError(
                f"{path} does not exist, although {SCRIPT} read it; run report.py in the same folder as it"
            )
        if sha256(path) != digest:
            raise ValueError(f"{path} has changed since {SCRIPT} read it; run {SCRIPT} --overwrite")
    pairs = {}
    for name, probs, labels in zip(("val", "test"), paths[::2], paths[1::2], strict=False):
        truth, _ = read_truth(labels, search.classes)
        outside = read_outside_probs(probs, asked=search.classes).known_as(truth.ids)
        pairs[name] = truth, outside.aligned(truth.ids, search.classes)
    return pairs
