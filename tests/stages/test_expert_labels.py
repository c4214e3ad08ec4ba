"""Labels of experts in place of those of a split, through stage 1 and what the later stages say of it."""

import pytest

import check_split
from src.artifacts.io import read_json
from src.artifacts.manifest import read_manifest
from src.data import read_dataset
from src.stages.opening import open_manifest
from tests.trees import CHEXPERT_COLUMNS, make_chexpert, make_csv, make_mimic, make_nih, set_cell, write_csv

pytestmark = pytest.mark.filterwarnings("ignore:the split of")  # few images: some class has one kind of label only


def check(data, run, *flags):
    """Stage 1 with expert labels: the manifest."""
    flags = ("--data", str(data), "--run-dir", str(run), "--images", "skip", "--val-fraction", "0.3", *map(str, flags))
    check_split.main([*flags, "--overwrite"])
    return read_manifest(run)


def label(path, column, ids, **findings):
    return write_csv(path, [{column: name, **findings} for name in ids])


def test_the_rows_of_test_are_those_the_file_labels_with_its_labels(tmp_path, capsys):
    data = make_nih(tmp_path / "nih", patients=8, studies=3)
    file = label(tmp_path / "readers.csv", "Image ID", ["00000007_000.png", "00000008_002.png", "none.png"], Mass="YES")
    before = read_dataset(data).table.set_index("image_id")
    manifest = check(data, tmp_path / "run", "--expert-labels", file)
    out = capsys.readouterr().out
    test = manifest.part("test").table
    assert test["image_id"].tolist() == ["images/00000007_000.png", "images/00000008_002.png"]
    assert (test["Mass"] == 1).all() and test[list(manifest.classes)].notna().sum().sum() == 2
    train = manifest.part("train").table.set_index("image_id")
    assert (train["Mass"] == before.loc[train.index, "Mass"]).all()
    left_out = "--expert-labels readers.csv left out 4 images of test that it does not label"
    assert manifest.filters == [left_out] and left_out in out
    assert (
        "readers.csv labels 2 images (by image)" in out and "masked in test, because readers.csv has no column" in out
    )
    assert "rows of readers.csv that match no image of the data set: 1 (none.png)" in out
    assert "test has no positive label of Edema" not in out and "FAILED: test has no negative label of Mass:" in out
    assert str(file) in manifest.meta["sources"]
    reports, readers = "reports (Data_Entry_2017_v2020.csv)", "experts (readers.csv)"
    assert manifest.meta["labels"] == {"train": reports, "val": reports, "test": readers}
    open_manifest(tmp_path / "run")
    said = f"{left_out}; labels of train and val from {reports}, of test from {readers}\n"
    assert capsys.readouterr().out == said


def test_a_table_compares_the_labels_once_per_study(tmp_path, capsys):
    data = make_mimic(tmp_path / "mimic")
    for line, value in ((12, "1.0"), (13, "")):  # the last patient, who is test
        set_cell(data / "mimic-cxr-2.0.0-chexpert.csv", line=line, column="Lung Opacity", value=value)
    name = "mimic-cxr-2.1.0-test-set-labeled.csv"
    file = write_csv(data / name, [{"study_id": n, "Airspace Opacity": 1} for n in (50000502, 50000501)])
    check(data, tmp_path / "run")
    assert f"note: {file} has experts' labels of 4 images; see --expert-labels" in capsys.readouterr().out
    manifest = check(data, tmp_path / "run", "--expert-labels", file)
    out = capsys.readouterr().out
    assert (manifest.part("test").table["Lung Opacity"] == 1).all() and len(manifest.part("test").table) == 4
    assert f"{name} labels 4 images (by study)" in out and "are what a radiologist read in the reports" in out
    lines = [line.split("|") for line in out.splitlines() if line.startswith(("Class ", "Lung Opacity"))][-2:]
    cells = dict(zip(*([cell.strip() for cell in line] for line in lines), strict=True))
    assert cells == {"Class": "Lung Opacity", "1/1": "1", "blank/1": "1", "Sensitivity": "0.500", "Specificity": "n/a"}
    assert "note:" not in out


