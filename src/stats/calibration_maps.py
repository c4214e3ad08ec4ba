"""Monotone maps from a model's probability to one that means something, fitted class by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from src.evaluate import check_masked
from src.stats.calibration import correct_probs

METHODS = {
    "prior": "the prior correction",
    "temperature": "temperature scaling",
    "platt": "Platt scaling",
    "isotonic": "isotonic regression",
    "none": "no calibration",
}
NEVER_SURE = 1e-15  # how close to 0 and 1 a probability may come where its logit is taken
LEAST_SLOPE = 0.01  # of the logit: below it, probabilities would collapse into one


@dataclass(frozen=True)
class OddsMap:
    """The odds to the power of `slope`, over `weight`: on the logit, a straight line that rises."""

    slope: float
    weight: float

    def __post_init__(self) -> None:
        """Raise ValueError where the map does not rise."""
        if not (0 < self.slope < np.inf and 0 < self.weight < np.inf):
            raise ValueError(f"slope {self.slope} and weight {self.weight}; expected finite numbers above 0")

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64, of those of one class."""
        return correct_probs(probs, pos_weight=self.weight, slope=self.slope)

    def inverse(self) -> "OddsMap":
        """The map that undoes it."""
        return OddsMap(1 / self.slope, self.weight ** (-1 / self.slope))

    def __str__(self) -> str:
        return f"slope {self.slope:.3g}, offset {-np.log(self.weight):.3g}"


@dataclass(frozen=True)
class StepMap:
    """Through the points (`raw`, `prob`), straight between two of them and level beyond the first and the last."""

    raw: tuple[float, ...]
    prob: tuple[float, ...]

    def __post_init__(self) -> None:
        """Raise ValueError where the map falls somewhere."""
        same = len(self.raw) == len(self.prob) > 0
        if not same or not (np.diff(self.raw) > 0).all() or not (np.diff(self.prob, prepend=0, append=1) >= 0).all():
            raise ValueError("its points do not rise from 0 to 1; expected raw and prob of one length, both ascending")

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64, of those of one class."""
        return np.interp(probs, self.raw, self.prob)

    def __str__(self) -> str:
        return f"{len(set(self.prob))} levels"


ClassMap = OddsMap | StepMap


def apply_maps(maps: Sequence[ClassMap], probs: np.ndarray) -> np.ndarray:
    """Calibrated probabilities [N, C] float64 of raw ones, by the map of each class."""
    return np.stack([of_class(column) for of_class, column in zip(maps, probs.T, strict=True)], axis=1)


def fit_maps(
    method: str,
    probs: np.ndarray,
    *,
    targets: np.ndarray,
    mask: np.ndarray,
    classes: Sequence[str],
    pos_weight: Sequence[float],
) -> tuple[list[ClassMap], dict[str, str]]:
    """The map of each class from the raw sigmoid, and for each class that keeps to `prior` instead, why.

    method: one of METHODS; probs, targets, mask: [N, C] as in `evaluate.check_masked`; pos_weight: [C]. `none` changes
    nothing, and `prior` undoes pos_weight (`correct_probs`). The others are fitted to the valid entries of the class:
    `temperature` (Guo et al. 2017) a slope of the corrected logit, `platt` (Platt 1999) a slope and an offset, and
    `isotonic` (Zadrozny & Elkan 2002) any map that rises. None of them ever says 0 or 1, see `_certainties`.
    """
    probs, positive, mask = check_masked(probs, targets=targets, mask=mask, classes=classes)
    maps, kept = [], {}
    for c, name in enumerate(classes):
        prior, entries, outcomes = OddsMap(1.0, float(pos_weight[c])), probs[mask[:, c], c], positive[mask[:, c], c]
        fitted: ClassMap | None = OddsMap(1.0, 1.0) if method == "none" else prior
        if method not in ("none", "prior"):
            one_label = outcomes.all() or not outcomes.any()
            fitted = None if one_label else _fit(method, entries, outcomes, prior)
            if fitted is None:
                kept[name] = "it has only one label" if one_label else "it ranks the labels no better than chance"
        maps.append(fitted or prior)
    return maps, kept


def _fit(method: str, probs: np.ndarray, positive: np.ndarray, prior: OddsMap) -> ClassMap | None:
    """The map of a class with both labels: probs [n], positive [n] bool. None where it would not rise."""
    if method == "isotonic":
        rarest, commonest = _certainties(positive)
        curve = IsotonicRegression(y_min=rarest, y_max=commonest).fit(probs, positive)
        points = StepMap(tuple(curve.X_thresholds_.tolist()), tuple(curve.y_thresholds_.tolist()))
        return points if len(set(points.prob)) > 1 else None
    scores = logit(probs.clip(NEVER_SURE, 1 - NEVER_SURE))
    if method == "platt":
        slope, offset = _logistic(scores, positive, intercept=True)
        return OddsMap(slope, float(np.exp(-offset))) if slope >= LEAST_SLOPE else None
    slope, _ = _logistic(scores - np.log(prior.weight), positive, intercept=False)
    return OddsMap(slope, prior.weight**slope) if slope >= LEAST_SLOPE else None


def _certainties(positive: np.ndarray) -> tuple[float, float]:
    """How sure one may be of a negative and of a positive, of labels [n]: Platt's targets, from Laplace's rule."""
    hits = int(positive.sum())
    return 1 / (len(positive) - hits + 2), (hits + 1) / (hits + 2)


def _logistic(scores: np.ndarray, positive: np.ndarray, *, intercept: bool) -> tuple[float, float]:
    """Slope and offset that maximize the likelihood of Platt's targets, which are finite where scores separate."""
    low, high = _certainties(positive)
    share = np.where(positive, high, low)
    model = LogisticRegression(C=np.inf, fit_intercept=intercept, solver="newton-cholesky", tol=1e-8)
    twice = np.concatenate([scores, scores])[:, None]
    model.fit(twice, np.repeat([1, 0], len(scores)), sample_weight=np.concatenate([share, 1 - share]))
    return float(model.coef_[0, 0]), float(model.intercept_[0]) if intercept else 0.0
