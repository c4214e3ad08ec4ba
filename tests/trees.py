"""Small data set folders in the layout of each data set, with tiny real images, for the tests to read."""

import csv
import gzip
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from src.labels.chexpert import CHEXPERT_CLASSES
from src.labels.nih import NIH_CLASSES

ROOT = Path(__file__).resolve().parents[1]
FORK = multiprocessing.get_context("fork")  # a new process that need not import torch again
# CheXpert's own column order, which is not alphabetical.
CHEXPERT_COLUMNS = (
    "No Finding",
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
    "Support Devices",
)
STATES = ("1.0", "0.0", "-1.0", "")  # as the label files write them


def write_image(path: Path, *, size: int = 16, seed: int = 0) -> None:
    """A gray image of noise, its own for every seed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def write_csv(path: Path, rows: list[dict]) -> Path:
    """Rows as a CSV file, gzipped where the name ends in .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def set_cell(path: Path, *, line: int, column: str, value: str) -> None:
    """Change one cell of a CSV file; line 1 is the header."""
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    cells.loc[line - 2, column] = value
    cells.to_csv(path, index=False)


def drop_rows(path: Path, *lines: int) -> None:
    """Remove lines of a CSV file; line 1 is the header."""
    cells = pd.read_csv(path, dtype=str, keep_default_na=False)
    cells.drop(index=[line - 2 for line in lines]).to_csv(path, index=False)


def drop_column(path: Path, column: str) -> None:
    pd.read_csv(path, dtype=str, keep_default_na=False).drop(columns=column).to_csv(path, index=False)


def make_chexpert(
    root: Path,
    *,
    patients=6,
    valid_patients=4,
    test_patients=0,
    studies=2,
    prefix="CheXpert-v1.0-small/",
    gz=False,
    images=True,
) -> Path:
    """CheXpert: a frontal and a lateral image per study; valid.csv (none for 0 patients) has 1 and 0 only.

    With test patients, test_labels.csv has paths without a prefix and labels only, as CheXlocalize has it.
    """
    rng = np.random.default_rng(0)
    first = 1
    sizes = {"train": patients, "valid": valid_patients, "test": test_patients}
    for part, count in sizes.items():
        rows = []
        for patient in range(first, first + count):
            for study in range(1, studies + 1):
                states = STATES if part == "train" else STATES[:2]
                findings = dict(zip(CHEXPERT_COLUMNS, rng.choice(states, len(CHEXPERT_COLUMNS)), strict=True))
                for view, name in ((1, "Frontal"), (2, "Lateral")):
                    image = f"{part}/patient{patient:05d}/study{study}/view{view}_{name.lower()}.jpg"
                    if images:
                        write_image(root / image, seed=len(rows) + 1000 * first)
                    about = {
                        "Path": prefix + image,
                        "Sex": ("Male", "Female")[patient % 2],
                        "Age": str(40 + patient),
                        "Frontal/Lateral": name,
                        "AP/PA": "AP" if name == "Frontal" else "",
                    }
                    rows.append({"Path": image} | findings if part == "test" else about | findings)
        if rows:
            file = "test_labels.csv" if part == "test" else f"{part}.csv"
            write_csv(root / (file + ".gz" if gz else file), rows)
        first += count
    return root


