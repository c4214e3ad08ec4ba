"""Stages 1 to 3 on small trees of the other data sets, and what a tired user would type."""

import json
import runpy
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import check_split
import eda_labels
import ensemble_alpha_search
import ensemble_threshold_search
import test_resnet
import train_resnet
from src.artifacts.io import read_json, write_json
from src.artifacts.manifest import read_manifest
from src.report.source import read_search, read_splits
from tests.trees import (
    ROOT,
    make_brax,
    make_chexpert_plus,
    make_csv,
    make_mimic,
    make_nih,
    make_padchest,
    make_vinbigdata,
    make_vindr,
    set_cell,
)

TINY = ["--weights", "none", "--image-size", "32", "--epochs", "1", "--workers", "0", "--unfreeze-from", "fc"]


@pytest.mark.parametrize(
    ("make", "splits"),
    [
        (lambda root: make_mimic(root, patients=12), "published"),
        (lambda root: make_nih(root, patients=12, folders=("images_001/images", "images_002/images")), "published"),
        (lambda root: make_csv(root, patients=30), "by patient"),
    ],
    ids=["mimic", "nih", "csv"],
)
def test_stages_1_to_3(tmp_path, make, splits, capsys):
    data, flags = make(tmp_path / "data"), ["--run-dir", str(tmp_path / "run")]
    status = check_split.main(["--data", str(data), "--val-fraction", "0.3", *flags])
    out = capsys.readouterr().out
    assert ("FAILED" in out) == bool(status) and f"split {splits}" in out
    manifest = read_manifest(tmp_path / "run")
    assert set(manifest.table["split"]) == {"train", "val", "test"}
    assert manifest.table.groupby("patient_id")["split"].nunique().max() == 1
    eda_labels.main(flags)
    train_resnet.main([*flags, *TINY])
    assert len(pd.read_csv(tmp_path / "run" / "resnet50" / "history.csv")) == 1
    assert (tmp_path / "run" / "resnet50" / "best.pt").exists()


@pytest.mark.parametrize(
    ("make", "splits"),
    [
        (lambda root: make_chexpert_plus(root, patients=20, valid_patients=20), "published"),
        (lambda root: make_padchest(root, patients=20), "by patient"),
        (lambda root: make_brax(root, patients=20), "by patient"),
        (lambda root: make_vindr(root, train=40, test=20), "published"),
        (lambda root: make_vinbigdata(root, train=40), "by patient"),
    ],
    ids=["chexpert-plus", "padchest", "brax", "vindr", "vinbigdata"],
)
def test_stage_1_on_the_data_sets_known_from_descriptions(tmp_path, make, splits, capsys):
    data, run = make(tmp_path / "data"), tmp_path / "run"
    check_split.main(["--data", str(data), "--run-dir", str(run), "--val-fraction", "0.3"])
    out = capsys.readouterr().out
    assert f"split {splits}" in out and "cannot be used" not in out and "in another split" not in out
    manifest = read_manifest(run)
    assert set(manifest.table["split"]) == {"train", "val", "test"} and all(map(Path.is_file, manifest.image_paths()))
    shutil.rmtree(next(path for path in data.iterdir() if path.is_dir() and not list(path.glob("*.[cj]s*"))))
    assert check_split.main(["--data", str(data), "--run-dir", str(run), "--overwrite"]) == 1
    assert "images cannot be used; first: " in capsys.readouterr().out


def test_a_list_that_leaves_images_out_fails_the_published_split_and_costs_a_new_one_nothing(tmp_path, capsys):
    data = make_nih(tmp_path / "nih", patients=12)
    names = (data / "train_val_list.txt").read_text().split()
    (data / "train_val_list.txt").write_text("\n".join(names[2:] + ["99999999_000.png"]))
    flags = ["--data", str(data), "--run-dir", str(tmp_path / "run"), "--val-fraction", "0.3", "--overwrite"]
    assert check_split.main(flags) == 1
    out = capsys.readouterr().out
    assert (
        f"that neither list names: 2 ({names[0]}, {names[1]})" in out and "does not list: 1 (99999999_000.png)" in out
    )
    assert len(read_manifest(tmp_path / "run").table) == 22
    check_split.main([*flags, "--split", "patient"])
    assert "neither list" not in capsys.readouterr().out
    assert len(read_manifest(tmp_path / "run").table) == 24


