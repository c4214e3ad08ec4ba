"""The text of label files in, one checked `LabelSource` out: what the reader of every data set is made of."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from src.labels.columns import alike, columns_by_role
from src.runtime.csv_files import BLANKS, number

TABLE_COLUMNS = ("image_id", "patient_id", "study_id", "view", "split")
IMAGE_PATH = "image_path"  # of a table whose images lie elsewhere than their ids say
CONTEXT_COLUMNS = ("image_id", "sex", "age", "study_order", "no_finding")

# Study ids that only count within a patient, such as 1, 02 or study1, repeat between patients.
COUNTING_STUDY = r"(?:study)?[ _-]?\d{1,3}"
SPLITS = ("train", "val", "calib", "test")
REPORTS, EXPERTS = "reports ({})", "experts ({})"  # whose labels a file has
SPARE = "spare"  # a published split that has no part in a run unless it is asked for
OUR_OWN = "the split is made here, and results do not compare with published ones"
LABEL_VALUES = {1.0: 1.0, 0.0: 0.0, -1.0: -1.0}
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validate": "val", "validation": "val", "test": "test"}
SPLIT_NAMES |= {"calib": "calib", "calibration": "calib"}
VIEW_NAMES = {"frontal": "frontal", "ap": "frontal", "pa": "frontal", "ap_horizontal": "frontal"}
VIEW_NAMES |= {"lateral": "lateral", "ll": "lateral", "rl": "lateral", "l": "lateral"}
SEX_NAMES = {"f": "F", "female": "F", "m": "M", "male": "M"}
AGE_UNITS = {"y": 1.0, "m": 1 / 12, "w": 7 / 365.25, "d": 1 / 365.25}  # in years
# 58, 058Y (DICOM), 58 years, 90+, >89 (as de-identified tables write the oldest)
AGE = re.compile(
    r"(?:>=?|≥)?\s*(\d+(?:[.,]\d+)?)\s*\+?\s*"
    r"(y(?:ears?|rs?|o)?|m(?:onths?|os?)?|w(?:eeks?|ks?)?|d(?:ays?)?)?\.?(?:\s+old)?\s*\+?"
)
OLDEST = 120.0  # years; what lies above is a typing error
NAMED = 3  # examples in a warning


@dataclass(frozen=True)
class LabelSource:
    """What the label files of a data set say, in one form for all data sets.

    table: `image_id` (path relative to the image root, unique), `patient_id`, `study_id`, `view` (frontal, lateral,
        or "" where unknown), `split` (the published one: train, val, test or `SPARE`; None in all rows where none is
        published, and in rows that the published lists do not name), in some tables `image_path` (see `paths_of`),
        then a float column per class: 1, 0, -1 or NaN.
    context: the same rows in the same order: `image_id`, `sex` (F, M or ""), `age` (years or NaN), `study_order`
        (rank in time of the study among its patient's, from 0), `no_finding` (1 where the labels say "No Finding", NaN
        where they do not know of it).
    files: every file that was read. split_note: where the published split comes from, "" without one. spare: the file
        that the spare rows are of. labels_from: for each published split, or "" for all, whose labels it has.
    patients_known: whether every image is known to be of a patient, and none is taken for a patient of its own.
    understood: which column of a CSV was taken for what, "" of other data sets.
    warnings: what a reader of the results should know, such as images left out.
    problems: checks of the published lists that failed.
    """

    name: str  # chexpert, mimic, nih or csv
    image_root: Path
    classes: tuple[str, ...]
    table: pd.DataFrame
    context: pd.DataFrame
    files: tuple[Path, ...]
    split_note: str = ""
    spare: str = ""
    labels_from: Mapping[str, str] = field(default_factory=dict)
    patients_known: bool = True
    understood: str = ""
    warnings: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    @classmethod
    def from_rows(cls, name: str, rows: pd.DataFrame, labels: pd.DataFrame, **fields: Any) -> "LabelSource":
        """Build from `rows` and `labels` (one column per class).

        `rows` has all columns of `table` and `context` but the classes; `no_finding` may be missing.
        """
        rows = rows if "no_finding" in rows else rows.assign(no_finding=np.nan)
        elsewhere = IMAGE_PATH in rows and not rows[IMAGE_PATH].equals(rows["image_id"])
        columns = [*TABLE_COLUMNS, *[IMAGE_PATH][:elsewhere]]
        rows = rows.astype(dict.fromkeys(("image_id", "patient_id", "study_id", "view", "sex"), "str"))
        rows, labels = rows.reset_index(drop=True), labels.reset_index(drop=True)
        return cls(
            name=name,
            classes=tuple(labels.columns),
            table=pd.concat([rows[columns], labels], axis=1),
            context=rows[list(CONTEXT_COLUMNS)].copy(),
            **fields,
        )

    def keep(self, rows: ArrayLike) -> "LabelSource":
        """The same with only the rows for which `rows` [N] bool is true."""
        table, context = (frame[np.asarray(rows)].reset_index(drop=True) for frame in (self.table, self.context))
        return replace(self, table=table, context=context)


def paths_of(table: pd.DataFrame) -> pd.Series:
    """Where each image of a table lies, relative to the image root: [N] str."""
    return table[IMAGE_PATH] if IMAGE_PATH in table else table["image_id"]


def splits_in(column: Iterable[str]) -> tuple[str, ...]:
    """The splits in order, without train and calib where no row of the column `split` is in them."""
    there = {"val", "test", *column}
    return tuple(split for split in SPLITS if split in there)


def scored_in(column: Iterable[str]) -> tuple[str, ...]:
    """The splits in which something is measured: val, test, and calib where there is one."""
    return tuple(split for split in splits_in(column) if split != "train")


def one_file(folder: Path, *patterns: str) -> Path | None:
    """The one file in `folder` that fits, plain or gzipped; None where none does, ValueError where several do."""
    found = sorted(file for pattern in patterns for file in (*folder.glob(pattern), *folder.glob(pattern + ".gz")))
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise ValueError(f"{folder} holds {names}; keep the one to read, and move the others elsewhere")
    return found[0] if found else None


def find_label_file(path: Path, *patterns: str, of: str) -> Path:
    """`path` where it is a file, else the one file of the folder that fits; ValueError where none or several do.

    of: what the data set is called.
    """
    file = path if path.is_file() else one_file(path, *patterns)
    if file is None:
        raise ValueError(f"{path} holds no {' and no '.join(patterns)}; a folder of {of} needs one")
    return file


def own_split(files: str, *, beside: Path) -> str:
    """The warning where `files`, which publish the split of a data set, are not there."""
    return f"no {files} next to {beside.name}: {OUR_OWN}"


def studies_of(values: pd.Series, patients: Iterable[str], *, path: Path) -> pd.Series:
    """Study ids; those that only count the studies of a patient get the patient's id before them."""
    studies = ids_of(values, path=path)
    counts = studies.str.lower().str.fullmatch(COUNTING_STUDY)
    return studies.where(~counts, pd.Series(patients, index=studies.index) + "/" + studies)


