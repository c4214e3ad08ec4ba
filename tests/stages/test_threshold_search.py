"""Stage 6: the rule it is asked for, and what it refuses."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

import ensemble_threshold_search
from src.artifacts.io import as_stored, write_json
from src.artifacts.probs import write_probs
from src.stages.threshold_tables import parse_prevalence
from src.stats.calibration_maps import METHODS, apply_maps, fit_maps
from tests.page_runs import make_run, search

CLASSES = ("A", "B C")


@pytest.fixture
def flags(tmp_path):
    """Flags for a run of one class: 80 patients, two in five with the finding."""
    rng = np.random.default_rng(0)
    labels = np.arange(80) % 5 < 2
    pd.DataFrame({"id": range(80), "A": (labels + 2 * rng.random(80)) / 3}).to_csv(tmp_path / "p.csv", index=False)
    pd.DataFrame({"id": range(80), "A": labels.astype(int)}).to_csv(tmp_path / "t.csv", index=False)
    files = ["--val-probs", str(tmp_path / "p.csv"), "--val-labels", str(tmp_path / "t.csv")]
    return [*files, "--run-dir", str(tmp_path / "run"), "--resamples", "0", "--no-pictures", "--recall", "0.85"]


def test_the_empirical_rule_alone_is_printed_and_recorded_where_it_is_asked_for(flags, tmp_path, capsys):
    ensemble_threshold_search.main(flags)
    certified = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
    assert " certified " in capsys.readouterr().out
    ensemble_threshold_search.main([*flags, "--rule", "empirical", "--overwrite"])
    out = capsys.readouterr().out
    assert "certified" not in out and "== recall >= 0.85 ==  empirical: on val\n" in out
    assert "at the empirical thresholds" in out
    empirical = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
    thresholds = empirical["threshold"], empirical["empirical_threshold"], certified["empirical_threshold"]
    assert len({*thresholds}) == 1 and thresholds[0] > certified["threshold"]
    assert np.isnan(empirical["val_recall_lower"])
    found = json.loads((tmp_path / "run" / "ensemble" / "thresholds.json").read_text())
    assert (found["rule"], found["confidence"]) == ("empirical", None)
    assert found["recall"]["0.85"]["A"]["threshold"] == thresholds[0]


@pytest.mark.parametrize("confidence", ["0", "0.49", "-1", "0.99999", "95"])
def test_a_confidence_out_of_range_is_refused_and_the_rule_without_one_is_named(flags, tmp_path, confidence):
    match = rf"--confidence is {float(confidence)}; expected a number from 0\.5 to 0\.9999, or --rule empirical"
    with pytest.raises(ValueError, match=match):
        ensemble_threshold_search.main([*flags, "--confidence", confidence])
    assert not (tmp_path / "run").exists()


def test_family_wise_without_a_confidence_is_refused(flags, tmp_path):
    with pytest.raises(ValueError, match="--family-wise needs a confidence, and --rule empirical has none"):
        ensemble_threshold_search.main([*flags, "--rule", "empirical", "--family-wise"])
    assert not (tmp_path / "run").exists()


def test_prevalence_from_words_or_from_a_csv(tmp_path):
    assert parse_prevalence(["A=0.05", "B C=0.2"], classes=CLASSES) == {"A": 0.05, "B C": 0.2}
    assert parse_prevalence([], classes=CLASSES) == {}
    path = tmp_path / "clinic.csv"
    path.write_text("class,prevalence\nB C,0.2\n")
    assert parse_prevalence([str(path)], classes=CLASSES) == {"B C": 0.2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["X=0.1"], "no class 'X'; the classes are A, B C"),
        (["A=5%"], "A=5%: expected a share"),
        (["A=0"], "expected a share above 0"),
        (["A=1"], "below 1"),
        (["A=0.1", "A=0.2"], "names A twice"),
    ],
)
def test_a_bad_prevalence_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        parse_prevalence(words, classes=CLASSES)


def test_a_prevalence_csv_with_other_columns_is_refused(tmp_path):
    path = tmp_path / "clinic.csv"
    path.write_text("finding,share\nA,0.2\n")
    with pytest.raises(ValueError, match="has columns finding, share; expected class,prevalence"):
        parse_prevalence([str(path)], classes=CLASSES)


@pytest.fixture
def studies(tmp_path):
    """Flags for a run of one class: 150 patients with 1 to 3 studies of 1 to 3 images; the label is the patient's."""
    rng = np.random.default_rng(0)
    rows = []
    for patient in range(150):
        label, shared = float(rng.random() < 0.5), rng.normal()
        sex = rng.choice(["F", "M"])
        for study in range(rng.integers(1, 4)):
            for image in range(rng.integers(1, 4)):
                prob = 1 / (1 + np.exp(-(2 * label + 0.6 * shared + 0.8 * rng.normal())))
                rows.append(
                    (f"{patient}-{study}-{image}", prob, label, patient, f"{patient}-{study}", sex, patient % 90)
                )
    table = pd.DataFrame(rows, columns=["id", "A", "label", "patient_id", "study_id", "sex", "age"])
    files = []
    for split, part in (("val", table[table["patient_id"] < 75]), ("test", table[table["patient_id"] >= 75])):
        part[["id", "A"]].to_csv(tmp_path / f"{split}_p.csv", index=False)
        labels = part.drop(columns="A").rename(columns={"label": "A"})
        labels.to_csv(tmp_path / f"{split}_t.csv", index=False)
        files += [f"--{split}-probs={tmp_path / split}_p.csv", f"--{split}-labels={tmp_path / split}_t.csv"]
    return [*files, "--run-dir", str(tmp_path / "run"), "--resamples", "50", "--recall", "0.8", "--overwrite"]