def test_no_finding_makes_negatives_of_blanks_in_training_and_in_the_metrics(tmp_path, capsys):
    data, run = make_csv(tmp_path / "data", patients=40, classes=("Mass", "Hernia")), tmp_path / "run"
    cells = pd.read_csv(data)
    cells.assign(**{"No Finding": cells["Mass"].isna().astype(int)}).to_csv(data, index=False)
    check_split.main(["--data", str(data), "--run-dir", str(run), "--val-fraction", "0.3"])
    table = read_manifest(run).table.set_index("split")["Mass"]
    train_resnet.main(["--run-dir", str(run), *TINY, "--no-finding", "negative"])
    assert 'blanks of images marked "No Finding" count as negatives' in capsys.readouterr().out
    absent = (table["train"] == 0) | table["train"].isna()
    pos_weight = torch.load(run / "resnet50" / "best.pt", weights_only=True)["pos_weight"]
    assert pos_weight[0] == pytest.approx(absent.sum() / (table["train"] == 1).sum())

    test_resnet.main(["--run-dir", str(run), "--workers", "0", "--resamples", "0", "--unit", "image"])
    assert 'macro over 2 of 2 classes, each blank of a row marked "No Finding" as a negative' in capsys.readouterr().out
    metrics = read_json(run / "resnet50" / "metrics_val.json")
    other = metrics["no_finding_as_negative"]["per_class"]["Mass"]
    assert metrics["per_class"]["Mass"]["negatives"] == (table["val"] == 0).sum()
    assert other["negatives"] == (table["val"] == 0).sum() + table["val"].isna().sum()
    flags = ["--no-finding", "negative", "--overwrite"]
    test_resnet.main(["--run-dir", str(run), "--workers", "0", "--resamples", "0", *flags])
    assert read_json(run / "resnet50" / "probs.json")["no_finding"] == "negative"
    metrics = read_json(run / "resnet50" / "metrics_val.json")
    assert metrics["per_class"]["Mass"] == other

    config = read_json(run / "resnet50" / "config.json")  # of a version that left such blanks out
    del config["no_finding"]
    write_json(run / "resnet50" / "config.json", config)
    with pytest.raises(ValueError, match="--resume: --no-finding was mask and is negative now"):
        train_resnet.main(["--run-dir", str(run), *TINY, "--no-finding", "negative", "--resume"])


def test_a_class_whose_labels_are_all_positive_trains_and_is_undefined(tmp_path, capsys):
    data, run = make_csv(tmp_path / "data", patients=30, classes=("Only",)), tmp_path / "run"
    for line in range(2, 62):
        set_cell(data, line=line, column="Only", value="1")
    assert check_split.main(["--data", str(data), "--run-dir", str(run), "--val-fraction", "0.3"]) == 1
    with pytest.warns(UserWarning, match="label for Only: pos_weight 1"):
        train_resnet.main(["--run-dir", str(run), *TINY, "--epochs", "2"])
    test_resnet.main(["--run-dir", str(run), "--workers", "0", "--resamples", "10"])
    metrics = json.loads((run / "resnet50" / "metrics_test.json").read_text())
    assert metrics["per_class"]["Only"]["auroc"] is None and metrics["macro"]["auprc"] is None
    assert metrics["per_class"]["Only"]["positives"] > 0 and metrics["macro"]["classes"] == 0
    assert "n/a" in capsys.readouterr().out


def test_mistakes_are_one_line_exit_2_and_leave_nothing(tmp_path, monkeypatch, capsys):
    data, run = make_csv(tmp_path / "data", patients=30), tmp_path / "run"
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # put back what a script replaces

    def refused(*argv, says):
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
        err = capsys.readouterr().err
        assert stop.value.code == 2, (argv, err)
        assert err.startswith(f"{argv[0]}: error: ") and err.count("\n") == 1 and says in err, err
        assert not list(tmp_path.rglob("*.tmp*"))

    refused("check_split.py", "--data", tmp_path / "gone", "--run-dir", run, says="gone does not exist")
    refused("check_split.py", "--data", data, "--classes", "Edema", "--run-dir", run, says="no class column 'Edema'")
    set_cell(data, line=5, column="Nodule", value="yes")
    refused("check_split.py", "--data", data, "--run-dir", run, says="line 5, column 'Nodule': 'yes'")
    set_cell(data, line=5, column="Nodule", value="2")
    refused("check_split.py", "--data", data, "--run-dir", run, says="'2' is not a label")
    set_cell(data, line=5, column="Nodule", value="1")
    set_cell(data, line=5, column="path", value="png/0_0.png")
    refused("check_split.py", "--data", data, "--run-dir", run, says="'png/0_0.png' appears on lines 2 and 5")
    assert not run.exists()
    refused("train_resnet.py", "--run-dir", run, says="run check_split.py")


