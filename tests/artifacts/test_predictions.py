"""The tables of predictions: of images, and of studies that are made from them."""

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from src.artifacts.io import as_stored
from src.artifacts.predictions import PredictionTable
from src.artifacts.probs import read_probs, write_probs
from src.artifacts.thresholds_file import SavedThresholds

FLAGS = {"append": False, "overwrite": False}


def thresholds(classes="AB", *, unit="study", aggregate="max", at=0.5):
    count = len(classes)
    rule = (0.85, (0.85,) * count, np.full(count, at), {}, (0.95,) * count)
    return SavedThresholds(
        tuple(classes), *rule, unit=unit, aggregate=aggregate, weights=unit, chosen_on="val", together=False
    )


def opened(path, saved=None, *, study="folder", **flags):
    """The table as predict.py opens it."""
    saved = saved or thresholds()
    origin = {"checkpoint_sha256": {}, "unit": saved.unit}
    if saved.unit == "study":
        origin |= {"aggregate": saved.aggregate, "study": study}
    return PredictionTable.open(path, saved, origin=origin, **(FLAGS | flags))


def studies_of(path):
    return pd.read_csv(path.with_name("p_studies.csv"), keep_default_na=False, dtype=str).set_index("study")


def test_probabilities_are_the_numbers_that_a_stages_file_gives_back(tmp_path):
    probs = 10.0 ** np.random.default_rng(0).uniform(-12, 0, (5000, 2))
    ids = [f"{row}.png" for row in range(len(probs))]
    write_probs(tmp_path / "probs.csv", ids=ids, classes="AB", values=probs)
    stored = as_stored(probs)
    np.testing.assert_array_equal(stored, read_probs(tmp_path / "probs.csv").values)
    table = PredictionTable(tmp_path / "p.csv", thresholds(unit="image"))
    for name, row in zip(ids, stored, strict=True):
        table.add(Path(name), row)
    theirs = [line.split(",")[1:] for line in (tmp_path / "probs.csv").read_text().splitlines()[1:]]
    assert [row[1:4:2] for row in table.rows.values()] == theirs


@pytest.mark.parametrize(("aggregate", "expected"), [("max", ["0.7", "0.2"]), ("mean", ["0.433333333", "0.2"])])
def test_a_study_is_made_from_its_images_that_could_be_read(tmp_path, aggregate, expected):
    table = opened(tmp_path / "p.csv", thresholds(aggregate=aggregate, at=float(expected[0])))
    for name, a in (("1", 0.7), ("2", 0.3), ("3", 0.3)):
        table.add(Path(f"s/{name}.png"), np.array([a, 0.2]), study=Path("s"))
    table.add_fault(Path("s/4.png"), "cut off", study=Path("s"))
    table.add_fault(Path("none/5.png"), "cut off", study=Path("none"))
    table.save()
    found = studies_of(tmp_path / "p.csv")
    assert found.loc["s"].tolist() == [
        "4",
        expected[0],
        "1",
        expected[1],
        "0",
        "1",
        "",
        "1 of 4 images could not be read",
    ]
    assert found.loc["none"].tolist() == ["1", *[""] * 6, "1 of 1 image could not be read"]


def test_append_builds_a_study_from_the_rows_of_both_runs(tmp_path, monkeypatch):
    path = tmp_path / "p.csv"
    monkeypatch.chdir(tmp_path)
    table = opened(path)
    table.add(Path("s/1.png"), np.array([0.7, 0.2]), study=Path("s"))
    table.add_fault(Path("s/2.png"), "cut off", study=Path("s"))
    table.save()
    path.with_name("p_studies.csv").unlink()
    (tmp_path / "s").mkdir()
    monkeypatch.chdir(tmp_path / "s")
    table = opened(path, append=True)
    assert table.has(Path("1.png")) and not table.has(Path("2.png"))
    table.add(Path("2.png"), np.array([0.8, 0.9]), study=Path("."))
    table.add(tmp_path / "s" / "3.png", np.array([0.1, 0.1]), study=tmp_path / "s")
    table.save()
    assert studies_of(path).loc[["s"]].values.tolist() == [["3", "0.8", "1", "0.9", "1", "2", "", ""]]
    assert [row[1] for row in table.rows.values()] == ["s"] * 3 and "s/2.png" in table.rows


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"saved": thresholds(unit="image")}, "made with other settings .unit.; pass --overwrite"),
        ({"saved": thresholds(aggregate="mean")}, "made with other settings .aggregate"),
        ({"study": "file"}, "made with other settings .--study"),
    ],
)
def test_append_refuses_a_table_of_other_units(tmp_path, changed, match):
    opened(tmp_path / "p.csv").save()
    with pytest.raises(ValueError, match=match):
        opened(tmp_path / "p.csv", append=True, **changed)


