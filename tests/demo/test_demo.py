"""The synthetic radiographs: what is drawn, what the reports say, and what lands on disk."""

import re

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import make_demo_data
from src.demo import dataset as phantom
from src.demo.anatomy import Film, Shape, random_anatomy
from src.demo.dataset import COLUMNS, LABELS, draw_view, write_demo
from src.demo.draw import FINDINGS, draw_radiograph
from src.demo.findings import SHAPING, Scene
from src.demo.patients import (
    CHEXPERT_RATES,
    CLEAR,
    IMPLY_OPACITY,
    MARKED,
    NEGATIVE_IN_NO_FINDING,
    RATES,
    is_clear,
    simulate_patient,
    softened,
)

DEFAULT_PATIENTS, FIRST_VALID = 1500, 64541


def anatomy(key=0, **changes):
    return random_anatomy(np.random.default_rng(key), **{"female": False, "age": 60} | changes)


def draw(findings, key=0):
    return draw_radiograph(findings, anatomy=anatomy(key), rng=np.random.default_rng(99), size=(160, 160))


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("phantom") / "demo"
    write_demo(out, patients=14, seed=21, processes=1)  # a seed with an image of a device alone in both files
    return out


@pytest.fixture(scope="module")
def studies():
    """The studies of the default world's training patients, a list per patient."""
    return [simulate_patient(number, seed=0).studies for number in range(1, DEFAULT_PATIENTS + 1)]


# ---- what is drawn ----


@pytest.mark.parametrize("name", FINDINGS)
def test_a_finding_changes_the_picture_where_it_lies(name):
    for key in range(3):
        plain, _ = draw({}, key)
        image, regions = draw({name: 0.6}, key)
        change, region = np.abs(image.astype(float) - plain), regions[name]
        assert set(regions) == {name} and region.dtype == bool and region.shape == image.shape == (160, 160)
        assert 0.001 < region.mean() < 0.4
        assert change[region].mean() > 4
        assert change[region].mean() > 6 * change[~region].mean()


@pytest.mark.parametrize("name", FINDINGS)
def test_a_severe_finding_shows_more_than_a_subtle_one(name):
    def change(severity):
        return np.mean(
            [np.abs(draw({name: severity}, key)[0].astype(float) - draw({}, key)[0]).sum() for key in range(3)]
        )

    assert change(1.0) > 1.15 * change(0.0) > 0


def test_the_cardiothoracic_ratio_tells_cardiomegaly():
    def ratio(shape):
        heart, wall = shape.heart(), shape.wall(1)
        return np.ptp(heart[:, 0]) / (2 * wall[:, 0].max())

    for key in range(40):
        usual = Shape(anatomy(key), heart_scale=1.04)
        scene = Scene(Film(64, 64), usual)
        SHAPING["Cardiomegaly"](scene, 0.0, np.random.default_rng(0))
        assert 0.3 < ratio(usual) < 0.5 < ratio(scene.shape)


def test_follow_ups_show_a_finding_in_the_same_place():
    first, again = (
        draw_radiograph(
            {"Lung Lesion": 0.8, "Pleural Effusion": 0.5},
            anatomy=anatomy(3),
            rng=np.random.default_rng(seed),
            size=(160, 160),
        )
        for seed in (1, 2)
    )
    assert not np.array_equal(first[0], again[0])
    for name, region in first[1].items():
        assert (region & again[1][name]).sum() > 0.4 * (region | again[1][name]).sum()


def test_lung_opacity_lies_where_what_implies_it_lies():
    seen = 0
    for number in range(1, 12):
        patient = simulate_patient(number, seed=0)
        severities = patient.studies[0].severities
        _, regions = draw_view(patient, 1, 1)
        assert set(regions) == {name for name, present in patient.studies[0].truth.items() if present}
        for name in set(IMPLY_OPACITY) & set(severities):
            assert not (regions[name] & ~regions["Lung Opacity"]).any()
            seen += 1
    assert seen > 3


@pytest.mark.parametrize("findings", [{"No Finding": 1.0}, ["edema"], {"Edema": 1.5}, {"Edema": float("nan")}])
def test_what_cannot_be_drawn_is_an_error(findings):
    with pytest.raises(ValueError, match="expected"):
        draw(findings)


# ---- what the reports say ----


def test_reports_label_at_the_rates_of_the_table(studies):
    reports = pd.DataFrame([study.report for patient in studies for study in patient])
    for name in FINDINGS:
        said = [(reports[name] == state).mean() for state in (1, 0, -1)]
        assert said == pytest.approx(RATES["softened"].labels[name], abs=0.03)