@pytest.mark.parametrize("fault", ["missing", "truncated", "no image"])
def test_an_image_that_cannot_be_used_stops_training_with_its_name(tmp_path, fault):
    data, run = make_csv(tmp_path / "data", patients=30), tmp_path / "run"
    check_split.main(["--data", str(data), "--run-dir", str(run), "--val-fraction", "0.3"])
    name = read_manifest(run).part("train").table["image_id"][0]
    path = tmp_path / "data" / name
    if fault == "missing":
        path.unlink()
    elif fault == "truncated":
        Image.effect_noise((64, 64), 50).save(path)
        path.write_bytes(path.read_bytes()[:-500])
    else:
        path.write_text("text")
    with pytest.raises(ValueError, match=Path(name).name):
        train_resnet.main(["--run-dir", str(run), *TINY])
    assert not (run / "resnet50" / "best.pt").exists()


@pytest.mark.parametrize(
    ("probs", "truth", "says"),
    [
        ("id,A\nx,0.5\ny,0.4\n", "id,A\nx,1\nz,0\n", "image id 'z' is missing"),
        ("id,A\nx,0.5\ny,0.4\n", "id,A\nx,1\n", "image id 'y' is not in the labels"),
        ("id,B\nx,0.5\n", "id,A\nx,1\n", "has no column 'B'; it has A"),
    ],
)
def test_outside_probabilities_that_do_not_match_are_refused(tmp_path, probs, truth, says):
    (tmp_path / "p.csv").write_text(probs)
    (tmp_path / "t.csv").write_text(truth)
    flags = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv")]
    with pytest.raises(ValueError, match=says):
        ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "flags", [["--val-labels", "t.csv"], ["--test-probs", "p.csv"], ["--val-probs", "p.csv", "--test-probs", "p.csv"]]
)
def test_half_named_outside_files_are_refused_not_ignored(tmp_path, flags):
    with pytest.raises(ValueError, match="need --val-probs and --val-labels"):
        ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path)])
    with pytest.raises(ValueError, match="--labels needs --members"):
        ensemble_alpha_search.main(["--labels", "t.csv", "--run-dir", str(tmp_path)])


HALVES = ["--val-fraction", "0.5", "--test-fraction", "0.5", "--images", "skip"]


