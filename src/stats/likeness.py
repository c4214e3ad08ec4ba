"""How far the features of an image are from those of the training images, and how far is too far."""

from dataclasses import dataclass

import numpy as np
from sklearn.covariance import ledoit_wolf

SHARE = 0.99  # of the validation images that are to lie within the threshold
LEAST_SPREAD = 0.01  # of a feature, in mean spreads: one that hardly varies in training must not decide alone


@dataclass(frozen=True)
class Likeness:
    """The training images as a cloud of features: its center, its shape, and the distance that is too far.

    mean, scale [K]: of each feature; precision [K, K]: inverse covariance of the features in units of `scale`. All are
    float64.
    """

    mean: np.ndarray
    scale: np.ndarray
    precision: np.ndarray
    threshold: float

    @classmethod
    def fit(cls, train: np.ndarray, *, val: np.ndarray) -> "Likeness":
        """The cloud of training features [N, K], and the threshold that 1% of the validation features [M, K] exceed.

        The covariance is that of Ledoit & Wolf 2004, shrunk so that it can be inverted with fewer images than features.
        """
        scale = train.std(axis=0, dtype=np.float64)
        scale = np.maximum(scale, LEAST_SPREAD * scale.mean() or 1.0)
        mean = train.mean(axis=0, dtype=np.float64)
        covariance, _ = ledoit_wolf((train - mean) / scale, assume_centered=True)
        cloud = cls(mean, scale, np.linalg.pinv(covariance, hermitian=True), threshold=np.inf)
        threshold = np.quantile(cloud.distances(val), SHARE, method="higher")
        return cls(cloud.mean, cloud.scale, cloud.precision, float(threshold))

    def distances(self, features: np.ndarray) -> np.ndarray:
        """The distance of Mahalanobis 1936 of features [N, K] from the center of the cloud: float64 [N]."""
        offset = (np.asarray(features, np.float64) - self.mean) / self.scale
        return np.sqrt(np.einsum("nk,kl,nl->n", offset, self.precision, offset, optimize=True))

    def unlike(self, features: np.ndarray) -> np.ndarray:
        """Which of the features [N, K] are farther than the threshold: bool [N]."""
        return self.distances(features) > self.threshold