def test_only_the_rarest_rates_are_softened():
    used = RATES["softened"].labels
    for name, rates in CHEXPERT_RATES.items():
        assert all(own == rate or own == 0.12 > rate for own, rate in zip(used[name], rates, strict=True))
    assert used["Pleural Effusion"] == CHEXPERT_RATES["Pleural Effusion"] and softened(0).labels == CHEXPERT_RATES


def test_reports_at_the_rates_of_chexpert_have_its_labels_and_its_no_finding(monkeypatch):
    monkeypatch.setattr("src.demo.patients.random_anatomy", lambda rng, **_: None)  # which takes most of the time
    world = {"seed": 0, "rates": RATES["chexpert"]}
    studies = [study for number in range(1, 3001) for study in simulate_patient(number, **world).studies]
    reports, marked = pd.DataFrame([study.report for study in studies]), np.array([s.no_finding for s in studies])
    for name in FINDINGS:
        said = [(reports[name] == state).mean() for state in (1, 0, -1)]
        assert said == pytest.approx(CHEXPERT_RATES[name], abs=0.02)
    assert marked.mean() == pytest.approx(CLEAR * MARKED, abs=0.01)
    others = reports[marked].drop(columns="Support Devices")
    assert not others.isin([1, -1]).any(axis=None) and (reports["Support Devices"][marked] == 1).any()
    for name, share in NEGATIVE_IN_NO_FINDING.items():
        assert (others[name] == 0).mean() == pytest.approx(share, abs=0.12)


def test_reports_follow_the_truth(studies):
    for study in (study for patient in studies for study in patient):
        assert set(study.truth) == set(study.report) == set(FINDINGS)
        assert study.truth["Lung Opacity"] == any(name in study.severities for name in (*IMPLY_OPACITY, "Lung Opacity"))
        for name, said in study.report.items():
            assert said == study.truth[name] or said == -1 or np.isnan(said)


def test_a_mention_does_not_depend_on_how_plain_a_finding_is(studies):
    rows = [
        (severity, study.report[name])
        for patient in studies
        for study in patient
        for name, severity in study.severities.items()
        if name != "Lung Opacity"
    ]
    severity, said = np.array(rows).T
    assert abs(severity.mean() - 0.5) < 0.02
    for state in (said == 1, said == -1, np.isnan(said)):
        assert state.sum() > 500 and abs(severity[state].mean() - severity.mean()) < 0.03


def test_findings_persist_and_co_occur(studies):
    pairs = [(a.truth, b.truth) for patient in studies for a, b in zip(patient, patient[1:], strict=False)]
    for name in FINDINGS:
        after_present = np.mean([b[name] for a, b in pairs if a[name]])
        after_absent = np.mean([b[name] for a, b in pairs if not a[name]])
        assert 0.5 < after_present < 0.95 and after_present > 2 * after_absent
    truth = pd.DataFrame([patient[0].truth for patient in studies])
    for one, other in (("Cardiomegaly", "Edema"), ("Edema", "Pleural Effusion"), ("Pneumonia", "Consolidation")):
        assert truth[one].corr(truth[other]) > 0.12


