"""Part weights: the recall of the next unit, and of a random unit of a random patient, where some own many units.

Thresholds are certified for either recall, and both are looked up. Only positives are drawn, so that the rule takes the
highest threshold that is certified, which is the hardest case for the promise. The last row is drawn with negatives and
goes through the command line.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from recall_parts.common import (
    NEGATIVES_PER_POSITIVE,
    SHIFT,
    TARGET,
    print_header,
    print_row,
    run_stage,
    share,
    within,
)
from src.stats.thresholds import build_curve, certified_rule

CLASSES, REPEATS = 100, 2000
PATIENTS = (25, 60, 150, 400)


class Kind(NamedTuple):
    """Kinds of patients: their share, their fewest and most units, and how much easier their units are, in SD."""

    share: float
    fewest: int
    most: int
    easier: float = 0.0


FEW = (1, 2)  # units of the patients who own little
SCENARIOS = {  # correlation within patients, and the kinds
    "one unit each": (0.0, [Kind(1, 1, 1)]),
    "1-8 units, correlation 0": (0.0, [Kind(1, 1, 8)]),
    "1-8 units, correlation 0.4": (0.4, [Kind(1, 1, 8)]),
    "1-8 units, correlation 0.7": (0.7, [Kind(1, 1, 8)]),
    "1-8 units, 15% of patients 2 SD harder": (0.4, [Kind(0.85, 1, 8), Kind(0.15, 1, 8, -2.0)]),
    "2% of patients own 45% of units, 1 SD harder": (0.4, [Kind(0.98, *FEW), Kind(0.02, 30, 89, -1.0)]),
    "5% of patients own 58%, 1 SD harder": (0.4, [Kind(0.95, *FEW), Kind(0.05, 20, 59, -1.0)]),
    "5% of patients own 58%, no harder": (0.4, [Kind(0.95, *FEW), Kind(0.05, 20, 59)]),
    "10% of patients own 59%, 0.7 SD easier": (0.4, [Kind(0.90, *FEW), Kind(0.10, 10, 29, 0.7)]),
}


def true_recalls(kinds, z):
    """Recall of the next unit and of a random unit of a random patient, of flagging scores of at least z."""
    by_patient = np.array([kind.share for kind in kinds])
    by_unit = by_patient * [(kind.fewest + kind.most) / 2 for kind in kinds]
    recall = np.array([ndtr(SHIFT + kind.easier - z) for kind in kinds])
    return by_unit @ recall / by_unit.sum(), by_patient @ recall


def draw_patients(kinds, patients, rng):
    """Units of each patient and how much easier they are: [patients] each."""
    which = rng.choice(len(kinds), size=patients, p=[kind.share for kind in kinds])
    fewest, most, easier = (np.array([kind[field] for kind in kinds])[which] for field in (1, 2, 3))
    return rng.integers(fewest, most + 1), easier


def certify(scenario, patients, rng, *, confidence):
    """Thresholds on the scale of the scores, for the next unit and for the next patient; NaN where infeasible."""
    correlation, kinds = SCENARIOS[scenario]
    sizes, easier = draw_patients(kinds, patients, rng)
    owners = np.repeat(np.arange(patients), sizes)
    probs = ndtr(SHIFT + easier[owners] + within(owners, correlation, rng))
    chosen = []
    for by_patient in (False, True):
        curve = build_curve(probs, targets=np.ones(len(probs)), patients=owners, by_patient=by_patient)
        point = certified_rule(curve, recall=TARGET, confidence=confidence)
        chosen.append(ndtri(point.threshold) if point.status == "ok" else np.nan)
    return chosen


def certify_by_command(scenario, patients, rng, *, classes, confidence):
    """The same for many classes in one pair of files: thresholds [classes, 2]."""
    correlation, kinds = SCENARIOS[scenario]
    people = patients * (1 + NEGATIVES_PER_POSITIVE)
    sizes, easier = draw_patients(kinds, people, rng)
    owners = np.repeat(np.arange(people), sizes)
    ill = np.array([rng.permutation(people) < patients for _ in range(classes)]).T  # [people, classes]
    labels = ill[owners].astype(float)
    probs = ndtr(labels * (SHIFT + easier[owners])[:, None] + within(owners, correlation, rng, classes))
    chosen = []
    for weights in ("study", "patient"):
        named = {
            "recalls": [TARGET],
            "owners": {"patient_id": owners},
            "flags": ("--weights", weights, "--confidence", confidence),
        }
        table = run_stage(probs, labels, **named)[TARGET]
        chosen.append(np.where(table["status"] == "ok", ndtri(table["threshold"].to_numpy(float)), np.nan))
    return np.array(chosen).T


def print_cell(scenario, patients, chosen, *, groups=None, how=""):
    """One row: for both ways to certify, how often both recalls reach the target; chosen: [repeats, 2]."""
    cells = [f"{np.isfinite(chosen).mean():.0%}"]
    for z in chosen.T[::-1]:
        feasible = np.isfinite(z)
        by_unit, by_patient = true_recalls(SCENARIOS[scenario][1], z)
        cells += [share(np.where(feasible, one >= TARGET, np.nan), groups=groups) for one in (by_patient, by_unit)]
    print_row(scenario + how, patients, *cells)


def report(*, classes, repeats, confidence, seed):
    """Print the table."""
    print_header(
        "data", "positive patients", "feasible", "`--weights patient`: recall of the next patient kept",
        "of the next unit", "default: recall of the next patient kept", "of the next unit"
    )  # fmt: skip
    for number, scenario in enumerate(SCENARIOS):
        for patients in PATIENTS:
            rng = np.random.default_rng([seed, number, patients])
            chosen = np.array([certify(scenario, patients, rng, confidence=confidence) for _ in range(repeats)])
            print_cell(scenario, patients, chosen)
    scenario, patients, files = "2% of patients own 45% of units, 1 SD harder", 150, max(1, repeats // 200)
    rng = np.random.default_rng([seed, 1000])
    chosen = [certify_by_command(scenario, patients, rng, classes=classes, confidence=confidence) for _ in range(files)]
    groups = np.repeat(np.arange(files), classes)
    print_cell(scenario, patients, np.concatenate(chosen), groups=groups, how=", by the command line")