def searched(flags, tmp_path, *more):
    ensemble_threshold_search.main([*flags, "--no-pictures", *more])
    folder = tmp_path / "run" / "ensemble"
    return pd.read_csv(folder / "thresholds_recall_0.8.csv").loc[0], json.loads(
        (folder / "thresholds.json").read_text()
    )


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_recall_and_precision_are_those_of_studies(studies, tmp_path, aggregate):
    row, content = searched(studies, tmp_path, "--aggregate", aggregate)
    assert [content[key] for key in ("unit", "aggregate", "weights")] == ["study", aggregate, "study"]
    probs = pd.read_csv(tmp_path / "test_p.csv").merge(pd.read_csv(tmp_path / "test_t.csv"), on="id")
    each = probs.groupby("study_id").agg(prob=("A_x", aggregate), label=("A_y", "max"))
    flags = each["prob"].round(9) >= row["threshold"]
    assert row["test_recall"] == pytest.approx(flags[each["label"] == 1].mean())
    assert row["test_precision"] == pytest.approx(each["label"][flags].mean())
    assert row["val_positives"] < pd.read_csv(tmp_path / "val_t.csv")["A"].sum()


def test_images_are_counted_where_that_is_asked_for(studies, tmp_path):
    row, content = searched(studies, tmp_path, "--unit", "image")
    assert content["weights"] == "image"
    assert row["val_positives"] == pd.read_csv(tmp_path / "val_t.csv")["A"].sum()
    with pytest.raises(ValueError, match="--weights is image and --unit is study; pass --unit image as well"):
        searched(studies, tmp_path, "--weights", "image")


def test_recall_is_that_of_patients_where_that_is_asked_for(studies, tmp_path, capsys):
    row, content = searched(studies, tmp_path, "--weights", "patient")
    assert (
        content["weights"] == "patient"
        and "recall: that of a random study of a random patient" in capsys.readouterr().out
    )
    probs = pd.read_csv(tmp_path / "test_p.csv").merge(pd.read_csv(tmp_path / "test_t.csv"), on="id")
    each = probs[probs["A_y"] == 1].groupby(["patient_id", "study_id"])["A_x"].max() >= row["threshold"]
    assert row["test_recall"] == pytest.approx(each.groupby("patient_id").mean().mean())


def test_the_verdict_and_what_the_confidence_means_are_printed(studies, tmp_path, capsys):
    row, _ = searched(studies, tmp_path)
    out = capsys.readouterr().out
    assert row["test_verdict"] in ("confirmed", "consistent", "contradicted")
    counts = {name: int(name == row["test_verdict"]) for name in ("contradicted", "confirmed", "consistent")}
    assert "certified: " + ", ".join(f"{name} {n}" for name, n in counts.items()) + ", infeasible 0" in out
    assert "1 finding certified, each at 95%: up to 0.05 may be expected to fall short" in out
    assert "note: the model may have been chosen on val too. With 1 finding, that costs some of the confidence" in out
    assert row["test_recall_low"] < row["test_recall"] < row["test_recall_high"]