def choose_classes(
    classes: Sequence[str] | None, *, default: Sequence[str], present: Iterable[str], path: Path
) -> tuple[str, ...]:
    """`classes`, or `default` if that is None; raises ValueError unless each is a label column of `path`."""
    present = list(present)
    chosen = tuple(default if classes is None else classes)
    if not chosen:
        raise ValueError(f"{path} has no class column; expected at least one column of 1, 0, -1 or blank")
    for name in chosen:
        if name not in present:
            columns = ", ".join(present) or "none"
            raise ValueError(f"{path} has no class column {name!r}; it has {columns}. Choose among them with --classes")
        if name in (*TABLE_COLUMNS, IMAGE_PATH):
            raise ValueError(f"a class cannot be called {name!r}, which the manifest uses; rename the column in {path}")
        if chosen.count(name) > 1:
            raise ValueError(f"class {name!r} is named twice; name each class once")
    if doubled := alike(chosen):
        names = " and ".join(map(repr, doubled[:2]))
        raise ValueError(f"{path} has two columns for the same class: {names}; remove one, or choose with --classes")
    return chosen


def convert(values: pd.Series, function: Callable, *, path: Path, expected: str) -> np.ndarray:
    """`function` over a column of text, called once per distinct text, without the white space around it.

    Where it raises ValueError or KeyError, so does this, as a ValueError with file, line, column and value.
    """
    codes, texts = pd.factorize(values)
    converted = []
    for code, text in enumerate(texts):
        try:
            converted.append(function(text.strip()))
        except (ValueError, KeyError):
            line = values.index[np.argmax(codes == code)]
            raise ValueError(f"{path}, line {line}, column {values.name!r}: {text!r} is not {expected}") from None
    return np.array(converted)[codes]


