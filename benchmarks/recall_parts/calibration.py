"""Part calibration: two models calibrated on val, blended, and thresholds certified on the same val or on fresh data.

The scores of the two models have correlation 0.6, and their blend is the mean of their probabilities. A map fitted on
val makes its positives look a little better than the next ones; `prior` fits nothing. One finding, so that nothing is
averaged out. Epoch and alpha are not chosen here: part `reuse` says what that costs.
"""

import numpy as np
from scipy.special import expit

from recall_parts.common import SHIFT, TARGET, print_header, print_row, share
from recall_parts.reuse import OF_MODELS, draw_labels
from src.stats.calibration_maps import METHODS, apply_maps, fit_maps
from src.stats.thresholds import build_curve, certified_rule

CLASSES, REPEATS = 1, 2000  # repeats: vals of a cell
POSITIVES = (25, 50, 100, 300)
FUTURE = 20_000  # positives, by which the true recall is known to 0.25 points
WEIGHT = 3.0  # pos_weight of the models


def draw_probs(labels, rng):
    """Raw sigmoids [N, 2] of two overconfident models."""
    common, own = rng.normal(size=(len(labels), 1)), rng.normal(size=(len(labels), 2))
    scores = SHIFT * labels[:, None] + np.sqrt(OF_MODELS) * common + np.sqrt(1 - OF_MODELS) * own
    return expit(2 * SHIFT * (scores - SHIFT / 2))


def maps_of(method, labels, probs):
    """The map of each model, fitted on these labels."""
    labels = np.repeat(labels[:, None], 2, axis=1)
    weights = [WEIGHT, WEIGHT]
    options = {"targets": labels, "mask": np.ones_like(labels), "classes": ("one", "two"), "pos_weight": weights}
    return fit_maps(method, probs, **options)[0]


def kept(maps, labels, probs, future, confidence):
    """Whether the recall of the future positives at a threshold certified on these labels reaches the target."""
    blend = apply_maps(maps, probs).mean(axis=1)
    point = certified_rule(build_curve(blend, targets=labels), recall=TARGET, confidence=confidence)
    recall = (apply_maps(maps, future).mean(axis=1) >= point.threshold).mean()
    return recall >= TARGET if point.status == "ok" else np.nan


def report(*, classes, repeats, confidence, seed):
    """Print the table."""
    del classes
    fitted = [method for method in METHODS if method != "none"]
    ways = [f"{method}, {where}" for where in ("same val", "fresh data") for method in fitted]
    print_header("positives", *ways)
    for positives in POSITIVES:
        rng, cases = np.random.default_rng([seed, positives]), []
        for _ in range(repeats):
            future = draw_probs(np.ones(FUTURE, bool), rng)
            drawn = [draw_labels(positives, 1, rng)[:, 0] for _ in range(2)]
            val, fresh = ((labels, draw_probs(labels, rng)) for labels in drawn)
            maps = [maps_of(method, *val) for method in fitted]
            cases.append([kept(one, *data, future, confidence) for data in (val, fresh) for one in maps])
        table = np.array(cases, dtype=float)
        print_row(positives, *(share(column, groups=np.arange(repeats)) for column in table.T))
