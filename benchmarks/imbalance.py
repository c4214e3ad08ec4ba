"""Which remedies for rare findings help? Each, and two together, is held against the recipe without it.

Draws radiographs whose reports have CheXpert's own label rates, half of the patients for test, and trains ResNet50
from random weights with train_resnet.py: the baseline (entry weighting, BCE with pos_weight, flips, AUPRC on the labels
that are not masked) and every remedy, with several seeds. Each model is held against what was drawn, not what reports
say. Runs are kept in --out: a finished one is not trained again, a stopped one is resumed, and --print prints what
there is at any time.

Prints Markdown tables. A difference is remedy minus baseline, of the same seed and on the same patients, averaged over
the seeds. Its 95% interval is Student's t with the variance of the seeds plus that of 400 resamples of the patients,
and the degrees of freedom of Satterthwaite (1946).

AUROC, AUPRC   mean over all findings, and over the five rarest
Brier, ECE     mean over the findings, of the probabilities that test_resnet.py writes
recalibrated   Brier score after Platt scaling, fitted on one half of the test patients and judged on the other
precision      at the threshold that certifies recall 0.85 on one half of the test patients, judged on the other; mean
               over the findings for which both halves have enough positive patients, the same for all remedies

Example: python benchmarks/imbalance.py --out runs/imbalance
"""

import argparse
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from scipy.special import logit
from scipy.stats import t as student
from sklearn.linear_model import LogisticRegression

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.artifacts.manifest import read_manifest
from src.artifacts.probs import read_probs
from src.demo.dataset import write_demo
from src.demo.patients import RATES
from src.evaluate import masked_metrics
from src.stats.bootstrap import bootstrap_metrics, resample
from src.stats.thresholds import build_curves, certified_rule

ROOT = Path(__file__).resolve().parents[1]
BASE = ["--weights", "none", "--unfreeze-from", "all", "--image-size", "64", "--batch-size", "16", "--lr", "5e-4"]
BASE += ["--workers", "0", "--patience", "100", "--device", "cpu", "--no-bfloat16", "--no-finding", "mask"]
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
    "both, weighting and No Finding": ["--flip", "--loss-weighting", "class", "--no-finding", "negative"],
}
RARE, RECALL, RESAMPLES, BINS = 5, 0.85, 400, 10


def draw(out, patients):
    """The data set and its manifest, drawn once."""
    data, base = out / "chexpert_rates", out / "split"
    if not data.exists():
        write_demo(data, patients=patients, seed=0, rates=RATES["chexpert"], valid_share=0.5)
    if not (base / "manifest.json").exists():
        script(["check_split.py", "--data", data, "--run-dir", base, "--val-fraction", "0.333"], statuses=(0, 1))
    return base


