"""Readers of the public data sets' own label files: CheXpert, MIMIC-CXR-JPG and NIH ChestX-ray14."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.files import (
    LabelSource,
    ages_of,
    choose_classes,
    convert,
    ids_of,
    image_ids_of,
    labels_of,
    named,
    numbers_of,
    one_file,
    sexes_of,
    splits_of,
    study_order,
    views_of,
)
from src.runtime.csv_files import read_cells, read_header, require_columns

# Of CheXpert and MIMIC-CXR-JPG: the 13 findings in alphabetical order; "No Finding" says that the others are absent.
CHEXPERT_CLASSES = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Enlarged Cardiomediastinum",
    "Fracture",
    "Lung Lesion",
    "Lung Opacity",
    "Pleural Effusion",
    "Pleural Other",
    "Pneumonia",
    "Pneumothorax",
    "Support Devices",
)
NO_FINDING = "No Finding"
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
CHEXPERT_ROOT = "CheXpert-v1.0"  # -small, or what else a release adds to it
CHEXPERT_PATH = r"(?:^|/)(patient\d+)/study(\d+)/"
NIH_LISTS = ("train_val_list.txt", "test_list.txt")


def is_chexpert(path: Path) -> bool:
    """Whether a label file, or the train.csv of a folder, has CheXpert's columns."""
    if path.is_dir():
        return any(is_chexpert(file) for folder in _chexpert_folders(path) if (file := one_file(folder, "train.csv")))
    header = set(read_header(path))
    return {"Path", "Frontal/Lateral"} <= header and not header.isdisjoint(CHEXPERT_CLASSES)


def is_mimic(path: Path) -> bool:
    """Whether a folder holds label files of MIMIC-CXR-JPG, or the file is one."""
    folder = path if path.is_dir() else path.parent
    files = {file for part in ("chexpert", "split", "metadata") for file in folder.glob(f"mimic-cxr-2.*-{part}.csv*")}
    return bool(files) if path.is_dir() else path in files


def is_nih(path: Path) -> bool:
    """Whether a folder holds NIH ChestX-ray14's label file, or the file is one."""
    if path.is_dir():
        return any(path.glob("Data_Entry_2017*.csv*"))
    return {"Image Index", "Finding Labels"} <= set(read_header(path))


