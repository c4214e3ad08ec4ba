"""Does ResNet50 that was trained on drawings learn real radiographs better than from random weights?

Draws the demo's radiographs, of as many patients as each --patients says, and trains ResNet50 on them as the demo does.
Then fine-tunes all layers on --data with several seeds, from random weights and from each of these networks.
A quarter of the patients of --data are val and a quarter test, whose labels judge the models.

Runs are kept in --out: a finished one is not trained again, a stopped one is resumed, and --print prints what there is
at any time. Prints a Markdown table; training_runs.py says what its columns and intervals are.

Example: python benchmarks/pretraining.py --data data/nih --out runs/pretraining
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.training_runs import ROOT, Judge, common_options, print_table, run_all, split, train, train_and_test
from src.demo.dataset import write_demo


def pretrain(out, patients):
    """The checkpoint of a network trained on drawings of so many patients, made once."""
    data, folder = out / "drawings" / str(patients), out / "drawings" / f"run_{patients}"
    if not data.exists():
        data.parent.mkdir(parents=True, exist_ok=True)
        write_demo(data, patients=patients, seed=0)
    if not (folder / "done").exists():
        base = split(data, out / "drawings" / f"split_{patients}", "--val-fraction", "0.2")
        train(base, folder, ["--epochs", 7], cache=out / "cache")
        (folder / "done").touch()
    return folder / "resnet50" / "best.pt"


def main():
    """Draw, train what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="real radiographs, in a layout check_split.py reads")
    parser.add_argument("--out", type=Path, default=ROOT / "runs/pretraining")
    parser.add_argument("--patients", type=int, nargs="+", default=[1500], help="of the drawings")
    parser.add_argument("--image-size", type=int, default=64, help="of --data; drawings have 64")
    parser.add_argument("--split-seed", type=int, default=0)
    common_options(parser, epochs=15, lr=2e-4)
    arguments = parser.parse_args()
    out, seeds, split_seed = arguments.out.resolve(), range(arguments.seeds), arguments.split_seed
    fractions = ["--val-fraction", "0.25", "--test-fraction", "0.25", "--seed", split_seed]
    base = split(arguments.data, out / f"split-{split_seed}", *fractions)

    def run_of(patients, seed):
        return out / f"runs-{split_seed}-{arguments.image_size}" / f"{patients}-{seed}"

    def job(patients, seed):
        flags = ["--seed", seed, "--epochs", arguments.epochs, "--lr", arguments.lr]
        flags += ["--image-size", arguments.image_size, "--flip"]
        if patients:
            flags += ["--weights", pretrain(out, patients)]
        train_and_test(base, run_of(patients, seed), flags, cache=out / "cache")

    counts = [0, *arguments.patients]
    if not arguments.print:
        for count in arguments.patients:
            pretrain(out, count)
        run_all(job, counts, seeds, processes=arguments.processes)
    names = {count: f"drawings of {count:,} patients" if count else "random weights" for count in counts}
    print_table(Judge(base), "start", {names[count]: {seed: run_of(count, seed) for seed in seeds} for count in counts})


if __name__ == "__main__":
    main()
