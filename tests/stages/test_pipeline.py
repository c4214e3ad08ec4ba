"""Every stage in its order, through the scripts, on a small demo data set."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

import check_split
import eda_labels
import ensemble_alpha_search
import ensemble_threshold_search
import make_demo_data
import test_efficientnet
import test_resnet
import train_efficientnet
import train_resnet
from src.artifacts.manifest import read_manifest
from src.stats.calibration import correct_probs
from tests.trees import ROOT, copy_run

WHOLE_NETWORKS = True

SMALL = ["--weights", "none", "--image-size", "32", "--epochs", "1", "--workers", "0", "--lr", "1e-3"]
FAST = ["--resamples", "50", "--workers", "0"]
COLUMNS = (
    "class,threshold,val_precision,val_recall,val_recall_lower,val_positives,test_precision,test_recall,"
    "test_recall_low,test_recall_high,test_verdict,auprc,status,empirical_threshold,empirical_test_precision,empirical_test_recall"
)


@pytest.fixture(scope="module")
def run_dir(once, drawn):
    """A run folder that has gone through stages 0 to 6, with its pictures."""
    with drawn():
        return once("pipeline", run_stages) / "run"


def run_stages(root, patients=60):
    common = ["--run-dir", str(root / "run")]
    make_demo_data.main(["--out", str(root / "demo"), "--patients", str(patients)])
    check_split.main(["--data", str(root / "demo"), "--val-fraction", "0.3", *common])
    eda_labels.main(common)
    train_resnet.main([*common, *SMALL, "--unfreeze-from", "layer4"])
    train_efficientnet.main([*common, *SMALL, "--unfreeze-last-n-blocks", "2"])
    test_resnet.main([*common, *FAST])
    test_efficientnet.main([*common, *FAST])
    ensemble_alpha_search.main([*common, "--resamples", "50"])
    ensemble_threshold_search.main([*common, "--resamples", "50", "--recall", "0.85", "0.90"])


@pytest.fixture
def copied(run_dir, tmp_path):
    """A copy of the run that a test may spoil, and its flags."""
    return copy_run(run_dir, tmp_path / "run"), ["--run-dir", str(tmp_path / "run")]


def labels_of(run, split):
    """Labels by study: positive if that of any image is, else uncertain, else negative, else blank."""
    manifest = pd.read_csv(run / "manifest.csv").query("split == @split")
    labels = manifest[json.loads((run / "manifest.json").read_text())["classes"]]
    ranks = labels.replace({1: 3, -1: 2, 0: 1}).fillna(0).groupby(manifest["study_id"]).max()
    return ranks.replace({3: 1, 2: -1, 1: 0, 0: np.nan})


def probs_of(run, folder, split):
    """The highest probability of each study."""
    studies = pd.read_csv(run / "manifest.csv").set_index("image_id")["study_id"]
    probs = pd.read_csv(run / folder / f"probs_{split}.csv", index_col="image_id")
    return probs.groupby(studies.reindex(probs.index)).max()


def test_every_stage_leaves_its_files(run_dir):
    model = "config.json best.pt last.pt history.csv train_loss.png val_loss.png val_auroc.png val_auprc.png "
    model += "probs_val.csv probs_test.csv probs.json metrics_val.json metrics_test.json reliability_test.png "
    model += "training_features.npz"
    ensemble = "alpha_search.csv alpha_search.png alpha.json probs_val.csv probs_test.csv metrics_test.json "
    ensemble += "thresholds_recall_0.85.csv thresholds_recall_0.9.csv thresholds.json"
    expected = {"resnet50": model, "efficientnet_b1": model, "ensemble": ensemble}
    expected["."] = "manifest.csv manifest.json context.csv"
    expected["eda"] = "label_states.csv label_states.png prevalence.png cooccurrence.png findings_per_image.png"
    for folder, names in expected.items():
        for name in names.split():
            assert (run_dir / folder / name).stat().st_size > 0, name
    assert not list(run_dir.rglob("*.tmp*"))


@pytest.mark.parametrize("folder", ["resnet50", "efficientnet_b1", "ensemble"])
def test_metrics_are_scikit_learns_on_the_masked_labels(run_dir, folder):
    probs = probs_of(run_dir, folder, "test")
    labels = labels_of(run_dir, "test")
    metrics = json.loads((run_dir / folder / "metrics_test.json").read_text())
    aurocs, auprcs = [], []
    for name in labels:
        y = labels[name][labels[name] >= 0]
        values = metrics["per_class"][name]
        assert (values["positives"], values["negatives"]) == ((y == 1).sum(), (y == 0).sum())
        if y.nunique() == 2:
            aurocs.append(roc_auc_score(y, probs[name][y.index]))
            auprcs.append(average_precision_score(y, probs[name][y.index]))
            assert values["auroc"] == pytest.approx(aurocs[-1], abs=1e-6)
            assert values["auprc"] == pytest.approx(auprcs[-1], abs=1e-6)
        else:
            assert values["auroc"] is None and values["auprc"] is None
    macro = metrics["macro"]
    assert macro["classes"] == len(aurocs)
    assert macro["auroc"] == pytest.approx(np.mean(aurocs), abs=1e-6)
    assert macro["auprc"] == pytest.approx(np.mean(auprcs), abs=1e-6)
    assert macro["auroc_ci"][0] <= macro["auroc"] <= macro["auroc_ci"][1]


def test_the_view_with_blank_as_negative_stands_beside_the_masked_one(run_dir):
    labels = labels_of(run_dir, "val")
    metrics = json.loads((run_dir / "resnet50" / "metrics_val.json").read_text())
    for name in labels:
        negatives = (labels[name] == 0).sum()
        assert metrics["per_class"][name]["negatives"] == negatives
        blanks = labels[name].isna().sum()
        assert blanks > 0
        assert metrics["blank_as_negative"]["per_class"][name]["negatives"] == negatives + blanks


def test_without_calibration_probabilities_are_the_raw_sigmoid_and_no_rank_moves(copied, capsys):
    run, flags = copied
    corrected = pd.read_csv(run / "resnet50" / "probs_val.csv", index_col="image_id")
    before = json.loads((run / "resnet50" / "metrics_val.json").read_text())
    test_resnet.main([*flags, *FAST, "--calibration-method", "none", "--overwrite"])
    assert "test: calibration of the raw sigmoid, and with the prior correction." in capsys.readouterr().out
    raw = pd.read_csv(run / "resnet50" / "probs_val.csv", index_col="image_id")
    after = json.loads((run / "resnet50" / "metrics_val.json").read_text())
    weights = torch.load(run / "resnet50" / "best.pt", weights_only=True)["pos_weight"]
    np.testing.assert_allclose(raw, correct_probs(corrected, pos_weight=1 / np.array(weights)), rtol=0, atol=1e-6)
    assert (raw - corrected).abs().to_numpy().max() > 1e-3
    assert after["macro"]["auroc"] == pytest.approx(before["macro"]["auroc"], abs=1e-6)
    match = "--calibration-method was none for resnet50 and prior for efficientnet_b1; run both test scripts with the"
    with pytest.raises(ValueError, match=match):
        ensemble_alpha_search.main([*flags, "--overwrite"])


def test_the_thresholds_table_is_what_the_probabilities_say(run_dir):
    path = run_dir / "ensemble" / "thresholds_recall_0.85.csv"
    assert path.read_text().splitlines()[0] == COLUMNS
    table = pd.read_csv(path).set_index("class")
    for split in ("val", "test"):
        probs = probs_of(run_dir, "ensemble", split)
        labels = labels_of(run_dir, split)
        for name, row in table.iterrows():
            y = labels[name][labels[name] >= 0]
            for column, threshold in (("empirical_", row["empirical_threshold"]), ("", row["threshold"])):
                flagged = probs[name][y.index] >= threshold
                recall = flagged[y == 1].mean() if (y == 1).any() else np.nan
                if split == "val" and column == "empirical_" and (y == 1).any():
                    assert recall >= 0.85
                if split == "test":
                    np.testing.assert_allclose(row[f"{column}test_recall"], recall, atol=1e-12)
    infeasible = table[table["status"] == "infeasible"]
    assert (infeasible["threshold"] == 0).all() and (infeasible["val_positives"] < 40).all()
    assert (table.loc[table["status"] == "ok", "val_recall_lower"] >= 0.85).all()


def test_the_blend_is_the_chosen_alpha_of_both_models(run_dir):
    alpha = json.loads((run_dir / "ensemble" / "alpha.json").read_text())["alpha"]
    parts = [pd.read_csv(run_dir / m / "probs_test.csv", index_col="image_id") for m in ("resnet50", "efficientnet_b1")]
    blend = pd.read_csv(run_dir / "ensemble" / "probs_test.csv", index_col="image_id")
    pd.testing.assert_frame_equal(blend, alpha * parts[0] + (1 - alpha) * parts[1], atol=1e-8)
    table = pd.read_csv(run_dir / "ensemble" / "alpha_search.csv")
    assert table["alpha"].tolist() == pytest.approx(np.arange(11) / 10)


def test_a_missing_image_is_named_and_nothing_is_left_half_written(copied, tmp_path):
    run, flags = copied
    meta = json.loads((run / "manifest.json").read_text())
    there = shutil.copytree(meta["image_root"], tmp_path / "images")
    missing = there / read_manifest(run).part("val").table["image_id"].iloc[0]
    missing.unlink()
    meta["image_root"] = str(there)
    (run / "manifest.json").write_text(json.dumps(meta))
    done = subprocess.run(
        [sys.executable, "test_resnet.py", *flags, "--overwrite", "--workers", "1"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert (
        done.stderr.strip().splitlines()[-1].startswith(f"test_resnet.py: error: image {missing} does not exist; run")
    )
    assert "Traceback" not in done.stderr
    for name in read_manifest(run).part("train").table["image_id"]:
        (there / name).unlink()
    with pytest.raises(ValueError, match="has neither .* nor any other image of the split; is its drive mounted"):
        test_resnet.main([*flags, "--overwrite", "--workers", "0"])
    assert (run / "resnet50" / "probs_test.csv").exists() and (run / "resnet50" / "probs.json").exists()
    assert not list(run.rglob("*.tmp*"))
