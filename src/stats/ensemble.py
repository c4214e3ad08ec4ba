"""Blending the models' probabilities: an alpha for two, weights on the simplex for more. Validation data only."""

from collections.abc import Callable, Sequence

import numpy as np

from src.stats.grid import unit_grid

ROUNDS = 50  # of forward selection: weights in steps of 1/50 at the finest


def blend(members: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of the members' probabilities [M, N, C]: float64 [N, C]."""
    return np.einsum("m,mnc->nc", np.asarray(weights, np.float64), members)


def alpha_grid(step: float) -> np.ndarray:
    """Alphas from 0 to 1 in steps of `step`. Raises ValueError where `step` does not divide 1."""
    return unit_grid(step, flag="--step")


def choose_alpha(alphas: np.ndarray, scores: np.ndarray, errors: np.ndarray) -> int:
    """Index of the alpha nearest 0.5 whose score is within one standard error of the best.

    alphas, scores [A]; errors [A]: standard error of (best score - this score). The one-standard-error rule of
    Breiman et al. 1984 (section 3.4.3), towards the plain mean. Of two as near, the better score wins.
    """
    eligible = np.flatnonzero(scores.max() - scores <= errors)
    distance = np.round(np.abs(alphas[eligible] - 0.5), 12)
    return int(eligible[np.lexsort((-scores[eligible], distance))[0]])


def greedy_weights(members: np.ndarray, *, score: Callable[[np.ndarray], float]) -> np.ndarray:
    """Weights [M] by greedy forward selection with replacement (Caruana et al. 2004).

    members: [M, N, C] probabilities. Each round adds the member with which the mean of those added scores highest;
    the counts after the best round are the weights.
    """
    counts = np.zeros(len(members))
    total = np.zeros(members.shape[1:])
    best_score, best_counts = -np.inf, counts
    for size in range(1, ROUNDS + 1):
        scores = [score((total + member) / size) for member in members]
        winner = int(np.argmax(scores))
        counts = counts + (np.arange(len(members)) == winner)
        total = total + members[winner]
        if scores[winner] > best_score:
            best_score, best_counts = scores[winner], counts
    return best_counts / best_counts.sum()