def test_a_warning_where_few_patients_own_most_positives(studies, tmp_path, capsys):
    searched(studies, tmp_path)
    assert "warning: the 5%" not in capsys.readouterr().out
    probs, table = (pd.read_csv(tmp_path / f"val_{kind}.csv") for kind in "pt")
    first = table[table["A"] == 1].iloc[[0] * 60].assign(id=[f"more{n}" for n in range(60)])  # of one patient
    pd.concat([table, first.assign(study_id=first["id"])]).to_csv(tmp_path / "val_t.csv", index=False)
    pd.concat([probs, first[["id"]].assign(A=0.5)]).to_csv(tmp_path / "val_p.csv", index=False)
    searched(studies, tmp_path)
    out = capsys.readouterr().out
    assert "own more than 30% of them in A (" in out and "--weights patient certifies" in out


def test_family_wise_divides_by_the_findings_that_can_be_certified(flags, tmp_path, capsys):
    for name in ("p", "t"):
        table = pd.read_csv(tmp_path / f"{name}.csv")
        rare = table["A"] if name == "p" else (np.arange(80) < 2).astype(int)  # two positives can never be certified
        table.assign(Rare=rare, B=table["A"]).to_csv(tmp_path / f"{name}.csv", index=False)
    ensemble_threshold_search.main([*flags, "--family-wise"])
    assert "at 97.5% confidence on new patients, so that all findings together are at 95%" in capsys.readouterr().out
    row = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
    ensemble_threshold_search.main([*flags, "--confidence", "0.975", "--overwrite"])
    alone = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
    assert row["threshold"] == alone["threshold"] and row["val_recall_lower"] == pytest.approx(
        alone["val_recall_lower"]
    )


def test_subgroups_are_printed_written_and_drawn(studies, tmp_path, capsys):
    ensemble_threshold_search.main([*studies, "--subgroups", "sex", "age", "--age-bands", "30", "88"])
    table = pd.read_csv(tmp_path / "run" / "ensemble" / "subgroups_recall_0.8.csv").set_index("group")
    assert table.index.tolist() == ["F", "M", "0-29", "30-87", "88+"]
    assert table.loc[["F", "M"], "positives"].sum() == table.loc[["0-29", "30-87", "88+"], "positives"].sum()
    assert "cannot be stated: " in capsys.readouterr().out and table.loc["88+", "needed"] > 0
    assert (tmp_path / "run" / "ensemble" / "subgroups_recall_0.8.png").exists()
    with pytest.raises(ValueError, match="--subgroups view: no row of test records it"):
        ensemble_threshold_search.main([*studies, "--subgroups", "view"])


def test_other_probabilities_are_refused_where_the_run_has_a_blend(flags, tmp_path):
    make_run(tmp_path / "run")
    with pytest.raises(
        ValueError, match="has a split and a blend of its own, and --val-probs names other probabilities"
    ):
        ensemble_threshold_search.main([*flags, "--overwrite"])


def test_without_test_data_nothing_is_judged(studies, tmp_path, capsys):
    flags = [word for word in studies if not word.startswith("--test-")]
    ensemble_threshold_search.main([*flags, "--subgroups", "sex"])
    out = capsys.readouterr().out
    assert not any(word in out for word in ("contradicted", "confirmed", "consistent", "Verdict  "))
    assert "without test data there are no verdicts" in out and out.count("Val recall") == 1
    assert pd.read_csv(tmp_path / "run" / "ensemble" / "subgroups_recall_0.8.csv")["verdict"].isna().all()


def test_the_workload_without_infeasible_findings_is_printed(tmp_path, capsys):
    make_run(tmp_path / "run")
    search(tmp_path / "run", "--recall", "0.9")
    out = capsys.readouterr().out
    assert "without infeasible findings, which flag all (Rare, Never), the last row on the right would be: " in out


