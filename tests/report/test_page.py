"""What the report's explorer holds, against what stage 6 says."""

import dataclasses
import json
import shutil
import urllib.request

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import ensemble_threshold_search
import report
from src.artifacts.io import MODELS
from src.artifacts.truth import EvalSplit, Truth, Units
from src.labels.policy import LabelPolicy
from src.report.explorer import RECALLS, explore, thin_curve
from src.report.render import embed_json
from src.report.source import Search, read_search, read_splits
from src.stats.calibration import masked_calibration
from src.stats.subgroups import COLUMNS
from src.stats.thresholds import OperatingPoint
from tests.page_runs import CLASSES, make_run, page_data, search, write_model, write_split


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
    """What the page holds, as its scripts read it."""
    found = read_search(run)
    return json.loads(embed_json(explore(*read_splits(run, found), search=found)))


def target_of(page, recall):
    return next(target for target in page["targets"] if target["recall"] == recall)


def chosen_by_stage_6(run, recall):
    """The operating points of thresholds.json."""
    found = json.loads((run / "ensemble" / "thresholds.json").read_text())
    return [found["recall"][recall][name] for name in CLASSES]


GIVEN = [
    (),
    ("--family-wise",),
    ("--weights", "patient"),
    ("--unit", "image"),
    ("--aggregate", "mean", "--grid", "0.01"),
    ("--rule", "empirical"),
    ("--confidence", "0.8", "--missing", "0"),
]


@pytest.mark.parametrize("flags", GIVEN, ids=" ".join)
def test_at_a_given_target_the_page_has_what_stage_6_wrote(copied, flags):
    search(copied, "--recall", "0.333", "0.85", *flags)
    page = explored(copied)
    found = [target for target in page["targets"] if "figures" in target]
    assert [target["recall"] for target in found] == ["0.333", "0.85"]
    for target in found:
        assert target["points"] == chosen_by_stage_6(copied, target["recall"])
        assert target["confidence"] == json.loads((copied / "ensemble" / "thresholds.json").read_text())["confidence"]
        theirs = pd.read_csv(copied / "ensemble" / f"thresholds_recall_{target['recall']}.csv")
        ours = pd.DataFrame(
            {
                "test_precision": values["precision"],
                "test_recall": values["recall"],
                "test_recall_low": values["recall_ci"][0],
                "test_recall_high": values["recall_ci"][1],
                "test_verdict": values["verdict"] or np.nan,
            }
            for values in target["figures"]
        )
        pd.testing.assert_frame_equal(ours.fillna(np.nan), theirs[list(ours)], check_dtype=False)


@pytest.mark.parametrize(
    ("recorded", "there"),
    [
        (("--confidence", "0.9"), ("--confidence", "0.995")),
        (("--confidence", "0.999"), ("--confidence", "0.999")),
        (("--family-wise",), ("--family-wise", "--confidence", "0.995")),
        (("--weights", "patient"), ("--weights", "patient", "--confidence", "0.995")),
        (("--unit", "image", "--grid", "0.01"), ("--unit", "image", "--grid", "0.01", "--confidence", "0.995")),
        (("--rule", "empirical"), ("--rule", "empirical")),
    ],
    ids=lambda flags: " ".join(flags),
)
def test_any_other_target_has_what_stage_6_chooses_at_the_higher_confidence(copied, recorded, there):
    search(copied, "--recall", "0.6", *recorded)
    page = explored(copied)
    search(copied, "--recall", "0.7", "0.87", *there)
    written = json.loads((copied / "ensemble" / "thresholds.json").read_text())
    for recall in ("0.7", "0.87"):
        target = target_of(page, recall)
        assert target["points"] == chosen_by_stage_6(copied, recall)
        assert target["confidence"] == written["confidence"]


def test_test_figures_of_targets_that_were_not_given_are_not_in_the_file(page):
    """Not merely hidden: of each such target there is nothing but validation."""
    explorer = page["explorer"]
    assert [target["recall"] for target in explorer["targets"]] == [f"{recall:g}" for recall in RECALLS]
    fields = {field.name for field in dataclasses.fields(OperatingPoint)}
    for target in explorer["targets"]:
        if target["recall"] in ("0.85", "0.9"):
            assert set(target["work"]) == {"val", "test"} and len(target["figures"]) == len(CLASSES)
            continue
        assert set(target) == {"recall", "confidence", "points", "work"} and set(target["work"]) == {"val"}
        assert all(set(point) == fields for point in target["points"])
        assert target["confidence"] == 0.995
    assert set(explorer) == {"chosen_on", "evaluated", "recorded", "targets", "classes"}
    assert all(set(finding) == {"name", "patients", "curve", "prevalence"} for finding in explorer["classes"])
    assert "test" not in json.dumps(explorer["recorded"])


