"""How evenly three ways of splitting by patient spread the findings of CheXpert's training labels.

patient_split           src/labels/split.py: every class's positives and negatives at once
random                  patients drawn at random
StratifiedGroupKFold    scikit-learn's, 10 folds stratified on one class, Pleural Effusion = 1 against all
                        else; fold 0 is test, fold 1 is val; over fewer seeds, as it is slow

Prints a Markdown table, the worst case over the seeds, over val and test and over positives and negatives:

common           the largest relative deviation from the target share, for labels with at least 500 images
rare             the largest deviation from the target count, for the others
images           the largest relative deviation of the number of images
seconds          of the fastest split
time ratio       these seconds over StratifiedGroupKFold's

Example: python benchmarks/split_balance.py --labels CheXpert-v1.0-small/train.csv --seeds 20
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from src.labels.split import patient_split

FRACTIONS = {"val": 0.1, "test": 0.1}
STRATIFIED_ON = "Pleural Effusion"
COMMON = 500  # images from which a deviation is judged as a share, not as a count


def read_case(labels_csv):
    """Raw labels [N, 13], class names and patient ids [N] of a CheXpert label file."""
    table = pd.read_csv(labels_csv)
    classes = sorted(set(table.columns[5:]) - {"No Finding"})
    patients = table["Path"].str.extract(r"(patient\d+)", expand=False).to_numpy()
    return table[classes].to_numpy(np.float64), classes, patients


def random_patient_split(labels, patients, classes, seed):
    codes, ids = pd.factorize(patients, sort=True)
    place = np.random.default_rng(seed).permutation(len(ids)) / len(ids)
    return np.select([place < 0.1, place < 0.2], ["val", "test"], "train")[codes]


def one_class_split(labels, patients, classes, seed):
    target = labels[:, classes.index(STRATIFIED_ON)] == 1
    folds = StratifiedGroupKFold(n_splits=10, shuffle=True, random_state=seed)
    split = np.full(len(labels), "train")
    for name, (_, held_out) in zip(("test", "val"), folds.split(labels, target, patients), strict=False):
        split[held_out] = name
    return split


def ours(labels, patients, classes, seed):
    return patient_split(labels, patients, fractions=FRACTIONS, seed=seed)


def carve(labels, patients, classes, seed):
    return patient_split(labels, patients, fractions={"val": 0.1}, seed=seed)


def measure(splitter, labels, patients, classes, *, fractions, seeds):
    """Worst deviations over the seeds, and the seconds of the fastest split."""
    common, rare, images, seconds = [], [], [], []
    for seed in range(seeds):
        start = time.perf_counter()
        split = splitter(labels, patients, classes, seed)
        seconds.append(time.perf_counter() - start)
        hits = np.hstack([labels == 1, labels == 0])  # each class's positives, then its negatives
        counts = hits.sum(axis=0)
        is_common = counts >= COMMON
        for name, target in fractions.items():
            off = np.abs(hits[split == name].sum(axis=0) - target * counts)
            common.append((off / (target * counts))[is_common].max())
            rare.append(off[~is_common].max())
            images.append(abs(np.mean(split == name) / target - 1))
    return max(common), max(rare), max(images), min(seconds)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labels", type=Path, required=True, help="CheXpert's train.csv, or train.csv.gz")
    parser.add_argument("--seeds", type=int, default=20, help="splits drawn by each way of splitting")
    parser.add_argument("--peer-seeds", type=int, default=3, help="the same for StratifiedGroupKFold, which is slow")
    options = parser.parse_args()
    labels, classes, patients = read_case(options.labels)
    ways = {
        "patient_split": (ours, FRACTIONS, options.seeds),
        "patient_split, val only": (carve, {"val": 0.1}, options.seeds),
        "random": (random_patient_split, FRACTIONS, options.seeds),
        "StratifiedGroupKFold": (one_class_split, FRACTIONS, options.peer_seeds),
    }
    rows = {
        name: (*measure(splitter, labels, patients, classes, fractions=fractions, seeds=seeds), seeds)
        for name, (splitter, fractions, seeds) in ways.items()
    }
    peer = rows["StratifiedGroupKFold"][3]
    shape = f"{len(labels):,} images, {len(np.unique(patients)):,} patients, {len(classes)} classes"
    shares = ", ".join(f"{name} {share}" for name, share in FRACTIONS.items())
    print(f"{shape}; {shares}; StratifiedGroupKFold on {STRATIFIED_ON}\n")
    print("| split | seeds | common | rare | images | seconds | time ratio |")
    print("|---|---|---|---|---|---|---|")
    for name, (common, rare, images, seconds, seeds) in rows.items():
        cells = f"{common:.2%} | {rare:.1f} | {images:.3%} | {seconds:.2f} | {seconds / peer:.3f}"
        print(f"| {name} | {seeds} | {cells} |")


if __name__ == "__main__":
    main()
