"""CheXpert as it is handed out: its test set, its batches, and the label files of the newer labelers."""

import shutil

import pandas as pd
import pytest

import check_split
from src.artifacts.manifest import read_manifest
from src.data import read_dataset
from src.labels.files import SPARE, paths_of
from tests.reading import refused
from tests.trees import drop_column, drop_rows, into_batches, make_chexpert, set_cell

FULL = "CheXpert-v1.0/"


@pytest.fixture
def tested(tmp_path):
    """A tree with a test set: 12, 4 and 3 patients of two studies with two images each."""
    return make_chexpert(tmp_path / "data", patients=12, test_patients=3)


def check(root, run_dir, *flags):
    """Stage 1 on a tree: the exit status, and the manifest."""
    status = check_split.main(["--data", str(root), "--run-dir", str(run_dir), "--overwrite", *flags])
    return status, read_manifest(run_dir)


# --- the test set


def test_the_test_set_has_paths_and_labels_only(tested):
    source = read_dataset(tested)
    table = source.table.merge(source.context, on="image_id").set_index("image_id")
    assert len(source.files) == 3 and all((tested / name).is_file() for name in table.index)
    assert table["split"].value_counts().to_dict() == {"train": 48, SPARE: 16, "test": 12}
    image = table.loc["test/patient00017/study2/view2_lateral.jpg"]
    assert (image["view"], image["study_id"], image["sex"], image["study_order"]) == (
        "lateral",
        "patient00017/study2",
        "",
        1,
    )
    assert image["split"] == "test" and pd.isna(image["age"])


@pytest.mark.filterwarnings("ignore:the split of")  # a class may have positives only
@pytest.mark.parametrize("calibration", [[], ["--calibration", "published"], ["--calibration", "0.2"]])
def test_valid_is_calib_where_it_is_asked_for_and_else_left_out(tested, tmp_path, capsys, calibration):
    _, manifest = check(tested, tmp_path / "run", *calibration)
    out = capsys.readouterr().out
    folders = manifest.table["image_id"].str.split("/").str[0]
    splits = manifest.table.groupby(folders)["split"].unique().map(set).to_dict()
    assert splits.pop("test") == {"test"}
    if "published" in calibration:
        assert splits == {"train": {"train", "val"}, "valid": {"calib"}}
        assert "train.csv is train, test_labels.csv is test, valid.csv is calib" in out and "left out" not in out
    else:
        assert splits == {"train": {"train", "val", *["calib"][: len(calibration)]}}
        assert "warning: valid.csv (16 images) is left out; --calibration published makes it the split calib" in out


@pytest.mark.filterwarnings("ignore:the split of")
def test_a_new_split_takes_all_three_files(tested, tmp_path):
    _, manifest = check(tested, tmp_path / "run", "--split", "patient")
    assert len(manifest.table) == 76 and manifest.splits == ("train", "val", "test")
    with pytest.raises(ValueError, match="has no published split calib; pass a fraction, such as --calibration 0.1"):
        check(tested, tmp_path / "run", "--split", "patient", "--calibration", "published")


def test_a_published_calib_that_is_not_there_or_there_twice(tmp_path):
    without = make_chexpert(tmp_path / "data")
    with pytest.raises(ValueError, match="has no published split calib"):
        check(without, tmp_path / "run", "--calibration", "published")
    table = pd.DataFrame({"path": list("abcdefgh"), "patient_id": list("abcdefgh"), "Edema": [0, 1] * 4})
    table["split"] = ["train", "train", "val", "val", "calib", "calib", "test", "test"]
    table.to_csv(tmp_path / "own.csv", index=False)
    assert check(tmp_path / "own.csv", tmp_path / "own", "--images", "skip")[1].splits == (
        "train",
        "val",
        "calib",
        "test",
    )
    with pytest.raises(ValueError, match=r"has a published split calib; leave out --calibration 0\.2"):
        check(tmp_path / "own.csv", tmp_path / "own", "--images", "skip", "--calibration", "0.2")


