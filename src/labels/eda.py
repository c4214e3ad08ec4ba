"""Statistics of raw labels, as tables: what stage 2 prints, draws and leaves as CSV.

Labels are [N, C] float64: 1 (positive), 0 (negative), -1 (uncertain), NaN (blank, not mentioned). Images are
counted, unless the docstring says studies or patients.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.stats import hypergeom

STATES = ("positive", "negative", "uncertain", "blank")
ALL = "all"  # group of all images
AGE_EDGES = (18, 40, 60, 80)  # years
AGE_BANDS = ("0-17", "18-39", "40-59", "60-79", "80+")


def state_codes(labels: np.ndarray) -> np.ndarray:
    """Index into `STATES` of each label, [N, C] int8; raises ValueError for any other label."""
    codes = np.select([labels == 1, labels == 0, labels == -1, np.isnan(labels)], [0, 1, 2, 3], -1).astype(np.int8)
    if (codes < 0).any():
        raise ValueError(f"label {labels[codes < 0][0]:g} is not 1, 0, -1, or blank; correct the label file")
    return codes


def count_states(
    labels: np.ndarray, *, groups: np.ndarray, order: Sequence[str], classes: Sequence[str], name: str
) -> pd.DataFrame:
    """Images per label state, class and group: columns `name`, class, images and one per state.

    `groups` [N] str. Rows go by the groups in `order`, which may hold `ALL`, then by class; groups without an
    image are left out, and so are images whose group is not in `order`.
    """
    codes = state_codes(labels)
    parts = []
    for group in order:
        rows = codes if group == ALL else codes[groups == group]
        if len(rows):
            counts = {state: (rows == code).sum(axis=0) for code, state in enumerate(STATES)}
            parts.append(pd.DataFrame({name: group, "class": list(classes), "images": len(rows), **counts}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[name, "class", "images", *STATES])


def side_by_side(states: pd.DataFrame, *, order: Sequence[str]) -> pd.DataFrame:
    """The counts of `count_states`, a row per class and a column (group, state) for each in `order`."""
    name = states.columns[0]
    wide = states.pivot(index="class", columns=name, values=list(STATES)).swaplevel(axis=1)
    columns = pd.MultiIndex.from_product([order, STATES])
    return wide.reindex(index=states["class"].unique(), columns=columns, fill_value=0)


def with_rates(states: pd.DataFrame) -> pd.DataFrame:
    """The counts of `count_states` with four shares added, NaN where there is nothing to take a share of.

    uncertain_rate and blank_rate are of all images, prevalence is of the valid labels, positive or negative.
    prevalence_blank_0: the same where a blank counts as negative. Uncertain labels stay out of both.
    """
    valid = states["positive"] + states["negative"]
    return states.assign(
        valid=valid,
        uncertain_rate=states["uncertain"] / states["images"],
        blank_rate=states["blank"] / states["images"],
        prevalence=states["positive"] / valid.where(valid > 0),
        prevalence_blank_0=states["positive"] / (valid + states["blank"]).where(valid + states["blank"] > 0),
    )


def age_bands(ages: np.ndarray) -> np.ndarray:
    """Band of `AGE_BANDS` of each age in years, "" where the age is NaN: [N] str."""
    bands = np.array(AGE_BANDS, dtype=object)[np.digitize(ages, AGE_EDGES)]
    return np.where(np.isnan(ages), "", bands)


def cooccurrence(labels: np.ndarray, *, classes: Sequence[str]) -> pd.DataFrame:
    """Images with both findings positive: column class, then one per class; its positives on the diagonal."""
    positive = (labels == 1).astype(np.float64)
    counts = pd.DataFrame((positive.T @ positive).astype(np.int64), columns=list(classes))
    counts.insert(0, "class", list(classes))
    return counts


def findings_per_image(labels: np.ndarray, *, groups: np.ndarray, order: Sequence[str]) -> pd.DataFrame:
    """Images by their number of positive findings: columns split, findings, images, share (of the split)."""
    findings = (labels == 1).sum(axis=1)
    parts = []
    for group in order:
        rows = findings if group == ALL else findings[groups == group]
        if len(rows):
            images = np.bincount(rows, minlength=findings.max() + 1)
            table = {
                "split": group,
                "findings": np.arange(len(images)),
                "images": images,
                "share": images / len(rows),
            }
            parts.append(pd.DataFrame(table))
    return pd.concat(parts, ignore_index=True)


def study_changes(
    labels: np.ndarray, *, patients: np.ndarray, study_order: np.ndarray, classes: Sequence[str]
) -> pd.DataFrame:
    """How labels change from one study of a patient to the next: columns class, from, to, pairs, share.

    `study_order` [N] int ranks a patient's studies in time. A study has the labels of its first image, as
    reports, and so labels, are made per study. `pairs` counts pairs of consecutive studies, `share` is of the
    pairs with the same class and `from`, NaN where there are none.
    """
    rows = _studies(patients, study_order)
    codes = state_codes(labels[rows])
    same = np.asarray(patients)[rows][1:] == np.asarray(patients)[rows][:-1]
    moves = len(STATES) * codes[:-1][same].astype(np.int64) + codes[1:][same]
    parts = []
    for column, finding in enumerate(classes):
        pairs = np.bincount(moves[:, column], minlength=len(STATES) ** 2)
        before = pairs.reshape(len(STATES), -1).sum(axis=1).repeat(len(STATES))
        share = np.divide(pairs, before, out=np.full(len(pairs), np.nan), where=before > 0)
        table = {"from": np.repeat(STATES, len(STATES)), "to": np.tile(STATES, len(STATES)), "pairs": pairs}
        parts.append(pd.DataFrame({"class": finding, **table, "share": share}))
    return pd.concat(parts, ignore_index=True)


def pairs(labels: np.ndarray, *, patients: np.ndarray, study_order: np.ndarray, classes: Sequence[str]) -> pd.DataFrame:
    """Which pairs of findings go together more, or less, often than chance; by descending lift.

    Counted on the first image of each patient's first study, so that the observations are independent. A
    blank counts as absent: reports seldom name what is not there, so the few that name both of two findings
    are no fair sample of all. Images with one of the two uncertain are left out.

    Columns: class_a, class_b; patients (counted); both, only_a, only_b; expected: how many would have both if
    the two were independent; lift: both / expected; log_odds_ratio: natural, 0.5 added to each of the four
    cells (Haldane 1956); p: two-sided, twice the smaller tail of Fisher's exact test; p_bonferroni: times the
    number of pairs tested. Where one of the two findings is never or always present, the pair is not tested:
    lift and p are NaN.
    """
    rows = _studies(patients, study_order)
    first = labels[rows[~pd.Series(np.asarray(patients)[rows]).duplicated().to_numpy()]]
    positive, known = (first == 1).astype(np.float64), (first != -1).astype(np.float64)
    a, b = np.triu_indices(len(classes), k=1)
    count = {
        "patients": (known.T @ known)[a, b],
        "both": (positive.T @ positive)[a, b],
        "with_a": (positive.T @ known)[a, b],
        "with_b": (known.T @ positive)[a, b],
    }
    table = pd.DataFrame(count).astype(np.int64)
    table.insert(0, "class_a", np.asarray(classes, dtype=object)[a])
    table.insert(1, "class_b", np.asarray(classes, dtype=object)[b])
    table = _association(table).drop(columns=["with_a", "with_b"])
    return table.sort_values("lift", ascending=False, kind="stable", ignore_index=True)


def _association(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `pairs` that follow from patients, both, with_a and with_b."""
    patients, both, with_a, with_b = (table[name].to_numpy() for name in ("patients", "both", "with_a", "with_b"))
    only_a, only_b = with_a - both, with_b - both
    neither = patients - both - only_a - only_b
    tested = (with_a > 0) & (with_a < patients) & (with_b > 0) & (with_b < patients)
    expected = np.divide(with_a * with_b, patients, out=np.full(len(table), np.nan), where=patients > 0)
    more = hypergeom.sf(both - 1, patients, with_a, with_b)
    fewer = hypergeom.cdf(both, patients, with_a, with_b)
    p = np.where(tested, np.minimum(1, 2 * np.minimum(more, fewer)), np.nan)
    return table.assign(
        only_a=only_a,
        only_b=only_b,
        expected=expected,
        lift=np.divide(both, expected, out=np.full(len(table), np.nan), where=tested),
        log_odds_ratio=np.log((both + 0.5) * (neither + 0.5) / ((only_a + 0.5) * (only_b + 0.5))),
        p=p,
        p_bonferroni=np.minimum(1, p * tested.sum()),
    )


def _studies(patients: np.ndarray, study_order: np.ndarray) -> np.ndarray:
    """Row of the first image of each study, by patient, then in time: [S] int."""
    table = pd.DataFrame({"patient": np.asarray(patients), "order": np.asarray(study_order)})
    first = table[~table.duplicated()]
    return first.sort_values(["patient", "order"], kind="stable").index.to_numpy()
