"""Other ways to choose a threshold for a recall target, on the same data as the certified and the empirical rule.

Draws one finding with a known score distribution (negatives N(0, 1), positives N(1.5, 1), three negatives per positive,
images of a patient correlated), lets every method choose a threshold for recall >= 0.85 at 95% confidence where it has
one, and looks up the true recall. The second table is about time.

It needs two more libraries: pip install -r benchmarks/requirements-peers.txt

feasible    share of data sets in which the method found a threshold
kept        share of these in which true recall is at least the target
recall, precision    their true means where the method found a threshold

Example: python benchmarks/peers.py --repeats 500
"""

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np
from recall_parts.clusters import CLUSTERS, simulate
from recall_parts.common import CONFIDENCE, TARGET, print_header, print_row, share, true_rates
from scipy.special import ndtr, ndtri
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.metrics import make_scorer
from sklearn.model_selection import TunedThresholdClassifierCV

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

try:
    from crepes import ConformalClassifier
    from mapie.risk_control import BinaryClassificationController, MultiLabelClassificationController
    from mapie.risk_control.methods import find_best_predict_param, get_r_hat_plus
except ImportError as error:
    sys.exit(f"{error}; run pip install -r benchmarks/requirements-peers.txt")

from src.stats.thresholds import build_curve, build_curves, certified_rule, empirical_rule

POSITIVES = (30, 100, 300, 1000)
GRID = np.linspace(0, 0.99, 100)  # MAPIE's default
TIMED_ROWS, TIMED_FINDINGS, TIMED_PREVALENCE = 10_000, 13, 0.2