def into_batches(root: Path, *, within: str = "", twice: bool = False) -> Path:
    """Turn a tree of `make_chexpert` into the batches of the full data set, in the folder `within` of the root.

    The label files and valid go to batch 1 and the patients of train by thirds to the others; `twice`: each batch lies
    in a folder of its own name, as some programs unpack it.
    """
    names = ("1 (validate & csv)", "2 (train 1)", "3 (train 2)", "4 (train 3)")
    folders = [
        root / within / f"CheXpert-v1.0 batch {name}" / (f"CheXpert-v1.0 batch {name}" * twice) for name in names
    ]
    for folder in folders:
        folder.mkdir(parents=True)
    patients = sorted((root / "train").glob("patient*"))
    moves = [(patient, folders[1 + 3 * i // len(patients)]) for i, patient in enumerate(patients)]
    moves += [(file, folders[0]) for file in (root / "train.csv", root / "valid.csv", root / "valid")]
    for source, folder in moves:
        shutil.move(source, folder / source.name)
    (root / "train").rmdir()
    return root


def make_mimic(root: Path, *, patients=6, gz=False, images=True) -> Path:
    """MIMIC-CXR-JPG 2.x: a PA and a LATERAL image per study; a patient's last study has the lowest id."""
    rng = np.random.default_rng(0)
    labels, splits, metadata = [], [], []
    for patient in range(patients):
        subject = 10000032 + 1000000 * patient
        split = ("train", "validate", "test")[max(0, patient - (patients - 3))]
        for study in range(2):
            ids = {"subject_id": str(subject), "study_id": str(50000000 + 100 * patient + 2 - study)}
            findings = rng.choice(STATES, len(CHEXPERT_CLASSES) + 1)
            labels.append(ids | dict(zip((*CHEXPERT_CLASSES, "No Finding"), findings, strict=True)))
            for number, view in enumerate(("PA", "LATERAL")):
                dicom = f"{patient:08x}-{study:08x}-{number:08x}"
                image = f"files/p{str(subject)[:2]}/p{subject}/s{ids['study_id']}/{dicom}.jpg"
                if images:
                    write_image(root / image, seed=len(splits))
                splits.append({"dicom_id": dicom, **ids, "split": split})
                time = {"StudyDate": "21800506", "StudyTime": f"{90000 + 10000 * study}.5"}
                metadata.append({"dicom_id": dicom, **ids, "ViewPosition": view, **time})
    for part, rows in (("chexpert", labels), ("split", splits), ("metadata", metadata)):
        write_csv(root / f"mimic-cxr-2.0.0-{part}.csv{'.gz' if gz else ''}", rows)
    return root


def make_nih(
    root: Path,
    *,
    patients=6,
    studies=2,
    name="Data_Entry_2017_v2020.csv",
    folders=("images",),
    lists=("train_val_list.txt", "test_list.txt"),
    images=True,
) -> Path:
    """NIH ChestX-ray14: one image per study, spread in turn over `folders`; the last two patients are the test list."""
    rng = np.random.default_rng(0)
    rows, train, test = [], [], []
    for patient in range(1, patients + 1):
        for study in range(studies):
            image = f"{patient:08d}_{study:03d}.png"
            if images:
                write_image(root / folders[len(rows) % len(folders)] / image, seed=len(rows))
            findings = [finding for finding in NIH_CLASSES if rng.random() < 0.3]
            row = {"Image Index": image, "Finding Labels": "|".join(findings) or "No Finding", "Follow-up #": study}
            row |= {"Patient ID": patient, "Patient Age": 50 + study, "Patient Gender": "FM"[patient % 2]}
            rows.append(row | {"View Position": ("PA", "AP")[study % 2]})
            (test if patient > patients - 2 else train).append(image)
    write_csv(root / name, rows)
    for list_name, names in zip(lists, (train, test), strict=False):
        (root / list_name).write_text("\n".join(names) + "\n")
    return root


def make_padchest(root: Path, *, patients=8, images=True) -> Path:
    """PadChest: a PA and an L image per study, in the folders 0 and 1; lists with the oddities of the real file."""
    rng = np.random.default_rng(0)
    labels = ("pleural effusion", " cardiomegaly", "laminar atelectasis", "NSG tube")
    rows = []
    for patient in range(patients):
        for study in range(2):
            found = ["", *([label for label in labels if rng.random() < 0.4] or ["normal"])]
            number = f"{patient:03d}{study:03d}"
            for view, projection in enumerate(("PA", "L")):
                row = {"": len(rows), "ImageID": f"{number}_{view:02d}.png", "ImageDir": patient % 2}
                if images:
                    write_image(root / str(patient % 2) / row["ImageID"], seed=len(rows))
                row |= {"StudyDate_DICOM": 20140101 + 10000 * (2 - study), "StudyID": number}
                row |= {"PatientID": f"7{patient:05d}", "PatientBirth": f"{1950.0 + patient}"}
                row |= {"PatientSex_DICOM": "FM"[patient % 2], "Projection": projection}
                row |= {"Report": "sin hallazg .", "MethodLabel": ("Physician", "RNN_model")[study]}
                rows.append(row | {"Labels": str(found), "labelCUIS": "['C1'\n 'C2']"})
    write_csv(root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv", rows)
    return root


def make_brax(root: Path, *, patients=6, images=True) -> Path:
    """BRAX 1.1.0: a PA and an L image per study as PNG; the DICOM files are named and not there."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        for study in range(2):
            for number, view in enumerate(("PA", "L")):
                place = f"id_{patient:04d}/Study_1.2.{study}/Series_3.{number}/image-{patient}-{study}-{number}"
                row = {"DicomPath": f"Anonymized_DICOMs/{place}.dcm", "PngPath": f"images/{place}.png"}
                if images:
                    write_image(root / row["PngPath"], seed=len(rows))
                row |= {"PatientID": patient, "PatientSex": "FMO"[patient % 3], "PatientAge": str(40 + 5 * patient)}
                row |= {"AccessionNumber": f"9{patient}{study}", "StudyDate": 20100101 - study}
                row |= dict(zip(CHEXPERT_COLUMNS, rng.choice(STATES, len(CHEXPERT_COLUMNS)), strict=True))
                rows.append(row | {"ViewPosition": view, "Rows": 16, "Columns": 16, "Manufacturer": 1})
    write_csv(root / "master_spreadsheet_update.csv", rows)
    return root


def make_chexpert_plus(
    root: Path, *, patients=6, valid_patients=4, folder="PNG", suffix=".png", section="impression", images=True, seed=0
) -> Path:
    """CheXpert Plus: a frontal and a lateral image per patient, reports with line breaks, labels as JSON lines."""
    rng = np.random.default_rng(seed)
    rows, lines = [], []
    for patient in range(1, patients + valid_patients + 1):
        split = "train" if patient <= patients else "valid"
        for number, view in ((1, "Frontal"), (2, "Lateral")):
            name = f"{split}/patient{patient:05d}/study1/view{number}_{view.lower()}"
            if images:
                write_image(root / folder / (name + suffix), seed=seed + len(rows))
            row = {"path_to_image": f"{name}.jpg", "path_to_dcm": f"{name}.dcm", "frontal_lateral": view}
            row |= {"ap_pa": "AP" if number == 1 else "", "deid_patient_id": f"patient{patient:05d}"}
            row |= {"report": "NARRATIVE:\nNo change, see above.", "age": f"{40.0 + patient}"}
            rows.append(row | {"sex": ("Male", "Female", "Unknown")[patient % 3], "split": split})
            labels = dict(zip(CHEXPERT_COLUMNS, rng.choice([1.0, 0.0, -1.0, None], len(CHEXPERT_COLUMNS)), strict=True))
            lines.append(json.dumps({"path_to_image": f"{name}.jpg"} | labels))
    write_csv(root / "df_chexpert_plus_240401.csv", rows)
    label_file = root / "chexbert_labels" / f"{section}_fixed.json"
    label_file.parent.mkdir(exist_ok=True)
    label_file.write_text("\n".join(lines) + "\n")
    return root


VINDR_FINDINGS = ("Aortic enlargement", "Cardiomegaly", "Pleural effusion", "Tuberculosis", "Other diseases")


def make_vindr(root: Path, *, train=8, test=4, folder="annotations", images=True) -> Path:
    """VinDr-CXR of PhysioNet: three readers of each training image, a consensus and another column name for test."""
    rng = np.random.default_rng(0)
    for part, count, readers in (("train", train, ("R8", "R9", "R10")), ("test", test, ("",))):
        rows = []
        for number in range(count):
            name = f"{part}{number:04x}"
            if images:
                write_image(root / part / f"{name}.png", seed=len(rows))
            for reader in readers:
                found = dict(zip(VINDR_FINDINGS, rng.integers(0, 2, len(VINDR_FINDINGS)), strict=True))
                found["No finding"] = int(not any(found.values()))
                if not reader:
                    found["Other disease"] = found.pop("Other diseases")
                rows.append({"image_id": name} | ({"rad_id": reader} if reader else {}) | found)
        if rows:
            write_csv(root / folder / f"image_labels_{part}.csv", rows)
    return root


def make_vinbigdata(root: Path, *, train=8) -> Path:
    """VinBigData of Kaggle: a row per reader and box, or a row without a box that says "No finding"."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(train):
        write_image(root / "train" / f"{number:04x}.png", seed=number)
        for reader in ("R8", "R9", "R10"):
            found = [finding for finding in VINDR_FINDINGS[:3] for _ in range(rng.integers(0, 3))] or ["No finding"]
            for finding in found:
                row = {"image_id": f"{number:04x}", "class_name": finding, "class_id": 14, "rad_id": reader}
                box = "" if finding == "No finding" else 10 * len(rows)
                rows.append(row | dict.fromkeys(("x_min", "y_min", "x_max", "y_max"), box))
    write_csv(root / "train.csv", rows)
    return root


def make_csv(
    root: Path,
    *,
    patients=6,
    images_each=2,
    classes=("Nodule", "Hernia"),
    name="labels.csv",
    images=True,
    **more,
) -> Path:
    """A CSV of one's own; `more` are further columns, each with a value per row. Returns the path of the CSV."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(patients):
        for number in range(images_each):
            image = f"png/{patient}_{number}.png"
            if images:
                write_image(root / image, seed=len(rows))
            findings = dict(zip(classes, rng.choice(STATES, len(classes)), strict=True))
            others = {column: values[len(rows)] for column, values in more.items()}
            rows.append({"path": image, "patient_id": f"P{patient}", **others, **findings})
    return write_csv(root / name, rows)


def copy_run(run: Path, target: Path) -> Path:
    """A copy of a run folder; its checkpoints are links, to be replaced but not written into."""

    def copy(source, to):
        return (os.link if source.endswith(".pt") else shutil.copy2)(source, to)

    return shutil.copytree(run, target, copy_function=copy)


def picture(width, height, *, seed=0):
    """Gray with coarse and fine detail."""
    rng = np.random.default_rng(seed)
    layers = [
        Image.fromarray(rng.integers(0, 256, (n, n), dtype=np.uint8)).resize((width, height), 3) for n in (4, 16, 32)
    ]
    return Image.fromarray(np.mean([np.asarray(layer) for layer in layers], axis=0).astype(np.uint8))
