"""PadChest's label file: each image has a list of findings, in the words of a tree (Bustos et al. 2020)."""

import ast
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from src.labels.files import (
    OLDEST,
    LabelSource,
    choose_classes,
    convert,
    find_label_file,
    ids_of,
    image_ids_of,
    named,
    one_file,
    sexes_of,
    study_order,
    views_of,
)
from src.labels.nih import NIH_CLASSES
from src.labels.places import image_places
from src.runtime.csv_files import BLANKS, read_cells, read_header

PADCHEST_FILE = "PADCHEST_chest_x_ray_images_labels_160K*.csv"
PADCHEST_COLUMNS = ("ImageID", "ImageDir", "StudyDate_DICOM", "StudyID", "PatientID", "PatientBirth",
                    "PatientSex_DICOM", "Projection", "MethodLabel", "Labels")  # fmt: skip
# What the classes of other data sets are called in PadChest, where that is another word.
SYNONYMS = {
    "edema": "pulmonary edema",
    "effusion": "pleural effusion",
    "fibrosis": "pulmonary fibrosis",
    "hernia": "hiatal hernia",
    "infiltration": "infiltrates",
}
# Labels that say nothing about the findings: the report refers to an earlier one, or the image cannot be judged.
NO_STATEMENT = ("exclude", "suboptimal study", "unchanged")
# The labels below each label of the published tree (tree_term_CUI_counts_160K.csv); those not named have none.
TREE = {
    "adenopathy": ("calcified adenopathy",),
    "alveolar pattern": ("consolidation", "air bronchogram"),
    "aortic elongation": ("descendent aortic elongation", "ascendent aortic elongation", "aortic button enlargement",
                          "supra aortic elongation"),
    "artificial heart valve": ("artificial mitral heart valve", "artificial aortic heart valve"),
    "atelectasis": ("total atelectasis", "lobar atelectasis", "segmental atelectasis", "laminar atelectasis",
                    "round atelectasis", "atelectasis basal"),
    "calcified adenopathy": ("calcified mediastinal adenopathy",),
    "calcified densities": ("calcified granuloma", "calcified adenopathy", "calcified pleural thickening",
                            "calcified pleural plaques", "heart valve calcified", "calcified fibroadenoma"),
    "catheter": ("central venous catheter",),
    "central venous catheter": ("central venous catheter via subclavian vein",
                                "central venous catheter via jugular vein", "reservoir central venous catheter",
                                "central venous catheter via umbilical vein"),
    "consolidation": ("air bronchogram",),
    "electrical device": ("dual chamber device", "single chamber device", "pacemaker", "dai"),
    "endoprosthesis": ("aortic endoprosthesis",),
    "fissure thickening": ("minor fissure thickening", "major fissure thickening", "loculated fissural effusion"),
    "fracture": ("clavicle fracture", "humeral fracture", "vertebral fracture", "rib fracture"),
    "granuloma": ("calcified granuloma",),
    "hilar enlargement": ("adenopathy", "vascular hilar enlargement"),
    "infiltrates": ("interstitial pattern", "alveolar pattern"),
    "interstitial pattern": ("ground glass pattern", "reticular interstitial pattern",
                             "reticulonodular interstitial pattern", "miliary opacities"),
    "mass": ("mediastinal mass", "breast mass", "pleural mass", "pulmonary mass", "soft tissue mass"),
    "mediastinal enlargement": ("superior mediastinal enlargement", "descendent aortic elongation",
                                "ascendent aortic elongation", "aortic aneurysm", "mediastinal mass", "hiatal hernia"),
    "metal": ("osteosynthesis material", "sternotomy", "suture material"),
    "nodule": ("multiple nodules",),
    "pleural effusion": ("loculated pleural effusion", "loculated fissural effusion", "hydropneumothorax", "empyema",
                         "hemothorax"),
    "pleural plaques": ("calcified pleural plaques",),
    "pleural thickening": ("apical pleural thickening", "calcified pleural thickening"),
    "pneumonia": ("atypical pneumonia",),
    "pneumothorax": ("hydropneumothorax",),
    "prosthesis": ("humeral prosthesis", "mammary prosthesis", "endoprosthesis"),
    "pseudonodule": ("nipple shadow", "end on vessel"),
    "pulmonary fibrosis": ("post radiotherapy changes", "asbestosis signs"),
    "pulmonary hypertension": ("pulmonary artery hypertension", "pulmonary venous hypertension"),
    "rib fracture": ("callus rib fracture",),
    "sclerotic bone lesion": ("blastic bone lesion",),
    "superior mediastinal enlargement": ("goiter", "supra aortic elongation"),
    "surgery": ("metal", "bone cement", "prosthesis", "surgery breast", "surgery neck", "surgery lung",
                "surgery heart", "surgery humeral"),
    "surgery breast": ("mastectomy",),
    "thoracic cage deformation": ("scoliosis", "kyphosis", "pectum excavatum", "pectum carinatum", "cervical rib"),
    "tuberculosis": ("tuberculosis sequelae",),
    "vascular hilar enlargement": ("pulmonary artery enlargement",),
    "vascular redistribution": ("central vascular redistribution",),
    "vertebral compression": ("vertebral anterior compression",),
    "vertebral degenerative changes": ("vertebral compression",),
}  # fmt: skip


def is_padchest(path: Path) -> bool:
    """Whether a folder holds PadChest's label file, or the file is one."""
    if path.is_dir():
        return one_file(path, PADCHEST_FILE) is not None
    return {"ImageID", "Projection", "MethodLabel", "Labels"} <= set(read_header(path))


