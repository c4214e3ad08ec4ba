"""A patient-grouped, multi-label stratified split.

Every class has its positives and its negatives spread over the splits in proportion, counted in images and in
patients, and so are all images and all patients. The first pass is iterative stratification over patients
(Sechidis, Tsoumakas and Vlahavas, "On the stratification of multi-label data", ECML PKDD 2011): the rarest
label first, each patient to a split that still needs it. It differs from the paper in one point: the split is
drawn, with odds in proportion to what each still needs, where the paper takes the neediest. The neediest is
nearly always train, so patients with many images, who come first, would hardly ever reach val or test. A
second pass moves and swaps patients as long as that brings the counts nearer to their targets.
"""

from collections.abc import Mapping
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

TRAIN = "train"  # the split that takes what the named fractions leave
PATIENT_WEIGHT = 0.1  # of a count of patients in the cost, beside 1 for a count of images
POOL = 4096  # patients the second pass looks at together, so that its time grows only linearly
MAX_EXCHANGES = 1000  # for each pool; CheXpert's first takes some 400
SHORTLIST = 128  # patients on each side of a swap that are compared pair by pair


def patient_split(labels: ArrayLike, patients: ArrayLike, *, fractions: Mapping[str, float], seed: int) -> np.ndarray:
    """The split of every row; all rows of a patient get the same one.

    labels: [N, C] float, raw labels 1, 0, -1 or NaN; -1 and NaN count towards the images only.
    patients: [N] patient ids, compared as text.
    fractions: the target share of each split but train, which takes the rest: {"val": 0.1, "test": 0.1}, or
        {"val": 0.1} to carve a validation set out of a published training set. If they sum to 1, train is empty.
    seed: the same seed gives each patient the same split, in whatever order the rows come.

    Returns [N] str. No split is left without a patient. Raises ValueError on a bad argument.
    """
    labels, patients = _check_rows(labels, patients)
    shares = _shares(fractions)
    codes, ids = pd.factorize(patients, sort=True)
    if len(ids) < len(shares):
        wanted = f"{len(shares)} splits ({', '.join(shares)})"
        raise ValueError(f"{wanted} need as many patients, got {len(ids)}; ask for fewer splits")
    rng = np.random.default_rng(seed)
    counts = _count_per_patient(labels, codes)
    targets = np.outer(list(shares.values()), counts.sum(axis=0))
    home = _stratify(counts, targets, rng)
    _fill_empty(home, counts, n_splits=len(shares))
    order = rng.permutation(len(ids))
    for start in range(0, len(ids), POOL):
        _exchange(home, counts, targets, order[start : start + POOL])
    return np.array(list(shares))[home[codes]]


