"""Whose an image is, by its id, and the spellings of one patient."""

import pandas as pd
import pytest

from src.labels.patients import patients_in, plain_id, said_found, studies_in, two_spellings


@pytest.mark.parametrize(
    ("image", "patient"),
    [
        ("CheXpert-v1.0/test/patient64741/study1", "patient64741"),
        ("files/p10/p10000032/s50414267/02aa804e.jpg", "p10000032"),
        ("p10000032/s50414267", "p10000032"),
        ("images/00000013_005.png", "00000013"),
        ("00000013_005", "00000013"),
    ],
)
def test_ids_of_the_public_data_sets_tell_the_patient(image, patient):
    ids = pd.Series([image, image])
    found = patients_in(ids)
    assert list(found) == [patient] * 2
    assert said_found(ids, found) == f"the patient is read from the id, such as {patient} from {image}"


@pytest.mark.parametrize("image", ["outpatient12/a.png", "20240102_001.png", "p10000032.png", "b.png"])
def test_other_ids_do_not(image):
    ids = pd.Series([image, "patient7/a.png"])
    found = patients_in(ids)
    assert found.isna().tolist() == [True, False]
    assert said_found(ids, found).endswith(", and 1 of 2 rows name no patient and count as one patient each")


def test_studies_are_read_from_ids_of_chexpert_and_mimic_and_no_other():
    ids = [
        "CheXpert-v1.0/valid/patient64541/study12/view1_frontal.jpg",
        r"valid\patient64541\study1",
        "files/p10/p10000032/s50414267/02aa804e.jpg",
        "images/00000013_005.png",
        "patient7/study1a/x.png",
    ]
    found = studies_in(pd.Series(ids))
    assert found.tolist()[:3] == ["patient64541/study12", "patient64541/study1", "s50414267"] and found[3:].isna().all()
    said = said_found(pd.Series(ids), found, what="study")
    assert said.endswith("view1_frontal.jpg, and 2 of 5 rows name no study and count as one study each")


@pytest.mark.parametrize("spelling", ["p7", " P7 ", "\ufeffP7", "P\u200b7", "Ｐ７", "00P7", "P7.0"])
def test_spellings_of_one_patient_are_plainly_the_same(spelling):
    assert plain_id(spelling) == plain_id("P7") != plain_id("P70")


def test_two_spellings_show_what_cannot_be_seen():
    assert two_spellings(["7", "8", "7", "007", "7.0", "a\u200b", "a", "80"]) == [
        "'7' and '007' and '7.0'",
        "'a\\u200b' and 'a'",
    ]
    assert two_spellings(["P7", "P8", "P7"]) == []