def test_readers_stand_beside_the_model(studies, tmp_path, capsys):
    truth = pd.read_csv(tmp_path / "test_t.csv").drop_duplicates("study_id").set_index("study_id")["A"]
    calls = truth.where(np.arange(len(truth)) % 4 > 0, 1 - truth).astype(int)  # wrong in one case of four
    calls.iloc[:-5].rename_axis("study").reset_index().to_csv(tmp_path / "dr_a.csv", index=False)
    reader = ["--readers", str(tmp_path / "dr_a.csv")]
    ensemble_threshold_search.main([*studies, *reader])
    row = pd.read_csv(tmp_path / "run" / "ensemble" / "readers.csv").loc[0]
    read = truth.index[:-5]
    assert (row["reader"], row["cases"]) == ("dr_a", len(read))
    assert row["recall"] == pytest.approx(calls[read][truth[read] == 1].mean())
    assert row["gain_low"] <= row["gain"] <= row["gain_high"]
    for name in ("precision_recall", "roc"):
        assert (tmp_path / "run" / "ensemble" / f"readers_{name}.png").exists()
    (tmp_path / "dr_a.csv").write_text("study,A\nelsewhere,1\n")
    with pytest.raises(ValueError, match="has no id of test"):
        ensemble_threshold_search.main([*studies, *reader])
    (tmp_path / "dr_a.csv").write_text("study,A\nelsewhere,0.7\n")
    with pytest.raises(ValueError, match="'0.7' is not a label; expected 1 .yes.*blank, as a reader's calls are"):
        ensemble_threshold_search.main([*studies, *reader])
    (tmp_path / "dr_a.csv").write_text("study,B\nelsewhere,1\n")
    with pytest.raises(ValueError, match="has no column of a finding; expected some of A"):
        ensemble_threshold_search.main([*studies, *reader])
    assert (tmp_path / "run" / "ensemble" / "readers.csv").exists()  # what was there before is not lost


def test_the_plan_needs_no_run(tmp_path, capsys):
    ensemble_threshold_search.main(["--plan", "--recall", "0.9", "--run-dir", str(tmp_path / "run")])
    lines = capsys.readouterr().out.splitlines()
    assert "== recall >= 0.9 at 95% confidence ==" in lines
    assert [line.split(" | ")[1].strip() for line in lines if line.strip().startswith(("19 ", "29 "))] == [
        "infeasible",
        "0",
    ]
    assert not (tmp_path / "run").exists()


def test_the_interval_of_a_precision_elsewhere_holds_the_figure(studies, tmp_path, capsys):
    searched(studies, tmp_path, "--prevalence", "A=0.05")
    line = [line for line in capsys.readouterr().out.splitlines() if line.startswith("A ")][-1]
    value, low, high = (float(word.strip("[],")) for word in line.split("|")[-1].split())
    assert 0.05 < low < value < high < 1


def test_thresholds_are_certified_on_the_calibration_split_where_there_is_one(tmp_path, capsys):
    run = make_run(tmp_path / "run", splits=("train", "val", "calib", "test"), patients=400)
    capsys.readouterr()
    search(run, "--recall", "0.8")
    out = capsys.readouterr().out
    assert "Calib precision" in out and "studies in calib" in out and "were chosen on val too" not in out
    table = pd.read_csv(run / "ensemble" / "thresholds_recall_0.8.csv").set_index("class")
    manifest = pd.read_csv(run / "manifest.csv").query("split == 'calib'")
    probs = pd.read_csv(run / "ensemble" / "probs_calib.csv", index_col="image_id")["Edema"]
    studies = manifest.set_index("image_id")["study_id"].reindex(probs.index)
    ill = manifest.groupby("study_id")["Edema"].max() == 1
    flags = probs.groupby(studies).max() >= table.loc["Edema", "threshold"]
    assert table.loc["Edema", "calib_recall"] == pytest.approx(flags[ill].mean())
    assert json.loads((run / "ensemble" / "thresholds.json").read_text())["chosen_on"] == "calib"


def test_other_runs_of_the_same_split_are_noticed(tmp_path, capsys):
    first = make_run(tmp_path / "a", patients=150)
    shutil.copytree(first, tmp_path / "b")
    capsys.readouterr()
    path = tmp_path / "b" / "resnet50" / "config.json"
    write_json(path, json.loads(path.read_text()) | {"compared_runs": 20})
    search(tmp_path / "b", "--recall", "0.8")
    reasons = "With 1 other run of this split to choose from and flags of resnet50 chosen as the best of 20 runs, that"
    assert f"{reasons} costs some of the confidence" in capsys.readouterr().out