def test_chexlocalize_unpacked_beside_the_others(tested):
    """Its folder has val for valid, and its own file of valid's labels, which is read where valid.csv is not there."""
    small, localize = tested / "CheXpert-v1.0-small", tested / "chexlocalize" / "CheXpert"
    small.mkdir()
    localize.mkdir(parents=True)
    for name in ("train.csv", "train"):
        shutil.move(tested / name, small / name)
    for name, new in (("test_labels.csv",) * 2, ("test",) * 2, ("valid.csv", "val_labels.csv"), ("valid", "val")):
        shutil.move(tested / name, localize / new)
    source = read_dataset(tested)
    assert [file.name for file in source.files] == ["train.csv", "val_labels.csv", "test_labels.csv"]
    assert source.image_root == tested and source.warnings == ()
    assert all((tested / path).is_file() for path in paths_of(source.table))
    assert source.table["image_id"][63].startswith("valid/patient")
    assert paths_of(source.table)[63].startswith("chexlocalize/CheXpert/val/patient")


def test_a_test_file_of_images_that_train_has_is_refused(tmp_path):
    root = make_chexpert(tmp_path, images=False)
    shutil.copy(root / "train.csv", root / "test.csv")
    refused(root, "images in two label files: 24 (train/patient00001/", "train.csv, valid.csv, test.csv")


# --- the batches


@pytest.mark.parametrize("within", ["", "chexpertchestxrays-u20210408", "CheXpert-v1.0", "CheXpert/CheXpert-v1.0"])
@pytest.mark.parametrize("twice", [False, True])
def test_batches_in_any_nesting_have_the_ids_of_the_one_folder(tmp_path, within, twice):
    merged = read_dataset(make_chexpert(tmp_path / "merged", prefix=FULL))
    batches = into_batches(make_chexpert(tmp_path / "batches", prefix=FULL), within=within, twice=twice)
    for folder in (batches, next(batches.rglob("CheXpert-v1.0 batch 1*"))):
        source = read_dataset(folder)
        columns = list(merged.table)
        pd.testing.assert_frame_equal(source.table[columns], merged.table)
        assert all((source.image_root / path).is_file() for path in paths_of(source.table))
        assert source.warnings == () and len(source.files) == 2


def test_label_files_beside_the_batches_and_images_elsewhere(tmp_path):
    root = into_batches(make_chexpert(tmp_path / "images", prefix=FULL))
    for name in ("train.csv", "valid.csv"):
        shutil.move(root / "CheXpert-v1.0 batch 1 (validate & csv)" / name, root / name)
    assert read_dataset(root).image_root == root
    (tmp_path / "labels").mkdir()
    for name in ("train.csv", "valid.csv"):
        shutil.move(root / name, tmp_path / "labels" / name)
    source = read_dataset(tmp_path / "labels", image_root=root)
    assert source.image_root == root and all((root / path).is_file() for path in paths_of(source.table))


@pytest.mark.filterwarnings("ignore:the split of")
def test_the_manifest_finds_the_images_of_every_batch(tmp_path):
    root = into_batches(make_chexpert(tmp_path / "data", prefix=FULL, patients=12))
    for images in ("exist", "open"):
        _, manifest = check(root, tmp_path / images, "--images", images)
        assert not any("cannot be used" in line for line in manifest.meta["failed"])
        assert all(path.is_file() for path in manifest.part("val").image_paths())
        assert manifest.table["image_id"].str.match(r"(train|valid)/patient").all()


@pytest.mark.filterwarnings("ignore:the split of")
def test_the_images_of_the_batches_that_are_present(tmp_path):
    root = into_batches(make_chexpert(tmp_path / "data", prefix=FULL, patients=12))
    shutil.rmtree(root / "CheXpert-v1.0 batch 3 (train 2)")
    _, manifest = check(root, tmp_path / "run", "--images", "present")
    assert len(manifest.table) == 48 and manifest.filters == [
        "--images present left out 16 images whose file does not exist"
    ]


