"""Every stage in its order, through the scripts, on a small demo data set."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
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
import tuning_log
from src.stats.calibration import correct_probs
from tests.trees import ROOT, copy_run, make_chexpert

DRAW = Figure.savefig  # before the fixture `small_pictures`
SMALL = ["--weights", "none", "--image-size", "32", "--epochs", "1", "--workers", "0", "--lr", "1e-3"]
FAST = ["--resamples", "50", "--workers", "0"]
COLUMNS = (
    "class,threshold,val_precision,val_recall,val_recall_lower,val_positives,test_precision,test_recall,"
    "test_recall_low,test_recall_high,test_verdict,auprc,status,empirical_threshold,empirical_test_precision,empirical_test_recall"
)


@pytest.fixture(scope="module")
def run_dir(once):
    """A run folder that has gone through stages 0 to 6, with its pictures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", DRAW)
        return once("pipeline", run_stages) / "run"


def run_stages(root):
    common = ["--run-dir", str(root / "run")]
    make_demo_data.main(["--out", str(root / "demo"), "--patients", "60"])
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


def test_a_blend_that_is_refused_leaves_the_earlier_one(copied):
    run, flags = copied
    before = {path.name: path.read_bytes() for path in (run / "ensemble").iterdir()}
    with pytest.raises(ValueError, match="--select one-se needs resamples"):
        ensemble_alpha_search.main([*flags, "--resamples", "0", "--overwrite"])
    assert {path.name: path.read_bytes() for path in (run / "ensemble").iterdir()} == before


def test_a_blend_of_models_tested_under_other_label_flags_is_refused(copied):
    run, flags = copied
    story = json.loads((run / "resnet50" / "probs.json").read_text())
    (run / "resnet50" / "probs.json").write_text(json.dumps(story | {"missing": ["0"]}))  # as test_resnet.py does
    with pytest.raises(ValueError, match="resnet50 was tested again after it was blended"):
        ensemble_threshold_search.main([*flags, "--overwrite"])


def test_a_training_that_does_not_finish_leaves_no_pictures_of_an_earlier_one(copied, monkeypatch):
    run, flags = copied
    monkeypatch.setattr("src.stages.train._finish", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "fc", "--overwrite"])
    assert (run / "resnet50" / "history.csv").exists() and not list((run / "resnet50").glob("train_*.png"))


