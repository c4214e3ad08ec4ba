"""Planted leaks of each kind are found, a clean split is not accused."""

import shutil

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import check_split
from src.artifacts.io import read_json
from src.artifacts.manifest import read_manifest
from src.labels.audit import leaks
from tests.trees import write_csv

TWICE = "under 2 names in different splits: img/01_1.png (train), img/29_1.png (test)"
LEAKED, REMEDY = "of the 10 test images also in another split; first", "(--split patient makes a sound one)"


def make_set(root, *, edit=None):
    """A CSV data set of 60 images with a published split by patient: 20 train, 5 val and 5 test patients."""
    rng = np.random.default_rng(0)
    (root / "img").mkdir(parents=True)
    rows = []
    for p in range(30):
        split = "train" if p < 20 else "val" if p < 25 else "test"
        for i in range(2):
            name = f"img/{p:02}_{i}.png"
            Image.fromarray(rng.integers(0, 256, (16, 16)).astype(np.uint8)).save(root / name)
            labels = {"A": (p + i) % 2, "B": i}
            rows.append({"path": name, "patient_id": f"p{p:02}", "study_id": f"s{p:02}", "split": split, **labels})
    if edit:
        edit(rows, root)
    write_csv(root / "labels.csv", rows)
    return root / "labels.csv"


def check(path, run_dir, *flags):
    return check_split.main(["--data", str(path), "--run-dir", str(run_dir), *flags])


def test_a_clean_split_is_not_accused(tmp_path, capsys):
    assert check(make_set(tmp_path / "d"), tmp_path / "r", "--images", "open", "--workers", "0") == 0
    out = capsys.readouterr().out
    assert "FAILED" not in out and "every check passed; wrote" in out
    assert read_manifest(tmp_path / "r").meta["failed"] == []


def test_a_split_whose_patients_are_not_known_is_not_called_sound(tmp_path, capsys):
    def nameless(rows, root):
        for row in rows:
            row["chart"] = row.pop("patient_id")

    table = make_set(tmp_path / "d", edit=nameless)
    with pytest.raises(ValueError, match="; name the columns that are classes with --classes, and .* --patient-column"):
        check(table, tmp_path / "r", "--images", "skip")
    assert check(table, tmp_path / "r", "--images", "skip", "--classes", "A", "B") == 0
    assert "every check passed, as far as patients are known; wrote" in capsys.readouterr().out


def leak_patient(rows, root):
    rows[-1]["patient_id"], rows[-1]["study_id"] = "p03", "s99"


def respell(rows, root):
    rows[-1]["patient_id"], rows[-1]["study_id"] = "P03", "s99"


def leak_study(rows, root):
    rows[-1]["study_id"] = "s03"


def copy_file(rows, root):
    shutil.copy(root / rows[3]["path"], root / rows[-1]["path"])


def encode_again(rows, root):
    with Image.open(root / rows[3]["path"]) as image:
        image.convert("RGB").save(root / rows[-1]["path"], compress_level=1)


def copy_within_a_split(rows, root):
    shutil.copy(root / rows[3]["path"], root / rows[4]["path"])


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (leak_patient, f"1 patient with 1 {LEAKED}: p03 {REMEDY}"),
        (leak_study, f"1 study with 1 {LEAKED}: s03 {REMEDY}"),
        (copy_file, f"the same file {TWICE}"),
        (encode_again, f"the same pixels {TWICE}"),
    ],
)
def test_a_planted_leak_is_found(tmp_path, capsys, edit, found):
    assert check(make_set(tmp_path / "d", edit=edit), tmp_path / "r", "--images", "open") == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("FAILED")]
    assert failed == [f"FAILED: {found}"]
    assert read_json(tmp_path / "r" / "manifest.json")["failed"] == [found]
    with pytest.warns(UserWarning, match="failed a check: .* in different splits|failed a check: .*another split"):
        read_manifest(tmp_path / "r")


def test_duplicates_within_one_split_are_no_leak(tmp_path):
    assert check(make_set(tmp_path / "d", edit=copy_within_a_split), tmp_path / "r", "--images", "open") == 0


@pytest.mark.parametrize("images", ["exist", "open"])
def test_where_no_image_exists_the_remedy_is_another_image_root(tmp_path, capsys, images):
    def empty(rows, root):
        for row in rows:
            (root / row["path"]).unlink()

    assert check(make_set(tmp_path / "d", edit=empty), tmp_path / "r", "--images", images) == 1
    assert "FAILED: 60 of 60 images cannot be used; first: img/00_0.png; " in (out := capsys.readouterr().out)
    assert f"{tmp_path / 'd'} may be the wrong --image-root" in out


def test_every_unusable_image_is_listed_and_the_rest_described(tmp_path, capsys):
    def spoil(rows, root):
        (root / "img/00_0.png").unlink()
        (root / "img/01_0.png").write_bytes(b"")
        (root / "img/02_0.png").write_text("text")
        noise = root / "img/03_0.png"
        noise.write_bytes(noise.read_bytes()[:-60])
        Image.new("CMYK", (8, 8)).save(root / "img/04_0.png", format="TIFF")

    assert check(make_set(tmp_path / "d", edit=spoil), tmp_path / "r", "--images", "open") == 1
    out = capsys.readouterr().out
    assert "--image-root" not in out
    for name, reason in [
        ("00_0", "does not exist"),
        ("01_0", "is empty"),
        ("02_0", "is not an image"),
        ("03_0", "cannot be read"),
        ("04_0", "cannot be read (nearly all of its pixels have the same gray value)"),
    ]:
        assert any(f"{name}.png {reason}" in line for line in out.splitlines()), name
    assert "5 of 60 images cannot be used" in out and "train" in out
    assert len(read_manifest(tmp_path / "r").table) == 60


