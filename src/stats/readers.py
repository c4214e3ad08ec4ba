"""Readers' calls beside a model's probabilities, on the cases that a reader has read."""

from typing import Any

import numpy as np

from src.evaluate import ratio
from src.stats.bootstrap import resample
from src.stats.intervals import clustered_share, difference_interval, share_interval


def compare_reader(
    probs: np.ndarray, *, targets: np.ndarray, calls: np.ndarray, patients: np.ndarray, resamples: int, seed: int
) -> dict[str, Any]:
    """A reader's operating point in one class, and the model's precision where it is as sensitive as the reader.

    probs, targets (0 or 1), calls (0 or 1), patients: [n], of the cases that are labeled and were read. Returns recall,
    precision and specificity of the reader, each with a 95% interval as `<name>_ci`; "model_precision", that of the
    highest threshold with at least the reader's recall; "gain", the model's precision minus the reader's, with
    "gain_ci" from resamples of the patients, in each of which both are computed anew.
    """
    ill_patients = len(np.unique(patients[targets == 1]))
    ill, called = targets == 1, calls == 1
    figures: dict[str, Any] = {"cases": len(probs), "positives": int(ill.sum())}
    for name, hits, rows in (("recall", called, ill), ("precision", ill, called), ("specificity", ~called, ~ill)):
        share = clustered_share(hits[rows], patients=patients[rows])
        figures |= {name: share.value, f"{name}_ci": share_interval(share)}
    order = np.argsort(-probs, kind="stable")
    last = np.append(np.diff(probs[order]) != 0, True)  # the last of each group of equal probabilities
    ill, called = ill[order], called[order]
    names, codes = np.unique(patients, return_inverse=True)
    model, reader = _precisions(np.ones(len(probs), int), ill, called, last)
    gains = []
    for index in range(resamples):
        drawn = resample(len(names), seed=seed, index=index)[codes[order]]
        ours, theirs = _precisions(drawn, ill, called, last)
        gains.append(ours - theirs)
    gain_ci = difference_interval(model - reader, np.array(gains), patients=ill_patients)
    return figures | {"model_precision": model, "gain": model - reader, "gain_ci": gain_ci}


def _precisions(weights: np.ndarray, ill: np.ndarray, called: np.ndarray, last: np.ndarray) -> tuple[float, float]:
    """The model's precision at the reader's recall, and the reader's: of cases in the order of the model's scores."""
    hits, flagged = np.cumsum(weights * ill)[last], np.cumsum(weights)[last]
    found = int(np.sum(weights * (ill & called)))
    at = int(np.searchsorted(hits, found, side="left")) if found else len(hits)
    model = ratio(hits[at], flagged[at]) if at < len(hits) else float("nan")
    return model, ratio(found, np.sum(weights * called))