def read_padchest(path: Path, *, classes: Sequence[str] | None, image_root: Path | None) -> LabelSource:
    """PadChest: `path` is its folder, or the label file PADCHEST_chest_x_ray_images_labels_160K*.csv in it.

    A class is a label of PadChest or a class of NIH, which are the default, and is 1 where the image has that label or
    one below it in PadChest's tree, else 0. Images are left out, with a warning, where no such statement can be made.
    No split is published. Raises ValueError if a file or a cell is not as expected.
    """
    file = find_label_file(path, PADCHEST_FILE, of="PadChest")
    cells = read_cells(file, columns=PADCHEST_COLUMNS)
    names = image_ids_of(cells["ImageID"], path=file)
    expected = "a list of findings; expected a Python list, such as ['pleural effusion', 'cardiomegaly']"
    found = pd.Series(convert(cells["Labels"], _findings, path=file, expected=expected), index=cells.index)
    left_out, warnings = _left_out(cells, names, found)
    if left_out.all():
        raise ValueError(f"{file} has no image with a finding or with 'normal'; every one is left out")
    cells, names, found = cells[~left_out], names[~left_out], found[~left_out]
    terms = _terms(classes, frozenset().union(*found.unique()), file)
    labels = {name: [float(not findings.isdisjoint(terms[name])) for findings in found] for name in terms}
    studies = ids_of(cells["StudyID"], path=file)
    patients, merged = _patients(ids_of(cells["PatientID"], path=file), studies)
    ages, implausible = _ages(cells, names)
    root = image_root or file.parent
    image_ids, copies = image_places(list(names), root, default=cells["ImageDir"].str.strip() + "/" + names)
    by_network = (cells["MethodLabel"].str.strip().str.lower() != "physician").sum()
    rows = {
        "image_id": image_ids,
        "patient_id": patients,
        "study_id": studies,
        "view": views_of(cells["Projection"]),
        "split": None,
        "sex": sexes_of(cells["PatientSex_DICOM"]),
        "age": ages,
        "study_order": study_order(patients, studies, pd.to_numeric(cells["StudyDate_DICOM"], errors="coerce")),
    }
    counted = f"{by_network:,} of {len(cells):,} images, counted before --views and --images"
    said = f"the labels of {counted}, were read from the report by a network (MethodLabel)"
    return LabelSource.from_rows(
        "padchest",
        pd.DataFrame(rows),
        pd.DataFrame(labels, index=cells.index),
        image_root=root,
        files=(file,),
        warnings=(*warnings, *merged, *implausible, *copies, *([said] if by_network else [])),
    )


def _findings(text: str) -> frozenset[str]:
    """The labels of a list in lower case; ValueError if the text is not a list of words."""
    if text.lower() in BLANKS:
        return frozenset()
    try:
        labels = ast.literal_eval(text)
        words = [label.strip().lower() for label in labels]
    except (SyntaxError, TypeError, AttributeError) as error:
        raise ValueError(text) from error
    return frozenset(word for word in words if word)


def _left_out(cells: pd.DataFrame, names: pd.Series, found: pd.Series) -> tuple[pd.Series, list[str]]:
    """Which images are left out [N] bool, and a warning with the count for each reason; the first reason counts."""
    reasons = {
        "of a report without labels": found.map(len) == 0,
        **{f"of label {label!r}": found.map(lambda findings, label=label: label in findings) for label in NO_STATEMENT},
        "of projection 'EXCLUDE'": cells["Projection"].str.strip() == "EXCLUDE",
    }
    left_out, warnings = pd.Series(False, index=cells.index), []
    for reason, rows in reasons.items():
        warnings += named(names[rows & ~left_out], f"images left out because {reason}")
        left_out |= rows
    return left_out, warnings


def _patients(patients: pd.Series, studies: pd.Series) -> tuple[pd.Series, list[str]]:
    """One id per patient, and a warning: ids that share a study, of which the file has one, are of one person."""
    first = patients.groupby(studies).transform("first")
    same = dict(zip(patients[patients != first], first[patients != first], strict=True))
    what = "patient ids that share a study with another id, and are treated as the same patient"
    return patients.map(lambda patient: same.get(patient, patient)), named(same, what)


def _terms(classes: Sequence[str] | None, labels: Iterable[str], path: Path) -> dict[str, frozenset[str]]:
    """The labels that make each class positive. ValueError for a class that PadChest's labels do not know."""
    labels = {*labels, *TREE, *(label for below in TREE.values() for label in below)}
    present = [name for name in classes or () if _label(name) in labels]
    chosen = choose_classes(classes, default=NIH_CLASSES, present=[*present, *NIH_CLASSES, *sorted(labels)], path=path)
    return {name: _below(_label(name)) for name in chosen}


def _label(name: str) -> str:
    """PadChest's label for a class, whichever way it is written: Pleural_Thickening, Effusion, pleural effusion."""
    label = name.lower().replace("_", " ")
    return SYNONYMS.get(label, label)


def _below(label: str) -> frozenset[str]:
    return frozenset({label}).union(*(_below(child) for child in TREE.get(label, ())))


def _ages(cells: pd.DataFrame, names: pd.Series) -> tuple[np.ndarray, list[str]]:
    """Ages in whole years at the time of the study, NaN where unknown, and a warning of those that cannot be."""
    year = pd.to_numeric(cells["StudyDate_DICOM"].str.strip().str[:4], errors="coerce")
    ages = year - pd.to_numeric(cells["PatientBirth"], errors="coerce")
    impossible = (ages < 0) | (ages > OLDEST)
    what = f"images with an age below 0 or above {OLDEST:.0f} years, treated as unknown"
    return ages.mask(impossible).to_numpy(float), named(names[impossible], what)
