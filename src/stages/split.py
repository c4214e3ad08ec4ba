"""Stage 1: a data set's label files become a manifest, and the split is checked."""

import importlib.util
from dataclasses import replace

import numpy as np
import pandas as pd

from src.artifacts.io import refuse_overwrite, sha256
from src.artifacts.manifest import write_manifest
from src.config import SplitConfig, ThresholdConfig
from src.data import read_dataset
from src.images import check
from src.images.dicom import INSTALL
from src.images.dicom import SUFFIXES as DICOM_SUFFIXES
from src.labels import audit
from src.labels.eda import count_states, side_by_side
from src.labels.files import SPARE, LabelSource, paths_of, splits_in
from src.labels.split import patient_split
from src.runtime.locks import exclusive
from src.runtime.tables import format_table, plural
from src.stages.expert_labels import ExpertSplit, take_expert_labels
from src.stages.subset import subset
from src.stats.thresholds import patients_needed

SHOWN = 10  # faulty images printed; the rest is counted


def check_split(config: SplitConfig) -> int:
    """Write the manifest, describe it and check it; 0 where every check passes, else 1."""
    refuse_overwrite([config.run_dir / "manifest.csv"], overwrite=config.overwrite)
    source, filters = subset(config, _read(config))
    published = _use_published(config, source)
    source, experts = take_expert_labels(config, source if published else _without_split(source))
    filters += experts.filters
    if published:
        source = _without_spare(config, source.keep(source.table["split"].notna()))
    split, origin = _take_published(config, source) if published else _split_anew(config, source)
    table, origin = source.table.assign(split=split), origin + experts.origin
    unusable, faulty = _look_at_images(config, source, table)
    problems = source.problems if published else []
    one_sided = audit.one_sided(table, source.classes, masked=experts.masked)
    failed = [*problems, *audit.respelled(table), *audit.leaks(table), *one_sided, *unusable]
    warned = [*source.warnings, *experts.warnings, *audit.no_train(table), *_too_few(source, table, experts)]
    meta = {
        "dataset": source.name,
        "image_root": source.image_root.resolve(),
        "classes": source.classes,
        "split": origin,
        "labels": {name: _labels_from(source, name) for name in splits_in(split) if name in split},
        "filters": filters,
        "seed": config.seed,
        "images": config.images,
        "failed": failed,
        "sources": {str(path): sha256(path) for path in source.files},
    }
    with exclusive(config.run_dir):  # before anything is printed, so that `| head` cannot end it first
        write_manifest(config.run_dir, table, meta, source.context)
    _describe(source, table, origin, [*filters, *experts.notes])
    print(experts.table, end="\n\n" if experts.table else "")
    verdict = f"{plural(len(failed), 'check')} failed" if failed else "every check passed"
    if not source.patients_known:
        verdict += ", as far as patients are known"
    lines = [*faulty, *(f"warning: {line}" for line in warned), *(f"FAILED: {line}" for line in failed)]
    print(*lines, f"{verdict}; wrote {config.run_dir}/manifest.csv", sep="\n")
    return 1 if failed else 0


def _read(config: SplitConfig) -> LabelSource:
    return read_dataset(
        config.data,
        dataset=config.dataset,
        classes=config.classes or None,
        image_root=config.image_root,
        labels=config.labels,
        path_column=config.path_column,
        patient_column=config.patient_column,
        study_column=config.study_column,
        view_column=config.view_column,
        split_column=config.split_column,
        sex_column=config.sex_column,
        age_column=config.age_column,
        merge_patients=config.merge_patients,
        reader_rule=config.reader_rule,
    )


def _too_few(source: LabelSource, table: pd.DataFrame, experts: ExpertSplit) -> list[str]:
    """What is too rare to certify the recall targets of stage 6, or to measure."""
    confidence = ThresholdConfig.confidence
    needed = {recall: patients_needed(recall, confidence=confidence) for recall in ThresholdConfig.recall}
    return audit.too_few(table, source.classes, needed=needed, confidence=confidence, masked=experts.masked)


def _use_published(config: SplitConfig, source: LabelSource) -> bool:
    """Whether the published split is asked for and there; ValueError where it is asked for and is not."""
    there = bool(source.table["split"].notna().any())
    if config.split == "published" and not there:
        column = " name the column that has it with --split-column, or" if source.name == "csv" else ""
        raise ValueError(f"{config.data} has no published split;{column} use --split patient")
    return there and config.split != "patient"


def _without_spare(config: SplitConfig, source: LabelSource) -> LabelSource:
    """The source with its spare rows as calib where the published one is asked for, else without them and a warning."""
    spare = source.table["split"] == SPARE
    if not spare.any():
        return source
    if config.calibration == "published":
        table = source.table.assign(split=source.table["split"].mask(spare, "calib"))
        note, labels_from = f"{source.split_note}, {source.spare} is calib", {**source.labels_from}
        labels_from["calib"] = labels_from[SPARE]
        return replace(source, table=table, split_note=note, labels_from=labels_from)
    about = f"{source.spare} ({spare.sum():,} images) is left out; --calibration published makes it the split calib"
    return replace(source.keep(~spare), warnings=(*source.warnings, about))


def _without_split(source: LabelSource) -> LabelSource:
    """The source as if no split were published."""
    labels_from = {"": " and ".join(dict.fromkeys(source.labels_from.values()))} if source.labels_from else {}
    return replace(source, table=source.table.assign(split=None), labels_from=labels_from)