def test_a_missing_image_fails_the_quick_look_and_skip_does_not_look(tmp_path):
    path = make_set(tmp_path / "d", edit=lambda rows, root: (root / "img/00_0.png").unlink())
    assert check(path, tmp_path / "r") == 1
    assert check(path, tmp_path / "s", "--images", "skip") == 0


def test_a_class_with_one_label_only_fails(tmp_path, capsys):
    def no_positive(rows, root):
        for row in rows:
            if row["split"] == "val":
                row["A"] = 0

    assert check(make_set(tmp_path / "d", edit=no_positive), tmp_path / "r") == 1
    assert "FAILED: val has no positive label of A" in capsys.readouterr().out


def test_too_few_labels_are_warned_of_with_their_counts(tmp_path, capsys):
    check(make_set(tmp_path / "d"), tmp_path / "r")
    out = capsys.readouterr().out
    assert "fewer than 19 positive patients in val: A (5), B (5)" in out
    assert "fewer than 29 positive patients in val: A (5), B (5)" in out
    assert "negatives in val: A (5), B (5)" in out


def test_patient_split_mends_a_leak_and_published_needs_one(tmp_path):
    path = make_set(tmp_path / "d", edit=leak_patient)
    assert check(path, tmp_path / "r", "--split", "patient", "--val-fraction", "0.2", "--test-fraction", "0.2") == 0
    table = read_manifest(tmp_path / "r").table
    assert table.groupby("patient_id")["split"].nunique().max() == 1
    text = path.read_text().replace("split", "fold")
    path.write_text(text)
    with pytest.raises(ValueError, match="no published split; name .* with --split-column, or use --split patient"):
        check(path, tmp_path / "p", "--split", "published", "--classes", "A", "B")


RESPELLED = "patients whose id is spelled in more than one way (--merge-patients treats the spellings as one patient)"


def test_two_spellings_of_a_patient_fail_until_they_are_merged(tmp_path, capsys):
    path = make_set(tmp_path / "d", edit=respell)
    assert check(path, tmp_path / "r") == 1
    assert f"FAILED: {RESPELLED}: 1 ('p03' and 'P03')" in capsys.readouterr().out
    assert check(path, tmp_path / "m", "--merge-patients") == 1
    out = capsys.readouterr().out
    assert f"FAILED: 1 patient with 1 {LEAKED}: p03 {REMEDY}" in out and RESPELLED not in out
    assert "an id in several spellings, each treated as one patient: 1 ('p03' and 'P03')" in out
    fractions = ["--val-fraction", "0.2", "--test-fraction", "0.2"]
    assert check(path, tmp_path / "s", "--merge-patients", "--split", "patient", *fractions) == 0
    table = read_manifest(tmp_path / "s").table
    assert table["patient_id"].nunique() == 30 and table.groupby("patient_id")["split"].nunique().max() == 1


def test_a_manifest_is_not_replaced_unasked(tmp_path):
    path = make_set(tmp_path / "d")
    check(path, tmp_path / "r")
    with pytest.raises(ValueError, match="already exists; pass --overwrite"):
        check(path, tmp_path / "r")
    check(path, tmp_path / "r", "--overwrite")


@pytest.mark.parametrize("published", [True, False])
def test_a_calibration_split_is_carved_by_patient_and_checked_as_the_others(tmp_path, capsys, published):
    flags = ["--calibration", "0.2", *([] if published else ["--split", "patient"])]
    assert check(make_set(tmp_path / "d"), tmp_path / "r", *flags) == 0
    manifest = read_manifest(tmp_path / "r")
    assert manifest.splits == ("train", "val", "calib", "test") and manifest.scored == ("val", "calib", "test")
    assert manifest.table.groupby("patient_id")["split"].nunique().max() == 1
    share = (manifest.table["split"] == "calib").sum() / (40 if published else 60)  # of train, where val is published
    assert 0.15 < share < 0.25
    out = capsys.readouterr().out
    assert "calib (0.2) carved from train" in out or "calib 0.2" in out
    assert "cannot be certified at 95% confidence with fewer than 19 positive patients in calib: " in out


def test_without_a_calibration_fraction_there_is_no_such_split(tmp_path, capsys):
    check(make_set(tmp_path / "d"), tmp_path / "r")
    assert "calib " not in capsys.readouterr().out
    assert read_manifest(tmp_path / "r").splits == ("train", "val", "test")


def test_a_leak_into_the_calibration_split_is_found():
    rows = [("a", "p", "s", "train"), ("b", "p", "t", "calib"), ("c", "q", "u", "val"), ("d", "r", "v", "test")]
    table = pd.DataFrame(rows, columns=["image_id", "patient_id", "study_id", "split"])
    assert leaks(table) == [
        "1 patient with 1 of the 1 calib images also in another split; first: p (--split patient makes a sound one)"
    ]
