"""NIH ChestX-ray14's label files, and those of the copies of it that are in use: Kaggle's sample, and 224 pixels."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from src.labels.chexpert import NO_FINDING
from src.labels.files import (
    REPORTS,
    LabelSource,
    ages_of,
    choose_classes,
    convert,
    find_label_file,
    ids_of,
    image_ids_of,
    named,
    numbers_of,
    one_file,
    own_split,
    sexes_of,
    study_order,
    views_of,
)
from src.labels.places import image_places
from src.runtime.csv_files import read_cells, read_header, require_columns
from src.runtime.system_errors import in_words

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
NIH_SAMPLE = "sample_labels.csv"  # of Kaggle's sample: 5,606 of the 112,120 images
NIH_FILES = ("Data_Entry_2017*.csv", NIH_SAMPLE)
NIH_LISTS = (("train_val_list.txt", "train_val_list_NIH.txt"), ("test_list.txt", "test_list_NIH.txt"))


def is_nih(path: Path) -> bool:
    """Whether a folder holds NIH ChestX-ray14's label file, or the file is one."""
    if path.is_dir():
        if any(path.glob("Data_Entry_2017*.csv*")):
            return True
        sample = one_file(path, NIH_SAMPLE)
        return sample is not None and is_nih(sample)
    return {"Image Index", "Finding Labels"} <= set(read_header(path))


def read_nih(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """NIH ChestX-ray14: `path` is its folder, or the label file in it: Data_Entry_2017*.csv or sample_labels.csv.

    Without the two list files there is no published split. With them, an image that neither list names has no
    split, and an image that both name is in test; both are reported as problems. Raises ValueError if a file or a
    cell is not as expected.
    """
    file = find_label_file(path, *NIH_FILES, of="NIH ChestX-ray14")
    cells = read_cells(file).rename(columns={"Patient Sex": "Patient Gender"})
    columns = ["Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "Patient Gender"]
    require_columns(cells, [*columns, "View Position"], path=file)
    classes = choose_classes(classes, default=NIH_CLASSES, present=NIH_CLASSES, path=file)
    names = image_ids_of(cells["Image Index"], path=file)
    patients = ids_of(cells["Patient ID"], path=file).str.zfill(8)  # as in the image names
    studies = patients + "_" + ids_of(cells["Follow-up #"], path=file).str.zfill(3)
    follow_ups = numbers_of(cells["Follow-up #"], path=file)
    ages, warnings = ages_of(cells["Patient Age"], path=file)
    split, list_files, problems, notes = _nih_split(names, file)
    root = image_root or file.parent
    image_ids, copies = image_places(list(names), root, default="images/" + names)
    rows = {
        "image_id": image_ids,
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(cells["View Position"]),
        "split": split,
        "sex": sexes_of(cells["Patient Gender"]),
        "age": ages,
        "study_order": study_order(patients, studies, follow_ups),
        "no_finding": (cells["Finding Labels"].str.strip().str.replace("_", " ") == NO_FINDING).astype(float),
    }
    return LabelSource.from_rows(
        "nih",
        pd.DataFrame(rows),
        _nih_labels(cells["Finding Labels"], classes, file),
        image_root=root,
        files=(file, *list_files),
        split_note=" and ".join(list_file.name for list_file in list_files),
        labels_from={"": REPORTS.format(file.name)},
        warnings=(*warnings, *notes, *copies),
        problems=tuple(problems),
    )


def _nih_labels(values: pd.Series, classes: Sequence[str], path: Path) -> pd.DataFrame:
    """Findings joined by | as 1 or 0 per class; "No Finding" is 0 throughout."""

    def flags(text: str) -> list[float]:
        findings = {name.strip().replace(" ", "_") for name in text.split("|")}
        if findings != {NO_FINDING.replace(" ", "_")} and not findings <= set(NIH_CLASSES):
            raise ValueError(text)
        return [float(name in findings) for name in classes]

    expected = f"a list of findings; expected {NO_FINDING}, or some of {', '.join(NIH_CLASSES)}, joined by |"
    return pd.DataFrame(convert(values, flags, path=path, expected=expected), columns=classes, index=values.index)


def _nih_split(names: pd.Series, label_file: Path) -> tuple[pd.Series | None, tuple[Path, ...], list[str], list[str]]:
    """The published split of each image (None where no list names it), the list files, problems, and warnings."""
    train_file, test_file = (one_file(label_file.parent, *usual) for usual in NIH_LISTS)
    both = " and ".join(usual[0] for usual in NIH_LISTS)
    if train_file is None and test_file is None:
        return None, (), [], [own_split(both, beside=label_file)]
    if train_file is None or test_file is None:
        missing = NIH_LISTS[train_file is not None][0]
        raise ValueError(f"{label_file.parent / missing} is missing; provide both {both}, or neither")
    train, test = _nih_list(train_file), _nih_list(test_file)
    split = pd.Series(None, index=names.index, dtype=object)
    split[names.isin(train)] = "train"
    split[names.isin(test)] = "test"
    if split.isna().all():
        raise ValueError(f"{train_file} and {test_file.name} name no image of {label_file.name}")
    listed = pd.Index(train).union(pd.Index(test))
    unknown = named(listed[~listed.isin(names)], f"images in the lists that {label_file.name} does not list")
    problems = [
        *named(names[split.isna()], f"images of {label_file.name} that neither list names"),
        *named(sorted(set(train) & set(test)), "images in both lists, treated as test"),
    ]
    if label_file.name.startswith(NIH_SAMPLE):  # the lists are those of all images
        return split, (train_file, test_file), problems, unknown
    return split, (train_file, test_file), [*problems, *unknown], []


def _nih_list(path: Path) -> list[str]:
    try:
        names = path.read_text(encoding="utf-8-sig").split()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({in_words(error)}); expected one image name per line") from error
    if not names:
        raise ValueError(f"{path} names no image; expected one image name per line")
    return names
