"""Who an image is of: the patient and the study that its id tells, and the spellings of a patient's id."""

import unicodedata
from collections.abc import Iterable

import pandas as pd

# Ids that name their patient: CheXpert's patient00001/study1/..., MIMIC's p10000032/s50414267/..., NIH's 00000013_005.
PATIENT = r"(?<![A-Za-z])(patient\d+)|(?:^|/)(p1\d{7})/s5\d{7}(?:/|$)|(?:^|/)(000\d{5})_\d{3}(?:\.\w+)?$"
# Of these, CheXpert's and MIMIC's name the study: patient00001/study1, s50414267.
STUDY = r"(?<![A-Za-z])(patient\d+/study\d+)(?:/|$)|(?:^|/)p1\d{7}/(s5\d{7})(?:/|$)"
UNSEEN = ("Cc", "Cf")  # Unicode categories of characters without a picture, such as the byte order mark


def patients_in(ids: pd.Series) -> pd.Series:
    """The patient that each id of an image or study names, NaN where it names none."""
    return _named_in(ids, PATIENT)


def studies_in(ids: pd.Series) -> pd.Series:
    """The study that each id of an image or study names, NaN where it names none."""
    return _named_in(ids, STUDY)


def _named_in(ids: pd.Series, pattern: str) -> pd.Series:
    return ids.astype(str).str.replace("\\", "/").str.extract(pattern).bfill(axis=1)[0]


def said_found(ids: pd.Series, found: pd.Series, *, what: str = "patient") -> str:
    """What to tell of the patients that `patients_in` found, or of the studies that `studies_in` did."""
    named, said = found.notna(), []
    if named.any():
        said.append(f"the {what} is read from the id, such as {found[named].iloc[0]} from {ids[named].iloc[0]}")
    if not named.all():
        said.append(f"{(~named).sum():,} of {len(ids):,} rows name no {what} and count as one {what} each")
    return ", and ".join(said)


def plain_id(text: str) -> str:
    """An id without what two spellings of it differ in: case, leading zeros, a final `.0`, and what cannot be seen.

    Spreadsheets drop leading zeros, and pandas writes a column of integers with a blank in it as floats.
    """
    if not (text.isascii() and text.isprintable()):
        letters = unicodedata.normalize("NFKC", text)
        text = "".join(letter for letter in letters if unicodedata.category(letter) not in UNSEEN)
    return text.strip().casefold().removesuffix(".0").lstrip("0")


def spellings(ids: Iterable[str]) -> list[list[str]]:
    """The ids that are spelled in more than one way: groups of two or more, in the order of the first."""
    distinct = pd.Series(list(dict.fromkeys(ids)), dtype=object)
    plain = distinct.map(plain_id)
    doubled = distinct[plain.duplicated(keep=False)]
    return doubled.groupby(plain, sort=False).agg(list).tolist()


def two_spellings(ids: Iterable[str]) -> list[str]:
    """`'P7' and 'p7'` for each id that is spelled in more than one way; characters that cannot be seen are escaped."""
    return [" and ".join(map(ascii, group)) for group in spellings(ids)]


def one_spelling(ids: pd.Series) -> pd.Series:
    """Each id [N] in the spelling in which it first appears."""
    first = {name: group[0] for group in spellings(ids) for name in group}
    return ids.replace(first)