def test_a_batch_that_is_missing_or_there_twice_is_said(tmp_path, capsys):
    root = into_batches(make_chexpert(tmp_path / "data", prefix=FULL))
    batch = root / "CheXpert-v1.0 batch 3 (train 2)"
    shutil.copytree(batch, root / "CheXpert" / batch.name)
    copies = read_dataset(root).warnings
    assert len(copies) == 1 and "several folders of images" in copies[0] and "2 (train/patient00003, " in copies[0]
    shutil.rmtree(root / "CheXpert")
    shutil.rmtree(batch)
    assert read_dataset(root).warnings == (
        f"patients without a folder of images in {root}: 2 (train/patient00003, train/patient00004)",
    )
    assert check(root, tmp_path / "run")[0] == 1
    assert "FAILED: 8 of 40 images cannot be used; first: train/patient00003/" in capsys.readouterr().out


def test_a_nesting_that_nobody_knows_is_told_in_one_line(tmp_path):
    root = into_batches(make_chexpert(tmp_path, prefix=FULL))
    (root / "CheXpert-v1.0 batch 1 (validate & csv)").rename(root / "first part")
    refused(root, "no label file", "first part")
    refused(root, f"{root} holds no train.csv or train.csv.gz", "batch 1 of the full data set has", dataset="chexpert")


def test_train_labels_twice(tmp_path):
    root = into_batches(make_chexpert(tmp_path, prefix=FULL))
    other = root / "CheXpert-v1.0-small" / "train.csv"
    other.parent.mkdir()
    shutil.copy(root / "CheXpert-v1.0 batch 1 (validate & csv)" / "train.csv", other)
    refused(root, "CheXpert-v1.0 batch 1 (validate & csv)/train.csv, CheXpert-v1.0-small/train.csv", "one of them")


# --- the newer labelers


@pytest.mark.parametrize("labels", ["cheXbert", "visualCheXbert"])
def test_labels_of_train_from_another_labeler(tmp_path, labels):
    root = into_batches(make_chexpert(tmp_path, prefix=FULL))
    before = read_dataset(root).table
    file = root / f"train_{labels}.csv"
    shutil.copy(root / "CheXpert-v1.0 batch 1 (validate & csv)" / "train.csv", file)
    set_cell(file, line=2, column="Edema", value="1.0" if before["Edema"][0] != 1 else "0.0")
    if labels == "visualCheXbert":
        drop_column(file, "Sex")
    source = read_dataset(root, labels=labels)
    assert source.files[0] == file and source.split_note.startswith(f"{file.name} is train, valid.csv is ")
    assert (source.table["Edema"] != before["Edema"]).sum() - before["Edema"].isna().sum() in (0, 1)
    assert source.table["Edema"][0] != before["Edema"][0]


def test_labels_that_are_not_there_or_of_another_data_set(tmp_path):
    root = make_chexpert(tmp_path, images=False)
    refused(root, "no train_cheXbert.csv or train_cheXbert.csv.gz", labels="cheXbert")
    refused(root / "train.csv", "a single label file", "--labels cheXbert", labels="cheXbert")
    (root / "train.csv").rename(root / "train_cheXbert.csv")
    refused(root, "no train.csv", "pass --labels cheXbert")
    (root / "own.csv").write_text("path,Edema\na.png,1\n")
    refused(root / "own.csv", "is read as csv; --labels cheXbert is for chexpert", labels="cheXbert")


def test_a_row_of_test_without_a_file(tested, tmp_path, capsys):
    drop_rows(tested / "test_labels.csv", 2)  # an image that no row names changes nothing
    (tested / "test/patient00017/study1/view2_lateral.jpg").unlink()
    assert check(tested, tmp_path / "run")[0] == 1
    assert "FAILED: 1 of 59 images cannot be used; first: test/patient00017/study1/" in capsys.readouterr().out