def _split_anew(config: SplitConfig, source: LabelSource) -> tuple[np.ndarray, str]:
    """A new split by patient, of what experts have not labeled, and where it comes from."""
    split = source.table["split"].to_numpy(object, copy=True)
    free = source.table["split"].isna().to_numpy()
    fractions = {"val": config.val_fraction, **_calibration(config), "test": config.test_fraction}
    fractions = {name: fraction for name, fraction in fractions.items() if not (split == name).any()}
    patients = source.table["patient_id"][free]
    split[free] = patient_split(_labels(source)[free], patients, fractions=fractions, seed=config.seed)
    shares = ", ".join(f"{name} {fraction:g}" for name, fraction in fractions.items())
    return split, f"by patient, {shares}, seed {config.seed}"


def _labels_from(source: LabelSource, split: str) -> str:
    """Whose labels a split has; one without an entry was carved from train."""
    whose = source.labels_from
    return next((whose[key] for key in (split, "train", "") if key in whose), source.files[0].name)


def _calibration(config: SplitConfig, *, published: bool = False) -> dict[str, float]:
    """The fraction of the split calib, where one is to be made.

    published: whether the data set has one. Raises ValueError where it is asked for and has none, or has one already.
    """
    if config.calibration == "published":
        if not published:
            raise ValueError(f"{config.data} has no published split calib; pass a fraction, such as --calibration 0.1")
        return {}
    if config.calibration and published:
        raise ValueError(f"{config.data} has a published split calib; leave out --calibration {config.calibration:g}")
    return {"calib": config.calibration} if config.calibration else {}


def _take_published(config: SplitConfig, source: LabelSource) -> tuple[np.ndarray, str]:
    """The published split, with val (where it has none) and calib carved from train, and where it comes from."""
    split = source.table["split"].to_numpy(object, copy=True)
    there = set(split)
    carved = "val" not in there or config.calibration not in (0, "published")
    for name in ("train", "test") if carved else ("test",):
        if name not in there:
            raise ValueError(f"the published split of {config.data} has no {name} images; use --split patient")
    fractions = {} if "val" in there else {"val": config.val_fraction}
    fractions |= _calibration(config, published="calib" in there)
    if not fractions:
        return split, f"published: {source.split_note}"
    train = split == "train"
    labels, patients = _labels(source)[train], source.table["patient_id"][train]
    split[train] = patient_split(labels, patients, fractions=fractions, seed=config.seed)
    shares = " and ".join(f"{name} ({fraction:g})" for name, fraction in fractions.items())
    return split, f"published: {source.split_note}; {shares} carved from train by patient, seed {config.seed}"


def _labels(source: LabelSource) -> np.ndarray:
    return source.table[list(source.classes)].to_numpy(np.float64)


def _describe(source: LabelSource, table: pd.DataFrame, origin: str, filters: list[str]) -> None:
    """Print sizes, patients, and per class and split the counts of each label."""
    images, patients = plural(len(table), "image"), plural(table["patient_id"].nunique(), "patient")
    print(f"{source.name}: {images} of {patients}; split {origin}")
    notes = [*filter(None, [source.understood]), *filters]
    print(*notes, sep="\n", end="\n" if notes else "")
    splits = splits_in(table["split"])
    sizes = table.groupby("split").agg(images=("image_id", "size"), studies=("study_id", "nunique"),
                                       patients=("patient_id", "nunique")).reindex(splits)  # fmt: skip
    print(format_table(("Split", "Images", "Studies", "Patients"), [tuple(row) for row in sizes.itertuples()]))
    print()
    headers = ["Class", *(f"{split} {state}" for split in splits for state in ("1", "0", "-1", "blank"))]
    states = count_states(
        _labels(source), groups=table["split"].to_numpy(), order=splits, classes=source.classes, name="split"
    )
    print(format_table(headers, side_by_side(states, order=splits).itertuples(name=None)))
    print()


def _look_at_images(config: SplitConfig, source: LabelSource, table: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Failed checks of the image files, as far as --images asks, and a line for each faulty image that is shown."""
    paths = paths_of(table).tolist()
    failed: list[str] = []
    if config.images == "skip":
        return [], []
    dicom = [name for name in paths if name.lower().endswith(DICOM_SUFFIXES)]
    if dicom and importlib.util.find_spec("pydicom") is None:
        count = plural(len(dicom), "DICOM image")
        failed.append(f"pydicom, which is needed to read {count} such as {dicom[0]}, is not installed; {INSTALL}")
    if config.images == "open":
        opened = check.open_images(source.image_root, paths, workers=config.workers)
        found = check.faults(paths, opened)
        failed += check.duplicates(table, opened)
    else:
        found = check.missing_images(source.image_root, paths)
    if found:
        count = f"{len(found):,} of {plural(len(paths), 'image')}"
        gone = len(found) == len(paths) and all(fault.reason == check.GONE for fault in found)
        remedy = f"; {source.image_root} may be the wrong --image-root" if gone else ""
        failed.insert(0, f"{count} cannot be used; first: {found[0].image_id}{remedy}")
    shown = found if config.images == "open" else found[:SHOWN]
    return failed, [f"image {source.image_root / fault.image_id} {fault.reason}" for fault in shown]
