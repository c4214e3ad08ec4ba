"""What certifying a recall costs, reckoned before there are data: one positive per patient, scores as assumed here."""

import math
from typing import NamedTuple

import numpy as np
from scipy.special import betaincinv, ndtr, ndtri
from scipy.stats import beta

from src.evaluate import ratio
from src.stats.thresholds import patients_needed

POSITIVES = (19, 29, 40, 60, 100, 150, 200, 300, 500, 1000)
QUANTILES = (np.arange(400) + 0.5) / 400  # of the true recall, over which precision is averaged


class Plan(NamedTuple):
    """What a certified threshold allows and costs with so many positives."""

    positives: int
    misses: int  # that validation may have; -1 where no threshold can be certified
    val_recall: float  # with these misses
    true_recall: float  # on average
    precision: float  # on average, where a threshold has that true recall
    lost: float  # precision at a true recall equal to the target, minus `precision`


def plan(target: float, *, confidence: float, auroc: float, prevalence: float) -> list[Plan]:
    """A row for each number of `POSITIVES`.

    The scores of the negatives are N(0, 1) and those of the positives N(d, 1), with d of the `auroc`. The certified
    threshold is then the score of the positive after `misses` lower ones, at which true recall is distributed as
    Beta(positives - misses, misses + 1).
    """
    shift = math.sqrt(2) * float(ndtri(auroc))

    def precision(recall: np.ndarray) -> np.ndarray:
        false_alarms = ndtr(ndtri(recall) - shift)
        return recall * prevalence / (recall * prevalence + false_alarms * (1 - prevalence))

    ideal = float(precision(np.array(target)))
    needed = patients_needed(target, confidence=confidence)
    rows = []
    for count in POSITIVES:
        if count < needed:
            rows.append(Plan(count, -1, math.nan, math.nan, math.nan, math.nan))
            continue
        allowed = np.arange(count)
        bounds = betaincinv(count - allowed, allowed + 1, 1 - confidence)
        misses = int(np.sum(bounds >= target)) - 1
        drawn = beta.ppf(QUANTILES, count - misses, misses + 1)
        mean = float(np.mean(precision(drawn)))
        rows.append(Plan(count, misses, ratio(count - misses, count), float(np.mean(drawn)), mean, ideal - mean))
    return rows
