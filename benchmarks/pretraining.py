"""Does a network that was trained on drawings learn real radiographs better than from random weights?

Draws the demo's radiographs and trains a network on them as the demo trains ResNet50. Then fine-tunes it on --data with
several seeds, from each start that --only names and from the one that they are compared with, --against. A quarter of
the patients of --data are val and a quarter test, whose labels judge the models.

Runs are kept in --out: a finished one is not trained again, a stopped one is resumed, and --print prints what there is
at any time. Prints a Markdown table; training_runs.py says what its columns and intervals are.

Example: python benchmarks/pretraining.py --data data/nih --out runs/pretraining
"""

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.training_runs import ROOT, Judge, common_options, print_table, run_all, split, train, train_and_test
from src.demo.dataset import write_demo


@dataclass(frozen=True)
class Start:
    """What fine-tuning starts from: a network trained on drawings, or random weights where `patients` is 0."""

    patients: int = 1500
    truth: bool = False  # trained on what was drawn, in place of what reports say of it
    seed: int = 0  # of the training on drawings
    freeze: bool = False  # the first layers, in fine-tuning

    def network(self):
        return f"{self.patients}-{'truth' if self.truth else 'reports'}-{self.seed}"

    def run(self):
        return self.network() + ("-frozen" if self.freeze else "")


# The flags that freeze about half of the layers.
FROZEN = {"resnet50": ["--unfreeze-from", "layer3"], "efficientnet_b1": ["--unfreeze-last-n-blocks", "5"]}
STARTS = {
    "random weights": Start(0),
    "drawings of 1,500 patients": Start(),
    "second network": Start(seed=1),
    "first layers frozen": Start(freeze=True),
    "true labels": Start(truth=True),
    "true labels: second network": Start(truth=True, seed=1),
    "true labels: first layers frozen": Start(truth=True, freeze=True),
    "3,000 patients": Start(3000),
    "true labels: 3,000 patients": Start(3000, truth=True),
}


def drawings(out, patients, *, truth):
    """A data set of drawings and its split, made once."""
    data = out / f"{patients}-{'truth' if truth else 'reports'}"
    if not data.exists():
        out.mkdir(parents=True, exist_ok=True)
        write_demo(data, patients=patients, seed=0, reports=not truth)
    return split(data, out / f"split-{data.name}", "--val-fraction", "0.2")


def pretrain(out, start, arch, *, cache):
    """The checkpoint that a start begins with, trained once."""
    folder = out / f"{arch}-{start.network()}"
    if not (folder / "done").exists():
        base = drawings(out, start.patients, truth=start.truth)
        train(base, folder, arch, ["--epochs", 7, "--seed", start.seed], cache=cache)
        (folder / "done").touch()
    return folder / arch / "best.pt"


def main():
    """Draw, train what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="real radiographs, in a layout check_split.py reads")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/pretraining")
    names = f"of: {'; '.join(STARTS)} (default: all)"
    parser.add_argument("--only", nargs="+", choices=STARTS, default=list(STARTS), metavar="START", help=names)
    against = "the start that the others are compared with (default: random weights)"
    parser.add_argument("--against", choices=STARTS, default="random weights", metavar="START", help=against)
    parser.add_argument("--image-size", type=int, default=64, help="of --data; drawings have 64")
    parser.add_argument("--split-seed", type=int, default=0, help="of the split of --data")
    common_options(parser, epochs=15, lr=2e-4)
    arguments = parser.parse_args()
    out, arch, seeds = arguments.out.resolve(), arguments.arch, range(arguments.seeds)
    fractions = ["--val-fraction", "0.25", "--test-fraction", "0.25", "--seed", arguments.split_seed]
    base = out / f"split-{arguments.data.name}-{arguments.split_seed}"
    recipe = f"{arch}-{arguments.image_size}-{arguments.epochs}-{arguments.lr:g}"
    names = dict.fromkeys([arguments.against, *arguments.only])

    def run_of(name, seed):
        return out / "runs" / base.name / recipe / f"{STARTS[name].run()}-{seed}"

    def job(name, seed):
        start, cache = STARTS[name], out / "cache"
        flags = ["--seed", seed, "--epochs", arguments.epochs, "--lr", arguments.lr, "--flip"]
        flags += ["--image-size", arguments.image_size]
        if start.patients:
            flags += ["--weights", pretrain(out / "drawings", start, arch, cache=cache)]
        if start.freeze:
            flags += FROZEN[arch]
        train_and_test(base, run_of(name, seed), arch, flags, cache=cache)

    if not arguments.print:
        split(arguments.data, base, *fractions)
        for name in names:
            if STARTS[name].patients:
                pretrain(out / "drawings", STARTS[name], arch, cache=out / "cache")
        run_all(job, names, seeds, processes=arguments.processes)
    print_table(Judge(base), "start", {name: {seed: run_of(name, seed) / arch for seed in seeds} for name in names})


if __name__ == "__main__":
    main()