def test_the_earlier_model_stays_until_the_first_epoch_of_the_next_is_done(copied, monkeypatch):
    run, flags = copied
    folder = run / "resnet50"
    before = {path.name: path.read_bytes() for path in folder.glob("*.*")}
    with monkeypatch.context() as broken:
        broken.setattr("src.stages.train.fit", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train_resnet.main([*flags, *SMALL, "--seed", "1", "--overwrite"])
    assert {
        path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file() and path.name in before
    } == before
    ensemble_alpha_search.main([*flags, "--resamples", "0", "--select", "best", "--overwrite"])
    train_resnet.main([*flags, *SMALL, "--seed", "1", "--unfreeze-from", "fc", "--overwrite"])
    assert json.loads((folder / "config.json").read_text())["seed"] == 1
    assert (folder / "best.pt").read_bytes() != before["best.pt"]
    assert not (folder / ".begun").exists() and not (folder / "probs.json").exists()
    with pytest.raises(ValueError, match="--resume continues the training that --overwrite would replace"):
        train_resnet.main([*flags, *SMALL, "--resume", "--overwrite"])


def test_a_training_stopped_in_its_first_epoch_is_resumed_beside_the_earlier_model(copied, monkeypatch):
    run, flags = copied
    folder, more = run / "resnet50", [*SMALL, "--seed", "1", "--unfreeze-from", "fc", "--checkpoint-minutes", "0"]
    before = (folder / "best.pt").read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr("src.stages.train._print_epoch", interrupted)
        broken.setattr("src.stages.train._move", interrupted)  # as a kill before it
        with pytest.raises(KeyboardInterrupt):
            train_resnet.main([*flags, *more, "--overwrite"])
    assert (folder / "best.pt").read_bytes() == before and (folder / ".begun" / "last.pt").exists()
    train_resnet.main([*flags, *more, "--resume", "--epochs", "2"])
    assert (folder / "best.pt").read_bytes() != before and not (folder / ".begun").exists()
    assert pd.read_csv(folder / "history.csv")["epoch"].tolist() == [1, 2]


def interrupted(*args, **kwargs):
    raise KeyboardInterrupt


def test_label_flags_are_recorded_and_inherited(copied, capsys):
    run, flags = copied
    ensemble_alpha_search.main([*flags, "--resamples", "0", "--select", "best", "--missing", "0", "--overwrite"])
    assert "note: --missing is 0 here and was mask in" in capsys.readouterr().out
    ensemble_threshold_search.main([*flags, "--resamples", "0", "--recall", "0.8", "--overwrite"])
    assert "--missing 0, as recorded in" in capsys.readouterr().out
    assert json.loads((run / "ensemble" / "thresholds.json").read_text())["missing"] == ["0"]


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


def test_a_stage_does_not_replace_what_is_there_unasked(copied):
    run, flags = copied
    before = {path: path.stat().st_mtime_ns for path in run.rglob("[!.]*") if path.is_file()}
    for script in (eda_labels, train_resnet, test_resnet, ensemble_alpha_search, ensemble_threshold_search):
        with pytest.raises(ValueError, match="already exists; pass --overwrite"):
            script.main(flags)
    assert before == {path: path.stat().st_mtime_ns for path in run.rglob("[!.]*") if path.is_file()}


def test_a_run_of_another_data_set_is_refused_by_every_later_stage(copied, tmp_path):
    run, flags = copied
    data = make_chexpert(tmp_path / "other", images=False)
    check_split.main(["--data", str(data), "--images", "skip", "--val-fraction", "0.3", *flags, "--overwrite"])
    for script, message in (
        (test_resnet, "a different manifest"),
        (ensemble_alpha_search, "a different manifest"),
        (ensemble_threshold_search, "a different manifest"),
    ):
        with pytest.raises(ValueError, match=message):
            script.main([*flags, "--overwrite"])
    with pytest.raises(ValueError, match="--resume: the manifest has changed"):
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume"])


def test_resume_goes_on_and_refuses_a_changed_flag_that_matters(copied, capsys):
    run, flags = copied
    with pytest.raises(ValueError, match=r"--resume: --image-size was 32 and is 64 now"):
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume", "--image-size", "64"])
    bfloat16 = json.loads((run / "resnet50" / "config.json").read_text())["bfloat16"]
    assert isinstance(bfloat16, bool)
    with pytest.raises(ValueError, match=f"--resume: --bfloat16 was {bfloat16} and is {not bfloat16} now"):
        other = "--no-bfloat16" if bfloat16 else "--bfloat16"
        train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume", other])
    recorded = json.loads((run / "resnet50" / "config.json").read_text()) | {"bfloat16": not bfloat16}
    (run / "resnet50" / "config.json").write_text(json.dumps(recorded))  # as another machine's default would be
    train_resnet.main([*flags, *SMALL, "--unfreeze-from", "layer4", "--resume", "--epochs", "2"])
    assert json.loads((run / "resnet50" / "config.json").read_text())["bfloat16"] is not bfloat16
    assert "resuming after epoch 1" in capsys.readouterr().out
    history = pd.read_csv(run / "resnet50" / "history.csv")
    assert history["epoch"].tolist() == [1, 2]


def test_a_mistyped_flag_does_not_cost_the_trained_model(copied):
    run, flags = copied
    before = (run / "resnet50" / "best.pt").read_bytes()
    for mistake in (["--uncertain", "Edma=1"], ["--device", "nonsense"], ["--weights", str(run / "gone.pth")]):
        with pytest.raises(ValueError):
            train_resnet.main([*flags, *SMALL, "--overwrite", *mistake])
    (run / "resnet50" / "last.pt").unlink()
    with pytest.raises(ValueError, match="already exists; pass --overwrite"):
        train_resnet.main([*flags, *SMALL, "--resume"])
    assert (run / "resnet50" / "best.pt").read_bytes() == before


@pytest.mark.parametrize("damage", ["empty", "truncated", "the other model's"])
def test_a_damaged_or_foreign_checkpoint_is_one_clear_line(copied, damage):
    run, flags = copied
    path = run / "resnet50" / "best.pt"
    data = {"empty": b"", "truncated": path.read_bytes()[:5000]}
    path.unlink()
    path.write_bytes(data.get(damage, (run / "efficientnet_b1" / "best.pt").read_bytes()))
    with pytest.raises(ValueError, match=r"best.pt is (corrupt|a checkpoint of efficientnet_b1; expected resnet50)"):
        test_resnet.main([*flags, *FAST, "--overwrite"])
    assert (run / "resnet50" / "probs_val.csv").exists()


def test_probabilities_older_than_the_model_or_the_blend_are_refused(copied):
    run, flags = copied
    test_resnet.main([*flags, *FAST, "--overwrite"])
    ensemble_threshold_search.main([*flags, "--resamples", "0", "--overwrite"])  # the same probabilities: fine
    train_resnet.main([*flags, *SMALL, "--unfreeze-from", "fc", "--overwrite"])
    with pytest.raises(ValueError, match=r"probs.json does not exist; run test_resnet\.py first"):
        ensemble_alpha_search.main([*flags, "--overwrite"])
    with pytest.raises(ValueError, match="resnet50 was trained again after it was blended"):
        ensemble_threshold_search.main([*flags, "--overwrite"])
    test_resnet.main([*flags, *FAST, "--overwrite"])
    with pytest.raises(ValueError, match="resnet50 was tested again after it was blended"):
        ensemble_threshold_search.main([*flags, "--overwrite"])
    ensemble_alpha_search.main([*flags, "--resamples", "20", "--overwrite"])
    path = run / "ensemble" / "probs_test.csv"
    path.write_text(path.read_text().replace("0.", "0.0", 1))
    with pytest.raises(ValueError, match="probs_test.csv does not match probs.json"):
        ensemble_threshold_search.main([*flags, "--overwrite"])


def test_another_choice_leaves_nothing_of_the_one_before(copied):
    run, flags = copied
    with pytest.raises(ValueError, match="--recall 1 cannot be promised"):
        ensemble_threshold_search.main([*flags, "--recall", "0.85", "1", "--overwrite"])
    assert (run / "ensemble" / "thresholds_recall_0.9.csv").exists()
    ensemble_threshold_search.main([*flags, "--recall", "0.8", "--resamples", "0", "--no-pictures", "--overwrite"])
    left = sorted(path.name for path in (run / "ensemble").glob("*recall*"))
    assert left == ["thresholds_recall_0.8.csv"]


def test_a_missing_image_is_named_and_nothing_is_left_half_written(copied, tmp_path):
    run, flags = copied
    meta = json.loads((run / "manifest.json").read_text())
    meta["image_root"] = str(tmp_path / "gone")
    (run / "manifest.json").write_text(json.dumps(meta))
    done = subprocess.run(
        [sys.executable, "test_resnet.py", *flags, "--overwrite", "--workers", "1"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("test_resnet.py: error: image ")
    assert "Traceback" not in done.stderr and "does not exist" in done.stderr
    assert (run / "resnet50" / "probs_test.csv").exists() and (run / "resnet50" / "probs.json").exists()
    assert not list(run.rglob("*.tmp*"))


def test_the_tuning_log_says_what_changed(run_dir, copied, capsys):
    run, flags = copied
    train_resnet.main([*flags, *SMALL, "--unfreeze-from", "fc", "--overwrite"])
    capsys.readouterr()
    tuning_log.main([str(run_dir), str(run)])
    lines = capsys.readouterr().out.splitlines()
    assert sum("unfreeze_from=layer4 -> fc" in line for line in lines) == 1
    assert any("efficientnet_b1" in line and "nothing" in line for line in lines)
    best = pd.read_csv(run_dir / "resnet50" / "history.csv").max()
    assert any(f"{best['val_auroc']:.4f} |         {best['val_auprc']:.4f}" in line for line in lines)
    with pytest.raises(ValueError, match="holds no trained model"):
        tuning_log.main([str(run / "eda")])