@pytest.mark.parametrize("positive", [0, 1])
def test_the_table_by_study_counts_a_study_as_positive_if_any_of_its_images_is(tmp_path, capsys, positive):
    rows = [{"path": f"{p}_{n}.png", "patient_id": f"p{p}", "study_id": f"s{p}000", "Mass": 0, "Edema": p % 2}
            for p in range(8) for n in range(2)]  # fmt: skip
    rows[positive]["Mass"] = 1
    data = write_csv(tmp_path / "labels.csv", rows)
    file = write_csv(
        tmp_path / "e.csv", [{"study_id": f"s{p}000", "Mass": int(p == 0), "Edema": p % 2} for p in (0, 1)]
    )
    check(data, tmp_path / "run", "--expert-labels", file)
    out = capsys.readouterr().out
    assert "in 2 studies" in out and "0 of 4 labels that are 1 or 0 in both disagree" in out


def test_patients_of_experts_labels_are_on_no_other_side(tmp_path, capsys):
    """Patient 1 is moved from train with one of three images, patient 8 is in test already."""
    data = make_nih(tmp_path / "nih", patients=8, studies=3)
    file = label(tmp_path / "e.csv", "Image ID", ["00000001_000.png", "00000008_000.png"], Mass="1")
    manifest = check(data, tmp_path / "run", "--expert-labels", file)
    assert set(manifest.part("test").table["patient_id"]) == {"00000001", "00000008"}
    assert not any("also in another split" in line for line in manifest.meta["failed"])
    counts = "5 images of test that it does not label and 2 other images of its patients"
    assert manifest.filters == [f"--expert-labels e.csv left out {counts}"]
    assert "e.csv labels 2 images (by image), of which 1 moved to test from train" in capsys.readouterr().out


def test_a_leak_of_the_published_split_is_not_mended_unseen(tmp_path):
    data = make_nih(tmp_path / "nih", patients=8, studies=3)
    lists = [data / "train_val_list.txt", data / "test_list.txt"]
    train, test = (path.read_text().split() for path in lists)
    lists[0].write_text("\n".join([*train, test.pop()]))
    lists[1].write_text("\n".join(test))
    file = label(tmp_path / "e.csv", "Image ID", ["00000008_000.png"], Mass="1")
    failed = check(data, tmp_path / "run", "--expert-labels", file).meta["failed"]
    assert any(line.startswith("1 patient with 1 of the 1 test images also in another split") for line in failed)


@pytest.mark.parametrize("split", ["test", "calib"])
def test_a_new_split_leaves_what_experts_labeled_alone(tmp_path, split):
    data = make_csv(tmp_path / "own", patients=30)
    file = label(tmp_path / "e.csv", "path", [f"png/{p}_0.png" for p in range(10)], Nodule="0", Hernia="1")
    manifest = check(data, tmp_path / "run", "--expert-labels", file, "--expert-as", split)
    table = manifest.table
    assert manifest.splits == tuple(dict.fromkeys(("train", "val", *["calib"][: split == "calib"], "test")))
    assert sorted(table.loc[table["split"] == split, "patient_id"]) == sorted(f"P{p}" for p in range(10))
    assert table.groupby("patient_id")["split"].nunique().max() == 1 and len(table) == 50
    origin = manifest.meta["split"]
    assert origin.endswith(f"; {split} is what e.csv labels") and f"{split} 0.1" not in origin


