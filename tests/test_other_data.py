"""Stages 1 to 3 on small trees of the other data sets, and what a tired user would type."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

import check_split
import eda_labels
import ensemble_threshold_search
import train_resnet
from src.artifacts import read_manifest
from tests.trees import make_csv, make_mimic, make_nih, set_cell

ROOT = Path(__file__).resolve().parent.parent
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


def run_script(*argv):
    return subprocess.run([sys.executable, *map(str, argv)], cwd=ROOT, capture_output=True, text=True)


def test_mistakes_are_one_line_exit_2_and_leave_nothing(tmp_path):
    data, run = make_csv(tmp_path / "data", patients=30), tmp_path / "run"

    def refused(*argv, says):
        done = run_script(*argv)
        assert done.returncode == 2, (argv, done.stdout, done.stderr)
        assert done.stderr.startswith(f"{argv[0]}: error: ") and done.stderr.count("\n") == 1, done.stderr
        assert says in done.stderr
        assert not list(tmp_path.rglob("*.tmp*"))

    refused("check_split.py", "--data", tmp_path / "gone", "--run-dir", run, says="gone does not exist")
    refused("check_split.py", "--data", data, "--classes", "Edema", "--run-dir", run, says="no class column 'Edema'")
    set_cell(data, line=5, column="Nodule", value="yes")
    refused("check_split.py", "--data", data, "--run-dir", run, says="line 5, column 'Nodule': 'yes'")
    set_cell(data, line=5, column="Nodule", value="2")
    refused("check_split.py", "--data", data, "--run-dir", run, says="'2' is not a label")
    set_cell(data, line=5, column="Nodule", value="1")
    set_cell(data, line=5, column="path", value="png/0_0.png")
    refused("check_split.py", "--data", data, "--run-dir", run, says="'png/0_0.png' stands on lines 2 and 5")
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
        ("id,A\nx,0.5\ny,0.4\n", "id,A\nx,1\n", "image id 'y' is not expected"),
        ("id,B\nx,0.5\n", "id,A\nx,1\n", "class 'B' is missing"),
    ],
)
def test_outside_probabilities_that_do_not_match_are_refused(tmp_path, probs, truth, says):
    (tmp_path / "p.csv").write_text(probs)
    (tmp_path / "t.csv").write_text(truth)
    flags = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv")]
    with pytest.raises(ValueError, match=says):
        ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_outside_probabilities_give_thresholds_and_a_precision_elsewhere(tmp_path, capsys):
    rows = [(f"patient{i}/study1", i % 2, 0.9 - 0.01 * (i % 7) if i % 2 else 0.01 * i) for i in range(80)]
    (tmp_path / "p.csv").write_text("Study,A\n" + "".join(f"{name},{prob}\n" for name, _, prob in rows))
    (tmp_path / "t.csv").write_text("Study,A,Other\n" + "".join(f"{name},{label},0\n" for name, label, _ in rows))
    flags = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv"), "--resamples", "20"]
    ensemble_threshold_search.main([*flags, "--run-dir", str(tmp_path / "run"), "--prevalence", "A=0.05"])
    out = capsys.readouterr().out
    assert "ignored: Other" in out and "precision at the stated prevalence" in out
    table = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv")
    assert table["class"].tolist() == ["A"] and table["status"].tolist() == ["ok"]
    assert table["test_recall"].isna().all()
