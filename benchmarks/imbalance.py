"""Which remedies for rare findings help? Each, and two together, is held against the recipe without it.

Draws radiographs whose reports have CheXpert's own label rates, half of the patients for test, and trains ResNet50, or
EfficientNet-B1 with --arch, from random weights: the baseline (entry weighting, BCE with pos_weight, flips, AUPRC on
the labels that are not masked) and every remedy, with several seeds. Each model is held against what was drawn, not
what reports say. With --data, a data set of real radiographs takes the place of the drawings: a quarter of its patients
are val and a quarter test, by whose labels each model is judged.

Runs are kept in --out: a finished one is not trained again, a stopped one is resumed, and --print prints what there is
at any time. Prints a Markdown table; training_runs.py says what its columns and intervals are.

Example: python benchmarks/imbalance.py --out runs/imbalance
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.training_runs import ROOT, Judge, common_options, print_table, run_all, split, train_and_test
from src.demo.dataset import write_demo
from src.demo.patients import RATES

REMEDIES = {
    "baseline": ["--flip"],
    "class weighting": ["--flip", "--loss-weighting", "class"],
    "effective-number weights": ["--flip", "--class-weights", "effective"],
    "focal loss": ["--flip", "--loss", "focal"],
    "asymmetric loss": ["--flip", "--loss", "asymmetric"],
    "balanced sampling": ["--flip", "--sampling", "balanced"],
    "costliest half": ["--flip", "--hard-fraction", "0.5"],
    "no pos_weight": ["--flip", "--pos-weight-max", "1"],
    "pos_weight to 10": ["--flip", "--pos-weight-max", "10"],
    "moving average": ["--flip", "--ema", "0.99"],
    "warmup, faster head": ["--flip", "--warmup-epochs", "1", "--head-lr-factor", "5"],
    "no flips": [],
    "attention, SE": ["--flip", "--attention", "se"],
    "attention, CBAM": ["--flip", "--attention", "cbam"],
    "blanks negative": ["--flip", "--missing", "0"],
    "No Finding negative": ["--flip", "--no-finding", "negative"],
    "class weighting, No Finding negative": ["--flip", "--loss-weighting", "class", "--no-finding", "negative"],
    "balanced sampling, No Finding negative": ["--flip", "--sampling", "balanced", "--no-finding", "negative"],
}


def main():
    """Draw, train what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/imbalance")
    parser.add_argument("--data", type=Path, help="real radiographs, in a layout that check_split.py reads")
    parser.add_argument("--patients", type=int, default=1730, help="of the drawings")
    parser.add_argument("--only", nargs="+", choices=REMEDIES, default=list(REMEDIES))
    common_options(parser, epochs=4, lr=5e-4)
    arguments = parser.parse_args()
    out, arch, seeds = arguments.out.resolve(), arguments.arch, range(arguments.seeds)
    data, fractions = arguments.data, ["--val-fraction", "0.25", "--test-fraction", "0.25"]
    if data is None:
        data, fractions = out / f"chexpert_rates-{arguments.patients}", ["--val-fraction", "0.333"]
    base = out / f"split-{data.name}"
    recipe = f"{data.name}-{arch}-{arguments.epochs}-{arguments.lr:g}"

    def run_of(name, seed):
        return out / "runs" / recipe / f"{name.replace(' ', '_').replace(',', '')}-{seed}"

    def job(name, seed):
        flags = [*REMEDIES[name], "--seed", seed, "--epochs", arguments.epochs, "--lr", arguments.lr]
        train_and_test(base, run_of(name, seed), arch, flags, cache=out / "cache")

    if not arguments.print:
        if arguments.data is None and not data.exists():
            write_demo(data, patients=arguments.patients, seed=0, rates=RATES["chexpert"], valid_share=0.5)
        split(data, base, *fractions)
        run_all(job, dict.fromkeys(["baseline", *arguments.only]), seeds, processes=arguments.processes)
    folders = {name: {seed: run_of(name, seed) / arch for seed in seeds} for name in REMEDIES}
    print_table(Judge(base), "remedy", folders)


if __name__ == "__main__":
    main()