def test_chexperts_groundtruth_and_the_labels_of_valid(tmp_path):
    data = make_chexpert(tmp_path / "data", test_patients=3)
    studies = [f"CheXpert-v1.0/test/patient{n:05d}/study{s}" for n in (11, 12) for s in (1, 2)]
    truth = label(data / "groundtruth.csv", "Study", studies, **dict.fromkeys(CHEXPERT_COLUMNS, "1"))
    manifest = check(data, tmp_path / "run", "--expert-labels", truth)
    test = manifest.part("test")
    assert len(test.table) == 8 and (test.labels() == 1).all() and (test.context["no_finding"] == 1).all()
    valid = data / "valid.csv"
    manifest = check(data, tmp_path / "run", "--expert-labels", valid, "--expert-as", "calib")
    assert manifest.part("calib").table["image_id"].str.startswith("valid/").all()
    assert manifest.meta["labels"]["calib"] == "experts (valid.csv)" and len(manifest.part("calib").table) == 16


def test_calib_of_labels_of_valid_is_said_to_come_from_that_file(tmp_path, capsys):
    data = make_chexpert(tmp_path / "data", test_patients=3)
    check(data, tmp_path / "run", "--expert-labels", data / "valid.csv", "--expert-as", "calib")
    assert "of which 16 moved to calib from valid.csv, which was left out" in capsys.readouterr().out


def test_experts_labels_that_leave_no_test_say_so(tmp_path):
    data = make_nih(tmp_path / "nih", patients=8, studies=3)
    file = label(tmp_path / "e.csv", "Image ID", (data / "test_list.txt").read_text().split(), Mass="1")
    with pytest.raises(
        ValueError, match="--expert-as calib leaves no image of the published test split; use --split p"
    ):
        check(data, tmp_path / "run", "--expert-labels", file, "--expert-as", "calib")
    manifest = check(data, tmp_path / "run", "--expert-labels", file, "--expert-as", "calib", "--split", "patient")
    assert manifest.splits == ("train", "val", "calib", "test") and len(manifest.part("calib").table) == 6


def test_no_finding_is_the_experts_or_unknown(tmp_path):
    data = make_chexpert(tmp_path / "data", test_patients=3)
    file = label(tmp_path / "e.csv", "Study", ["test/patient00011/study1"], Edema="1")
    context = check(data, tmp_path / "run", "--expert-labels", file).part("test").context
    assert len(context) == 2 and context["no_finding"].isna().all()


def test_whose_labels_a_split_has_is_recorded_without_experts_too(tmp_path):
    data = make_chexpert(tmp_path / "data", test_patients=3)
    check(data, tmp_path / "run", "--calibration", "published")
    train, experts = "reports (train.csv)", "experts ({})".format
    labels = {"train": train, "val": train, "calib": experts("valid.csv"), "test": experts("test_labels.csv")}
    assert read_json(tmp_path / "run" / "manifest.json")["labels"] == labels
    mixed = check(data, tmp_path / "run", "--split", "patient")
    assert set(mixed.meta["labels"].values()) == {
        " and ".join([train, *map(experts, ("valid.csv", "test_labels.csv"))])
    }
    assert mixed.notes == []


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--expert-as", "calib"), "--expert-as calib needs --expert-labels FILE"),
        (("--expert-labels", "e.csv", "--expert-as", "calib", "--calibration", "0.1"), "leave out --calibration"),
        (("--expert-labels", "gone.csv"), "gone.csv does not exist"),
    ],
)
def test_flags_that_do_not_fit(tmp_path, flags, words):
    with pytest.raises(ValueError, match=words):
        check(make_csv(tmp_path, images=False), tmp_path / "run", *flags)


def test_a_file_of_other_patients_is_told_with_ids_of_both(tmp_path):
    data = make_chexpert(tmp_path / "data", images=False)
    file = label(tmp_path / "g.csv", "Study", ["CheXpert-v1.0/test/patient64741/study1"], Edema="1")
    with pytest.raises(ValueError) as caught:
        check(data / "train.csv", tmp_path / "run", "--expert-labels", file)
    message = str(caught.value)
    assert "g.csv labels no study of" in message and "\n" not in message
    assert "'CheXpert-v1.0/test/patient64741/study1'" in message and "'patient00001/study1'" in message
    assert not (tmp_path / "run").exists()