def test_the_workload_is_counted_in_both_views(page, run_dir):
    splits = dict(zip(("val", "test"), read_splits(run_dir, read_search(run_dir)), strict=True))
    for recall, name in (("0.85", "test"), ("0.85", "val"), ("0.6", "val")):
        target, split = target_of(page["explorer"], recall), splits[name]
        flags = split.probs >= [point["threshold"] for point in target["points"]]
        labels = split.view.truth.labels
        known, blank = np.isin(labels, (0, 1)), np.isnan(labels)
        present = labels == 1
        labeled = [known, flags & known, present & ~flags, flags & (labels == 0)]
        everyone = [np.ones_like(known), flags, present & ~flags, flags & ((labels == 0) | blank)]
        for counts, events in zip(target["work"][name], (labeled, everyone), strict=True):
            assert np.array_equal(counts[:-1], np.transpose([event.sum(axis=0) for event in events]))
            assert counts[-1] == [event.any(axis=1).sum() for event in events]


def test_the_demo_run_has_feasible_and_infeasible_findings(page):
    status = [point["status"] for point in target_of(page["explorer"], "0.85")["points"]]
    assert dict(zip(CLASSES, status, strict=True)) == {
        "Edema": "ok",
        "Rare": "infeasible",
        "Common": "ok",
        "Never": "infeasible",
    }


def test_recall_1_may_be_given_to_the_empirical_rule(copied):
    search(copied, "--recall", "1", "--rule", "empirical")
    page = explored(copied)
    assert page["targets"][-1]["recall"] == "1" and page["targets"][-1]["points"][0]["recall"] == 1
    assert all(target["confidence"] is None for target in page["targets"])


def test_a_split_kept_for_thresholds_is_what_the_page_calls_it(tmp_path):
    run = make_run(tmp_path / "run", patients=320, splits=("train", "val", "calib", "test"))
    page = explored(run)
    assert (page["chosen_on"], page["evaluated"]) == ("calib", "test")
    assert set(target_of(page, "0.6")["work"]) == {"calib"} and set(page["classes"][0]["prevalence"]) == {
        "calib",
        "test",
    }


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
    for flags, evaluated in ((files[:2], "val"), (files, "test")):
        search(tmp_path / "out", "--recall", "0.85", *flags)
        report.main(["--run-dir", str(tmp_path / "out"), "--overwrite"])
        page = page_data(tmp_path / "out" / "report.html")
        assert page["explorer"]["evaluated"] == evaluated
        parts = (page["data"], page["labels"], page["alpha"], *page["histories"].values(), *page["metrics"])
        for part in (*parts, *page["reliability"][1:]):
            assert ".py" in part["absent"]
        assert f"The ensemble on {evaluated}" in page["reliability"][0]["caption"]
    for recall in ("0.6", "0.85"):
        assert target_of(page["explorer"], recall) == target_of(explored(run_dir), recall)
    (tmp_path / "labels_val.csv").write_text((tmp_path / "labels_val.csv").read_text() + "\n")
    with pytest.raises(ValueError, match="labels_val.csv has changed since ensemble_threshold_search.py read it"):
        report.main(["--run-dir", str(tmp_path / "out"), "--overwrite"])


def test_what_a_stage_did_not_leave_is_said_with_the_stage(page, copied):
    assert "--subgroups sex age view" in page["subgroups"]["absent"] and page["readers"] == []
    assert "absent" not in json.dumps(page | {"subgroups": []})
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
    test = read_splits(run_dir, read_search(run_dir))[1]
    error = masked_calibration(test.probs, **test.view.arrays())["macro"]["calibration_error"]
    assert page["reliability"][0]["alt"].endswith(f"{error:.3f}.")


def test_a_damaged_picture_is_refused(copied):
    path = copied / "resnet50" / "val_loss.png"
    for content in (b"no picture", path.read_bytes()[:50]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"val_loss\.png cannot be read as a picture .*run train_resnet\.py"):
            report.main(["--run-dir", str(copied)])


def test_a_model_trained_again_since_the_blend_is_refused(copied):
    (copied / "resnet50" / "probs.json").unlink()  # as training does
    (copied / "resnet50" / "best.pt").write_bytes(b"new weights")
    match = r"resnet50 was trained again after it was blended; run test_resnet\.py --overwrite, then ensemble_alpha"
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
        ({"sources": {"a": 1}}, "its sources are not paths"),
        ({"unit": "patient"}, "its unit is 'patient'; expected study or image"),
        ({"aggregate": None}, "its aggregate is None; expected max or mean"),
        ({"weights": "finding"}, "its weights are 'finding'"),
        ({"chosen_on": "test"}, "its chosen_on is 'test'; expected val or calib"),
        ({"chosen_on": "calib"}, "its chosen_on is 'calib', and the run has no such split"),
        ({"uncertain": [1]}, r"its uncertain is \[1\]; expected a list"),
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