def test_a_blend_of_isotonic_maps_is_warned_of_where_val_certifies(tmp_path, capsys):
    run = make_run(tmp_path / "run", patients=150)
    story = json.loads((run / "ensemble" / "probs.json").read_text())
    for weights, warned in (([0.5, 0.5], True), ([1.0, 0.0], False)):
        calibration = {model: found | {"method": "isotonic"} for model, found in story["calibration"].items()}
        write_json(run / "ensemble" / "probs.json", story | {"calibration": calibration, "weights": weights})
        for rule in ("certified", "empirical"):
            capsys.readouterr()
            search(run, "--recall", "0.8", "--rule", rule)
            told = "warning: both models were calibrated on val too, by isotonic regression" in capsys.readouterr().out
            assert told == (warned and rule == "certified")


def test_flags_of_a_model_do_not_move_with_its_calibration(tmp_path):
    """Isotonic maps have levels: what they flag is what some threshold of the raw sigmoid flags, but maybe another."""
    rng, ways = np.random.default_rng(0), {}
    flags = ["--run-dir", str(tmp_path / "run"), "--resamples", "0", "--no-pictures", "--recall", "0.85", "--overwrite"]
    splits = {}
    for split in ("val", "test"):
        labels, ids = rng.random((500, 1)) < 0.25, [f"{split}{row}" for row in range(500)]
        splits[split] = expit(3 * labels + 2 * rng.normal(size=(500, 1))), labels, ids
        pd.DataFrame({"id": ids, "A": labels[:, 0].astype(int)}).to_csv(tmp_path / f"{split}_t.csv", index=False)
        for kind, name in (("probs", "p"), ("labels", "t")):
            flags += [f"--{split}-{kind}", str(tmp_path / f"{split}_{name}.csv")]
    for method in METHODS:
        raw, labels, _ = splits["val"]
        columns = {"targets": labels, "mask": np.ones_like(labels), "classes": ["A"], "pos_weight": [3.0]}
        maps, _ = fit_maps(method, raw, **columns)
        probs = {split: as_stored(apply_maps(maps, raw)) for split, (raw, *_) in splits.items()}
        for split, values in probs.items():
            write_probs(tmp_path / f"{split}_p.csv", ids=splits[split][2], classes=["A"], values=values)
        ensemble_threshold_search.main(flags)
        row = pd.read_csv(tmp_path / "run" / "ensemble" / "thresholds_recall_0.85.csv").loc[0]
        ways[method] = {split: values >= row["threshold"] for split, values in probs.items()}
        assert row["status"] == "ok" and row["val_recall_lower"] >= 0.85
    for split, (raw, *_) in splits.items():
        for method in ("prior", "temperature", "platt"):
            assert np.array_equal(ways[method][split], ways["none"][split]), method
        flagged = ways["isotonic"][split]
        assert raw[flagged].min() > raw[~flagged].max() and flagged.any() and not flagged.all()


def test_infeasible_findings_get_no_verdict_and_target_1_has_groups(studies, tmp_path):
    row, _ = searched(studies, tmp_path, "--confidence", "0.9999", "--recall", "0.8")
    assert row["status"] == "infeasible" and np.isnan(row["test_verdict"])
    flags = [word if word != "0.8" else "1" for word in studies]
    ensemble_threshold_search.main([*flags, "--rule", "empirical", "--subgroups", "sex", "--no-pictures"])
    table = pd.read_csv(tmp_path / "run" / "ensemble" / "subgroups_recall_1.csv")
    assert (table["needed"] == 0).all() and (tmp_path / "run" / "ensemble" / "thresholds.json").exists()


PLANLESS = ("--rule empirical", "--family-wise", "--weights patient", "--prevalence A=0.1", "--val-probs p.csv")


@pytest.mark.parametrize("more", map(str.split, PLANLESS), ids=" ".join)
def test_a_plan_with_flags_that_it_cannot_follow_is_refused(more):
    with pytest.raises(ValueError, match="--plan is about one finding and the certified rule"):
        ensemble_threshold_search.main(["--plan", *more])


def test_targets_that_are_printed_alike_are_one(studies, tmp_path):
    ensemble_threshold_search.main([*studies[:-3], "--recall", "0.8", "0.8000001", "--overwrite", "--no-pictures"])
    assert len(json.loads((tmp_path / "run" / "ensemble" / "thresholds.json").read_text())["recall"]) == 1
