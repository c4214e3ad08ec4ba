"""Do the 95% intervals cover the truth, and how often is a verdict on test wrong?

Draws data sets with known score distributions - negatives N(0, 1), positives N(1.5, 1), one positive patient in five,
images of a patient alike in label and correlated in score - and counts how often the project's intervals of recall,
precision, AUROC and AUPRC hold the true value, beside the percentile bootstrap. The second table is about verdicts:
thresholds are certified on one data set and tested on another.

Example: python benchmarks/interval_coverage.py --repeats 2000
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.integrate import quad
from scipy.special import ndtr, ndtri

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.evaluate import masked_metrics
from src.stats.bootstrap import bootstrap_metrics, interval, with_intervals
from src.stats.intervals import VERDICTS, clustered_share, share_interval, verdict
from src.stats.thresholds import build_curve, certified_rule

SHIFT, PREVALENCE = 1.5, 0.2
CORRELATIONS = {1: 0.0, 8: 0.5}  # of the scores of a patient, by the most images of a patient
POSITIVES = (10, 20, 50, 100)


def draw(*, positives, most_images, correlation, rng):
    """Scores, labels [n] and patients [n]; the expected number of positives is `positives`."""
    patients = round(positives / PREVALENCE / ((1 + most_images) / 2))
    sizes = rng.integers(1, most_images + 1, patients)
    owner = np.repeat(np.arange(patients), sizes)
    labels = (rng.random(patients) < PREVALENCE).astype(float)[owner]
    shared, own = rng.normal(size=patients)[owner], rng.normal(size=len(owner))
    return SHIFT * labels + np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * own, labels, owner


def truths(cut):
    """True recall and precision at a cut, AUROC and AUPRC."""
    recall, false_alarms = ndtr(SHIFT - cut), ndtr(-cut)

    def precision(z):
        hits = PREVALENCE * ndtr(SHIFT - z)
        return hits / (hits + (1 - PREVALENCE) * ndtr(-z))

    density = lambda z: np.exp(-((z - SHIFT) ** 2) / 2) / np.sqrt(2 * np.pi)  # noqa: E731
    area = quad(lambda z: density(z) * precision(z), -8, 10)[0]
    hits = PREVALENCE * recall
    return {"recall": recall, "precision": hits / (hits + (1 - PREVALENCE) * false_alarms),
            "auroc": ndtr(SHIFT / np.sqrt(2)), "auprc": area}  # fmt: skip


def intervals(scores, labels, owner, cut, *, resamples):
    """Per figure the project's interval and the percentile bootstrap's."""
    probs, flags, ill = ndtr(scores), scores >= cut, labels == 1
    data = {"targets": labels[:, None], "mask": np.ones((len(probs), 1), bool), "classes": ["a"]}
    replicates = bootstrap_metrics(probs[:, None], **data, patients=owner, resamples=resamples, workers=1)
    found = with_intervals(masked_metrics(probs[:, None], **data), replicates)["per_class"]["a"]
    ours = {key: found[f"{key}_ci"] for key in ("auroc", "auprc")}
    ours["recall"] = share_interval(clustered_share(flags[ill], patients=owner[ill]))
    ours["precision"] = share_interval(clustered_share(ill[flags], patients=owner[flags]))
    people = owner[-1] + 1
    drawn = np.random.default_rng(0).multinomial(people, np.full(people, 1 / people), size=resamples)
    hits, positives, flagged = (
        drawn @ np.bincount(owner[rows], minlength=people) for rows in (flags & ill, ill, flags)
    )
    with np.errstate(invalid="ignore"):
        shares = hits / positives, hits / flagged
    percentile = dict(zip(("recall", "precision"), map(interval, shares), strict=True))
    percentile |= {key: interval(replicates["per_class"]["a"][key]) for key in ("auroc", "auprc")}
    return ours, percentile


def coverage_table(cells, *, repeats, resamples, seed):
    """cells: pairs of the most images of a patient and the expected number of positives."""
    print("| positives | images per patient | figure | covered | standard error | percentile bootstrap covers |")
    print("|---|---|---|---|---|---|", flush=True)
    cut = SHIFT - ndtri(0.85)
    truth = truths(cut)
    for most_images, positives in cells:
        correlation = CORRELATIONS[most_images]
        rng = np.random.default_rng([seed, positives, most_images])
        covered = {key: [] for key in truth}
        while min(map(len, covered.values())) < repeats:
            data = draw(positives=positives, most_images=most_images, correlation=correlation, rng=rng)
            if not 0 < data[1].sum() < len(data[1]) or not (data[0] >= cut).any():
                continue
            both = intervals(*data, cut, resamples=resamples)
            for key, value in truth.items():
                covered[key].append([low <= value <= high for low, high in (one[key] for one in both)])
        for key, rows in covered.items():
            ours, theirs = np.mean(rows, axis=0)
            error = np.sqrt(ours * (1 - ours) / len(rows))
            images = "1" if most_images == 1 else f"1-{most_images}, correlation {correlation}"
            print(f"| {positives} | {images} | {key} | {ours:.3f} | {error:.3f} | {theirs:.3f} |", flush=True)


def verdict_table(repeats, seed):
    print("\n| val positives | test positives | promise kept | test recall below the target | of these, kept | "
          + " | ".join(VERDICTS) + " | contradicted though kept |")  # fmt: skip
    print("|" + "---|" * (6 + len(VERDICTS)))
    target = 0.85
    for val in (50, 100, 300):
        for test in (30, 60, 100, 300):
            rng = np.random.default_rng([seed, val, test])
            rows = []
            for _ in range(repeats):
                scores = SHIFT + rng.normal(size=val)
                point = certified_rule(build_curve(ndtr(scores), targets=np.ones(val)), recall=target)
                cut = ndtri(point.threshold)
                hits = SHIFT + rng.normal(size=test) >= cut
                said = verdict(clustered_share(hits, patients=np.arange(test)), target=target)
                rows.append((ndtr(SHIFT - cut) >= target, hits.mean() < target, *(said == one for one in VERDICTS)))
            kept, below, *said = np.array(rows).T
            shares = " | ".join(f"{one.mean():.3f}" for one in said)
            of_these = f"{kept[below].mean():.2f}" if below.any() else "-"
            print(f"| {val} | {test} | {kept.mean():.3f} | {below.mean():.3f} | {of_these} | {shares} | "
                  f"{(said[0] & kept).mean():.4f} |", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=2000, help="data sets for each row (2000)")
    parser.add_argument("--resamples", type=int, default=300, help="bootstrap resamples for each data set (300)")
    parser.add_argument("--positives", type=int, nargs="+", default=POSITIVES, help="expected numbers (10 20 50 100)")
    parser.add_argument("--most-images", type=int, nargs="+", choices=CORRELATIONS, default=list(CORRELATIONS),
                        help="most images of a patient (1 8)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    cells = [(images, positives) for images in args.most_images for positives in args.positives]
    coverage_table(cells, repeats=args.repeats, resamples=args.resamples, seed=args.seed)
    verdict_table(2 * args.repeats, args.seed)


if __name__ == "__main__":
    main()
