"""Checks of a split: which patients are on which side, and what can be measured on each side.

A failed check is a sentence that says what is wrong; a warning one that says what will not mean much.
"""

from collections.abc import Collection, Mapping, Sequence

import pandas as pd

from src.labels.files import named, scored_in
from src.labels.patients import two_spellings
from src.runtime.tables import plural

# Fewer negatives than this leave the AUROC's standard error above about 0.03 even at AUROC 0.9 (Hanley & McNeil 1982)
# and let one false alarm move the precision visibly.
FEW_NEGATIVES = 50


def leaks(table: pd.DataFrame) -> list[str]:
    """Patients and studies that are in more than one split, counted in the splits that are evaluated."""
    failed = []
    for key, name in (("patient_id", "patient"), ("study_id", "study")):
        splits_of = table.groupby(key)["split"].nunique()
        shared = table[table[key].isin(splits_of.index[splits_of > 1])]
        for split in scored_in(table["split"]):
            here = shared[shared["split"] == split]
            if len(here):
                total = int((table["split"] == split).sum())
                failed.append(
                    f"{plural(here[key].nunique(), name)} with {len(here):,} of the {total:,} {split} images also in "
                    f"another split; first: {here[key].iloc[0]} (--split patient makes a sound one)"
                )
    return failed


def respelled(table: pd.DataFrame) -> list[str]:
    """Patients whose id is spelled in more than one way, who may be on two sides of a split unseen."""
    what = "patients whose id is spelled in more than one way (--merge-patients treats the spellings as one patient)"
    return named(two_spellings(table["patient_id"]), what)


def one_sided(table: pd.DataFrame, classes: Sequence[str], *, masked: Mapping[str, Collection[str]]) -> list[str]:
    """Classes without a positive or without a negative label in a split that is evaluated.

    masked: for a split, the classes that are known to have no label there.
    """
    failed = []
    for split in scored_in(table["split"]):
        labels = table.loc[table["split"] == split, [c for c in classes if c not in masked.get(split, ())]]
        for value, name in ((1, "positive"), (0, "negative")):
            none = [c for c in labels if not (labels[c] == value).any()]
            if none:
                failed.append(f"{split} has no {name} label of {', '.join(none)}: nothing can be measured there")
    return failed


def no_train(table: pd.DataFrame) -> list[str]:
    """A warning where no image is in train."""
    if (table["split"] == "train").any():
        return []
    return ["no image is in train: stages 5 and 6 can take probabilities from another program, but no model can train"]


def too_few(
    table: pd.DataFrame,
    classes: Sequence[str],
    *,
    needed: Mapping[float, int],
    confidence: float,
    masked: Mapping[str, Collection[str]],
) -> list[str]:
    """Classes with too few positives (patients) to certify a recall, or too few negatives in an evaluated split.

    needed: for each recall target, how many positive patients can certify it at `confidence`. masked: see `one_sided`.
    """
    warned = []
    name = "calib" if "calib" in scored_in(table["split"]) else "val"  # where thresholds are certified
    rows = table[table["split"] == name]
    patients = {c: rows.loc[rows[c] == 1, "patient_id"].nunique() for c in classes}
    for recall, need in needed.items():
        short = [f"{c} ({n})" for c, n in patients.items() if n < need]
        if short:
            warned.append(
                f"recall {recall:g} cannot be certified at {100 * confidence:g}% confidence with fewer than {need} "
                f"positive patients in {name}: {', '.join(short)}"
            )
    for split in scored_in(table["split"]):
        labels = table.loc[table["split"] == split, [c for c in classes if c not in masked.get(split, ())]]
        few = [f"{c} ({n})" for c in labels if (n := int((labels[c] == 0).sum())) < FEW_NEGATIVES]
        if few:
            names = ", ".join(few)
            warned.append(
                f"AUROC and precision mean little with fewer than {FEW_NEGATIVES} negatives in {split}: {names}"
            )
    return warned
