"""The manifest of stage 1: which image and patient is in which split, with which raw labels."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from src.artifacts.io import entry, read_json, sha256, write_json, write_table
from src.labels.files import IMAGE_PATH, paths_of, scored_in, splits_in
from src.runtime.csv_files import read_table

MANIFEST_COLUMNS = ("image_id", "patient_id", "study_id", "view", "split")
LABEL_TEXTS = {1.0: "1", 0.0: "0", -1.0: "-1"}  # pandas would format float by float, seven times slower
MANIFEST_ENTRIES = {"dataset": str, "image_root": str, "classes": list, "split": str, "failed": list}


@dataclass(frozen=True)
class Manifest:
    """What stage 1 leaves: who is in which split, with which raw labels.

    `table` has the columns of `manifest.csv` (labels as float64, blank as NaN), `context` those of `context.csv` in the
    same order of rows, `meta` is `manifest.json`.
    """

    table: pd.DataFrame
    context: pd.DataFrame
    meta: dict[str, Any]
    sha256: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the findings, in the order of every [.., C] array."""
        return tuple(self.meta["classes"])

    @property
    def image_root(self) -> Path:
        """Folder the image ids are relative to."""
        return Path(self.meta["image_root"])

    @property
    def filters(self) -> list[str]:
        """A line for each flag of stage 1 that left out images."""
        return self.meta.get("filters", [])  # none in manifests of earlier versions

    @property
    def notes(self) -> list[str]:
        """What every later stage says: the filters, and whose labels each split has where they are of several."""
        splits: dict[str, list[str]] = {}
        for split, whose in self.meta.get("labels", {}).items():
            splits.setdefault(whose, []).append(split)
        parts = [f"of {' and '.join(names)} from {whose}" for whose, names in splits.items()]
        return [*self.filters, *(["labels " + ", ".join(parts)] if len(parts) > 1 else [])]

    def image_paths(self) -> list[Path]:
        """Where the image of each row lies; raises ValueError if the data set is gone.

        That is where its folder does not exist, or none of the images in it.
        """
        remedy = "run check_split.py --overwrite with {}, and the same --run-dir and other flags as before"
        if not self.image_root.is_dir():
            raise ValueError(
                f"the images were in {self.image_root}, which does not exist any more; if the data set was moved, "
                + remedy.format("its new --data")
            )
        paths = [self.image_root / name for name in paths_of(self.table)]
        if paths and not any(map(os.path.exists, paths)):
            raise ValueError(
                f"{self.image_root} has neither {self.table['image_id'].iloc[0]} nor any other image of the split; is "
                "its drive mounted, and may you read it? If the images were moved, " + remedy.format("--image-root")
            )
        return paths

    def labels(self) -> np.ndarray:
        """Raw labels [N, C] float64: 1, 0, -1 or NaN."""
        return self.table[list(self.classes)].to_numpy(np.float64)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits in order, without train and calib where no image is in them."""
        return splits_in(self.table["split"])

    @property
    def scored(self) -> tuple[str, ...]:
        """The splits for which stages 4 and 5 compute probabilities."""
        return scored_in(self.table["split"])

    def part(self, split: str) -> "Manifest":
        """The rows of one split; raises ValueError where there are none."""
        here = self.table["split"] == split
        if not here.any():
            raise ValueError(f"the manifest has no images in {split}; run check_split.py with different fractions")
        table, context = (rows[here].reset_index(drop=True) for rows in (self.table, self.context))
        return Manifest(table, context, self.meta, self.sha256)


def write_manifest(run_dir: Path, table: pd.DataFrame, meta: Mapping[str, Any], context: pd.DataFrame) -> None:
    """Write `manifest.csv`, `context.csv` (sex, age, order of studies, "No Finding") and, last, `manifest.json`."""
    columns = [*MANIFEST_COLUMNS, *[IMAGE_PATH][: IMAGE_PATH in table]]
    labels = table[list(meta["classes"])].apply(lambda label: label.map(LABEL_TEXTS))
    write_table(run_dir / "manifest.csv", pd.concat([table[columns], labels], axis=1))
    write_table(run_dir / "context.csv", context)
    write_json(run_dir / "manifest.json", {**meta, "manifest_sha256": sha256(run_dir / "manifest.csv")})


def read_manifest(run_dir: Path) -> Manifest:
    """Read and check the manifest of a run; raises ValueError where it is missing or was changed by hand.

    Warns of the checks that its split failed.
    """
    path = Path(run_dir) / "manifest.csv"
    if not path.exists():
        raise ValueError(f"{path} does not exist; run check_split.py --run-dir {run_dir} first")
    meta = read_json(path.with_suffix(".json"))
    digest = sha256(path)
    if digest != meta.get("manifest_sha256"):
        raise ValueError(
            f"{path} does not match manifest.json (was it saved from a spreadsheet program?); run "
            f"check_split.py --run-dir {run_dir} --overwrite with the same --data as before"
        )
    for key, kind in MANIFEST_ENTRIES.items():
        entry(meta, key, kind, path=path.with_suffix(".json"))
    if meta["failed"]:  # warned of at this line, whoever calls: Python shows it once
        warnings.warn(f"the split of {run_dir} failed a check: {'; '.join(meta['failed'])}", stacklevel=1)
    texts = dict.fromkeys((*MANIFEST_COLUMNS, IMAGE_PATH), str)
    table = read_table(path, dtype=texts, keep_default_na=False, na_values={c: [""] for c in meta["classes"]})
    return Manifest(table, _read_context(path.with_name("context.csv"), table["image_id"]), meta, digest)


def _read_context(path: Path, ids: pd.Series) -> pd.DataFrame:
    """The rows of `context.csv` in the order of `ids`; raises ValueError for an id missing, extra or doubled."""
    numbers = {name: [""] for name in ("age", "no_finding")}
    context = read_table(path, dtype={"image_id": str, "sex": str}, keep_default_na=False, na_values=numbers)
    have = context["image_id"]
    doubled, missing, extra = have[have.duplicated()], ids[~ids.isin(have)], have[~have.isin(ids)]
    for what, found in (
        ("appears more than once", doubled),
        ("is missing", missing),
        ("is not in the manifest", extra),
    ):
        if len(found):
            raise ValueError(f"{path}: image id {found.iloc[0]!r} {what}; run check_split.py --overwrite")
    if "no_finding" not in context:  # of an earlier version
        context["no_finding"] = np.nan
    return context.set_index("image_id").loc[ids].reset_index()