def read_chexpert(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """CheXpert, small or full: `path` is its folder, the folder that holds `CheXpert-v1.0*`, or one label file.

    The public files have no test labels: valid.csv, which radiologists labeled, is the published test split, and
    train.csv is train. Study numbers rise with time. Raises ValueError where a file or a cell is not as expected.
    """
    files = [path] if path.is_file() else _chexpert_files(path)
    parts = [_chexpert_rows(file, classes) for file in files]
    rows = pd.concat([rows for rows, _, _ in parts])
    if len(files) == 2:
        rows["split"] = np.repeat(["train", "test"], [len(labels) for _, labels, _ in parts])
    doubled = named(rows["image_id"][rows["image_id"].duplicated()], "images in both train.csv and valid.csv")
    if doubled:
        raise ValueError(f"{files[0].parent}: {doubled[0]}; each image must have exactly one row")
    return LabelSource.from_rows(
        "chexpert",
        rows,
        pd.concat([labels for _, labels, _ in parts]),
        image_root=image_root or files[0].parent,
        files=tuple(files),
        split_note=f"{files[0].name} is train, {files[1].name} is test" if len(files) == 2 else "",
        warnings=tuple(warning for _, _, warnings in parts for warning in warnings),
    )


def _chexpert_folders(path: Path) -> list[Path]:
    """`path` where it holds train.csv, else the CheXpert-v1.0* folders in it that do."""
    folders = [path] if one_file(path, "train.csv") else sorted(path.glob("CheXpert-v1.0*"))
    return [folder for folder in folders if one_file(folder, "train.csv")]


def _chexpert_files(path: Path) -> list[Path]:
    folders = _chexpert_folders(path)
    if not folders:
        raise ValueError(f"{path} holds no train.csv or train.csv.gz, nor does a CheXpert-v1.0* folder in it")
    if len(folders) > 1:
        raise ValueError(f"{path} holds {', '.join(folder.name for folder in folders)}; give the path of one of them")
    files = [one_file(folders[0], name) for name in ("train.csv", "valid.csv")]
    return [file for file in files if file is not None]


def _chexpert_rows(path: Path, classes: Sequence[str] | None) -> tuple[pd.DataFrame, pd.DataFrame, tuple[str, ...]]:
    cells = read_cells(path)
    require_columns(cells, ["Path", "Sex", "Age", "Frontal/Lateral"], path=path)
    present = [name for name in cells if name in (*CHEXPERT_CLASSES, NO_FINDING)]
    classes = choose_classes(classes, default=CHEXPERT_CLASSES, present=present, path=path)
    ids = image_ids_of(cells["Path"], path=path, root=CHEXPERT_ROOT)
    parts = ids.str.extract(CHEXPERT_PATH)
    patients, numbers = parts[0], parts[1]
    if patients.isna().any():
        line, expected = patients.isna().idxmax(), "expected .../patient00001/study1/NAME"
        raise ValueError(f"{path}, line {line}: {ids[line]!r} is not a path of CheXpert; {expected}")
    ages, warnings = ages_of(cells["Age"], path=path)
    studies = patients + "/study" + numbers
    rows = {
        "image_id": ids,
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(cells["Frontal/Lateral"]),
        "split": None,
        "sex": sexes_of(cells["Sex"]),
        "age": ages,
        "study_order": study_order(patients, studies, numbers.astype(int)),
    }
    return pd.DataFrame(rows), labels_of(cells, classes, path=path), warnings


def read_mimic(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """MIMIC-CXR-JPG 2.x: the folder with its chexpert, split and metadata files.

    The labels are those of the study. Images whose study has none are left out, with a warning; images that the split
    file does not list have no published split, which is a problem of that split. Sex and age are not in this data
    set. Raises ValueError where a file is missing or a cell is not as expected.
    """
    if path.is_file():
        raise ValueError(f"{path} is one of the three label files of MIMIC-CXR-JPG; give the path of their folder")
    label_file, studies = _mimic_cells(path, "chexpert")
    split_file, lists = _mimic_cells(path, "split", "dicom_id", "split")
    image_file, rows = _mimic_cells(path, "metadata", "dicom_id", "ViewPosition", "StudyDate", "StudyTime")
    present = [name for name in studies if name in (*CHEXPERT_CLASSES, NO_FINDING)]
    classes = choose_classes(classes, default=CHEXPERT_CLASSES, present=present, path=label_file)
    labels = labels_of(studies, classes, path=label_file)
    labels.index = ids_of(studies["study_path"], path=label_file, unique=True)
    published = pd.Series(splits_of(lists["split"], path=split_file), index=lists["image_id"], dtype=object)
    rows["split"] = rows["image_id"].map(published)
    rows["view"] = views_of(rows["ViewPosition"])
    rows["sex"], rows["age"] = "", np.nan
    time = 1e6 * numbers_of(rows["StudyDate"], path=image_file) + numbers_of(rows["StudyTime"], path=image_file)
    rows["study_order"] = study_order(rows["patient_id"], rows["study_id"], time)  # time: YYYYMMDDhhmmss.fff

    unknown = published.index[~published.index.isin(rows["image_id"])]
    unlisted, unlabeled = rows["split"].isna(), ~rows["study_path"].isin(labels.index)
    problems = [
        *named(rows["image_id"][unlisted], f"images that {split_file.name} does not list"),
        *named(unknown, f"images that {split_file.name} lists and {image_file.name} does not know"),
    ]
    warnings = named(rows["image_id"][unlabeled], f"images left out whose study has no row in {label_file.name}")
    rows = rows[~unlabeled]
    if rows.empty:
        raise ValueError(f"no image is named by all of {label_file}, {split_file.name} and {image_file.name}")
    return LabelSource.from_rows(
        "mimic",
        rows,
        labels.loc[rows["study_path"]],
        image_root=image_root or path,
        files=(label_file, split_file, image_file),
        split_note=split_file.name,
        warnings=tuple(warnings),
        problems=tuple(problems),
    )


def _mimic_cells(folder: Path, part: str, *columns: str) -> tuple[Path, pd.DataFrame]:
    """One of the three files, with patient_id, study_id, study_path and (for a file of images) image_id added."""
    path = one_file(folder, f"mimic-cxr-2.*-{part}.csv")
    if path is None:
        raise ValueError(f"{folder} holds no mimic-cxr-2.*-{part}.csv or .csv.gz; a MIMIC-CXR-JPG folder needs it")
    cells = read_cells(path)
    require_columns(cells, ["subject_id", "study_id", *columns], path=path)
    cells["patient_id"] = "p" + ids_of(cells["subject_id"], path=path)
    cells["study_id"] = "s" + ids_of(cells["study_id"], path=path)
    cells["study_path"] = cells["patient_id"].str[:3] + "/" + cells["patient_id"] + "/" + cells["study_id"]
    if "dicom_id" in columns:
        dicoms = ids_of(cells["dicom_id"], path=path, unique=True)
        cells["image_id"] = "files/" + cells["study_path"] + "/" + dicoms + ".jpg"
    return path, cells


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
