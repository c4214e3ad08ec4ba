"""What the report's explorer holds, against what stage 6 says."""

import dataclasses
import json
import shutil
import urllib.request

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import report
from src.artifacts.io import MODELS
from src.artifacts.probs import EvalLabels, EvalSplit, Truth
from src.artifacts.thresholds_file import read_thresholds
from src.config import ThresholdConfig
from src.labels.policy import LabelPolicy
from src.report.explorer import CONFIDENCES, RECALLS, explore, thin_curve
from src.report.render import embed_json
from src.report.source import Search, read_search, read_splits
from src.stats.calibration import masked_calibration
from tests.page_runs import CLASSES, make_run, page_data, search, write_model, write_split

DEFAULTS = dataclasses.asdict(ThresholdConfig())


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("page") / "run")


@pytest.fixture(scope="module")
def page(run_dir, tmp_path_factory):
    """What the report of the run holds."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.main(["--run-dir", str(run_dir), "--out", str(path)])
    return page_data(path)


@pytest.fixture
def copied(run_dir, tmp_path):
    """A copy of the run that a test may spoil."""
    return shutil.copytree(run_dir, tmp_path / "run")


def explored(run):
    found = read_search(run, defaults=DEFAULTS)
    return explore(*read_splits(run, found), search=found)


def rows_of(page, *, recall, confidence):
    """A choice per class, as thresholds_recall_*.csv has it."""
    r, k = page["recalls"].index(recall), page["confidences"].index(confidence)
    for finding in page["classes"]:
        at, lower, needed = finding["choices"][finding["chosen"][k][r]]
        val, eval_split = finding["val"], finding["eval_split"]
        with np.errstate(invalid="ignore", divide="ignore"):
            yield {
                "class": finding["name"],
                "threshold": finding["thresholds"][at],
                "val_precision": np.divide(val["tp"][at], val["tp"][at] + val["fp"][at]),
                "val_recall": np.divide(val["tp"][at], val["positives"]),
                "val_recall_lower": np.nan if lower is None else lower,
                "val_positives": val["positives"],
                "test_precision": np.divide(eval_split["tp"][at], eval_split["tp"][at] + eval_split["fp"][at]),
                "test_recall": np.divide(eval_split["tp"][at], eval_split["positives"]),
                "auprc": finding["auprc"],
                "status": "infeasible" if needed else "ok",
            }


@pytest.mark.parametrize(
    ("recall", "confidence", "more"),
    [("0.85", 0.95, ()), ("0.9", 0.95, ()), ("0.7", 0.8, ()), ("0.99", 0.0, ()), ("0.875", 0.99, ("--family-wise",)),
     ("0.8", 0.9, ("--grid", "0.01"))],
)  # fmt: skip
def test_the_page_says_of_any_target_what_stage_6_says(copied, recall, confidence, more):
    search(copied, "--recall", "0.6", "--confidence", "0.97", *more)
    page = explored(copied)
    rule = ("--confidence", str(confidence)) if confidence else ("--rule", "empirical")
    search(copied, "--recall", recall, *rule, *more)
    path = copied / "ensemble" / f"thresholds_recall_{recall}.csv"
    theirs = pd.read_csv(path)
    ours = pd.DataFrame(rows_of(page, recall=recall, confidence=confidence))
    pd.testing.assert_frame_equal(ours, theirs[list(ours)], rtol=1e-13)


def test_the_demo_run_has_feasible_and_infeasible_findings(run_dir):
    status = {row["class"]: row["status"] for row in rows_of(explored(run_dir), recall="0.85", confidence=0.95)}
    assert status == {"Edema": "ok", "Rare": "infeasible", "Common": "ok", "Never": "infeasible"}


def test_the_grid_holds_the_recorded_targets_and_recall_1_only_without_a_confidence(copied):
    search(copied, "--recall", "0.333", "1", "--rule", "empirical")
    page = explored(copied)
    assert page["confidences"][page["start"]["confidence"]] == 0
    assert page["recalls"][0] == "0.333" and page["recalls"][-1] == "1"
    assert [page["recalls"][r] for r in page["start"]["recalls"]] == ["0.333", "1"]
    chosen = page["classes"][0]["chosen"]
    assert chosen[0][-1] >= 0 and all(row[-1] == -1 for row in chosen[1:])
    assert page["any"][0][-1] is not None and page["any"][1][-1] is None


def test_a_thinned_curve_keeps_the_ends_and_the_extremes_of_every_bin():
    rng = np.random.default_rng(0)
    recall, precision = np.sort(rng.random(50_000)), rng.random(50_000)
    x, y = thin_curve(recall, precision, bins=20)
    assert len(x) <= 80 and (x[0], x[-1]) == (recall[0], recall[-1]) and (np.diff(x) >= 0).all()
    for low in np.arange(20) / 20:
        there, kept = (recall >= low) & (recall < low + 0.05), (x >= low) & (x < low + 0.05)
        assert (y[kept].min(), y[kept].max()) == (precision[there].min(), precision[there].max())
    assert len(thin_curve(np.full(3, np.nan), np.zeros(3), bins=20)[0]) == 0


def test_outside_probabilities_make_a_page_without_a_manifest(run_dir, tmp_path, capsys):
    labels = pd.read_csv(run_dir / "manifest.csv")
    for split in ("val", "test"):
        part = labels[labels["split"] == split].drop(columns=["view", "split"])
        part.to_csv(tmp_path / f"labels_{split}.csv", index=False)
    files = []
    for split in ("val", "test"):
        files += [f"--{split}-probs={run_dir / 'ensemble' / f'probs_{split}.csv'}"]
        files += [f"--{split}-labels={tmp_path / f'labels_{split}.csv'}"]
    for flags, eval_split in ((files[:2], "val"), (files, "test")):
        search(tmp_path / "out", "--recall", "0.85", *flags)
        report.main(["--run-dir", str(tmp_path / "out"), "--overwrite"])
        page = page_data(tmp_path / "out" / "report.html")
        assert page["explorer"]["eval_split"] == eval_split
        parts = (page["data"], page["labels"], page["alpha"], *page["histories"].values(), *page["metrics"])
        for part in (*parts, *page["reliability"][1:]):
            assert ".py" in part["absent"]
        assert f"The ensemble on {eval_split}" in page["reliability"][0]["caption"]
    run = explored(run_dir)["classes"]
    assert [c["eval_split"]["tp"] for c in page["explorer"]["classes"]] == [c["eval_split"]["tp"].tolist() for c in run]
    (tmp_path / "labels_val.csv").write_text((tmp_path / "labels_val.csv").read_text() + "\n")
    with pytest.raises(ValueError, match="labels_val.csv has changed since ensemble_threshold_search.py read it"):
        report.main(["--run-dir", str(tmp_path / "out"), "--overwrite"])


def test_what_a_stage_did_not_leave_is_said_with_the_stage(page, copied):
    assert "absent" not in json.dumps(page)
    shutil.rmtree(copied / "eda")
    (copied / "efficientnet_b1" / "history.csv").unlink()
    (copied / "ensemble" / "metrics_test.json").unlink()
    report.main(["--run-dir", str(copied)])
    page = page_data(copied / "report.html")
    assert "eda_labels.py" in page["labels"]["absent"]
    assert "train_efficientnet.py" in page["histories"]["efficientnet_b1"]["absent"]
    assert "ensemble_alpha_search.py" in page["metrics"][-1]["absent"]
    assert "train_resnet.py" not in json.dumps(page)


def test_a_run_whose_models_were_removed_is_still_shown(copied):
    for name in ("resnet50", "efficientnet_b1"):
        shutil.rmtree(copied / name)
    (copied / "ensemble" / "alpha_search.csv").unlink()
    report.main(["--run-dir", str(copied)])
    page = page_data(copied / "report.html")
    assert "train_resnet.py" in page["histories"]["resnet50"]["absent"]
    assert "test_efficientnet.py" in json.dumps(page["metrics"])
    assert "ensemble" in page["reliability"][0]["alt"] and "test_resnet.py" in page["reliability"][1]["absent"]
    assert "ensemble_alpha_search.py" in page["alpha"]["picture"]["absent"]


def pictures_of(page):
    """The parts of a page that hold a picture of the run folder, with its path there and the script that draws it."""
    yield "eda/label_states.png", "eda_labels.py", page["labels"][0]
    yield "eda/prevalence.png", "eda_labels.py", page["labels"][1]
    yield "ensemble/alpha_search.png", "ensemble_alpha_search.py", page["alpha"]["picture"]
    for (model, short), reliability in zip(MODELS.items(), page["reliability"][1:], strict=True):
        yield f"{model}/reliability_test.png", f"test_{short}.py", reliability
        curves = page["histories"][model]["pictures"]
        for name, part in zip(("train_loss", "val_loss", "val_auprc"), curves, strict=True):
            yield f"{model}/{name}.png", f"train_{short}.py", part


def test_the_pictures_are_those_of_the_run_or_are_said_to_be_missing(page, copied):
    for name, _, part in pictures_of(page):
        with Image.open(copied / name) as theirs, urllib.request.urlopen(part["src"]) as file, Image.open(file) as ours:
            assert theirs.size == ours.size == (part["width"], part["height"])
            expected = theirs.convert("RGB").quantize(64).convert("RGB")
            assert np.array_equal(ours.convert("RGB"), expected), name
            assert np.abs(np.subtract(expected, theirs.convert("RGB"), dtype=float)).mean() < 0.5  # of 255
        (copied / name).unlink()
    report.main(["--run-dir", str(copied)])
    for name, script, part in pictures_of(page_data(copied / "report.html")):
        assert part == {"absent": f"{name} is missing; {script} draws it."}


def test_alternative_texts_state_the_main_figures(page, run_dir):
    labels = pd.read_csv(run_dir / "manifest.csv")
    edema = labels["Edema"]
    counts = [(edema == value).sum() for value in (1, 0, -1)]
    texts = "Edema {} positive, {} negative, {} uncertain, {} blank; Rare".format(*counts, edema.isna().sum())
    assert texts in page["labels"][0]["alt"]
    test = edema[(labels["split"] == "test") & edema.isin([0, 1])]
    assert f"{test.mean():.3f} in test; Rare" in page["labels"][1]["alt"]
    loss = page["histories"]["resnet50"]["pictures"][1]["alt"]
    assert loss.startswith("Validation loss of resnet50: 0.600 after the first epoch, 0.550 after the last.")
    assert loss.endswith("2 epochs. Epoch 2 was kept, with the best validation AUPRC, 0.600.")
    scores = pd.read_csv(run_dir / "ensemble" / "alpha_search.csv")["auprc"]
    said = f"{scores.iloc[0]:.3f} at alpha 0, {scores.iloc[-1]:.3f} at alpha 1, at most {scores.max():.3f}"
    assert said in page["alpha"]["picture"]["alt"]
    errors = json.loads((run_dir / "resnet50" / "metrics_test.json").read_text())["calibration"]
    for kind in ("raw", "corrected"):
        assert f"{errors[kind]['macro']['calibration_error']:.3f}" in page["reliability"][1]["alt"]
    test = read_splits(run_dir, read_search(run_dir, defaults=DEFAULTS))[1]
    error = masked_calibration(test.probs, **test.view.arrays())["macro"]["calibration_error"]
    assert page["reliability"][0]["alt"].endswith(f"{error:.3f}.")


def test_a_damaged_picture_is_refused(copied):
    path = copied / "resnet50" / "val_loss.png"
    for content in (b"no picture", path.read_bytes()[:3000]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"val_loss\.png cannot be read as a picture .*run train_resnet\.py"):
            report.main(["--run-dir", str(copied)])


def test_a_model_trained_again_since_the_blend_is_refused(copied):
    (copied / "resnet50" / "probs.json").unlink()  # as training does
    (copied / "resnet50" / "best.pt").write_bytes(b"new weights")
    match = r"resnet50 was trained again since it was blended; run test_resnet\.py --overwrite, then ensemble_alpha"
    with pytest.raises(ValueError, match=match):
        report.main(["--run-dir", str(copied)])
    with pytest.raises(ValueError, match=match):
        search(copied)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"rule": "holds"}, "its rule is 'holds'; expected certified or empirical"),
        ({"confidence": 0}, "its confidence is 0; expected a number above 0 and below 1"),
        ({"confidence": None}, "its confidence is None; expected a number above 0"),
        ({"confidence": "0.8"}, "its confidence is '0.8'"),
        ({"grid": 0.7}, "its grid is 0.7; expected"),
        ({"grid": 1e-9}, "its grid is 1e-09; expected"),
        ({"sources": [1]}, r"its sources is \[1\]; expected a dict"),
        ({"sources": {"a": 1}}, "its sources are no paths"),
        ({"seed": 1.5}, "its seed is 1.5; expected a whole number"),
        ({"uncertain": [1]}, r"its uncertain is \[1\]; expected a list"),
        ({"resamples": -5}, "its resamples is -5"),
        ({"family_wise": 1}, "its family_wise is 1; expected true or false"),
        ({"missing": "mask"}, "its missing is 'mask'; expected a list"),
        ({"classes": "Edema"}, "its classes are 'Edema'"),
        ({"recall": {}}, "no thresholds for any recall"),
        ({"recall": {"abc": {}}}, "recall 'abc'; expected a number"),
        ({"recall": {"0.85": {"Edema": {}}}}, r"recall 0\.85 lacks the class 'Rare'"),
    ],
)
def test_thresholds_that_stage_6_does_not_write_are_refused(copied, changed, match):
    path = copied / "ensemble" / "thresholds.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(ValueError, match=match):
        report.main(["--run-dir", str(copied)])


@pytest.mark.parametrize(("rule", "confidence"), [("certified", 0.9), ("empirical", 0)])
def test_thresholds_of_before_there_was_a_rule_are_read(copied, rule, confidence):
    """A confidence of 0 stood for the empirical rule."""
    search(copied, "--recall", "0.6", "--rule", rule, "--confidence", "0.9")
    path = copied / "ensemble" / "thresholds.json"
    found = json.loads(path.read_text())
    assert (found.pop("rule"), found.pop("confidence")) == (rule, confidence or None)
    path.write_text(json.dumps(found | {"confidence": confidence}))
    page = explored(copied)
    assert page["confidences"][page["start"]["confidence"]] == confidence
    origin = {key: found[key] for key in ("manifest_sha256", "probs_val_sha256")}
    saved = read_thresholds(path, recall=None, classes=CLASSES, origin=origin)
    assert saved.values.tolist() == [found["recall"]["0.6"][name]["threshold"] for name in CLASSES]


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("ensemble/probs.json", {"members_sha256": None}, "its members_sha256 is None; expected a dict"),
        ("ensemble/probs.json", {"probs_sha256": None}, "its probs_sha256 is None"),
        ("ensemble/alpha.json", {"members": None}, "has no weight for each member"),
        ("resnet50/probs.json", {"manifest_sha256": "other"}, "probs_test.csv was made from another manifest"),
        ("resnet50/metrics_test.json", {"calibration": {}}, "is not what test_resnet.py writes"),
        ("ensemble/metrics_test.json", {"per_class": {}}, "is not what ensemble_alpha_search.py writes"),
        ("ensemble/metrics_test.json", {"per_class": []}, "is not what ensemble_alpha_search.py writes"),
        ("ensemble/metrics_test.json", {"macro": 3}, "is not what ensemble_alpha_search.py writes"),
        ("ensemble/metrics_test.json", {"blank_as_negative": None}, "is not what ensemble_alpha_search.py writes"),
    ],
)
def test_a_file_with_an_entry_that_no_stage_writes_is_refused(copied, file, content, match):
    path = copied / file
    path.write_text(json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(ValueError, match=match):
        report.main(["--run-dir", str(copied)])


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("ensemble/thresholds_recall_0.85.csv", "test_precision", "precision", "has no column 'test_precision'"),
        ("ensemble/alpha_search.csv", "auprc", "aucpr", "has no column 'auprc'"),
        ("resnet50/history.csv", "1,0.6", ",0.6", "has no rows, or a value that is not a number"),
        ("ensemble/alpha_search.csv", "0.5,", "half,", "or a value that is not a number"),
        ("resnet50/history.csv", "0.7", "high", "or a value that is not a number"),
    ],
)
def test_a_table_that_no_stage_writes_is_refused(copied, file, old, new, match):
    path = copied / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=match):
        report.main(["--run-dir", str(copied)])


def test_without_stage_6_the_error_names_its_script(copied):
    (copied / "ensemble" / "thresholds.json").unlink()
    with pytest.raises(ValueError, match="thresholds.json does not exist; run ensemble_threshold_search.py"):
        report.main(["--run-dir", str(copied)])
    assert not (copied / "report.html").exists()


def test_a_page_is_not_replaced_unasked_and_may_go_elsewhere(copied, tmp_path):
    report.main(["--run-dir", str(copied), "--out", str(tmp_path / "a page.html")])
    assert page_data(tmp_path / "a page.html")["run"] == "run"
    with pytest.raises(ValueError, match="already there; pass --overwrite"):
        report.main(["--run-dir", str(copied), "--out", str(tmp_path / "a page.html")])
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        report.main(["--run-dir", str(copied), "--out", str(tmp_path / "folder.html")])


def test_files_of_another_manifest_are_refused(copied):
    write_split(copied, patients=240, seed=9)
    with pytest.raises(ValueError, match="made from another manifest"):
        report.main(["--run-dir", str(copied)])


def test_a_model_tested_again_since_the_blend_is_refused(copied):
    write_model(copied, "resnet50", seed=77)
    with pytest.raises(ValueError, match="resnet50 was tested again since it was blended"):
        report.main(["--run-dir", str(copied)])


def test_a_model_trained_on_another_manifest_is_refused(copied):
    (copied / "resnet50" / "config.json").write_text('{"manifest_sha256": "other"}')
    with pytest.raises(ValueError, match="resnet50 was trained on another manifest"):
        report.main(["--run-dir", str(copied)])


def test_labels_counted_on_another_manifest_are_refused(copied):
    path = copied / "eda" / "label_states.csv"
    path.write_text(path.read_text().replace("val,Edema,", "val,Edema,1"))
    with pytest.raises(ValueError, match="label_states.csv counts another manifest"):
        report.main(["--run-dir", str(copied)])


@pytest.mark.parametrize("flags", [("--missing", "0"), ("--uncertain", "1")])
def test_thresholds_under_a_policy_that_is_not_theirs_are_refused(copied, flags):
    """Where thresholds.json records the policy, the page takes it; where it does not, a wrong guess shows."""
    search(copied, "--recall", "0.85", *flags)
    path = copied / "ensemble" / "thresholds.json"
    found = json.loads(path.read_text())
    recorded = {flags[0][2:]: [flags[1]]}
    path.write_text(json.dumps(found | recorded))
    explored(copied)
    path.write_text(json.dumps({k: v for k, v in found.items() if k not in ("missing", "uncertain")}))
    with pytest.raises(ValueError, match="are not what the probabilities and labels give for 'Edema' at recall 0.85"):
        explored(copied)


def test_tables_of_stage_6_changed_by_hand_are_refused(copied):
    json_path, csv_path = (copied / "ensemble" / name for name in ("thresholds.json", "thresholds_recall_0.9.csv"))
    kept = csv_path.read_text()
    table = pd.read_csv(csv_path)
    table.loc[0, "test_recall"] -= 0.01
    table.to_csv(csv_path, index=False)
    with pytest.raises(ValueError, match="give for 'Edema' at recall 0.9; run ensemble_threshold_search.py"):
        report.main(["--run-dir", str(copied)])
    csv_path.write_text(kept)
    found = json.loads(json_path.read_text())
    found["recall"]["0.85"]["Common"]["threshold"] += 0.01
    json_path.write_text(json.dumps(found))
    with pytest.raises(ValueError, match="give for 'Common' at recall 0.85; run ensemble_threshold_search.py"):
        report.main(["--run-dir", str(copied)])
    json_path.write_text(json.dumps(found | {"recall": {"1": found["recall"]["0.9"]}}))
    csv_path.rename(csv_path.with_name("thresholds_recall_1.csv"))
    with pytest.raises(ValueError, match="give for 'Edema' at recall 1; run ensemble_threshold_search.py"):
        report.main(["--run-dir", str(copied)])


def test_recorded_resamples_and_seed_are_used_and_said(copied):
    path = copied / "ensemble" / "thresholds.json"
    found = json.loads(path.read_text())
    pages = []
    for seed in (0, 4):
        path.write_text(json.dumps(found | {"resamples": 30, "seed": seed}))
        pages.append(explored(copied))
    assert pages[0]["settings"]["resamples"] == 30
    assert not {"resamples", "seed"} & set(pages[0]["settings"]["assumed"])
    assert pages[0]["classes"][0]["eval_split"]["intervals"] != pages[1]["classes"][0]["eval_split"]["intervals"]
    path.write_text(json.dumps(found | {"resamples": 0}))
    assert "intervals" not in explored(copied)["classes"][0]["eval_split"]


def test_embedded_json_cannot_end_its_element():
    hostile = "</script><script>alert('&')</script>\u2028\u2029\ud800é"
    text = embed_json({"name": hostile, "number": np.float64("nan"), "counts": np.arange(3)})
    assert text.isascii() and not set(text) & set("<>&")
    assert json.loads(text) == {"name": hostile, "number": None, "counts": [0, 1, 2]}


def test_the_page_grows_with_the_targets_not_with_the_rows():
    """30,000 images, 13 findings: no class has more thresholds than targets, and the data fit a page."""
    rng = np.random.default_rng(0)
    rows, classes = 30_000, tuple(f"finding {c}" for c in range(13))
    labels = (rng.random((rows, 13)) < 0.2).astype(float)
    patients = np.array([f"p{i}" for i in rng.integers(9_000, size=rows)])
    truth = Truth(tuple(map(str, range(rows))), classes, labels, patients, patients)
    probs = 1 / (1 + np.exp(-rng.normal(size=labels.shape) - labels))
    codes = np.unique(patients, return_inverse=True)[1]
    settings = {key: DEFAULTS[key] for key in ("family_wise", "grid", "uncertain", "missing", "seed")}
    found = Search(None, 0.95, settings | {"resamples": 2}, (), {}, classes, {"0.85": {}})
    split = EvalSplit("val", probs, EvalLabels.of(truth, LabelPolicy.parse(classes=truth.classes)), codes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.explorer._check", lambda *args, **kwargs: None)  # no files of stage 6 here
        page = explore(split, None, search=found)
    most = len(RECALLS) * len(CONFIDENCES)
    assert all(100 < len(one["thresholds"]) <= most for one in page["classes"])
    assert len(embed_json(page)) < 2_500_000
