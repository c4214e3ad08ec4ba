"""Part targets: do all targets from 0.50 to 0.99 hold together, and one that was picked by looking at val?

Thresholds are certified for every target that is feasible, each at 95% and each at 99.5%. A target is then picked by
the F1 or the F2 score that its threshold has on val.
"""

import numpy as np
from scipy.special import ndtri

from recall_parts.clusters import simulate
from recall_parts.common import TARGET, print_header, print_row, share, true_rates
from src.report.explorer import ANY_TARGET, RECALLS
from src.stats.thresholds import build_curve, certified_rule

CLASSES, REPEATS = 1, 1000
CELLS = ((50, 1, 0.0), (100, 1, 0.0), (300, 1, 0.0), (1000, 1, 0.0), (300, 8, 0.4))  # positives, images, correlation
CONFIDENCES = (0.95, ANY_TARGET)
TARGETS = np.array(RECALLS)


def f_score(precision, recall, beta):
    """F score, in which recall weighs `beta` times as much as precision."""
    return (1 + beta**2) * precision * recall / (beta**2 * precision + recall)


def one_val(cell, rng):
    """Per confidence: whether all targets held, the one at `TARGET`, those picked by F1 and F2, and true precision."""
    positives, most_images, correlation = cell
    named = {"positives": positives, "most_images": most_images, "correlation": correlation}
    probs, labels, patients = simulate(**named, classes=1, rng=rng)
    known = ~np.isnan(labels[:, 0])
    curve = build_curve(probs[known, 0], targets=labels[known, 0], patients=patients[known])
    rows = []
    for confidence in CONFIDENCES:
        points = [certified_rule(curve, recall=target, confidence=confidence) for target in TARGETS]
        feasible = np.array([point.status == "ok" for point in points])
        held, precision = true_rates(ndtri(np.array([point.threshold for point in points])))
        kept = np.where(feasible, held >= TARGETS, np.nan)
        on_val = np.array([(point.precision, point.recall) for point in points]).T
        picked = [np.argmax(np.where(feasible, f_score(*on_val, beta), -1)) for beta in (1, 2)]
        fixed = np.flatnonzero(TARGETS == TARGET)[0]
        rows.append([np.nanmin(kept), kept[fixed], *kept[picked], precision[fixed] if feasible[fixed] else np.nan])
    return rows


def report(*, classes, repeats, confidence, seed):
    """Print the table, for both confidences whatever `confidence` says."""
    picked = ("picked by F1, kept", "picked by F2, kept")
    print_header("positives", "images per patient", "correlation", "each certified at", "all targets kept",
                 f"{TARGET:g} kept", *picked, f"precision at {TARGET:g}")  # fmt: skip
    for number, cell in enumerate(CELLS):
        rng = np.random.default_rng([seed, number])
        found = np.array([one_val(cell, rng) for _ in range(repeats)], dtype=float)
        positives, most_images, correlation = cell
        images = "1" if most_images == 1 else f"1-{most_images}"
        for level, rows in zip(CONFIDENCES, found.swapaxes(0, 1), strict=True):
            shares = [share(column) for column in rows.T[:4]]
            print_row(positives, images, correlation, f"{level:g}", *shares, f"{np.nanmean(rows[:, 4]):.3f}")
