"""What imbalance.py and pretraining.py share: training runs of the scripts, and their comparison on the test patients.

A difference is ours minus baseline, of the same seed and on the same patients, averaged over the seeds. Its 95%
interval is Student's t with the variance of the seeds plus that of 400 resamples of the patients, and the degrees of
freedom of Satterthwaite (1946).

AUROC, AUPRC   mean over all findings, and over the five rarest
Brier, ECE     mean over the findings, of the probabilities that the test script writes
recalibrated   Brier score after Platt scaling, fitted on one half of the test patients and judged on the other; mean
               over the findings that both halves have
precision      at the threshold that certifies recall 0.85 on one half of the test patients, judged on the other; mean
               over the findings that can be certified on both halves, left out unless these are the same for all runs
"""

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

from src.artifacts.manifest import read_manifest
from src.artifacts.probs import read_probs
from src.evaluate import masked_metrics
from src.stats.bootstrap import bootstrap_metrics, resample
from src.stats.thresholds import build_curves, certified_rule

ROOT = Path(__file__).resolve().parents[1]
ARCHITECTURES = {  # -> how its scripts' names end, and the flags that train all its layers
    "resnet50": ("resnet", ["--unfreeze-from", "all"]),
    "efficientnet_b1": ("efficientnet", ["--unfreeze-last-n-blocks", "9"]),
}
SMALL = ["--weights", "none", "--image-size", "64", "--batch-size", "16", "--lr", "5e-4"]
SMALL += ["--workers", "0", "--patience", "100", "--no-bfloat16", "--no-finding", "mask"]
RARE, RECALL, RESAMPLES, BINS = 5, 0.85, 400, 10


def script(arguments, *, log=None, statuses=(0,)):
    """Run a script of the project on one thread."""
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode not in statuses:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    if log:
        log.write_text(done.stdout)


def split(data, base, *options):
    """The manifest of a data set, in a run folder of its own that the others are begun from."""
    if not (base / "manifest.json").exists():
        script(["check_split.py", "--data", data, "--run-dir", base, *options], statuses=(0, 1))
    return base


def common_options(parser, *, epochs, lr):
    """The options of both benchmarks."""
    parser.add_argument("--arch", choices=ARCHITECTURES, default="resnet50")
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--lr", type=float, default=lr)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="runs at a time, with one thread each")
    parser.add_argument("--print", action="store_true", help="only print what has been trained")


def run_all(job, names, seeds, *, processes):
    """Call job(name, seed) for all names with the first seed, then with the next."""
    with ThreadPoolExecutor(processes) as pool:
        list(pool.map(lambda pair: job(*pair), [(name, seed) for seed in seeds for name in names]))


def train(base, run, arch, flags, *, cache):
    """Train, or resume, a run in a copy of `base`; all layers train unless `flags` say otherwise."""
    ending, whole = ARCHITECTURES[arch]
    run.mkdir(parents=True, exist_ok=True)
    for path in base.glob("*.*"):
        shutil.copy(path, run)
    where = ["--run-dir", run, "--cache", cache, "--device", "cpu"]
    script([f"train_{ending}.py", *where, *SMALL, *whole, *flags, "--resume"], log=run / "train.log")


def train_and_test(base, run, arch, flags, *, cache):
    """One run, with the probabilities of its best checkpoint; the checkpoints are deleted."""
    folder = run / arch
    if (folder / "probs.json").exists() and not (folder / "best.pt").exists():
        return
    train(base, run, arch, flags, cache=cache)
    where = ["--run-dir", run, "--cache", cache, "--device", "cpu"]
    script([f"test_{ARCHITECTURES[arch][0]}.py", *where, "--workers", "0", "--resamples", "0", "--overwrite"])
    for name in ("best.pt", "last.pt"):  # in this order: last.pt alone could not be resumed
        (folder / name).unlink(missing_ok=True)
    print(f"finished: {run.name}", flush=True)


