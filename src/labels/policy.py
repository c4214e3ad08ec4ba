"""Label policy: what a blank and an "uncertain" are taken to mean.

Raw labels are 1 (positive), 0 (negative), -1 (uncertain) and NaN (blank, not mentioned).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from src.labels.columns import plain_name

NO_FINDING = ("mask", "negative")  # what --no-finding takes
NOT_A_FINDING = "supportdevices"  # which CheXpert's labeler ignores where it says "No Finding" (Irvin et al. 2019)


def said_absent(labels: np.ndarray, no_finding: np.ndarray, *, classes: Sequence[str]) -> np.ndarray:
    """The blanks that `--no-finding negative` takes as negatives: [N, C] bool.

    They are those of the rows that are marked "No Finding" (`no_finding` [N] bool) among raw labels [N, C], in every
    class but "Support Devices".
    """
    findings = [plain_name(name) != NOT_A_FINDING for name in classes]
    return np.isnan(labels) & no_finding[:, None] & np.array(findings)


def joined_labels(labels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Raw labels [U, C] of studies from those of their images [N, C]; `codes` [N] int from 0: the study of each.

    Positive if any image is, else uncertain if any is, else negative if any is, else blank.
    """
    states = np.select([labels == 1, labels == -1, labels == 0], [3, 2, 1], 0)
    return np.array([np.nan, 0.0, -1.0, 1.0])[pd.DataFrame(states).groupby(codes).max().to_numpy()]


@dataclass(frozen=True)
class LabelPolicy:
    """The target that stands for -1 and for a blank, per class: [C] float64 each, NaN where the label is masked."""

    uncertain: np.ndarray
    missing: np.ndarray

    @classmethod
    def parse(
        cls, *, uncertain: Sequence[str] = (), missing: Sequence[str] = (), classes: Sequence[str]
    ) -> "LabelPolicy":
        """The policy in the words of both flags: `mask` or a target for all classes, `CLASS=value` for one.

        Later words win, and without any the label is masked. Raises ValueError for a class that does not exist and a
        value that is neither `mask` nor in [0, 1].
        """
        return cls(
            _parse_words(uncertain, classes=classes, flag="--uncertain"),
            _parse_words(missing, classes=classes, flag="--missing"),
        )

    def check_hard(self) -> None:
        """Raise ValueError where a target is neither 0 nor 1: a loss takes it, a metric cannot."""
        for flag, targets in (("--uncertain", self.uncertain), ("--missing", self.missing)):
            soft = targets[~np.isin(targets, (0, 1)) & ~np.isnan(targets)]
            if len(soft):
                raise ValueError(f"{flag} {soft[0]:g}: metrics need mask, 0 or 1; numbers in between are for training")

    def apply(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Targets [N, C] float32 and mask [N, C] bool (True: takes part) of raw labels [N, C].

        A masked entry has target 0.
        """
        targets = np.where(labels == -1, self.uncertain, labels)
        targets = np.where(np.isnan(labels), self.missing, targets)
        mask = ~np.isnan(targets)
        return np.where(mask, targets, 0).astype(np.float32), mask


def _parse_words(words: Sequence[str], *, classes: Sequence[str], flag: str) -> np.ndarray:
    targets = np.full(len(classes), np.nan)
    for word in words:
        name, _, value = word.rpartition("=")
        if name and name not in classes:
            raise ValueError(f"{flag} {word}: no class {name!r}; the classes are {', '.join(classes)}")
        targets[list(classes).index(name) if name else slice(None)] = _target(value, f"{flag} {word}")
    return targets


def _target(value: str, where: str) -> float:
    if value == "mask":
        return np.nan
    try:
        target = float(value)
    except ValueError:
        target = np.nan
    if not 0 <= target <= 1:
        raise ValueError(f"{where}: {value!r} is neither 'mask' nor a target from 0 to 1")
    return target
