"""Does the recall that was promised hold on real predictions? Patients are split at random, again and again.

Thresholds are chosen on a fraction of the patients, and the recall of the other patients' images is taken as the truth.
The mean of the probability files is the blend. Prints Markdown tables: one
row per recall target and fraction, then one row per finding.

feasible    share of (split, finding) cases in which the certified rule could choose
kept        share of these in which recall of the other patients is at least the target
precision   mean precision among the other patients; flagged: mean share of their images that is flagged

Standard errors are those of the mean over splits of the same patients. They say how many splits were drawn, and not how
much the figures of other patients would differ.

Example: python benchmarks/real_coverage.py --probs resnet50.csv.gz densenet121.csv.gz --labels labels.csv.gz
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.artifacts.probs import read_outside_probs
from src.artifacts.truth import read_truth
from src.plots.results import RULES
from src.plots.style import GRAY, INK, PALE, canvas, dots, legend
from src.stats.thresholds import build_curves, certified_rule, empirical_rule

RULE_FUNCTIONS = {"certified": certified_rule, "empirical": empirical_rule}
FIGURES = ("recall", "precision", "flagged")


def read_blend(probs_paths, labels_path):
    """Mean of the probability files and labels [N, C], patients as numbers [N], and class names."""
    members = [read_outside_probs(Path(path)) for path in probs_paths]
    ids, classes = members[0].ids, members[0].classes
    probs = np.mean([one.aligned(ids, classes) for one in members], axis=0)
    truth, _ = read_truth(Path(labels_path), classes)
    rows = dict(zip(truth.ids, range(len(truth.ids)), strict=True))
    order = [rows[name] for name in ids]
    return probs, truth.labels[order], np.unique(truth.patients[order], return_inverse=True)[1], classes


def rates(probs, positive, known, thresholds):
    """Recall, precision and share flagged of every class at its threshold: [3, C]."""
    flags = (probs >= thresholds) & known
    hits, flagged = np.sum(flags & positive, axis=0), flags.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.array([hits / np.sum(positive & known, axis=0), hits / flagged, flagged / known.sum(axis=0)])


def one_split(data, chosen_patients, recalls):
    """What both rules do on the patients on whom they were not chosen: [targets, rules, 4, C]; see `rates`.

    The last of the 4 is 1 where the rule was feasible.
    """
    probs, labels, patients = data
    mine = np.isin(patients, chosen_patients)
    known, positive = np.isin(labels, (0, 1)), labels == 1
    curves = build_curves(probs[mine], targets=positive[mine], mask=known[mine], patients=patients[mine])
    others = [values[~mine] for values in (probs, positive, known)]
    found = []
    for recall in recalls:
        for rule in RULE_FUNCTIONS.values():
            points = [rule(curve, recall=recall) for curve in curves]
            feasible = [point.status == "ok" for point in points]
            found.append([*rates(*others, [point.threshold for point in points]), feasible])
    return np.array(found, dtype=float).reshape(len(recalls), len(RULE_FUNCTIONS), 4, -1)


def all_splits(data, *, fraction, recalls, repeats, seed):
    """`one_split` of `repeats` random parts of the patients: [repeats, targets, rules, 4, C]."""
    people = data[2].max() + 1
    rng = np.random.default_rng([seed, round(1000 * fraction)])
    part = round(fraction * people)
    return np.array([one_split(data, rng.permutation(people)[:part], recalls) for _ in range(repeats)])


def kept_by_case(found, recall):
    """1 or 0 where the target was reached or not, NaN where the rule was not feasible or recall is not defined."""
    reached, feasible = found[..., 0, :], found[..., 3, :] == 1
    return np.where(feasible & ~np.isnan(reached), reached >= recall, np.nan)


def with_error(values):
    """Mean of cases [repeats, C] that are not NaN and its standard error over the repeats, as text."""
    per_split = np.nanmean(values, axis=1)
    return np.nanmean(values), np.nanstd(per_split, ddof=1) / np.sqrt(len(per_split))


def print_fractions(results, recalls):
    names = ("recall", "patients used", "feasible")
    names += tuple(f"{what}, {rule}" for what in ("kept", "precision", "flagged") for rule in RULE_FUNCTIONS)
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for t, recall in enumerate(recalls):
        for fraction, found in results.items():
            rules = found[:, t].swapaxes(0, 1)  # [rules, repeats, 4, C]
            feasible = rules[0, :, 3] == 1
            cells = [f"{recall:g}", f"{fraction:.0%}", f"{feasible.mean():.1%}"]
            for values in (kept_by_case(rule, recall) for rule in rules):
                mean, error = with_error(values)
                cells.append(f"{mean:.1%} ± {error:.1%}")
            for figure in (1, 2):  # both rules in the same cases
                cells += [f"{np.nanmean(np.where(feasible, rule[:, figure], np.nan)):.3f}" for rule in rules]
            print("| " + " | ".join(cells) + " |")


def print_findings(found, recall, data, classes):
    """found: [repeats, rules, 4, C]. Recall and precision are means over the cases in which both rules could choose."""
    names = ("finding", "positives", "patients with one", "feasible")
    names += tuple(f"{what}, {rule}" for what in ("kept", "mean recall", "precision") for rule in RULE_FUNCTIONS)
    print("\n| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    rules = found.swapaxes(0, 1)
    feasible = rules[0, :, 3] == 1
    for c, name in enumerate(classes):
        positive = data[1][:, c] == 1
        cells = [name, f"{positive.sum():,}", f"{len(set(data[2][positive])):,}", f"{feasible[:, c].mean():.0%}"]
        kept = [kept_by_case(rule, recall)[:, c] for rule in rules]
        cells += [f"{np.nanmean(values):.0%}" if np.isfinite(values).any() else "-" for values in kept]
        for figure in (0, 1):
            cells += [
                f"{rule[feasible[:, c], figure, c].mean():.3f}" if feasible[:, c].any() else "-" for rule in rules
            ]
        print("| " + " | ".join(cells) + " |")


def draw(found, *, recall, fraction, names, path):
    """Recall of the other patients in every split, a row per finding, and how often each rule reached the target.

    found: [repeats, rules, 4, C]; names: label of each row [C], drawn in that order.
    """
    kept = [kept_by_case(found[:, r], recall) for r in range(len(RULE_FUNCTIONS))]
    with canvas(path, width=8.2, height=1.9 + 0.36 * len(names)) as figure:
        axes = figure.add_subplot(xlabel="recall among the patients who took no part in the choice")
        axes.axvspan(0, recall, color=PALE, alpha=0.35, lw=0)
        axes.axvline(recall, color=INK, lw=1, ls="--")
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(np.floor(20 * np.nanquantile(found[:, :, 0], 0.003)) / 20, 1.005)
        axes.grid(axis="y", visible=False)
        for r, rule in enumerate(RULE_FUNCTIONS):
            recalls = np.where(found[:, r, 3] == 1, found[:, r, 0], np.nan)
            draw_rule(axes, rule, recalls, kept[r], place=r)
        axes.text(1.1375, -1.4, "target reached", transform=axes.get_yaxis_transform(), ha="center", color=GRAY)
        shares = [f"{np.nanmean(values):.1%}" for values in kept]
        part = "half" if fraction == 0.5 else f"{fraction:.0%}"
        title = (
            f"Thresholds for recall ≥ {recall:g}, chosen on a random {part} of the patients, {len(found)} times:\n"
            f"{shares[0]} of the certified ones reach it among the other patients, {shares[1]} of the empirical ones"
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
        legend(figure, axes, markerscale=2.2)


def draw_rule(axes, rule, recalls, kept, *, place):
    """The dots and means of one rule, recalls [repeats, C], and the shares kept at the right; place: 0 or 1."""
    color, repeats = RULES[rule]["color"], len(recalls)
    look = {"color": color, "ha": "center", "va": "center", "transform": axes.get_yaxis_transform()}
    rows = np.arange(recalls.shape[1]) + (-0.19, 0.19)[place]
    spread = np.random.default_rng(place).uniform(-0.13, 0.13, recalls.shape)
    inside = np.where(recalls >= axes.get_xlim()[0], recalls, np.nan)
    dots(axes, inside, rows + spread, marker="o", markersize=3, markeredgewidth=0, color=color, alpha=0.35,
         label=f"{rule}, one of {repeats} random splits")  # fmt: skip
    means = np.where(np.isfinite(recalls).any(axis=0), np.nansum(recalls, axis=0), np.nan)
    means = means / np.maximum(np.isfinite(recalls).sum(axis=0), 1)
    dots(axes, means, rows, **{**RULES[rule], "markersize": 5.5, "markeredgecolor": "white", "markerfacecolor": color})
    column = 1.07 + 0.135 * place
    axes.text(column, -0.9, rule, fontweight="bold", **look)
    for y, values in enumerate(kept.T):
        cases = np.isfinite(values).sum()
        text = f"{np.nanmean(values):.0%}" if cases == repeats else f"{np.nansum(values):.0f} of {cases}"
        axes.text(column, y, text, **look)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--probs", nargs="+", required=True, help="probabilities, an id and a column per finding")
    parser.add_argument("--labels", required=True, help="labels and patients of the same ids")
    parser.add_argument("--repeats", type=int, default=60, help="random splits for each fraction (60)")
    parser.add_argument("--recall", type=float, nargs="+", default=[0.85], help="recall targets (0.85)")
    parser.add_argument("--fractions", type=float, nargs="+", default=[0.05, 0.1, 0.25, 0.5],
                        help="parts of the patients to choose on (0.05 0.1 0.25 0.5)")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--picture", type=Path, help="PNG of the first target and the last fraction (none)")
    args = parser.parse_args()
    *data, classes = read_blend(args.probs, args.labels)
    print(f"{len(data[0]):,} images of {data[2].max() + 1:,} patients, {len(classes)} findings\n")
    drawn = {"recalls": args.recall, "repeats": args.repeats, "seed": args.seed}
    results = {fraction: all_splits(data, fraction=fraction, **drawn) for fraction in args.fractions}
    print_fractions(results, args.recall)
    last = results[args.fractions[-1]][:, 0]
    print_findings(last, args.recall[0], data, classes)
    if args.picture:
        positives = np.sum(data[1] == 1, axis=0)
        order = np.argsort(-positives)
        names = [f"{classes[c].replace('_', ' ')} ({positives[c]:,})" for c in order]
        draw(last[..., order], recall=args.recall[0], fraction=args.fractions[-1], names=names, path=args.picture)


if __name__ == "__main__":
    main()
