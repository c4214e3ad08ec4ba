"""Where CheXpert's label files and images lie, in whichever of its forms it was downloaded.

CheXpert-small is one folder. The full data set is handed out as `CheXpert-v1.0 batch 1 (validate & csv)` to
`CheXpert-v1.0 batch 4 (train 3)` in `chexpertchestxrays-u20210408`, with the files of the newer labelers beside them.
The test set comes with CheXlocalize (Saporta et al. 2022), in a folder `CheXpert`, where valid is called val.
"""

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from src.labels.files import EXPERTS, REPORTS, named, one_file

FOLDERS = "[Cc][Hh][Ee][Xx]*"
DEPTH = 4  # of such folders within each other
BATCH = " batch "
TRAIN_FILES = {"default": "train.csv", "cheXbert": "train_cheXbert.csv", "visualCheXbert": "train_visualCheXbert.csv"}
OTHER_FILES = {"valid": ("valid.csv", "val_labels.csv"), "test": ("test_labels.csv", "test.csv")}
PARTS = {"train": "train", "valid": "valid", "val": "valid", "test": "test"}  # by the name of a folder of images


def home_of(path: Path) -> Path:
    """The folder that holds all of CheXpert, where `path` is a label file or one of the batches."""
    folder = path.parent if path.is_file() else path
    while BATCH in folder.name:
        folder = folder.parent
    return folder


def known_files(home: Path) -> list[Path]:
    """Every file with labels of train, and valid.csv."""
    return [file for name in (*TRAIN_FILES.values(), OTHER_FILES["valid"][0]) for file in _found(_levels(home), name)]


def files_beside(file: Path) -> list[str]:
    """The names of the label files of the other parts in the folder of a label file."""
    names = itertools.chain([TRAIN_FILES["default"]], *OTHER_FILES.values())
    return [found.name for name in names for found in sorted(file.parent.glob(name + "*")) if found != file]


def label_files(home: Path, labels: str) -> dict[str, Path]:
    """The label files of train and, where they are there, of valid and test. `labels`: a key of TRAIN_FILES.

    Raises ValueError if there is no label file of train, or more than one of any part.
    """
    levels, files = _levels(home), {}
    for part, names in {"train": (TRAIN_FILES[labels],), **OTHER_FILES}.items():
        found = next(filter(None, (_found(levels, name) for name in names)), [])
        if len(found) > 1:
            paths = ", ".join(file.relative_to(home).as_posix() for file in found)
            raise ValueError(f"{home} holds {paths}; pass the path of the folder of one of them")
        if found:
            files[part] = found[0]
    if "train" not in files:
        others = [f"--labels {key}" for key, name in TRAIN_FILES.items() if key != labels and _found(levels, name)]
        remedy = f"pass {' or '.join(others)}" if others else "batch 1 of the full data set has train.csv"
        name = TRAIN_FILES[labels]
        raise ValueError(f"{home} holds no {name} or {name}.gz, nor does a folder CheXpert* in it; {remedy}")
    return files


def whose_labels(name: str) -> str:
    """Whose labels a label file of this name has: radiologists labeled valid and test, and the rest are of reports."""
    by_experts = any(name.removesuffix(".gz") in names for names in OTHER_FILES.values())
    return (EXPERTS if by_experts else REPORTS).format(name)


def locate_images(ids: pd.Series, *, home: Path, beside: Path, root: Path | None) -> tuple[Path, pd.Series, list[str]]:
    """The image root, where under it each image lies, and warnings.

    ids: [N] such as `train/patient00001/study1/view1_frontal.jpg`; an image lies where its id says, unless another
    folder holds its patient. Without a `root`, the image root is the folder `beside` the images, or the one above it
    that holds all of them.
    """
    folders = dict(_image_folders(root or home))
    if all(folder == (root or beside) / part for folder, part in folders.items()):
        return root or beside, ids, []
    root = root or Path(os.path.commonpath([beside, *folders]))
    places: dict[tuple[str, str], str] = {}
    copies = []
    for folder, part in folders.items():
        for patient in sorted(name for name in os.listdir(folder) if name.startswith("patient")):
            if (part, patient) in places:
                copies.append(f"{part}/{patient}")
            else:
                places[part, patient] = (folder.relative_to(root) / patient).as_posix()
    cells = ids.str.extract(r"(?:^|/)([^/]+)/(patient\d+)/(.+)$")
    keys = pd.Series(list(zip(cells[0].map(PARTS), cells[1], strict=True)), index=ids.index)
    found = keys.map(places)
    lost = (cells[0] + "/" + cells[1])[found.isna()].unique()
    warnings = [
        *named(lost, f"patients without a folder of images in {root}"),
        *named(copies, "patients with several folders of images, of which the first is used"),
    ]
    return root, (found + "/" + cells[2]).fillna(ids), warnings


def _levels(home: Path) -> list[list[Path]]:
    """`home`, the folders of CheXpert in it, those in them, and so on."""
    levels = [[home]]
    for _ in range(DEPTH):
        levels.append([folder for above in levels[-1] for folder in sorted(above.glob(FOLDERS)) if folder.is_dir()])
    return levels


def _found(levels: list[list[Path]], name: str) -> list[Path]:
    """The files of this name, plain or gzipped, on the first level that has one."""
    for level in levels:
        if found := [file for folder in level if (file := one_file(folder, name))]:
            return found
    return []


def _image_folders(home: Path) -> Iterator[tuple[Path, str]]:
    """Every folder that may hold a folder per patient, and the part it is of."""
    for level in _levels(home):
        for folder in level:
            yield from ((folder / name, part) for name, part in PARTS.items() if (folder / name).is_dir())
            if BATCH in folder.name and "(train" in folder.name:
                yield folder, "train"