def test_thresholds_of_before_units_were_recorded_are_refused(copied):
    path = copied / "ensemble" / "thresholds.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in found.items() if key != "unit"}))
    with pytest.raises(ValueError, match="does not record its unit, because an earlier version .* --unit image"):
        report.main(["--run-dir", str(copied)])


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        ("ensemble/probs.json", {"members_sha256": None}, "its members_sha256 is None; expected a dict"),
        ("ensemble/probs.json", {"probs_sha256": None}, "its probs_sha256 is None"),
        ("ensemble/alpha.json", {"members": None}, "has no weight for each member"),
        ("resnet50/probs.json", {"manifest_sha256": "other"}, "probs_test.csv was made from a different manifest"),
        ("resnet50/metrics_test.json", {"calibration": {}}, "does not hold what test_resnet.py writes"),
        ("ensemble/metrics_test.json", {"per_class": {}}, "does not hold what ensemble_alpha_search.py writes"),
        ("ensemble/metrics_test.json", {"per_class": []}, "does not hold what ensemble_alpha_search.py writes"),
        ("ensemble/metrics_test.json", {"macro": 3}, "does not hold what ensemble_alpha_search.py writes"),
        ("ensemble/metrics_test.json", {"blank_as_negative": None}, "not hold what ensemble_alpha_search.py writes"),
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
        ("ensemble/thresholds_recall_0.85.csv", "test_verdict", "verdict", "has no column 'test_verdict'"),
        ("ensemble/thresholds_recall_0.85.csv", "confirmed", "consistent", "give for 'Edema' at recall 0.85"),
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
    with pytest.raises(ValueError, match="already exists; pass --overwrite .* write to another --out"):
        report.main(["--run-dir", str(copied), "--out", str(tmp_path / "a page.html")])
    report.main(["--run-dir", str(copied), "--out", str(tmp_path / "a page.html"), "--overwrite"])
    (tmp_path / "thesis.html").write_text("another page")
    with pytest.raises(ValueError, match="thesis.html exists and was not written by report.py; pass another --out"):
        report.main(["--run-dir", str(copied), "--out", str(tmp_path / "thesis.html"), "--overwrite"])
    assert (tmp_path / "thesis.html").read_text() == "another page"
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        report.main(["--run-dir", str(copied), "--out", str(tmp_path / "folder.html")])


def test_files_of_another_manifest_are_refused(copied):
    write_split(copied, patients=240, seed=9)
    with pytest.raises(ValueError, match="made from another manifest"):
        report.main(["--run-dir", str(copied)])


def test_a_model_tested_again_since_the_blend_is_refused(copied):
    write_model(copied, "resnet50", seed=77)
    with pytest.raises(ValueError, match="resnet50 was tested again after it was blended"):
        report.main(["--run-dir", str(copied)])


def test_a_model_trained_on_another_manifest_is_refused(copied):
    (copied / "resnet50" / "config.json").write_text('{"manifest_sha256": "other"}')
    with pytest.raises(ValueError, match="resnet50 was trained on a different manifest"):
        report.main(["--run-dir", str(copied)])


def test_labels_counted_on_another_manifest_are_refused(copied):
    path = copied / "eda" / "label_states.csv"
    path.write_text(path.read_text().replace("val,Edema,", "val,Edema,1"))
    with pytest.raises(ValueError, match="label_states.csv describes a different manifest"):
        report.main(["--run-dir", str(copied)])


@pytest.mark.parametrize(
    "other",
    [
        {"missing": ["0"]},
        {"uncertain": ["1"]},
        {"no_finding": "negative"},
        {"unit": "image", "weights": "image"},
        {"aggregate": "mean"},
    ],
)
def test_thresholds_of_other_labels_or_units_than_recorded_are_refused(copied, other):
    path = copied / "ensemble" / "thresholds.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | other))
    with pytest.raises(ValueError, match="differ from what probabilities and labels give for 'Edema' at recall 0.85"):
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
    json_path.write_text(json.dumps(found | {"recall": {"0.850": found["recall"]["0.9"]}}))
    with pytest.raises(ValueError, match="give for 'Edema' at recall 0.85; run ensemble_threshold_search.py"):
        report.main(["--run-dir", str(copied)])