class Scores(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose one feature is the probability of the finding."""

    classes_ = np.array([0, 1])

    def fit(self, features, labels=None):
        """Nothing is learned."""
        return self

    def predict_proba(self, features):
        """Probabilities [n, 2]."""
        return np.column_stack([1 - features[:, 0], features[:, 0]])

    def __sklearn_is_fitted__(self):
        return True


def certified(probs, labels, patients):
    point = certified_rule(build_curve(probs, targets=labels, patients=patients), recall=TARGET, confidence=CONFIDENCE)
    return point.threshold if point.status == "ok" else np.nan


def empirical(probs, labels, patients):
    return empirical_rule(build_curve(probs, targets=labels, patients=patients), recall=TARGET).threshold


def mapie_binary(how):
    """MAPIE's learn-then-test for one label, with `how` it corrects for the 100 thresholds that it tries."""

    def choose(probs, labels, patients):
        controller = BinaryClassificationController(
            Scores().predict_proba, risk="recall", target_level=TARGET, confidence_level=CONFIDENCE, fwer_method=how
        )
        found = controller.calibrate(probs[:, None], labels).best_predict_param
        return np.nan if found is None else found

    return choose


def mapie_multilabel(method, bound=None):
    """MAPIE's multi-label control with one label: its own functions, called without its loop over the samples."""

    def choose(probs, labels, patients):
        missed = (probs[labels == 1][:, None] <= GRID).astype(float)
        upper = get_r_hat_plus(missed, GRID, method, bound, 1 - CONFIDENCE, 0.25)[1]
        if upper.min() >= 1 - TARGET:
            return np.nan
        return find_best_predict_param(GRID, upper, np.array([1 - TARGET]))[0]

    return choose


def mapie_multilabel_class(probs, labels, method, bound=None):
    """The same through MAPIE's class, which is slow; where nothing is feasible it returns an end of the grid."""
    confidence = CONFIDENCE if method == "rcps" else None
    controller = MultiLabelClassificationController(
        lambda features: features, risk="recall", method=method, target_level=TARGET, confidence_level=confidence,
        rcps_bound=bound
    )  # fmt: skip
    positives = probs[labels == 1][:, None]
    return controller.calibrate(positives, np.ones_like(positives, dtype=int)).best_predict_param[0]


def most_precise(labels, flags):
    """What scikit-learn maximizes: precision where recall reaches the target."""
    hits = np.sum((labels == 1) & (flags == 1))
    return hits / max(flags.sum(), 1) if hits >= TARGET * labels.sum() else -1.0


def sklearn_tuned(probs, labels, patients):
    model = TunedThresholdClassifierCV(Scores(), scoring=make_scorer(most_precise), cv="prefit", refit=False)
    return model.fit(probs[:, None], labels).best_threshold_


def crepes_mondrian(probs, labels, patients):
    """Label-conditional conformal prediction: flagged where the p value of "present" is above 1 - target."""
    positives = np.sort(probs[labels == 1])
    model = ConformalClassifier()
    model.fit(1 - positives)
    enough = model.predict_p(1 - positives[:, None], smoothing=False)[:, 0] > 1 - TARGET
    return positives[np.argmax(enough)]


MULTILABEL = {
    "MAPIE multi-label, CRC": ("crc", None),
    "MAPIE multi-label, RCPS, Hoeffding": ("rcps", "hoeffding"),
    "MAPIE multi-label, RCPS, Bernstein": ("rcps", "bernstein"),
    "MAPIE multi-label, RCPS, WSR": ("rcps", "wsr"),
}
METHODS = {
    "certified": certified,
    "empirical": empirical,
    "MAPIE binary, Holm (default)": mapie_binary("bonferroni_holm"),
    "MAPIE binary, fixed sequence": mapie_binary("fixed_sequence"),
    **{name: mapie_multilabel(*how) for name, how in MULTILABEL.items()},
    "scikit-learn, TunedThresholdClassifierCV": sklearn_tuned,
    "crepes, Mondrian": crepes_mondrian,
}


def check_multilabel(probs, labels, chosen):
    """Assert that the shortcut around MAPIE's loop chooses what its class does."""
    for name, how in MULTILABEL.items():
        real = mapie_multilabel_class(probs, labels, *how)
        assert np.isnan(chosen[name]) or abs(real - chosen[name]) < 1e-12, (name, real, chosen[name])


def run_cell(cell, *, repeats, slow_repeats, rng):
    """Thresholds by method, on the scale of the scores; the first data set is checked against MAPIE's class."""
    found = {name: [] for name in METHODS}
    for i in range(repeats):
        probs, labels, patients = simulate(**cell, classes=1, rng=rng)
        known = ~np.isnan(labels[:, 0])
        data = probs[known, 0], labels[known, 0].astype(int), patients[known]
        chosen = {name: choose(*data) for name, choose in METHODS.items() if "WSR" not in name or i < slow_repeats}
        if i == 0:
            check_multilabel(*data[:2], chosen)
        for name, threshold in chosen.items():
            found[name].append(threshold)
    return {name: ndtri(np.array(thresholds, dtype=float)) for name, thresholds in found.items()}


def coverage_table(repeats, slow_repeats, seed):
    print_header("positives", "images per patient", "correlation", "method", "data sets", "feasible", "kept", "recall",
                 "precision")  # fmt: skip
    for positives in POSITIVES:
        for most_images, correlation in CLUSTERS:
            rng = np.random.default_rng([seed, positives, most_images, round(100 * correlation)])
            cell = {"positives": positives, "most_images": most_images, "correlation": correlation}
            images = "1" if most_images == 1 else f"1-{most_images}"
            slow = slow_repeats if positives < 300 else slow_repeats // 4
            for name, cuts in run_cell(cell, repeats=repeats, slow_repeats=slow, rng=rng).items():
                recall, precision = true_rates(cuts)
                kept = share(np.where(np.isnan(cuts), np.nan, recall >= TARGET))
                means = [f"{np.nanmean(rate):.3f}" if np.isfinite(cuts).any() else "-" for rate in (recall, precision)]
                feasible = f"{np.isfinite(cuts).mean():.1%}"
                print_row(positives, images, correlation, name, len(cuts), feasible, kept, *means)


def seconds(function, *, repeats=3):
    """Best wall time of `repeats` calls."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def time_table(seed):
    rng = np.random.default_rng(seed)
    labels = (rng.random((TIMED_ROWS, TIMED_FINDINGS)) < TIMED_PREVALENCE).astype(int)
    probs = ndtr(rng.normal(size=labels.shape) + 1.5 * labels)
    patients = np.sort(rng.integers(TIMED_ROWS // 3, size=TIMED_ROWS))

    def ours():
        curves = build_curves(probs, targets=labels, mask=np.ones(labels.shape, dtype=bool), patients=patients)
        return [certified_rule(curve, recall=TARGET, confidence=CONFIDENCE) for curve in curves]

    def each(choose, columns=TIMED_FINDINGS):
        return lambda: [choose(probs[:, c], labels[:, c], patients) for c in range(columns)]

    base = seconds(ours)
    print()
    print_header(f"{TIMED_FINDINGS} findings, {TIMED_ROWS:,} rows", "seconds", "times the certified rule")
    print_row("certified", f"{base:.3f}", "1")
    for name in ("MAPIE binary, Holm (default)", "MAPIE binary, fixed sequence",
                 "scikit-learn, TunedThresholdClassifierCV", "crepes, Mondrian"):  # fmt: skip
        taken = seconds(each(METHODS[name]))
        print_row(name, f"{taken:.3f}", f"{taken / base:.0f}")
    one = seconds(each(lambda p, y, _: mapie_multilabel_class(p, y, "crc"), 1), repeats=1)
    taken = TIMED_FINDINGS * one
    print_row("MAPIE multi-label, CRC (one finding, scaled)", f"{taken:.1f}", f"{taken / base:.0f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=500, help="data sets for each cell (500)")
    parser.add_argument(
        "--slow-repeats", type=int, default=100, help="the same for WSR, a quarter from 300 positives on (100)"
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message="No predict parameters|The risk cannot be controlled")
    coverage_table(args.repeats, args.slow_repeats, args.seed)
    time_table(args.seed)


if __name__ == "__main__":
    main()