def test_a_table_from_before_units_were_recorded_is_of_images(tmp_path):
    table = PredictionTable.open(
        tmp_path / "p.csv", thresholds(unit="image"), origin={"checkpoint_sha256": {}}, **FLAGS
    )
    table.save()
    opened(tmp_path / "p.csv", thresholds(unit="image"), append=True).save()
    with pytest.raises(ValueError, match="made with other settings"):
        PredictionTable.open(tmp_path / "p.csv", thresholds(), origin={"unit": "study"}, **(FLAGS | {"append": True}))


def test_a_table_of_studies_that_is_there_is_kept_and_goes_with_its_table(tmp_path):
    path, other = tmp_path / "p.csv", tmp_path / "p_studies.csv"
    other.write_text("mine")
    for flags in ({}, {"append": True}, {"overwrite": True}):
        with pytest.raises(ValueError, match=r"p_studies\.csv exists and was not written by predict\.py"):
            opened(path, **flags)
    opened(path, thresholds(unit="image")).save()  # which writes none
    with pytest.raises(ValueError, match=r"p_studies\.csv exists and was not written by predict\.py"):
        opened(path, overwrite=True)
    assert other.read_text() == "mine" and path.exists()
    other.unlink()
    opened(path, overwrite=True).save()
    with pytest.raises(ValueError, match=r"p_studies\.csv exists and was not written"):
        opened(other, overwrite=True)  # as a table of images
    path.unlink()
    with pytest.raises(ValueError, match=r"p_studies\.csv already exists; pass --append .* or --overwrite"):
        opened(path)
    with pytest.raises(ValueError, match=r"p_studies\.csv already exists; pass --overwrite"):
        opened(path, append=True)
    opened(path, thresholds(unit="image"), overwrite=True).save()
    assert not other.exists()  # nothing of the earlier run remains beside another table


@pytest.mark.parametrize(
    ("column", "text", "match"),
    [
        *((2, text, "corrupt") for text in ("abc", "1.5", "nan")),
        (3, "maybe", "corrupt"),
        (-3, "99", "corrupt"),
        (-1, "unreadable", "corrupt"),
        (1, "", "corrupt"),
        (0, "", "corrupt"),
        (0, None, "more than once"),
    ],
)
def test_append_refuses_rows_that_it_did_not_write(tmp_path, column, text, match):
    table = opened(tmp_path / "p.csv")
    for name in ("1.png", "2.png"):
        table.add(Path(name), np.array([0.7, 0.2]))
    table.save()
    with open(tmp_path / "p.csv", encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    rows[2][column] = rows[1][0] if text is None else text
    with open(tmp_path / "p.csv", "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(ValueError, match=match):
        opened(tmp_path / "p.csv", append=True)


@pytest.mark.parametrize("name", ["flags", "study", "images"])
def test_a_finding_that_would_double_a_column_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="named as another column"):
        PredictionTable(tmp_path / "p.csv", thresholds([name, "B"]))


@pytest.mark.parametrize("slow", [False, True])
def test_the_tables_are_saved_while_images_are_left(tmp_path, slow):
    table = PredictionTable(tmp_path / "p.csv", thresholds())
    for number in range(3):
        table.add(Path(f"{number}.png"), np.array([0.1, 0.2]))
        table.save(every=1e-9 if slow else 1000)
        table._took = 1000 if slow else 0
    assert len(pd.read_csv(tmp_path / "p.csv")) == len(studies_of(tmp_path / "p.csv")) == 1  # the first at once
    table.save()
    assert len(pd.read_csv(tmp_path / "p.csv")) == len(studies_of(tmp_path / "p.csv")) == 3


def test_of_two_runs_that_write_one_table_one_is_told(tmp_path):
    first, second = (opened(tmp_path / "p.csv", append=True) for _ in range(2))
    first.add(Path("1.png"), np.array([0.1, 0.2]))
    first.save()
    first.save()
    second.add(Path("2.png"), np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match=r"another run of predict.py is writing .*p\.csv"):
        second.save()
    third = opened(tmp_path / "p.csv", append=True)
    third.save()
    with pytest.raises(ValueError, match="another run"):
        first.save()
    assert list(third.rows) == ["1.png"]
