"""Labels that experts gave to some images or studies of a data set: read, matched by id, and compared."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.columns import columns_by_role, plain_name
from src.labels.files import ids_of, labels_of, no_finding_of, studies_of
from src.labels.id_match import match_ids
from src.runtime.csv_files import read_cells

# Files of experts' labels: MIMIC-CXR-JPG 2.1.0; ChestX-ray14 (Majkowska et al. 2020, Nabulsi et al. 2021); CheXpert.
EXPERT_FILES = ("mimic-cxr-2.*-test-set-labeled.csv", "*test_labels.csv", "groundtruth.csv")
REPORTS_READ = EXPERT_FILES[0]  # its labels are of the reports, by a radiologist (Johnson et al. 2024)
EXPERT_FOLDERS = "*[Ee]xpert*"
SYNONYMS = {"airspaceopacity": "lungopacity"}  # MIMIC's file and CheXlocalize call CheXpert's Lung Opacity so
UNITS = {"path": "image", "study": "study"}  # by the role of the column of ids, the finer first
PLURALS = {"image": "images", "study": "studies"}
WORDS = {"yes": "1", "no": "0"}
STATES = {"1": 1.0, "0": 0.0, "-1": -1.0, "blank": np.nan}


@dataclass(frozen=True)
class ExpertLabels:
    """What a file of expert labels says, a row per image or per study.

    unit: image or study. ids: [M], as the file has them. labels: [M, C] float, a column per class of the data set: 1,
    0, -1 or NaN. masked: the classes that the file has no column for, all NaN. unused: columns of labels that are of no
    class. no_finding: [M] float, the same of a column "No Finding".
    """

    path: Path
    unit: str
    ids: pd.Series
    labels: pd.DataFrame
    masked: tuple[str, ...]
    unused: tuple[str, ...]
    no_finding: pd.Series


def read_experts(path: Path, *, classes: Sequence[str]) -> ExpertLabels:
    """Read a file of expert labels: 1, 0, -1 and blank, or YES and NO.

    Its columns are matched to `classes` without regard to case, blanks, - and _. Raises ValueError where it has no
    column of images or studies, several rows for one, no column of any class, or another label.
    """
    cells = read_cells(path)
    unit, ids = _ids(cells, path)
    columns = {_canonical(name): name for name in reversed(cells.columns)}  # of two alike, the first
    known = {name: columns[_canonical(name)] for name in classes if _canonical(name) in columns}
    if not known:
        raise ValueError(f"{path} has no column of {', '.join(classes)}; it has {', '.join(cells)}")
    words = cells.apply(lambda column: column.str.strip().str.lower().map(WORDS).fillna(column))
    labels = labels_of(words, list(known.values()), path=path, hint=", or YES or NO")
    labels.columns = list(known)
    roles = {name for columns in columns_by_role(cells).values() for name in columns}
    others = [name for name in cells if name not in {*known.values(), *roles}]
    return ExpertLabels(
        path,
        unit,
        ids,
        labels.reindex(columns=list(classes)),
        masked=tuple(name for name in classes if name not in known),
        unused=tuple(name for name in others if set(words[name]) <= {*WORDS.values(), "-1", ""}),
        no_finding=no_finding_of(words, path=path),
    )


def _canonical(name: str) -> str:
    return SYNONYMS.get(plain_name(name), plain_name(name))


def _ids(cells: pd.DataFrame, path: Path) -> tuple[str, pd.Series]:
    """Whether the rows are of images or of studies, and the id of each; ValueError where one is doubled."""
    roles = columns_by_role(cells)
    found = [(unit, roles[role][0]) for role, unit in UNITS.items() if roles[role]]
    found.sort(key=lambda pair: plain_name(pair[1]) == "id")  # which may number the rows
    if not found:
        expected = "expected one such as Path, Image Index, dicom_id or study_id"
        raise ValueError(f"{path} has no column of images or studies; it has {', '.join(cells)}; {expected}")
    unit, column = found[0]
    if unit == "study" and roles["patient"]:
        ids = studies_of(cells[column], ids_of(cells[roles["patient"][0]], path=path), path=path)
    else:
        ids = ids_of(cells[column], path=path)
    doubled = ids[ids.duplicated()]
    if len(doubled):
        others = " or ".join(file.name for file in _candidates([path.parent]) if file != path)
        rows = f"{(ids == doubled.iloc[0]).sum()} rows for {doubled.iloc[0]!r}, perhaps one per reader"
        remedy = f"one row per {unit}, such as the majority of the readers{f'; see also {others}' * bool(others)}"
        raise ValueError(f"{path} has {rows}; expected {remedy}")
    return unit, ids


def match(experts: ExpertLabels, table: pd.DataFrame) -> np.ndarray:
    """The row of the expert file that is about each row of a data set's table: [N] int, -1 where none is.

    Raises ValueError where an id matches several images or studies (see `match_ids`).
    """
    ids = table[f"{experts.unit}_id"]
    return match_ids(ids, experts.ids.tolist(), path=experts.path, what=PLURALS[experts.unit])


def agreement(labels: np.ndarray, experts: np.ndarray, *, classes: Sequence[str]) -> pd.DataFrame:
    """A row per class: how often each label of the data set meets each label of the experts.

    labels, experts: [N, C] float, 1, 0, -1 or NaN. Columns `1/1`, `1/0`, `0/1`, ... `blank/0`: the data set's label,
    then the experts'; `sensitivity` and `specificity` of the data set's labels, of which only 1 counts as positive; NaN
    where the experts have no positive, or no negative.
    """
    rows = {state: np.isnan(labels) if np.isnan(value) else labels == value for state, value in STATES.items()}
    cells = {f"{state}/{e}": (here & (experts == e)).sum(axis=0) for state, here in rows.items() for e in (1, 0)}
    table = pd.DataFrame({"class": list(classes), **cells})
    positives, negatives = ((experts == e).sum(axis=0) for e in (1, 0))
    table["sensitivity"] = table["1/1"] / np.where(positives > 0, positives, np.nan)
    table["specificity"] = 1 - table["1/0"] / np.where(negatives > 0, negatives, np.nan)
    return table


def expert_files(
    files: Iterable[Path], table: pd.DataFrame, *, classes: Sequence[str], home: Path
) -> Iterator[tuple[Path, int]]:
    """Files of expert labels, and how many images of a data set each has.

    They are looked for beside the `files` that the data set was read from, and in `home`, the path it was given by.
    """
    read = {file.resolve() for file in files}
    folders = dict.fromkeys([*(file.parent for file in read), home.resolve()])
    near = [near for folder in folders for above in (folder, folder.parent) for near in above.glob(EXPERT_FOLDERS)]
    for file in _candidates([*folders, *near]):
        if file.resolve() not in read:
            try:
                images = int((match(read_experts(file, classes=classes), table) >= 0).sum())
            except ValueError:  # of another kind
                continue
            if images:
                yield file, images


def _candidates(folders: Iterable[Path]) -> list[Path]:
    """Files whose name is that of a known file of expert labels."""
    patterns = [pattern + end for pattern in EXPERT_FILES for end in ("", ".gz")]
    return list(dict.fromkeys(file for folder in folders for name in patterns for file in sorted(folder.glob(name))))
