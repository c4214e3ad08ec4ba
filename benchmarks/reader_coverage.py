"""Does the interval of "model minus reader" cover the truth?

Draws cases, each of its own patient, with normal scores (SHIFT apart) and a reader who calls independently of the score
at a given sensitivity and a specificity of 0.9. Counts how often the 95% interval of the model's precision at the
reader's sensitivity minus the reader's holds the true difference, beside the percentile interval of the same resamples.

Example: python benchmarks/reader_coverage.py --repeats 400
"""

import argparse
import sys
from pathlib import Path
from unittest import mock

import numpy as np
from scipy.special import ndtr, ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.stats import readers
from src.stats.bootstrap import interval
from src.stats.intervals import difference_interval

SHIFT, SPECIFICITY = 2.0, 0.9
CELLS = [(cases, prevalence, recall)
         for cases, prevalence in ((200, 0.1), (300, 0.1), (500, 0.2)) for recall in (0.7, 0.85, 0.97)]  # fmt: skip


def true_gain(prevalence, recall):
    """Precision of the model at that recall minus that of the reader."""

    def precision(false_alarms):
        return prevalence * recall / (prevalence * recall + (1 - prevalence) * false_alarms)

    return precision(ndtr(ndtri(recall) - SHIFT)) - precision(1 - SPECIFICITY)


def intervals(cases, prevalence, recall, *, resamples, rng):
    """The project's interval and the percentile interval of one drawn data set."""
    targets = (rng.random(cases) < prevalence).astype(float)
    scores = ndtr(rng.normal(size=cases) + SHIFT * targets)
    calls = np.where(targets == 1, rng.random(cases) < recall, rng.random(cases) > SPECIFICITY)
    data = {"targets": targets, "calls": calls, "patients": np.arange(cases), "resamples": resamples}
    with mock.patch.object(readers, "difference_interval", wraps=difference_interval) as called:
        found = readers.compare_reader(scores, **data, seed=0)
    return found["gain_ci"], interval(called.call_args.args[1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=300)
    args = parser.parse_args()
    print("| cases | positives | reader's recall | covered | +- | percentile |\n|---|---|---|---|---|---|")
    for cases, prevalence, recall in CELLS:
        rng, truth = np.random.default_rng(0), true_gain(prevalence, recall)
        drawn = [intervals(cases, prevalence, recall, resamples=args.resamples, rng=rng) for _ in range(args.repeats)]
        ours, percentile = (np.mean([low <= truth <= high for low, high in ends]) for ends in zip(*drawn, strict=True))
        error = np.sqrt(ours * (1 - ours) / args.repeats)
        figures = f"{ours:.3f} | {error:.3f} | {percentile:.3f}"
        print(f"| {cases} | {cases * prevalence:.0f} | {recall} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