def _check_rows(labels: ArrayLike, patients: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """labels as [N, C] float64 and patient ids as [N] str objects, or a ValueError."""
    labels = np.asarray(labels, dtype=np.float64)
    patients = np.asarray(patients, dtype=object)
    if labels.ndim != 2 or 0 in labels.shape:
        raise ValueError(f"labels have shape {labels.shape}; expected [rows, classes], at least one of each")
    if patients.shape != labels.shape[:1]:
        raise ValueError(f"patients has shape {patients.shape}; expected one patient id for each of {len(labels)} rows")
    odd = np.argwhere(~(np.isin(labels, (1.0, 0.0, -1.0)) | np.isnan(labels)))
    if len(odd):
        row, column = odd[0]
        value = f"{labels[row, column]:g} at row {row}, column {column}"
        raise ValueError(f"labels hold {value}; expected 1, 0, -1 or blank (NaN)")
    text = np.array([str(patient).strip() for patient in patients], dtype=object)
    missing = pd.isna(patients) | (text == "")
    if missing.any():
        rows = f"{missing.sum()} of {len(patients)} rows"
        raise ValueError(f"{rows} have no patient id, the first is row {missing.argmax()}; every row needs one")
    return labels, text


def _shares(fractions: Mapping[str, float]) -> dict[str, float]:
    """{split: target share}, train first where there is one, or a ValueError."""
    if not fractions or TRAIN in fractions:
        raise ValueError(f"fractions are {dict(fractions)}; name each split but {TRAIN}, which takes the rest")
    for name, fraction in fractions.items():
        if not 0 < fraction <= 1:
            raise ValueError(f"the fraction of {name} is {fraction}; expected more than 0 and at most 1")
    total = sum(fractions.values())
    if total > 1 + 1e-9:
        raise ValueError(f"the fractions sum to {total:g}; expected at most 1, as {TRAIN} takes the rest")
    return {TRAIN: 1 - total, **fractions} if total < 1 - 1e-9 else dict(fractions)


def _count_per_patient(labels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """What is to be spread: [P, 2 K] float64 with K = 2 C + 1.

    The first K columns count images: each class's positives, each class's negatives, all. The last K hold 1
    where the patient has any such image, so that the same findings are spread over patients too: one patient
    with many images would otherwise count as many.
    """
    hits = np.hstack([labels == 1, labels == 0, np.ones((len(labels), 1), bool)])
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(codes.max() + 1))
    images = np.add.reduceat(hits[order], starts, axis=0, dtype=np.float64)
    return np.hstack([images, images > 0])


def _stratify(counts: np.ndarray, targets: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """First pass, iterative stratification: [P] int, the split of each patient."""
    n_patients, n_columns = counts.shape
    has = counts[:, : n_columns // 2] > 0  # [P, K], its last column true for everybody
    absent = counts == 0
    weight = _weight(targets)
    need = targets.copy()  # [S, 2 K]
    home = np.full(n_patients, -1)
    left = rng.permutation(n_patients)
    while len(left):
        carriers = has[left].sum(axis=0)
        label = np.where(carriers > 0, carriers, n_patients + 1).argmin()
        group = left[has[left, label]]
        group = group[np.argsort(-counts[group, label], kind="stable")]  # the largest while there is room
        for patient, draw in zip(group, rng.random(len(group)), strict=True):
            count = counts[patient]
            room = (absent[patient] | (need - count >= -0.5)).all(axis=1)
            odds = np.where(room, need[:, label], 0).cumsum()
            if odds[-1] > 0:
                split = odds.searchsorted(draw * odds[-1], side="right")
            else:  # too large for what any split still needs: where it costs least
                split = (_exact(weight * (count - 2 * need)) @ count).argmin()
            need[split] -= count
            home[patient] = split
        left = left[home[left] < 0]
    return home


def _fill_empty(home: np.ndarray, counts: np.ndarray, *, n_splits: int) -> None:
    """Give each split without a patient the one with the fewest images of the fullest split, in place."""
    images = counts[:, counts.shape[1] // 2 - 1]
    for split in range(n_splits):
        if not (home == split).any():
            fullest = np.flatnonzero(home == np.bincount(home).argmax())
            home[fullest[images[fullest].argmin()]] = split


def _exchange(home: np.ndarray, counts: np.ndarray, targets: np.ndarray, pool: np.ndarray) -> None:
    """Second pass: move a patient of the pool or swap two, in place, while that lowers the cost.

    The cost is sum(weight need^2), need = target - count. A patient with counts x adds to it
    x.(weight (x + 2 need)) by leaving a split and x.(weight (x - 2 need)) by entering one. A swap of x for y
    adds both moves, less 2 x.((weight here + weight there) y). A move is a swap for nobody, y = 0, who is the
    last row.
    """
    weight = _weight(targets)
    need = targets - np.stack([counts[home == split].sum(axis=0) for split in range(len(targets))])
    x = np.vstack([counts[pool], np.zeros(counts.shape[1])])
    square = _dot(x**2, weight)  # [pool + 1, S]
    for _ in range(MAX_EXCHANGES):
        slope = 2 * _dot(x, _exact(weight * need))
        leave, enter = square + slope, square - slope
        sizes = np.bincount(home, minlength=len(targets))
        best, swap = -1e-6, None  # of no weight beside the cost of a single image
        for here, there in combinations(range(len(targets)), 2):
            a, cost_a = _shortlist(home[pool] == here, leave[:, here] + enter[:, there])
            b, cost_b = _shortlist(home[pool] == there, leave[:, there] + enter[:, here])
            cost = cost_a[:, None] + cost_b - 2 * _dot(x[a] * (weight[here] + weight[there]), x[b])
            if sizes[here] == 1:  # the last patient leaves only for another
                cost[:-1, -1] = np.inf
            if sizes[there] == 1:
                cost[-1, :-1] = np.inf
            i, j = np.unravel_index(cost.argmin(), cost.shape)
            if cost[i, j] < best:
                best, swap = cost[i, j], (a[i], here, b[j], there)
        if swap is None:
            return
        a, here, b, there = swap
        home[pool[a : a + 1]] = there  # an empty slice for nobody
        home[pool[b : b + 1]] = here
        need[here] += x[a] - x[b]
        need[there] += x[b] - x[a]


def _shortlist(members: np.ndarray, cost: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the members that cost least, nobody's row last, and their costs."""
    rows = np.flatnonzero(members)
    rows = rows[np.argsort(cost[rows], kind="stable")[:SHORTLIST]]
    rows = np.append(rows, len(members))
    return rows, cost[rows]


def _dot(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """rows @ columns.T without BLAS, whose threads cost more than they save on products this small."""
    return np.einsum("ik,jk->ij", rows, columns)


def _weight(targets: np.ndarray) -> np.ndarray:
    """[S, 2 K], of a squared deviation in the cost: 1 / target, as in a chi-square; 0 for an empty target."""
    weight = np.divide(1, targets, out=np.zeros_like(targets), where=targets > 0)
    weight[:, targets.shape[1] // 2 :] *= PATIENT_WEIGHT
    return _exact(weight)


def _exact(values: np.ndarray) -> np.ndarray:
    """Rounded to multiples of 2^-30: sums of their products with counts then carry no rounding error.

    So no split depends on the order in which a processor's matrix product adds.
    """
    return np.round(values * 2**30) / 2**30
