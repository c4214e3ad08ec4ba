"""Part units: thresholds for studies and thresholds for images, both used to decide on studies.

Thresholds are chosen through the command line, with --unit study and with --unit image, and a study is then flagged by
the maximum or by the mean of its images. Recall of a study and false flags are looked up in a large sample of studies.
A positive patient has 1 to 3 positive studies; a quarter of the variance of a score is the patient's and 35% the
study's. The kinds of studies:

alike       1 to 3 images; the number says nothing of the scores
portable    45% are a single portable film, 0.6 SD harder; the others have 2 or 3 images, 0.15 SD easier
lateral     a frontal image, and in 60% a lateral one, on which the finding shows 0.8 SD less
"""

import numpy as np
from scipy.special import ndtr

from recall_parts.common import NEGATIVES_PER_POSITIVE, SHIFT, TARGET, print_header, print_row, run_stage, share

CLASSES, REPEATS = 100, 6
KINDS = ("alike", "portable", "lateral")
POSITIVE_PATIENTS = (40, 150, 500)
PATIENT_PART, STUDY_PART = 0.25, 0.35  # of the variance of a score
MOST_STUDIES = 3  # of a patient
LARGE = 200_000  # positive patients in the sample that gives the truth, and as many negative ones


def draw_layout(kind, patients, rng):
    """Patient of each study, study of each image, and how much easier each image is where the finding is there."""
    studies = np.repeat(np.arange(patients), rng.integers(1, MOST_STUDIES + 1, patients))
    count, special = len(studies), rng.random(len(studies))
    if kind == "alike":
        images, easier = rng.integers(1, 4, count), np.zeros(count)
    elif kind == "portable":
        single = special < 0.45
        images, easier = np.where(single, 1, rng.integers(2, 4, count)), np.where(single, -0.6, 0.15)
    else:
        images, easier = 1 + (special < 0.6), np.zeros(count)
    study_of = np.repeat(np.arange(count), images)
    easier = easier[study_of]
    if kind == "lateral":
        easier[1:][study_of[1:] == study_of[:-1]] -= 0.8
    return studies, study_of, easier


def draw_probs(layout, labels, rng):
    """Probabilities [N, C] of the images; labels: [patients, C]."""
    studies, study_of, easier = layout
    columns = labels.shape[1]
    parts = (
        np.sqrt(PATIENT_PART) * rng.normal(size=(studies[-1] + 1, columns))[studies][study_of],
        np.sqrt(STUDY_PART) * rng.normal(size=(len(studies), columns))[study_of],
        np.sqrt(1 - PATIENT_PART - STUDY_PART) * rng.normal(size=(len(study_of), columns)),
    )
    return ndtr(labels[studies][study_of] * (SHIFT + easier)[:, None] + sum(parts))


def of_studies(probs, study_of, aggregate):
    """Probabilities of studies [S, C] from those of their images, which are in order of the studies."""
    first = np.flatnonzero(np.append(True, np.diff(study_of) > 0))
    if aggregate == "max":
        return np.maximum.reduceat(probs, first)
    return np.add.reduceat(probs, first) / np.diff(first, append=len(study_of))[:, None]


def large_sample(kind, rng):
    """Sorted probabilities of positive and of negative studies, by aggregate."""
    found = {}
    for label in (1, 0):
        layout = draw_layout(kind, LARGE, rng)
        probs = draw_probs(layout, np.full((LARGE, 1), label), rng)
        for aggregate in ("max", "mean"):
            found.setdefault(aggregate, []).append(np.sort(of_studies(probs, layout[1], aggregate)[:, 0]))
    return found


def choose(kind, positives, rng, *, classes, confidence):
    """The stage's rows per way to certify, for one pair of files with `positives` positive patients per class."""
    people = positives * (1 + NEGATIVES_PER_POSITIVE)
    layout = draw_layout(kind, people, rng)
    labels = np.array([rng.permutation(people) < positives for _ in range(classes)]).T.astype(float)
    probs = draw_probs(layout, labels, rng)
    studies, study_of, _ = layout
    owners = {"patient_id": studies[study_of], "study_id": study_of}
    tables = {}
    for unit, aggregate in (("study", "max"), ("study", "mean"), ("image", "max")):
        flags = ("--unit", unit, "--aggregate", aggregate, "--confidence", confidence)
        found = run_stage(probs, labels[owners["patient_id"]], recalls=[TARGET], owners=owners, flags=flags)[TARGET]
        tables[unit, aggregate] = np.where(found["status"] == "ok", found["threshold"].to_numpy(float), np.nan)
    return {**tables, ("image", "mean"): tables["image", "max"]}


def print_cell(kind, positives, runs, truth):
    """Two rows of a cell: studies by maximum and by mean, thresholds of studies beside those of images."""
    groups = np.repeat(np.arange(len(runs)), len(next(iter(runs[0].values()))))
    for aggregate in ("max", "mean"):
        ill, well = truth[aggregate]
        cells = []
        for unit in ("study", "image"):
            cuts = np.concatenate([run[unit, aggregate] for run in runs])
            recall = np.where(np.isnan(cuts), np.nan, 1 - np.searchsorted(ill, cuts) / len(ill))
            flagged = np.where(np.isnan(cuts), np.nan, 1 - np.searchsorted(well, cuts) / len(well))
            kept = share(np.where(np.isnan(cuts), np.nan, recall >= TARGET), groups=groups)
            cells += [kept, f"{np.nanmean(recall):.3f}", f"{1000 * np.nanmean(flagged):.0f}"]
            feasible = f"{np.isfinite(cuts).mean():.0%}"
        print_row(kind, positives, aggregate, feasible, *cells)


def report(*, classes, repeats, confidence, seed):
    """Print the table."""
    figures = ("study recall kept", "mean study recall", "false flags per 1,000 negative studies")
    print_header("studies", "positive patients", "study is flagged by", "feasible",
                 *(f"{figure}, `--unit {unit}`" for unit in ("study", "image") for figure in figures))  # fmt: skip
    for k, kind in enumerate(KINDS):
        truth = large_sample(kind, np.random.default_rng([seed, k]))
        for positives in POSITIVE_PATIENTS:
            rng = np.random.default_rng([seed, k, positives])
            sizes = {"classes": classes, "confidence": confidence}
            print_cell(kind, positives, [choose(kind, positives, rng, **sizes) for _ in range(repeats)], truth)