def labels_of(rows: pd.DataFrame, classes: Sequence[str], *, path: Path, hint: str = "") -> pd.DataFrame:
    """The label columns as float: 1, 0, -1, or NaN where blank. ValueError for anything else; `hint` ends it."""
    expected = f"a label; expected 1 (yes), 0 (no), -1 (uncertain) or blank{hint}"
    columns = {name: convert(rows[name], _label, path=path, expected=expected) for name in classes}
    return pd.DataFrame(columns, index=rows.index)


def _label(text: str) -> float:
    value = number(text)
    return value if np.isnan(value) else LABEL_VALUES[value]


def no_finding_of(rows: pd.DataFrame, *, path: Path) -> pd.Series:
    """The column "No Finding" as `labels_of` reads labels; NaN if there is none. ValueError where there are two."""
    columns = columns_by_role(rows)["no_finding"]
    if len(columns) > 1:
        raise ValueError(f'{path} has two columns for "No Finding": {" and ".join(columns)}; remove one')
    return labels_of(rows, columns, path=path).squeeze(axis=1) if columns else pd.Series(np.nan, index=rows.index)


def splits_of(values: pd.Series, *, path: Path) -> np.ndarray:
    """Published splits as train, val or test, whichever usual name of it the file uses. ValueError for others."""
    return convert(values, lambda text: SPLIT_NAMES[text.lower()], path=path, expected="one of train, val, calib, test")


def views_of(values: pd.Series) -> pd.Series:
    """frontal, lateral, or "" for anything else (oblique views, a blank)."""
    return values.map({text: VIEW_NAMES.get(text.strip().lower(), "") for text in values.unique()})


def sexes_of(values: pd.Series) -> pd.Series:
    """F, M, or "" for anything else."""
    return values.map({text: SEX_NAMES.get(text.strip().lower(), "") for text in values.unique()})


