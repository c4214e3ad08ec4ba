"""A synthetic CheXpert: patients with a course of findings, what reports say of them, and the files on disk.

Whether a finding is present comes from a latent Gaussian course per patient; `train.csv` holds what a report would
say of it, `valid.csv` the truth, as CheXpert's own two files do (Irvin et al. 2019, arXiv:1901.07031).
"""

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy.special import ndtr, ndtri
from tqdm import tqdm

from src.demo.anatomy import Anatomy, random_anatomy
from src.demo.draw import FINDINGS, draw_radiograph
from src.runtime.workers import mapped

# Share of CheXpert's 223,414 training rows labeled positive, negative and uncertain (Irvin et al. 2019).
CHEXPERT_RATES = {
    "Atelectasis": (0.149, 0.006, 0.151),
    "Cardiomegaly": (0.121, 0.050, 0.036),
    "Consolidation": (0.066, 0.126, 0.124),
    "Edema": (0.234, 0.093, 0.058),
    "Enlarged Cardiomediastinum": (0.048, 0.097, 0.055),
    "Fracture": (0.040, 0.011, 0.003),
    "Lung Lesion": (0.041, 0.006, 0.007),
    "Lung Opacity": (0.473, 0.030, 0.025),
    "Pleural Effusion": (0.386, 0.158, 0.052),
    "Pleural Other": (0.016, 0.001, 0.012),
    "Pneumonia": (0.027, 0.012, 0.084),
    "Pneumothorax": (0.087, 0.252, 0.014),
    "Support Devices": (0.519, 0.028, 0.005),
}
# The rarest are softened: a fifth of the training patients must hold enough of both to measure a finding on.
LEAST_RATE = 0.12
REPORTED = 0.85  # share of the findings present that a report mentions; half of what it calls uncertain is present
IMPLY_OPACITY = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
OWN_OPACITY, OPACITY_PREVALENCE = (
    0.10,
    0.66,
)  # a haze of no other cause; with those that imply it, by simulation

# How strongly a finding follows heart failure, infection, injury and intensive care: loadings of a factor model.
_CAUSES = {
    "Atelectasis": (0.0, 0.2, 0.2, 0.4),
    "Cardiomegaly": (0.7, 0.0, 0.0, 0.0),
    "Consolidation": (0.0, 0.7, 0.0, 0.2),
    "Edema": (0.7, 0.0, 0.0, 0.3),
    "Enlarged Cardiomediastinum": (0.3, 0.0, 0.2, 0.0),
    "Fracture": (0.0, 0.0, 0.6, 0.0),
    "Lung Lesion": (0.0, 0.0, 0.0, 0.0),
    "Lung Opacity": (0.0, 0.3, 0.0, 0.2),
    "Pleural Effusion": (0.5, 0.2, 0.1, 0.4),
    "Pleural Other": (0.0, 0.1, 0.2, 0.0),
    "Pneumonia": (0.0, 0.7, 0.0, 0.1),
    "Pneumothorax": (0.0, 0.0, 0.6, 0.2),
    "Support Devices": (0.1, 0.0, 0.2, 0.6),
}
_LOADINGS = np.array([_CAUSES[name] for name in FINDINGS])  # [13, 4]
_PERSISTENCE = 0.85  # correlation of the latent course between consecutive studies

_STUDIES = (0.50, 0.22, 0.13, 0.09, 0.06)  # chance of 1, 2, ... 5 studies
_SECOND_VIEW, _PORTABLE, _MALE, _VALID_SHARE = 0.03, 0.85, 0.59, 0.15
_FIRST_VALID = 64541  # CheXpert numbers its validation patients from here
_PREFIX = "CheXpert-v1.0-demo"
_README = "README.txt"
_NOTICE = """Synthetic chest radiographs, drawn by make_demo_data.py. No patient was ever near them.

Layout and columns are those of CheXpert (Irvin et al. 2019). train.csv holds what a report would say of each finding
(1 positive, 0 negative, -1 uncertain, blank not mentioned), valid.csv holds the truth of separate patients.
Made with {patients} patients and seed {seed}. Not for any clinical use.
"""
LABELS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *LABELS)


@dataclass(frozen=True)
class Study:
    """One visit: what is there, how plain it is, and what the report says of it."""

    severities: dict[str, float]  # finding drawn -> 0 subtle ... 1 florid
    truth: dict[str, int]  # every finding -> 1 or 0
    report: dict[str, float]  # every finding -> 1, 0, -1 or NaN
    portable: bool
    views: int


@dataclass(frozen=True)
class Patient:
    """A synthetic patient, made from `seed` and `number` alone."""

    seed: int
    number: int
    female: bool
    age: int  # years
    anatomy: Anatomy
    studies: tuple[Study, ...]


def prevalence() -> np.ndarray:
    """Share of studies in which each finding is drawn, [13] in the order of FINDINGS."""
    rates = [reported_rates(name) for name in FINDINGS]
    shares = [(positive + uncertain / 2) / REPORTED for positive, _, uncertain in rates]
    return np.array([OWN_OPACITY if n == "Lung Opacity" else s for n, s in zip(FINDINGS, shares, strict=True)])