def test_the_default_size_leaves_enough_to_measure(studies):
    cut = round(0.85 * DEFAULT_PATIENTS)
    val = np.random.default_rng(0).permutation(cut)[: cut // 5]
    reports = pd.DataFrame([study.report for i in val for study in studies[i]])
    truth = pd.DataFrame([study.truth for patient in studies[cut:] for study in patient])
    for table in (reports, truth):
        enough = ((table == 1).sum() >= 30) & ((table == 0).sum() >= 20)
        assert enough.sum() >= 12


# ---- what lands on disk ----


def test_layout_is_that_of_chexpert(demo):
    assert {path.name for path in demo.iterdir()} == {"README.txt", "train.csv", "valid.csv", "train", "valid"}
    assert {path.name for path in demo.parent.iterdir()} == {"demo"}
    assert sorted(FINDINGS) == list(FINDINGS) and set(FINDINGS) == set(LABELS) - {"No Finding"}
    patients = {}
    for split in ("train", "valid"):
        table = pd.read_csv(demo / f"{split}.csv")
        assert list(table.columns) == list(COLUMNS)
        paths = table["Path"].str.removeprefix("CheXpert-v1.0-demo/")
        assert paths.str.fullmatch(split + r"/patient\d{5}/study[1-5]/view[12]_frontal\.jpg").all()
        assert set(paths) == {str(path.relative_to(demo)) for path in (demo / split).rglob("*.jpg")}
        assert table["Age"].between(18, 90).all() and table["Sex"].isin(["Male", "Female"]).all()
        assert (table["Frontal/Lateral"] == "Frontal").all() and table["AP/PA"].isin(["AP", "PA"]).all()
        patients[split] = set(paths.str.split("/").str[1])
        with Image.open(demo / paths[0]) as image:
            assert image.mode == "L" and image.height == 320 and 320 <= image.width <= 390
            assert np.asarray(image).std() > 30
    assert len(patients["train"] | patients["valid"]) == 14 and not patients["train"] & patients["valid"]
    assert "patient00001" in patients["train"] and f"patient{FIRST_VALID}" in patients["valid"]


def test_train_holds_the_reports_and_valid_the_truth(demo):
    train, valid = pd.read_csv(demo / "train.csv"), pd.read_csv(demo / "valid.csv")
    for table, first, states in ((train, 1, {1, 0, -1}), (valid, FIRST_VALID, {1, 0})):
        assert set(table[list(LABELS)].stack().dropna()) <= states
        study = simulate_patient(first, seed=21).studies[0]
        said = study.report if table is train else study.truth
        assert table.loc[0, list(FINDINGS)].astype(float).equals(pd.Series(said, name=0)[list(FINDINGS)].astype(float))
        others = table[[name for name in FINDINGS if name != "Support Devices"]]
        clear = ~others.isin([1, -1]).any(axis=1)
        assert (table["No Finding"] == 1).equals(clear)
        assert (clear & (table["Support Devices"] == 1)).any()  # a device alone is not a finding
    assert train.isna().any(axis=None) and not valid.isna().any(axis=None)


def test_the_truth_of_train_is_of_the_same_images(demo, tmp_path):
    flags = ["--patients", "14", "--seed", "21", "--train-labels", "truth"]
    make_demo_data.main(["--out", str(tmp_path / "truth"), *flags])
    ours, theirs = tree(tmp_path / "truth"), tree(demo)
    assert {name for name in theirs if ours[name] != theirs[name]} == {"train.csv", "README.txt"}
    train = pd.read_csv(tmp_path / "truth/train.csv", index_col="Path")
    for path, row in train.iterrows():
        number, study = map(int, re.search(r"patient(\d+)/study(\d+)", path).groups())
        truth = simulate_patient(number, seed=21).studies[study - 1].truth
        assert row[list(truth)].astype(int).to_dict() == truth
        assert row["No Finding"] == is_clear(truth)
    assert 0 < train["No Finding"].mean() < 1
    assert "train.csv and valid.csv hold the truth" in (tmp_path / "truth/README.txt").read_text()


def test_every_byte_follows_from_the_seed(demo, tmp_path):
    write_demo(tmp_path / "same", patients=14, seed=21, processes=2)
    assert tree(tmp_path / "same") == tree(demo)
    write_demo(tmp_path / "other", patients=14, seed=6, processes=1)
    assert tree(tmp_path / "other") != tree(demo)


def test_an_earlier_demo_is_replaced_only_when_told(tmp_path):
    out = tmp_path / "demo"
    write_demo(out, patients=10, processes=1)
    before = tree(out)
    with pytest.raises(ValueError, match="--overwrite"):
        write_demo(out, patients=10, seed=1, processes=1)
    assert tree(out) == before
    write_demo(out, patients=10, seed=1, overwrite=True, processes=1)
    assert tree(out) != before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_a_folder_that_is_not_ours_is_never_replaced(tmp_path):
    (tmp_path / "README.txt").write_text("my thesis")
    with pytest.raises(ValueError, match="not a demo data set"):
        write_demo(tmp_path, patients=10, overwrite=True, processes=1)
    assert (tmp_path / "README.txt").read_text() == "my thesis"


def test_an_interrupted_write_leaves_what_was_there(tmp_path, monkeypatch):
    out = tmp_path / "demo"
    write_demo(out, patients=10, processes=1)
    before = tree(out)

    def interrupted(table, path, **_):
        path.write_text("half")
        raise KeyboardInterrupt

    monkeypatch.setattr(phantom.pd.DataFrame, "to_csv", interrupted)
    for target in (out, tmp_path / "new"):
        with pytest.raises(KeyboardInterrupt):
            write_demo(target, patients=10, seed=1, overwrite=True, processes=1)
    assert tree(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["demo"]


def test_too_few_patients_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least 10"):
        write_demo(tmp_path / "demo", patients=9)
    assert not list(tmp_path.iterdir())
