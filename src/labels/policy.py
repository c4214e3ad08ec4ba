"""Label policy: what a blank and an "uncertain" are taken to mean.

Raw labels are 1 (positive), 0 (negative), -1 (uncertain) and NaN (blank, not mentioned).
"""

from collections.abc import Sequence

import numpy as np


def apply_policy(
    labels: np.ndarray,
    *,
    uncertain: Sequence[str] = ("mask",),
    missing: Sequence[str] = ("mask",),
    classes: Sequence[str],
    hard: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """Targets [N, C] float32 and mask [N, C] bool (True: takes part) from raw labels [N, C].

    `uncertain` and `missing` are the words of those flags, as `parse_policy` reads them. A masked entry has target 0.
    With `hard`, as a metric needs it, a soft target raises ValueError.
    """
    policies = {
        flag: parse_policy(words, classes=classes, flag=flag)
        for flag, words in (("--uncertain", uncertain), ("--missing", missing))
    }
    for flag, policy in policies.items():
        soft = policy[~np.isin(policy, (0, 1)) & ~np.isnan(policy)]
        if hard and len(soft):
            raise ValueError(f"{flag}: the target {soft[0]:g} is soft; a metric needs a hard view: mask, 0 or 1")
    targets = np.where(labels == -1, policies["--uncertain"], labels)
    targets = np.where(np.isnan(labels), policies["--missing"], targets)
    mask = ~np.isnan(targets)
    return np.where(mask, targets, 0).astype(np.float32), mask


def parse_policy(words: Sequence[str], *, classes: Sequence[str], flag: str) -> np.ndarray:
    """Policy per class from the words of a flag: `mask` or a target for all classes, `CLASS=value` for one.

    Later words win. Returns [C] float64 targets, NaN where the label is masked.
    Raises ValueError for a class that is not there and a value that is neither `mask` nor in [0, 1].
    """
    policy = np.full(len(classes), np.nan)
    for word in words:
        name, _, value = word.rpartition("=")
        if name and name not in classes:
            raise ValueError(f"{flag} {word}: no class {name!r}; the classes are {', '.join(classes)}")
        policy[list(classes).index(name) if name else slice(None)] = _target(value, f"{flag} {word}")
    return policy


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