def reported_rates(name: str) -> tuple[float, float, float]:
    """Share of the training rows in which a finding is positive, negative and uncertain, the rarest softened."""
    positive, negative, uncertain = CHEXPERT_RATES[name]
    return max(positive, LEAST_RATE), max(negative, LEAST_RATE), uncertain


def simulate_patient(number: int, *, seed: int) -> Patient:
    """The patient of that number in the world of that seed.

    Findings are present where a Gaussian course exceeds the threshold their prevalence sets. The course has four
    common causes, so that findings co-occur, and is autoregressive over the studies, so that they persist.
    """
    rng = np.random.default_rng([seed, number])
    female, age = bool(rng.random() > _MALE), int(np.clip(rng.normal(60, 18), 18, 90))
    anatomy = random_anatomy(rng, female=female, age=age)
    count = 1 + int(rng.choice(len(_STUDIES), p=_STUDIES))
    innovations = rng.standard_normal((count, _LOADINGS.shape[1] + len(FINDINGS)))
    course = innovations[:1]
    for step in innovations[1:]:
        course = np.concatenate([course, _PERSISTENCE * course[-1:] + np.sqrt(1 - _PERSISTENCE**2) * step])
    causes, own = np.split(course, [_LOADINGS.shape[1]], axis=1)
    latent = causes @ _LOADINGS.T + np.sqrt(1 - (_LOADINGS**2).sum(axis=1)) * own  # [studies, 13], standard normal
    studies = tuple(_study(row, rng) for row in latent)
    return Patient(seed, number, female, age, anatomy, studies)


def _study(latent: np.ndarray, rng: np.random.Generator) -> Study:
    """The study at one point of the course; latent [13]."""
    shares = prevalence()
    present = latent > ndtri(1 - shares)
    severity = 1 - ndtr(-latent) / shares  # uniform in [0, 1) where the finding is present
    severities = {name: float(severity[i]) for i, name in enumerate(FINDINGS) if present[i]}
    truth = {name: int(name in severities) for name in FINDINGS}
    truth["Lung Opacity"] = int(any(truth[name] for name in (*IMPLY_OPACITY, "Lung Opacity")))
    report = {name: _mention(name, truth[name], rng.random()) for name in FINDINGS}
    return Study(severities, truth, report, rng.random() < _PORTABLE, 1 + int(rng.random() < _SECOND_VIEW))


def _mention(name: str, present: int, draw: float) -> float:
    """What a report says of a finding: it depends on whether it is present, never on how plain it is."""
    positive, negative, uncertain = reported_rates(name)
    share = OPACITY_PREVALENCE if name == "Lung Opacity" else (positive + uncertain / 2) / REPORTED
    among = share if present else 1 - share
    said, certain = (1.0, positive / among) if present else (0.0, negative / among)
    if draw < certain:
        return said
    return -1.0 if draw < certain + uncertain / 2 / among else np.nan


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
    out: Path, *, patients: int, seed: int = 0, overwrite: bool = False, processes: int | None = None
) -> dict[str, pd.DataFrame]:
    """Write a data set in CheXpert's layout to the folder `out`, in one step.

    Args:
        out: folder to make. Nothing half-written is left there after an error or an interrupt.
        patients: patients in train.csv and valid.csv together; at least 10.
        seed: decides every byte, together with `patients`.
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
    building = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    building.mkdir(parents=True)
    try:
        tables = _write_files(building, patients, seed, processes)
        (building / _README).write_text(_NOTICE.format(patients=patients, seed=seed), encoding="utf-8")
        _move_into_place(building, out)
    finally:
        shutil.rmtree(building, ignore_errors=True)
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


def _move_into_place(building: Path, out: Path) -> None:
    """Rename `building` to `out`; an earlier `out` is moved aside first and put back if that fails."""
    aside = building.with_suffix(".old")
    if out.exists():
        out.rename(aside)
    try:
        building.rename(out)
    except OSError:
        if aside.exists():
            aside.rename(out)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _write_files(root: Path, patients: int, seed: int, processes: int | None) -> dict[str, pd.DataFrame]:
    """Draw all patients and write both tables."""
    valid = max(3, round(_VALID_SHARE * patients))
    jobs = [(root, "train", 1 + i, seed) for i in range(patients - valid)]
    jobs += [(root, "valid", _FIRST_VALID + i, seed) for i in range(valid)]
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


def _write_patient(job: tuple[Path, str, int, int]) -> list[dict]:
    """Write the images of one patient; returns their rows of the table."""
    root, split, number, seed = job
    patient = simulate_patient(number, seed=seed)
    rows = []
    for s, study in enumerate(patient.studies, start=1):
        folder = f"{split}/patient{number:05d}/study{s}"
        (root / folder).mkdir(parents=True)
        labels = study.report if split == "train" else study.truth
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
                    "No Finding": _no_finding(labels.items(), blank=split == "train"),
                    **{name: float(value) for name, value in labels.items()},
                }
            )
    return rows


def _no_finding(labels: Iterable[tuple[str, float]], *, blank: bool) -> float:
    """1 where nothing but a device is positive or uncertain; else blank (a report's label) or 0 (the truth)."""
    if not any(value in (1, -1) for name, value in labels if name != "Support Devices"):
        return 1.0
    return np.nan if blank else 0.0
