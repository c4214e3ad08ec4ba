"""NIH ChestX-ray14's label files."""

import os
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.labels.chexpert import NO_FINDING
from src.labels.files import (
    LabelSource,
    ages_of,
    choose_classes,
    convert,
    ids_of,
    image_ids_of,
    named,
    numbers_of,
    one_file,
    sexes_of,
    study_order,
    views_of,
)
from src.runtime.csv_files import read_cells, read_header, require_columns

NIH_CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NIH_LISTS = ("train_val_list.txt", "test_list.txt")


def is_nih(path: Path) -> bool:
    """Whether a folder holds NIH ChestX-ray14's label file, or the file is one."""
    if path.is_dir():
        return any(path.glob("Data_Entry_2017*.csv*"))
    return {"Image Index", "Finding Labels"} <= set(read_header(path))


def read_nih(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """NIH ChestX-ray14: `path` is its folder, or the label file Data_Entry_2017*.csv in it.

    Without the two list files there is no published split. With them, an image that neither list names has no
    split, and an image that both name is in test; both are reported as problems. Raises ValueError if a file or a
    cell is not as expected.
    """
    file = path if path.is_file() else one_file(path, "Data_Entry_2017*.csv")
    if file is None:
        raise ValueError(f"{path} holds no Data_Entry_2017*.csv; an NIH ChestX-ray14 folder needs it")
    cells = read_cells(file)
    columns = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
    require_columns(cells, [*columns, "View Position"], path=file)
    classes = choose_classes(classes, default=NIH_CLASSES, present=NIH_CLASSES, path=file)
    names = image_ids_of(cells["Image Index"], path=file)
    patients = ids_of(cells["Patient ID"], path=file).str.zfill(8)  # as in the image names
    studies = patients + "_" + ids_of(cells["Follow-up #"], path=file).str.zfill(3)
    follow_ups = numbers_of(cells["Follow-up #"], path=file)
    ages, warnings = ages_of(cells["Patient Age"], path=file)
    split, list_files, problems = _nih_split(names, file)
    root = image_root or file.parent
    image_ids, copies = _nih_image_ids(names, root)
    rows = {
        "image_id": image_ids,
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(cells["View Position"]),
        "split": split,
        "sex": sexes_of(cells["Patient Gender"]),
        "age": ages,
        "study_order": study_order(patients, studies, follow_ups),
    }
    return LabelSource.from_rows(
        "nih",
        pd.DataFrame(rows),
        _nih_labels(cells["Finding Labels"], classes, file),
        image_root=root,
        files=(file, *list_files),
        split_note=" and ".join(list_file.name for list_file in list_files),
        warnings=(*warnings, *copies),
        problems=tuple(problems),
    )


def _nih_labels(values: pd.Series, classes: Sequence[str], path: Path) -> pd.DataFrame:
    """Findings joined by | as 1 or 0 per class; "No Finding" is 0 throughout."""

    def flags(text: str) -> list[float]:
        findings = {name.strip() for name in text.split("|")}
        if findings != {NO_FINDING} and not findings <= set(NIH_CLASSES):
            raise ValueError(text)
        return [float(name in findings) for name in classes]

    expected = f"a list of findings; expected {NO_FINDING}, or some of {', '.join(NIH_CLASSES)}, joined by |"
    return pd.DataFrame(convert(values, flags, path=path, expected=expected), columns=classes, index=values.index)


def _nih_split(names: pd.Series, label_file: Path) -> tuple[pd.Series | None, list[Path], list[str]]:
    """The published split of each image (None where no list names it), the list files, and what is wrong with them."""
    files = [label_file.parent / name for name in NIH_LISTS]
    missing = [file for file in files if not file.is_file()]
    if len(missing) == len(files):
        return None, [], []
    if missing:
        raise ValueError(f"{missing[0]} is missing; give both {' and '.join(NIH_LISTS)}, or neither")
    train, test = (_nih_list(file) for file in files)
    split = pd.Series(None, index=names.index, dtype=object)
    split[names.isin(train)] = "train"
    split[names.isin(test)] = "test"
    if split.isna().all():
        raise ValueError(f"{files[0]} and {files[1].name} name no image of {label_file.name}")
    listed = pd.Index(train).union(pd.Index(test))
    problems = [
        *named(names[split.isna()], f"images of {label_file.name} that neither list names"),
        *named(listed[~listed.isin(names)], f"images in the lists that {label_file.name} does not know"),
        *named(sorted(set(train) & set(test)), "images in both lists, taken as test"),
    ]
    return split, files, problems


def _nih_list(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {error}; expected one image name per line") from error
    if not names:
        raise ValueError(f"{path} names no image; expected one image name per line")
    return names


def _nih_image_ids(names: pd.Series, root: Path) -> tuple[list[str], list[str]]:
    """Where under `root` each image lies, `images/NAME` where it is nowhere; a warning where it lies twice."""
    folders = [root / "images", *sorted(root.glob("images_*/images")), *sorted(root.glob("images_*")), root]
    wanted, where, copies = set(names), {}, []
    for folder in filter(Path.is_dir, folders):
        prefix = "" if folder == root else folder.relative_to(root).as_posix() + "/"
        for name in sorted(wanted.intersection(os.listdir(folder))):
            if name in where:
                copies.append(name)
            else:
                where[name] = prefix + name
    found = [where.get(name, "images/" + name) for name in names]
    return found, named(copies, "images in several folders, of which the first is used")
