"""Synthetic patients: a course of findings, and what reports say of it.

Whether a finding is present comes from a latent Gaussian course per patient. What a report says of it depends on
whether it is present, never on how plain it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, ndtri

from src.demo.anatomy import Anatomy, random_anatomy
from src.demo.draw import FINDINGS

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
# Share labeled negative among the 22,381 of these rows that are marked "No Finding". No other label is 1 or -1 there,
# but of "Support Devices", of which the mark does not speak.
NEGATIVE_IN_NO_FINDING = {
    "Atelectasis": 0.022,
    "Cardiomegaly": 0.150,
    "Consolidation": 0.395,
    "Edema": 0.199,
    "Enlarged Cardiomediastinum": 0.375,
    "Fracture": 0.049,
    "Lung Lesion": 0.017,
    "Lung Opacity": 0.108,
    "Pleural Effusion": 0.512,
    "Pleural Other": 0.001,
    "Pneumonia": 0.052,
    "Pneumothorax": 0.599,
}
# Share of the rows without a positive or uncertain finding, and the share of them that is marked "No Finding".
CLEAR, MARKED = 0.127, 0.786
DEVICES = "Support Devices"
IMPLY_OPACITY = ("Atelectasis", "Consolidation", "Edema", "Lung Lesion", "Pneumonia")
OWN_OPACITY = 0.10  # share of the studies with a haze of no other cause


@dataclass(frozen=True)
class Rates:
    """How often reports label each finding, and how often it is there.

    labels: finding -> share of the reports in which it is positive, negative and uncertain.
    reported: share of the findings present that a report mentions; half of what it calls uncertain is present.
    opacity: share of the studies with a lung opacity of any cause, by simulation.
    clear: share of the reports without a positive or uncertain finding, if these name negatives as often as
        NEGATIVE_IN_NO_FINDING says; None if they do as any other.
    marked: share of these reports that are marked "No Finding".
    """

    labels: Mapping[str, tuple[float, float, float]]
    reported: float
    opacity: float
    clear: float | None = None
    marked: float = 1.0

    def present(self, name: str) -> float:
        """Share of the studies that have a finding."""
        positive, _, uncertain = self.labels[name]
        return self.opacity if name == "Lung Opacity" else (positive + uncertain / 2) / self.reported

    def negative(self, name: str, *, clear: bool) -> float:
        """Chance that a finding which is absent, and not called uncertain, is labeled negative in a report.

        clear: whether the report has no positive or uncertain finding. Its negatives are taken out of all.
        """
        _, negative, uncertain = self.labels[name]
        here, absent = NEGATIVE_IN_NO_FINDING.get(name), 1 - self.present(name) - uncertain / 2
        if self.clear is None or here is None:
            return negative / absent
        return here if clear else (negative - self.clear * here) / (absent - self.clear)


def softened(least: float = 0.12) -> Rates:
    """CheXpert's rates with none below `least`: a fifth of the training patients must hold enough of both labels."""
    labels = {
        name: (max(positive, least), max(negative, least), uncertain)
        for name, (positive, negative, uncertain) in CHEXPERT_RATES.items()
    }
    return Rates(labels, reported=0.85, opacity=0.66)


# 0.70 gives the share of reports without a finding that CheXpert has, and nearly as many findings among the blanks of
# those marked "No Finding" as radiologists found (benchmarks/label_rates.py).
RATES = {
    "softened": softened(),
    "chexpert": Rates(CHEXPERT_RATES, reported=0.70, opacity=0.686, clear=CLEAR, marked=MARKED),
}

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
_SECOND_VIEW, _PORTABLE, _MALE = 0.03, 0.85, 0.59


@dataclass(frozen=True)
class Study:
    """One visit: what is there, how plain it is, and what the report says of it."""

    severities: dict[str, float]  # finding drawn -> 0 subtle ... 1 florid
    truth: dict[str, int]  # every finding -> 1 or 0
    report: dict[str, float]  # every finding -> 1, 0, -1 or NaN
    no_finding: bool  # whether the report is marked "No Finding"
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


def drawn(rates: Rates) -> np.ndarray:
    """Share of the studies in which each finding is drawn, [13] in the order of FINDINGS."""
    return np.array([OWN_OPACITY if name == "Lung Opacity" else rates.present(name) for name in FINDINGS])


def simulate_patient(number: int, *, seed: int, rates: Rates = RATES["softened"]) -> Patient:
    """The patient of that number in the world of that seed and those rates.

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
    studies = tuple(_study(row, rates, rng) for row in latent)
    return Patient(seed, number, female, age, anatomy, studies)


def _study(latent: np.ndarray, rates: Rates, rng: np.random.Generator) -> Study:
    """The study at one point of the course; latent [13]."""
    shares = drawn(rates)
    present = latent > ndtri(1 - shares)
    severity = 1 - ndtr(-latent) / shares  # uniform in [0, 1) where the finding is present
    severities = {name: float(severity[i]) for i, name in enumerate(FINDINGS) if present[i]}
    truth = {name: int(name in severities) for name in FINDINGS}
    truth["Lung Opacity"] = int(any(truth[name] for name in (*IMPLY_OPACITY, "Lung Opacity")))
    report, marked = _report(truth, rates, rng)
    return Study(severities, truth, report, marked, rng.random() < _PORTABLE, 1 + int(rng.random() < _SECOND_VIEW))


def _report(truth: dict[str, int], rates: Rates, rng: np.random.Generator) -> tuple[dict[str, float], bool]:
    """What a report says of each finding, and whether it is marked "No Finding"."""
    report = {name: _mention(name, truth[name], rng.random(), rates) for name in FINDINGS}
    clear = is_clear(report)
    if rates.clear is not None:
        for name in FINDINGS:
            blank = np.isnan(report[name]) and not truth[name]
            if blank and rng.random() < rates.negative(name, clear=clear):
                report[name] = 0.0
    return report, clear and (rates.marked == 1 or rng.random() < rates.marked)


def is_clear(labels: Mapping[str, float]) -> bool:
    """Whether nothing but, perhaps, a device is positive or uncertain."""
    return not any(value in (1, -1) for name, value in labels.items() if name != DEVICES)


def _mention(name: str, present: int, draw: float, rates: Rates) -> float:
    """What a report says of a finding; where negatives depend on the other findings, they are still blank."""
    positive, negative, uncertain = rates.labels[name]
    among = rates.present(name) if present else 1 - rates.present(name)
    said, certain = (1.0, positive / among) if present else (0.0, 0 if rates.clear else negative / among)
    if draw < certain:
        return said
    return -1.0 if draw < certain + uncertain / 2 / among else np.nan