@pytest.fixture
def outside(tmp_path):
    """A table of labels of 150 patients with a frontal and a lateral image each, and two files of probabilities."""
    rng = np.random.default_rng(0)
    rows = [(f"{n // 2:08d}_{n % 2:03d}.png", n // 2, ("PA", "LL")[n % 2]) for n in range(300)]
    about = pd.DataFrame(rows, columns=["Image Index", "Patient ID", "View Position"])
    labels = pd.DataFrame(rng.integers(0, 2, (300, 2)), columns=["Mass", "Pleural_Effusion"])
    pd.concat([about, labels], axis=1).to_csv(tmp_path / "labels.csv.gz", index=False)
    members = [tmp_path / "a.csv.gz", tmp_path / "b.csv.gz"]
    for member in members:
        probs = (labels[["Pleural_Effusion", "Mass"]] + rng.random((300, 2))) / 2
        probs = probs.set_axis(["prob_Pleural Effusion", "prob_mass"], axis="columns")
        probs.assign(**about[["Image Index"]]).sample(frac=1, random_state=0).to_csv(member, index=False)
    return str(tmp_path / "labels.csv.gz"), *map(str, members)


def test_outside_probabilities_as_they_are_go_from_a_split_by_patient_to_the_report(outside, tmp_path, capsys):
    """Stage 1 splits the labels by patient without train, and stages 5 and 6 take the files' rows of val and test."""
    labels, *members = outside
    run = tmp_path / "run"
    assert check_split.main(["--run-dir", str(run), "--data", labels, *HALVES]) == 0
    out = capsys.readouterr().out
    assert "warning: no image is in train" in out
    assert "path 'Image Index', patient 'Patient ID', view 'View Position'; findings: 2 (Mass, Pleural_Effusion)" in out
    manifest = read_manifest(run)
    assert manifest.splits == ("val", "test") and manifest.table.groupby("patient_id")["split"].nunique().max() == 1
    ensemble_alpha_search.main(["--run-dir", str(run), "--members", *members, "--resamples", "20"])
    assert "\na " in capsys.readouterr().out
    flags = ["--resamples", "0", "--no-pictures", "--recall", "0.85"]
    ensemble_threshold_search.main(["--run-dir", str(run), *flags])
    table = pd.read_csv(run / "ensemble" / "thresholds_recall_0.85.csv")
    assert table["class"].tolist() == ["Mass", "Pleural_Effusion"] and table["test_recall"].notna().all()
    assert read_splits(run, read_search(run))[1].probs.shape == (150, 2)
    with pytest.raises(ValueError, match="--members needs labels: pass --labels, or run check_split.py"):
        ensemble_alpha_search.main(["--run-dir", str(tmp_path / "empty"), "--members", *members])


def test_a_single_member_is_taken_as_it_is_without_the_images_that_stage_1_left_out(outside, tmp_path, capsys):
    labels, member, _ = outside
    flags = ["--run-dir", str(tmp_path / "run")]
    assert check_split.main([*flags, "--data", labels, *HALVES, "--views", "frontal"]) == 0
    capsys.readouterr()
    ensemble_alpha_search.main([*flags, "--members", member, "--resamples", "0"])
    out = capsys.readouterr().out
    assert "150 of 300 ids are not in the manifest" in out
    assert "\na " in out and "ensemble" not in out.split("Model")[1].split("wrote")[0]
    blend = pd.read_csv(tmp_path / "run" / "ensemble" / "probs_test.csv").set_index("image_id")
    own = pd.read_csv(member).set_index("Image Index").loc[blend.index]
    np.testing.assert_allclose(blend["Mass"], own["prob_mass"], rtol=1e-8)


def test_a_threshold_that_flags_everybody_is_said_to(tmp_path, capsys):
    (tmp_path / "p.csv").write_text("id,A\n" + "".join(f"{i},0.5\n" for i in range(60)))
    (tmp_path / "t.csv").write_text("id,A\n" + "".join(f"{i},{i % 2}\n" for i in range(60)))
    flags = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv"), "--resamples", "0"]
    ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "r"), "--no-pictures"])
    assert capsys.readouterr().out.count("ok, flags all") == 4  # two targets, two rules


def test_a_finding_without_labels_on_test_flags_nobody_there(tmp_path, capsys):
    for name, first in (("v", 0), ("t", 100)):
        ids = range(first, first + 100)
        (tmp_path / f"{name}p.csv").write_text("id,A,B\n" + "".join(f"{i},{i % 100 / 100},0.5\n" for i in ids))
        labels = [(int(i % 100 > 50) if name == "v" else "", i % 2) for i in ids]
        rows = [f"{i},{a},{b}\n" for i, (a, b) in zip(ids, labels, strict=True)]
        (tmp_path / f"{name}l.csv").write_text("id,A,B\n" + "".join(rows))
    files = [f"--{split}-{kind}" for split in ("val", "test") for kind in ("probs", "labels")]
    paths = [str(tmp_path / f"{name}{kind}.csv") for name in "vt" for kind in "pl"]
    flags = [word for pair in zip(files, paths, strict=True) for word in pair]
    ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "r"), "--no-pictures", "--resamples", "0"])
    out = capsys.readouterr().out
    assert out.count("ok, flags all") == 4 and out.count("n/a | ok\n") == 4  # B and A: two targets, two rules


