"""Part reuse: epoch, alpha and thresholds chosen on the same val, beside thresholds from fresh data of the same size.

Two equally good models of 20 epochs are scored on one val. The epoch with the best macro AUPRC is kept of each, then
the best of 11 alphas, then certified thresholds are chosen. The default alpha, the one nearest 0.5 within one standard
error of the best, is less greedy than the best one. The scores of two epochs of a model have correlation 0.9 and those
of the two models 0.6.
"""

import numpy as np
from scipy.special import ndtr, ndtri

from recall_parts.common import NEGATIVES_PER_POSITIVE, SHIFT, TARGET, print_header, print_row, share
from src.stats.thresholds import build_curve, certified_rule

CLASSES, REPEATS = 1, 4000  # repeats: cases (val, finding) of a cell
FINDINGS, POSITIVES = (1, 3, 13), (25, 50, 100)
EPOCHS, ALPHAS = 20, np.linspace(0, 1, 11)
OF_EPOCHS, OF_MODELS = 0.9, 0.6  # correlations


def draw_labels(positives, findings, rng):
    """Labels [N, C] bool with exactly so many positives in every column."""
    rows = positives * (1 + NEGATIVES_PER_POSITIVE)
    return np.array([rng.permutation(rows) < positives for _ in range(findings)]).T


def draw_scores(labels, epochs, rng):
    """Scores [2, N, epochs, C] of two models."""
    rows, findings = labels.shape
    common = rng.normal(size=(rows, 1, findings))
    model = rng.normal(size=(2, rows, 1, findings))
    epoch = rng.normal(size=(2, rows, epochs, findings))
    parts = np.sqrt(OF_MODELS) * common, np.sqrt(OF_EPOCHS - OF_MODELS) * model, np.sqrt(1 - OF_EPOCHS) * epoch
    return SHIFT * labels[:, None] + sum(parts)


def macro_auprc(scores, labels):
    """Average precision of scores [N, K, C] against labels [N, C], averaged over the findings: [K]."""
    order = np.argsort(-scores, axis=0)
    hits = np.take_along_axis(np.broadcast_to(labels[:, None], scores.shape), order, axis=0)
    precision = np.cumsum(hits, axis=0) / np.arange(1, len(scores) + 1)[:, None, None]
    return (np.sum(hits * precision, axis=0) / labels.sum(axis=0)).mean(axis=1)


def choose_blend(scores, labels):
    """The blend [N, C] of the best epochs with the best alpha, and that alpha."""
    first, second = (one[:, np.argmax(macro_auprc(one, labels))] for one in scores)
    blends = ALPHAS[:, None] * first[:, None] + (1 - ALPHAS[:, None]) * second[:, None]
    best = np.argmax(macro_auprc(blends, labels))
    return blends[:, best], ALPHAS[best]


def kept(blend, labels, alpha, confidence):
    """1 or 0 per finding: whether true recall at its certified threshold reaches the target; NaN where infeasible."""
    spread = np.sqrt(alpha**2 + (1 - alpha) ** 2 + 2 * alpha * (1 - alpha) * OF_MODELS)
    found = []
    for scores, positive in zip(blend.T, labels.T, strict=True):
        point = certified_rule(build_curve(ndtr(scores), targets=positive), recall=TARGET, confidence=confidence)
        recall = ndtr((SHIFT - ndtri(point.threshold)) / spread)
        found.append(recall >= TARGET if point.status == "ok" else np.nan)
    return found


def one_val(positives, findings, confidence, rng):
    """`kept` on the val in which everything was chosen, and on fresh data: [2, C]."""
    labels = draw_labels(positives, findings, rng)
    blend, alpha = choose_blend(draw_scores(labels, EPOCHS, rng), labels)
    fresh = draw_labels(positives, findings, rng)
    first, second = draw_scores(fresh, 1, rng)[:, :, 0]
    return kept(blend, labels, alpha, confidence), kept(alpha * first + (1 - alpha) * second, fresh, alpha, confidence)


def report(*, classes, repeats, confidence, seed):
    """Print the table."""
    print_header("findings", "positives of each", "kept, thresholds from the same val", "kept, from fresh data",
                 "difference, points")  # fmt: skip
    for findings in FINDINGS:
        for positives in POSITIVES:
            rng = np.random.default_rng([seed, findings, positives])
            vals = max(1, repeats // findings)
            cases = np.array([one_val(positives, findings, confidence, rng) for _ in range(vals)], dtype=float)
            groups = np.repeat(np.arange(vals), findings)
            shares = [share(cases[:, way].ravel(), groups=groups) for way in (0, 1)]
            lost = np.nanmean(cases[:, 0], axis=1) - np.nanmean(cases[:, 1], axis=1)
            error = lost.std(ddof=1) / np.sqrt(vals)
            print_row(findings, positives, *shares, f"{100 * lost.mean():+.1f} ± {100 * error:.1f}")
