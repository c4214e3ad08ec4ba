"""Ids of two tables that are about the same images or studies, and write their paths differently."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

IMAGE_SUFFIX = re.compile(r"\.(?:png|jpe?g|dcm|dicom)$", re.IGNORECASE)
STUDY_NUMBER = re.compile(r"(?<![^/])s(\d+)$")  # of MIMIC


def match_ids(ids: Iterable[str], others: Sequence[str], *, path: Path, what: str = "ids") -> np.ndarray:
    """The row among `others` [M], which are unique, that is about each of `ids`: [N] int, -1 where none is.

    An image or study is known by its path or by the end of it, with or without the suffix of an image, and a study of
    MIMIC with or without `s`. Each id is matched by the longest end that it shares. Less of a path than both sides have
    is compared only where the ends of that length are unique on both.
    Raises ValueError, which names the file of the others and `what` the ids are of, where an id matches several.
    """
    distinct, codes = np.unique(np.asarray(list(ids), dtype=object), return_inverse=True)
    rows = pd.Index(others).get_indexer(pd.Index(distinct))
    ours, theirs = _paths(distinct), _paths(others)
    for depth in range(min(max(map(len, ours)), max(map(len, theirs))), 0, -1):
        open_rows = set(range(len(theirs))) - set(rows)
        if not open_rows or (rows >= 0).all():
            break
        ends, known = ([path[-depth:] for path in paths] for paths in (ours, theirs))
        count, count_known = Counter(ends), Counter(known)
        telling = len(count) == len(ends) and len(count_known) == len(known)
        where = {known[row]: row for row in open_rows}
        for at in np.flatnonzero(rows < 0):
            row = where.get(ends[at], -1)
            whole = row >= 0 and depth >= min(len(ours[at]), len(theirs[row]))
            if whole and max(count[ends[at]], count_known[ends[at]]) > 1:
                name, expected = "/".join(ends[at]), "expected whole paths or unique ids"
                raise ValueError(f"{path}: {name!r} matches several {what}; {expected}")
            if whole or telling:
                rows[at] = row
    return rows[codes]


def _paths(ids: Iterable[str]) -> list[tuple[str, ...]]:
    """The parts of each path, without the suffix of an image and without the `s` before a number."""
    stems = (IMAGE_SUFFIX.sub("", text.replace("\\", "/")) for text in ids)
    return [tuple(STUDY_NUMBER.sub(r"\1", stem).split("/")) for stem in stems]
