"""A synthetic CheXpert: the radiographs of synthetic patients and their labels, as files on disk.

`train.csv` holds what a report would say of each finding, `valid.csv` the truth, as CheXpert's own two files do (Irvin
et al. 2019, arXiv:1901.07031). On request both hold the truth.
"""

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from src.demo.draw import draw_radiograph
from src.demo.patients import IMPLY_OPACITY, RATES, Patient, Rates, is_clear, simulate_patient
from src.runtime.workers import mapped

_FIRST_VALID = 64541  # CheXpert numbers its validation patients from here
_PREFIX = "CheXpert-v1.0-demo"
_README = "README.txt"
_NOTICE = """Synthetic chest radiographs, drawn by make_demo_data.py. They show no real patients.

Layout and columns are those of CheXpert (Irvin et al. 2019). {labels}
Made with {patients} patients and seed {seed}. Not for clinical use.
"""
_REPORTS = """train.csv holds what a report would say of each finding
(1 positive, 0 negative, -1 uncertain, blank not mentioned), valid.csv holds the truth of separate patients."""
_TRUTH = """train.csv and valid.csv hold the truth of each finding
(1 positive, 0 negative), of separate patients. CheXpert's own train.csv holds what reports say."""
LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)


def draw_view(patient: Patient, study: int, view: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """View `view` of study `study` (both from 1): the image, uint8 [H, W], and finding -> bool [H, W] where it lies.

    The region of Lung Opacity includes those of the findings that imply it.
    """
    course = patient.studies[study - 1]
    rng = np.random.default_rng([patient.seed, patient.number, study, view])
    image, regions = draw_radiograph(course.severities, anatomy=patient.anatomy, rng=rng, portable=course.portable)
    opaque = [regions[name] for name in (*IMPLY_OPACITY, "Lung Opacity") if name in regions]
    return image, regions | ({"Lung Opacity": np.any(opaque, axis=0)} if opaque else {})


def write_demo(
    out: Path,
    *,
    patients: int,
    seed: int = 0,
    rates: Rates = RATES["softened"],
    valid_share: float = 0.15,
    reports: bool = True,
    overwrite: bool = False,
    processes: int | None = None,
) -> dict[str, pd.DataFrame]:
    """Write a data set in CheXpert's layout to the folder `out`, in one step.

    Args:
        out: folder to make. Nothing half-written is left there after an error or an interrupt.
        patients: patients in train.csv and valid.csv together; at least 10.
        seed: decides every byte, together with `patients`, `rates`, `valid_share` and `reports`.
        rates: how often reports label each finding.
        valid_share: share of the patients in valid.csv.
        reports: train.csv holds what reports say; else the truth, of the same images.
        overwrite: replace `out`, if it holds an earlier demo data set.
        processes: how many draw; one per CPU by default. Does not change the result.

    Returns:
        "train" and "valid" -> the table written (columns COLUMNS).

    Raises:
        ValueError: fewer than 10 patients, or `out` exists and may not be replaced.
    """
    out = Path(out)
    if patients < 10:
        raise ValueError(f"patients is {patients}; expected at least 10, so that both files have some")
    _check_out(out, overwrite)
    building, aside = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("tmp", "old"))
    building.mkdir(parents=True)
    try:
        tables = _write_files(
            building,
            patients=patients,
            seed=seed,
            rates=rates,
            valid_share=valid_share,
            reports=reports,
            processes=processes,
        )
        notice = _NOTICE.format(patients=patients, seed=seed, labels=_REPORTS if reports else _TRUTH)
        (building / _README).write_text(notice, encoding="utf-8")
        if out.exists():
            out.rename(aside)
        building.rename(out)
    finally:
        if aside.exists() and not out.exists():  # the second move failed, or an interrupt came before it
            aside.rename(out)
        for path in (building, aside):
            shutil.rmtree(path, ignore_errors=True)
    return tables


def _check_out(out: Path, overwrite: bool) -> None:
    """Raise ValueError where `out` is there and may not be replaced."""
    if not out.exists():
        return
    notice = out / _README
    if not (notice.is_file() and notice.read_text(encoding="utf-8", errors="replace").startswith(_NOTICE[:40])):
        raise ValueError(f"{out} exists and is not a demo data set; pass another --out")
    if not overwrite:
        raise ValueError(f"{out} exists; pass --overwrite to replace it, or another --out")


def _write_files(
    root: Path, *, patients: int, seed: int, rates: Rates, valid_share: float, reports: bool, processes: int | None
) -> dict[str, pd.DataFrame]:
    """Draw all patients and write both tables."""
    valid = max(3, round(valid_share * patients))
    jobs = [(root, "train", 1 + i, seed, rates, reports) for i in range(patients - valid)]
    jobs += [(root, "valid", _FIRST_VALID + i, seed, rates, False) for i in range(valid)]
    rows: dict[str, list[dict]] = {"train": [], "valid": []}
    workers = processes or os.cpu_count() or 1
    drawn = mapped(_write_patient, jobs, workers=workers, remedy="run again", prepare=_keep_freed_memory, chunk=8)
    with contextlib.closing(drawn):
        progress = tqdm(drawn, total=len(jobs), desc="patients", unit="patient", mininterval=1)
        for (_, split, *_), part in zip(jobs, progress, strict=True):
            rows[split] += part
    tables = {split: pd.DataFrame(part, columns=COLUMNS) for split, part in rows.items()}
    for split, table in tables.items():
        table.to_csv(root / f"{split}.csv", index=False)
    return tables


def _keep_freed_memory() -> None:
    """Free one large block: glibc then keeps what arrays of up to that size free, instead of faulting it in anew."""
    np.empty(16 * 2**20, np.uint8)


def _write_patient(job: tuple[Path, str, int, int, Rates, bool]) -> list[dict]:
    """Write the images of one patient; returns their rows of the table."""
    root, split, number, seed, rates, reports = job
    patient = simulate_patient(number, seed=seed, rates=rates)
    rows = []
    for s, study in enumerate(patient.studies, start=1):
        folder = f"{split}/patient{number:05d}/study{s}"
        (root / folder).mkdir(parents=True)
        labels: Mapping[str, float] = study.report if reports else study.truth
        no_finding = study.no_finding if reports else is_clear(study.truth)
        for view in range(1, study.views + 1):
            path = f"{folder}/view{view}_frontal.jpg"
            Image.fromarray(draw_view(patient, s, view)[0]).save(root / path, quality=90)
            rows.append(
                {
                    "Path": f"{_PREFIX}/{path}",
                    "Sex": "Female" if patient.female else "Male",
                    "Age": patient.age,
                    "Frontal/Lateral": "Frontal",
                    "AP/PA": "AP" if study.portable else "PA",
                    "No Finding": 1.0 if no_finding else np.nan if reports else 0.0,  # as CheXpert
                    **{name: float(value) for name, value in labels.items()},
                }
            )
    return rows