class Judge:
    """Figures of a model on the test patients of a manifest, with replicates over resamples of them."""

    def __init__(self, base):
        if not (base / "manifest.json").exists():
            sys.exit(f"{base} does not exist; run without --print first")
        test = read_manifest(base).part("test")
        labels = test.labels()
        if not np.isin(labels, (0, 1)).all():
            sys.exit(f"{base}: a label of test is blank or uncertain; the comparison needs 0 or 1 everywhere")
        self.ids, self.classes = test.table["image_id"].to_numpy(), test.classes
        self.truth = labels == 1
        self.patients, codes = np.unique(test.table["patient_id"].to_numpy(), return_inverse=True)
        drawn = [resample(len(self.patients), seed=0, index=index) for index in range(RESAMPLES)]
        self.weights = np.array(drawn)[:, codes]  # [R, N]
        self.codes, half = codes, np.random.default_rng(0).permutation(len(self.patients)) % 2
        self.half = half[codes]
        shares = self.truth.mean(axis=0)
        self.rare = [c for c in np.argsort(shares) if shares[c] > 0][:RARE]
        self.certified = set()  # the findings that the precision of each model is a mean over

    def figures(self, path):
        """{figure: its value first, then its replicates}: [1 + R] each."""
        probs = read_probs(path).aligned(self.ids, self.classes)
        everything = np.vstack([np.ones(len(probs)), self.weights])
        found = self._areas(probs) | {"Brier": self._brier(everything, probs), "ECE": self._error(everything, probs)}
        return found | {
            "recalibrated": self._recalibrated(everything, probs),
            "precision": self._precision(everything, probs),
        }

    def _areas(self, probs):
        data = {"targets": self.truth, "mask": np.ones_like(self.truth), "classes": self.classes}
        replicates = bootstrap_metrics(probs, **data, patients=self.codes, resamples=RESAMPLES, seed=0)["per_class"]
        values = masked_metrics(probs, **data)["per_class"]
        found = {}
        for key, title in (("auroc", "AUROC"), ("auprc", "AUPRC")):
            rows = [[values[name][key], *replicates[name][key]] for name in self.classes]
            table = np.array(rows, dtype=float)  # [C, 1 + R], NaN where a sample has no positive
            found |= {title: np.nanmean(table, axis=0), f"{title}, rare": np.nanmean(table[self.rare], axis=0)}
        return found

    def _brier(self, weights, probs):
        return (weights @ (probs - self.truth) ** 2).mean(axis=1) / weights.sum(axis=1)

    def _error(self, weights, probs):
        """Expected calibration error over ten groups of equal size, which stay as they are in the resamples."""
        groups = probs.argsort(axis=0).argsort(axis=0) * BINS // len(probs)
        gaps = sum(abs(weights @ np.where(groups == group, probs - self.truth, 0)) for group in range(BINS))
        return gaps.mean(axis=1) / weights.sum(axis=1)

    def _recalibrated(self, weights, probs):
        scores, out = logit(np.clip(probs, 1e-6, 1 - 1e-6)), np.empty_like(probs)
        fits = [c for c in range(len(self.classes)) if all(self.truth[self.half == part, c].any() for part in (0, 1))]
        for c in fits:
            for part in (0, 1):
                fit, judged = self.half != part, self.half == part
                model = LogisticRegression(C=1e6).fit(scores[fit, c : c + 1], self.truth[fit, c])
                out[judged, c] = model.predict_proba(scores[judged, c : c + 1])[:, 1]
        gaps = (out[:, fits] - self.truth[:, fits]) ** 2
        return (weights @ gaps).mean(axis=1) / weights.sum(axis=1)

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
        self.certified.add(tuple(name for name, ok in zip(self.classes, feasible, strict=True) if ok))
        if not feasible.any():
            return np.full(len(weights), np.nan)
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


def print_table(judge, title, runs):
    """Print {name: {seed: model folder}} of what has finished: values of the first, differences from it of the rest."""
    results = {}
    for name, folders in runs.items():
        paths = {seed: folder / "probs_test.csv" for seed, folder in folders.items()}
        first = next(iter(results.values()), paths)
        results[name] = {seed: judge.figures(path) for seed, path in paths.items() if path.exists() and seed in first}
    baseline, *_ = results.values()
    if not baseline:
        sys.exit(f"no run of {next(iter(runs))!r} has finished")
    columns = list(next(iter(baseline.values())))
    if len(judge.certified) > 1:
        columns.remove("precision")
    print(f"{len(judge.ids):,} test images of {len(judge.patients):,} patients")
    print("five rarest:", ", ".join(f"{judge.classes[c]} ({judge.truth[:, c].mean():.1%})" for c in judge.rare))
    for names in judge.certified:
        print(f"precision over {len(names)} findings: {', '.join(names)}")
    print(f"\n| {title} | seeds | {' | '.join(columns)} |\n|---|---|{'---|' * len(columns)}")
    for name, found in results.items():
        both = sorted(found.keys() & baseline.keys())
        if both:
            ours, base = ({c: np.array([side[s][c] for s in both]) for c in columns} for side in (found, baseline))
            cells = [_cell(ours[c], None if found is baseline else base[c]) for c in columns]
            print(f"| {name} | {len(both)} | {' | '.join(cells)} |")


def _cell(ours, base):
    if np.isnan(ours[:, 0]).any():
        return "-"
    if base is None:
        return f"{ours[:, 0].mean():.3f}"
    mean, low, high = difference(ours, base)
    star = "**" if low > 0 or high < 0 else ""
    return f"{star}{mean:+.3f}{star} [{low:+.3f}, {high:+.3f}]"