def test_a_test_on_the_patients_of_validation_is_refused(tmp_path):
    (tmp_path / "p.csv").write_text("id,A\n" + "".join(f"{i},0.{i}\n" for i in range(1, 9)))
    (tmp_path / "t.csv").write_text("id,A\n" + "".join(f"{i},{i % 2}\n" for i in range(1, 9)))
    p, t = str(tmp_path / "p.csv"), str(tmp_path / "t.csv")
    flags = ["--val-probs", p, "--val-labels", t, "--test-probs", p, "--test-labels", t]
    with pytest.raises(ValueError, match="--val-labels and --test-labels share 8 patients"):
        ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "r")])


def test_members_named_like_the_rows_of_the_table_keep_their_rows(tmp_path, capsys):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    for name in ("ensemble", "other"):
        probs = (labels + rng.random(60)) / 2
        (tmp_path / f"{name}.csv").write_text("id,A\n" + "".join(f"{i},{p}\n" for i, p in enumerate(probs)))
    (tmp_path / "t.csv").write_text("id,A\n" + "".join(f"{i},{y}\n" for i, y in enumerate(labels)))
    members = [str(tmp_path / "ensemble.csv"), str(tmp_path / "other.csv")]
    flags = ["--labels", str(tmp_path / "t.csv"), "--run-dir", str(tmp_path / "r"), "--resamples", "20"]
    ensemble_alpha_search.main(["--members", *members, *flags])
    out = capsys.readouterr().out
    assert all(f"\n{name} " in out for name in (*members, "ensemble", "plain mean"))
    with pytest.raises(ValueError, match="names a file twice"):
        ensemble_alpha_search.main(["--members", members[0], members[0], *flags, "--overwrite"])
    with pytest.raises(ValueError, match="too few resamples"):
        ensemble_alpha_search.main(["--members", *members, *flags, "--overwrite", "--resamples", "1"])


def test_outside_probabilities_give_thresholds_and_a_precision_elsewhere(tmp_path, capsys):
    rows = [(f"patient{i}/study1", i % 2, 0.9 - 0.01 * (i % 7) if i % 2 else 0.01 * i) for i in range(80)]
    (tmp_path / "p.csv").write_text("Study,A\n" + "".join(f"{name},{prob}\n" for name, _, prob in rows))
    (tmp_path / "t.csv").write_text("Study,A,Other\n" + "".join(f"{name},{label},0\n" for name, label, _ in rows))
    flags = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv"), "--resamples", "20"]
    ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "run"), "--prevalence", "A=0.05"])
    out = capsys.readouterr().out
    assert "not used: Other" in out and "precision at the stated prevalence" in out
    table = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv")
    assert table["class"].tolist() == ["A"] and table["status"].tolist() == ["ok"]
    assert table["test_recall"].isna().all()


def test_thresholds_do_not_depend_on_the_order_of_rows_and_columns_or_on_names(tmp_path):
    rng = np.random.default_rng(1)
    labels = pd.DataFrame(rng.integers(0, 2, (200, 2)), columns=["A", "B"])
    probs = ((labels + 2 * rng.random((200, 2))) / 3).rename_axis("id")
    labels.insert(0, "patient_id", rng.integers(0, 150, 200))

    def chosen(name, probs, labels):
        probs.to_csv(tmp_path / f"{name}_p.csv")
        labels.rename_axis("id").to_csv(tmp_path / f"{name}_t.csv")
        flags = ["--val-probs", str(tmp_path / f"{name}_p.csv"), "--val-labels", str(tmp_path / f"{name}_t.csv")]
        ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / name), "--resamples", "0", "--no-pictures"])
        table = pd.read_csv(tmp_path / name / "ensemble" / "thresholds_recall_0.85.csv").set_index("class")
        return table[["threshold", "val_precision", "val_recall", "val_recall_lower", "empirical_threshold"]]

    plain = chosen("plain", probs, labels)
    shuffled = chosen(
        "shuffled", probs.sample(frac=1, random_state=0)[["B", "A"]], labels.sample(frac=1, random_state=1)
    )
    names = {"A": "Z", "B": "Y"}
    renamed = chosen("renamed", probs.rename(columns=names), labels.rename(columns=names))
    pd.testing.assert_frame_equal(shuffled.loc[["A", "B"]], plain)
    pd.testing.assert_frame_equal(renamed.rename(index={"Z": "A", "Y": "B"}), plain)