def script(arguments, *, log=None, statuses=(0,)):
    """Run a script of the project on one thread."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in statuses:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    if log:
        log.write_text(done.stdout)


def train(base, out, name, seed, epochs):
    """One run, with the probabilities of its best checkpoint; the checkpoints are deleted."""
    run = run_of(out, name, seed)
    folder = run / "resnet50"
    if (folder / "probs.json").exists() and not (folder / "best.pt").exists():
        return
    run.mkdir(parents=True, exist_ok=True)
    for path in base.glob("*.*"):
        shutil.copy(path, run)
    where = ["--run-dir", run, "--cache", out / "cache"]
    flags = ["--seed", seed, "--epochs", epochs, "--resume"]
    script(["train_resnet.py", *where, *BASE, *REMEDIES[name], *flags], log=run / "train.log")
    script(["test_resnet.py", *where, "--workers", "0", "--device", "cpu", "--resamples", "0", "--overwrite"])
    for path in folder.glob("*.pt"):
        path.unlink()
    print(f"finished: {name}, seed {seed}", flush=True)


def run_of(out, name, seed):
    return out / "runs" / f"{name.replace(' ', '_').replace(',', '')}-{seed}"


class Judge:
    """Figures of a model on the test patients, with replicates over resamples of them."""

    def __init__(self, base):
        test = read_manifest(base).part("test")
        self.ids, self.classes = test.table["image_id"].to_numpy(), test.classes
        self.truth = test.labels() == 1
        self.patients, codes = np.unique(test.table["patient_id"].to_numpy(), return_inverse=True)
        drawn = [resample(len(self.patients), seed=0, index=index) for index in range(RESAMPLES)]
        self.weights = np.array(drawn)[:, codes]  # [R, N]
        self.codes, half = codes, np.random.default_rng(0).permutation(len(self.patients)) % 2
        self.half = half[codes]
        self.rare = np.argsort(self.truth.mean(axis=0))[:RARE]

    def figures(self, path):
        """{figure: its value first, then its replicates}: [1 + R] each."""
        probs = read_probs(path).aligned(self.ids, self.classes)
        everything = np.vstack([np.ones(len(probs)), self.weights])
        found = self._areas(probs) | {"Brier": self._brier(everything, probs), "ECE": self._error(everything, probs)}
        return found | {
            "recalibrated": self._brier(everything, self._recalibrated(probs)),
            "precision": self._precision(everything, probs),
        }

    def _areas(self, probs):
        data = {"targets": self.truth, "mask": np.ones_like(self.truth), "classes": self.classes}
        replicates = bootstrap_metrics(probs, **data, patients=self.codes, resamples=RESAMPLES, seed=0)["per_class"]
        values = masked_metrics(probs, **data)["per_class"]
        found = {}
        for key, title in (("auroc", "AUROC"), ("auprc", "AUPRC")):
            table = np.array([[values[name][key], *replicates[name][key]] for name in self.classes])  # [C, 1 + R]
            found |= {title: table.mean(axis=0), f"{title}, rare": np.nanmean(table[self.rare], axis=0)}
        return found

    def _brier(self, weights, probs):
        return (weights @ (probs - self.truth) ** 2).mean(axis=1) / weights.sum(axis=1)

    def _error(self, weights, probs):
        """Expected calibration error over ten groups of equal size, which stay as they are in the resamples."""
        groups = probs.argsort(axis=0).argsort(axis=0) * BINS // len(probs)
        gaps = sum(abs(weights @ np.where(groups == group, probs - self.truth, 0)) for group in range(BINS))
        return gaps.mean(axis=1) / weights.sum(axis=1)

    def _recalibrated(self, probs):
        scores, out = logit(np.clip(probs, 1e-6, 1 - 1e-6)), np.empty_like(probs)
        for c in range(len(self.classes)):
            for part in (0, 1):
                fit, judged = self.half != part, self.half == part
                model = LogisticRegression(C=1e6).fit(scores[fit, c : c + 1], self.truth[fit, c])
                out[judged, c] = model.predict_proba(scores[judged, c : c + 1])[:, 1]
        return out

    def _precision(self, weights, probs):
        flags, feasible = np.zeros_like(self.truth), np.ones(len(self.classes), bool)
        for part in (0, 1):
            fit, judged = self.half != part, self.half == part
            curves = build_curves(
                probs[fit], targets=self.truth[fit], mask=np.ones_like(self.truth[fit]), patients=self.codes[fit]
            )
            points = [certified_rule(curve, recall=RECALL) for curve in curves]
            feasible &= [point.status == "ok" for point in points]
            flags[judged] = probs[judged] >= [point.threshold for point in points]
        self.certified = [name for name, ok in zip(self.classes, feasible, strict=True) if ok]
        kept, truth = flags[:, feasible], self.truth[:, feasible]
        return ((weights @ (kept & truth)) / (weights @ kept)).mean(axis=1)


def difference(ours, base):
    """Mean difference over the seeds and its 95% interval, from [S, 1 + R] each."""
    gap = np.asarray(ours) - base
    mean, seeds = gap[:, 0].mean(), len(gap)
    parts = np.array([gap[:, 0].var(ddof=1) / seeds if seeds > 1 else 0.0, gap[:, 1:].mean(axis=0).var(ddof=1)])
    freedom = parts.sum() ** 2 / (parts**2 / [max(seeds - 1, 1), RESAMPLES - 1]).sum()
    reach = student.ppf(0.975, freedom) * np.sqrt(parts.sum())
    return mean, mean - reach, mean + reach


def report(base, out, seeds):
    """Print the tables of all remedies that have finished runs of the same seeds as the baseline."""
    judge = Judge(base)
    results = {}
    for name in REMEDIES:
        paths = {seed: run_of(out, name, seed) / "resnet50" / "probs_test.csv" for seed in range(seeds)}
        results[name] = {seed: judge.figures(path) for seed, path in paths.items() if path.exists()}
    columns = list(next(iter(results["baseline"].values())))
    print(f"{len(judge.ids):,} test images of {len(judge.patients):,} patients")
    print("five rarest:", ", ".join(f"{judge.classes[c]} ({judge.truth[:, c].mean():.1%})" for c in judge.rare))
    print(f"precision over {len(judge.certified)} findings: {', '.join(judge.certified)}\n")
    print(f"| remedy | seeds | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for name, found in results.items():
        both = sorted(found.keys() & results["baseline"].keys())
        if not both:
            continue
        cells = []
        for column in columns:
            ours = np.array([found[seed][column] for seed in both])
            base_figures = np.array([results["baseline"][seed][column] for seed in both])
            if name == "baseline":
                cells.append(f"{ours[:, 0].mean():.3f}")
            else:
                mean, low, high = difference(ours, base_figures)
                star = "**" if low > 0 or high < 0 else ""
                cells.append(f"{star}{mean:+.3f}{star} [{low:+.3f}, {high:+.3f}]")
        print(f"| {name} | {len(both)} | {' | '.join(cells)} |")


def main():
    """Draw, train what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs/imbalance")
    parser.add_argument("--patients", type=int, default=1730)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, with one thread each")
    parser.add_argument("--only", nargs="+", choices=REMEDIES, default=list(REMEDIES))
    parser.add_argument("--print", action="store_true", help="only print what has been trained")
    arguments = parser.parse_args()
    base = draw(arguments.out.resolve(), arguments.patients)
    if not arguments.print:
        with ThreadPoolExecutor(arguments.processes) as pool:
            jobs = [(name, seed) for seed in range(arguments.seeds) for name in arguments.only]
            list(pool.map(lambda job: train(base, arguments.out.resolve(), *job, arguments.epochs), jobs))
    report(base, arguments.out.resolve(), arguments.seeds)


if __name__ == "__main__":
    main()