def ages_of(values: pd.Series, *, path: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    """Ages in years, NaN where blank, and warnings. `058Y`, `013M`, `002W` and `010D` are read as DICOM means them.

    Age is context and stops nothing: what cannot be read becomes NaN, with a warning, and so does what lies above 120
    years, which are typing errors of which the data sets have some. `90+` is 90.
    """
    ages = convert(values, _age, path=path, expected="an age")
    unknown = ages > OLDEST
    what = f"rows of {path.name} with an age that cannot be read or is above {OLDEST:.0f} years, treated as unknown"
    return np.where(unknown, np.nan, ages), tuple(named(values[unknown], what))


def groups_of(cells: pd.DataFrame, roles: Mapping[str, str], *, path: Path) -> tuple[pd.DataFrame, list[str]]:
    """Sex, age and view of each row, as far as there is a column for them in `roles`, and warnings."""
    groups, warnings = pd.DataFrame(index=cells.index), list[str]()
    for role in ("sex", "age", "view"):
        if role not in roles:
            continue
        values = cells[roles[role]]
        if role == "age":
            groups[role], doubtful = ages_of(values, path=path)
            warnings += doubtful
        else:
            groups[role] = sexes_of(values) if role == "sex" else views_of(values)
            given = values[~values.str.strip().str.lower().isin(BLANKS)]
            if len(given) and (groups[role] == "").all():
                example = f"{given.iloc[0]!r}, is known, so that it is unknown in all rows"
                warnings.append(f"no {role} in column {values.name!r} of {path.name}, such as {example}")
    return groups, warnings


def _age(text: str) -> float:
    """Years, NaN where blank, infinite where it cannot be read."""
    match = AGE.fullmatch(text.lower())
    if match:
        return number(match[1]) * AGE_UNITS[(match[2] or "y")[0]]
    return np.nan if text.lower() in BLANKS else np.inf


def numbers_of(values: pd.Series, *, path: Path) -> np.ndarray:
    """Numbers as float, NaN where blank; ValueError for anything else."""
    return convert(values, number, path=path, expected="a number")


def ids_of(values: pd.Series, *, path: Path, unique: bool = False) -> pd.Series:
    """Ids without the white space around them.

    ValueError for a blank one, such as `NA`, whose rows would else be of one patient or study, and, with `unique`, for
    a doubled one.
    """
    ids = pd.Series([text.strip() for text in values], index=values.index, name=values.name, dtype=object)
    blank = ids[ids.str.lower().isin(BLANKS)]
    if len(blank):
        rows = f"in {len(blank):,} of {len(ids):,} rows, here as {blank.iloc[0]!r}"
        remedy = "give every row its id, or remove the rows without one"
        raise ValueError(f"{path}, line {blank.index[0]}: column {values.name!r} is blank {rows}; {remedy}")
    doubled = ids[ids.duplicated()] if unique else ids[:0]
    if len(doubled):
        where = list(ids.index[ids == doubled.iloc[0]])
        lines = f"{where[0]} and {where[1]}" + (f", and on {len(where) - 2:,} more" if len(where) > 2 else "")
        expected = f"each must be unique (repeated: {len(doubled):,})"
        raise ValueError(f"{path}: {doubled.iloc[0]!r} appears on lines {lines}; {expected}")
    return ids


def image_ids_of(values: pd.Series, *, path: Path, root: str = "") -> pd.Series:
    """Image paths with forward slashes, without empty parts, and without a first folder whose name begins with `root`.

    ValueError for a blank, doubled, absolute or `..` path.
    """
    ids = []
    for line, text in ids_of(values, path=path).items():
        parts = text.replace("\\", "/").split("/")
        if parts[0] in ("", "~") or ":" in parts[0] or ".." in parts:
            expected = "expected a path inside the image folder, relative to it"
            raise ValueError(f"{path}, line {line}, column {values.name!r}: got {text!r}; {expected}")
        parts = [part for part in parts if part not in ("", ".")]
        ids.append("/".join(parts[1:] if root and parts[0].startswith(root) else parts))
    return ids_of(pd.Series(ids, index=values.index, name=values.name, dtype=object), path=path, unique=True)


def study_order(patients: ArrayLike, studies: ArrayLike, when: ArrayLike) -> np.ndarray:
    """Rank in time, from 0, of each row's study among its patient's studies. All arguments [N]; returns [N] int64.

    A study's time is the earliest `when` of its rows. NaN comes last; ties stay in the order of the rows.
    """
    patient, study = (pd.factorize(np.asarray(ids, dtype=object))[0] for ids in (patients, studies))
    rows = pd.DataFrame({"patient": patient, "study": study, "when": np.asarray(when)})
    once = rows.groupby(["patient", "study"], sort=False, as_index=False)["when"].min()
    once = once.sort_values(["patient", "when"], kind="stable")
    once["order"] = once.groupby("patient").cumcount()
    return rows.merge(once.drop(columns="when"), on=["patient", "study"], how="left")["order"].to_numpy()


def named(names: Iterable[str], what: str, *, first: int = NAMED) -> list[str]:
    """[`WHAT: 3 (a, b, c)`]: a warning or a problem with its count and the first few names; [] without any name."""
    names = list(names)
    shown = ", ".join(names[:first]) + (", ..." if len(names) > first else "")
    return [f"{what}: {len(names):,} ({shown})"] if names else []