def test_the_audit_of_subgroups_is_shown_in_its_own_order(copied):
    flags = ["--run-dir", str(copied), "--recall", "0.85", "0.9", "--overwrite", "--subgroups", "sex", "age"]
    ensemble_threshold_search.main(flags)
    report.main(["--run-dir", str(copied)])
    page = page_data(copied / "report.html")
    assert [part["recall"] for part in page["subgroups"]] == ["0.85", "0.9"]
    for part in page["subgroups"]:
        path = copied / "ensemble" / f"subgroups_recall_{part['recall']}.csv"
        theirs = pd.read_csv(path, keep_default_na=False, na_values={name: [""] for name in ("recall", "low", "high")})
        assert list(part["rows"][0]) == list(COLUMNS)
        pd.testing.assert_frame_equal(pd.DataFrame(part["rows"]).fillna(np.nan), theirs, check_dtype=False)
        with Image.open(path.with_suffix(".png")) as drawn:
            assert drawn.size == (part["picture"]["width"], part["picture"]["height"])
    path.with_suffix(".png").unlink()
    path.write_text(path.read_text().replace("verdict", "said"))
    with pytest.raises(ValueError, match="subgroups_recall_0.9.csv has no column 'verdict'.*run ensemble_threshold"):
        report.main(["--run-dir", str(copied), "--overwrite"])


def test_readers_are_shown_where_stage_6_compared_them(copied):
    for name in ("readers.csv", "readers_roc.png"):
        source = copied / "eda" / "prevalence.png"
        shutil.copy(source, copied / "ensemble" / name)
    report.main(["--run-dir", str(copied)])
    first, second = page_data(copied / "report.html")["readers"]
    assert "readers_precision_recall.png is missing; ensemble_threshold_search.py draws it" in first["absent"]
    assert second["src"].startswith("data:image/png") and "reader" in second["alt"]


def test_a_model_that_counted_something_else_is_said_to(copied):
    path = copied / "resnet50" / "probs.json"
    story = json.loads(path.read_text())
    path.write_text(json.dumps(story | {"unit": "image", "aggregate": "max", "uncertain": ["1"], "missing": ["mask"]}))
    blend = copied / "ensemble" / "probs.json"
    flags = {"members_flags": {"resnet50": [["1"], ["mask"], "image", "max"]}}
    blend.write_text(json.dumps(json.loads(blend.read_text()) | flags))
    report.main(["--run-dir", str(copied)])
    caption = page_data(copied / "report.html")["reliability"][1]["caption"]
    assert caption.endswith("; here --uncertain was 1; here --unit was image")


def test_embedded_json_cannot_end_its_element():
    hostile = "</script><script>alert('&')</script>\u2028\u2029\ud800é"
    text = embed_json({"name": hostile, "number": np.float64("nan"), "counts": np.arange(3)})
    assert text.isascii() and not set(text) & set("<>&")
    assert json.loads(text) == {"name": hostile, "number": None, "counts": [0, 1, 2]}


def test_the_page_grows_with_the_targets_not_with_the_rows():
    """10,000 images, 13 findings: the data fit a page."""
    rng = np.random.default_rng(0)
    rows, classes = 10_000, tuple(f"finding {c}" for c in range(13))
    labels = (rng.random((rows, 13)) < 0.2).astype(float)
    patients = np.array([f"p{i}" for i in rng.integers(3_000, size=rows)])
    truth = Truth(tuple(map(str, range(rows))), classes, labels, patients, patients, pd.DataFrame(index=range(rows)))
    probs = 1 / (1 + np.exp(-rng.normal(size=labels.shape) - labels))
    recorded = {"rule": "certified", "weights": "image", "family_wise": False, "grid": 0, "chosen_on": "val"}
    found = Search(None, 0.95, recorded | {"classes": list(classes)}, {"0.85": {}})
    units = Units.of(truth, unit="image", aggregate="max")
    split = EvalSplit.of("val", probs, units, LabelPolicy.parse(classes=classes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("src.report.explorer._check", lambda *args, **kwargs: None)  # no files of stage 6 here
        page = explore(split, None, search=found)
    assert len({target["points"][0]["threshold"] for target in page["targets"]}) > 45
    assert len(embed_json(page)) < 500_000


def test_the_page_says_which_images_were_left_out(copied, page):
    assert page["data"]["notes"] == []
    path, said = copied / "manifest.json", ["--views frontal left out 3 lateral images and 0 of unknown view"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"filters": said}))
    report.main(["--run-dir", str(copied)])
    assert page_data(copied / "report.html")["data"]["notes"] == said
