"""What the thresholds of a rule do on the split they are evaluated on, for stage 6's tables and for the report."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from src.artifacts.truth import EvalSplit
from src.evaluate import masked_metrics, ratio
from src.stats.intervals import Share, clustered_share, share_interval, verdict
from src.stats.thresholds import Curve, OperatingPoint, build_curves
from src.stats.workload import Answers, answers


def curves_of(split: EvalSplit, *, by_patient: bool, grid: float | None = None) -> list[Curve]:
    """Every candidate threshold of each class in a split, as `build_curves` has them."""
    data: dict[str, Any] = {"targets": split.view.targets, "mask": split.view.mask, "patients": split.patients}
    return build_curves(split.probs, **data, by_patient=by_patient, grid=grid)


@dataclass(frozen=True)
class Evaluation:
    """The split that thresholds are evaluated on, and what the targets and rules share of it."""

    split: EvalSplit
    curves: list[Curve]
    auprc: list[float]  # [C]
    by_patient: bool

    @classmethod
    def of(cls, split: EvalSplit, *, by_patient: bool) -> "Evaluation":
        """Rank the classes."""
        curves = curves_of(split, by_patient=by_patient)
        auprc = [v["auprc"] for v in masked_metrics(split.probs, **split.view.arrays())["per_class"].values()]
        return cls(split, curves, auprc, by_patient)

    def views(self) -> tuple[Answers, Answers]:
        """What the workload counts: the units with a label, and all with each blank as a negative."""
        view = self.split.view
        return answers(view.targets, mask=view.mask, blank=np.isnan(view.truth.labels))

    def shares(self, c: int, threshold: float) -> dict[str, Share]:
        """Recall, precision and specificity in class `c` of flagging `prob >= threshold`.

        Recall has the weights of the promise. The other two count each unit once.
        """
        probs, targets = self.split.entries(c)
        patients = self.split.patients[self.split.view.mask[:, c]]
        flags, ill = probs >= threshold, targets == 1
        return {
            "recall": self.curves[c].recall_share(threshold),
            "precision": clustered_share(ill[flags], patients=patients[flags]),
            "specificity": clustered_share(~flags[~ill], patients=patients[~ill]),
        }


@dataclass(frozen=True)
class RuleResult:
    """What one rule chose for every class, and what it does on the split it is evaluated on."""

    kind: str  # "certified" or "empirical", a key of plots.RULES
    points: list[OperatingPoint]
    metrics: list[dict[str, Any]]  # per class what `_at_threshold` returns
    accuracy: float

    @property
    def thresholds(self) -> np.ndarray:
        """[C] float64."""
        return np.array([point.threshold for point in self.points])


def evaluate(kind: str, points: list[OperatingPoint], evaluation: Evaluation, target: float) -> RuleResult:
    """What the points that a rule chose do on the split."""
    metrics = [_at_threshold(evaluation, c, point, target=target) for c, point in enumerate(points)]
    entries = sum(curve.entries for curve in evaluation.curves)
    return RuleResult(kind, points, metrics, accuracy=ratio(sum(v["right"] for v in metrics), entries))


def _at_threshold(evaluation: Evaluation, c: int, point: OperatingPoint, *, target: float) -> dict[str, Any]:
    """Recall, precision and specificity with their intervals, and what recall says of the target.

    An infeasible class, which flags all, gets no verdict, nor does any class without test data: thresholds cannot be
    tried on the data that they were chosen on.
    """
    curve, shares = evaluation.curves[c], evaluation.shares(c, point.threshold)
    tp, fp = map(int, curve.counts_at(point.threshold))
    tried = point.status == "ok" and evaluation.split.name == "test"
    figures: dict[str, Any] = {name: share.value for name, share in shares.items()}
    figures |= {f"{name}_ci": share_interval(share) for name, share in shares.items()}
    return figures | {
        "shares": shares,
        "verdict": verdict(shares["recall"], target=target) if tried else "",
        "right": tp + curve.negatives - fp,
        "flags_all": 0 < tp + fp == curve.entries,
    }
