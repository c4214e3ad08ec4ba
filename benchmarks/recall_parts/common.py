"""What the parts share: the scores, their truth, the call of the stage, and how a table is printed."""

import sys
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import ndtr

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ensemble_threshold_search import main

SHIFT, NEGATIVES_PER_POSITIVE = 1.5, 3
TARGET, CONFIDENCE = 0.85, 0.95


def within(codes, correlation, rng, columns=None):
    """N(0, 1) scores in which rows of the same code are correlated: [n], or [n, columns]; codes: [n] from 0 up."""
    shape = () if columns is None else (columns,)
    shared = rng.normal(size=(codes.max() + 1, *shape))[codes]
    return np.sqrt(correlation) * shared + np.sqrt(1 - correlation) * rng.normal(size=(len(codes), *shape))


def run_stage(probs, labels, *, recalls, owners, flags=()):
    """Stage 6's table of thresholds for each recall target, read back from what it wrote.

    The script is called with the arguments of its command line, in this process, which saves its imports.

    probs, labels: [N, C], NaN is a blank; owners: columns of ids [N] by name, such as patient_id; flags: further
    arguments.
    """
    names = [f"class{c:04d}" for c in range(probs.shape[1])]
    index = pd.Index([f"image{row:06d}" for row in range(len(probs))], name="image_id")
    with tempfile.TemporaryDirectory() as folder:
        files = {"probs": Path(folder) / "probs.csv", "labels": Path(folder) / "labels.csv"}
        pd.DataFrame(probs, index=index, columns=names).to_csv(files["probs"], float_format="%.12g")
        truth = pd.DataFrame(labels, index=index, columns=names)
        for place, (name, codes) in enumerate(owners.items()):
            truth.insert(place, name, [f"{name[0]}{code}" for code in codes])
        truth.to_csv(files["labels"], float_format="%g")
        arguments = ["--run-dir", folder, "--val-probs", files["probs"], "--val-labels", files["labels"]]
        arguments += ["--recall", *recalls, "--resamples", 0, "--no-pictures", *flags]
        with redirect_stdout(StringIO()):
            main([str(word) for word in arguments])
        tables = Path(folder) / "ensemble"
        return {recall: pd.read_csv(tables / f"thresholds_recall_{recall:g}.csv") for recall in recalls}


def precision_of(recall, false_alarms):
    """Precision with `NEGATIVES_PER_POSITIVE` negatives per positive."""
    return recall / (recall + NEGATIVES_PER_POSITIVE * false_alarms)


def true_rates(z):
    """True recall and precision of flagging scores of at least z, where positives are N(SHIFT, 1)."""
    recall = ndtr(SHIFT - np.asarray(z))
    return recall, precision_of(recall, ndtr(-np.asarray(z)))


def share(cases, *, groups=None):
    """A share of 0/1 cases with its Monte Carlo standard error, as text; NaN cases are left out.

    groups: [n], where cases of the same group were drawn together; the error is then at least that of the mean over the
    groups.
    """
    cases = np.asarray(cases, dtype=float)
    known = ~np.isnan(cases)
    if not known.any():
        return "-"
    mean = cases[known].mean()
    error = np.sqrt(mean * (1 - mean) / known.sum())
    if groups is not None:
        per_group = pd.Series(cases[known]).groupby(np.asarray(groups)[known])
        residuals = per_group.sum() - mean * per_group.size()
        between = np.sum(residuals**2) * len(residuals) / max(len(residuals) - 1, 1)
        error = max(error, np.sqrt(between) / known.sum())
    return f"{mean:.1%} ± {error:.1%}"


def print_row(*cells):
    """One row of a Markdown table."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def print_header(*names):
    """The first two rows of a Markdown table."""
    print_row(*names)
    print("|" + "---|" * len(names), flush=True)
