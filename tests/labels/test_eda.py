"""Label statistics against tables counted by hand, and stage 2 as a user runs it."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.stats import fisher_exact

import eda_labels
from src.artifacts.manifest import write_manifest
from src.labels import eda

DRAWS_PICTURES = True
NAN = np.nan
CLASSES = ("Edema", "Fracture")
#        patient, study order, split, view, sex, age, Edema, Fracture
ROWS = [
    ("b", 1, "train", "frontal", "F", 17.5, 0, NAN),
    ("b", 0, "train", "frontal", "F", 17.0, 1, NAN),
    ("b", 0, "train", "lateral", "F", 17.0, -1, NAN),  # a second image of the study before
    ("a", 0, "val", "frontal", "M", 40.0, 1, 1),
    ("a", 2, "val", "", "M", 80.0, 1, -1),
    ("a", 1, "val", "frontal", "M", 59.9, NAN, 0),
    ("c", 0, "test", "frontal", "", NAN, 0, 0),
]
PATIENTS, ORDER, SPLIT, VIEW, SEX, AGE = (np.array(column) for column in list(zip(*ROWS, strict=True))[:6])
LABELS = np.array([row[6:] for row in ROWS], dtype=np.float64)


def test_states_are_counted_per_class_and_group():
    table = eda.count_states(LABELS, groups=SPLIT, order=("all", "train", "test"), classes=CLASSES, name="split")
    assert list(table.columns) == ["split", "class", "images", "positive", "negative", "uncertain", "blank"]
    assert table.to_numpy().tolist() == [
        ["all", "Edema", 7, 3, 2, 1, 1],
        ["all", "Fracture", 7, 1, 2, 1, 3],
        ["train", "Edema", 3, 1, 1, 1, 0],
        ["train", "Fracture", 3, 0, 0, 0, 3],
        ["test", "Edema", 1, 0, 1, 0, 0],
        ["test", "Fracture", 1, 0, 1, 0, 0],
    ]


def test_groups_without_images_have_no_rows():
    table = eda.count_states(LABELS, groups=SEX, order=("X", "F"), classes=CLASSES, name="sex")
    assert table["sex"].tolist() == ["F", "F"]
    assert eda.count_states(LABELS, groups=SEX, order=("X",), classes=CLASSES, name="sex").empty


def test_an_unknown_label_is_refused():
    with pytest.raises(ValueError, match="label 2 is not 1"):
        eda.state_codes(np.array([[1.0, 2.0]]))


def test_prevalence_is_of_valid_labels_and_with_blanks_as_negatives():
    states = eda.count_states(LABELS, groups=SPLIT, order=("all", "train"), classes=CLASSES, name="split")
    rates = eda.with_rates(states)
    assert rates["prevalence"].tolist() == pytest.approx([3 / 5, 1 / 3, 1 / 2, NAN], nan_ok=True)
    assert rates["prevalence_blank_0"].tolist() == pytest.approx([3 / 6, 1 / 6, 1 / 2, 0])
    assert rates["uncertain_rate"].tolist() == pytest.approx([1 / 7, 1 / 7, 1 / 3, 0])
    assert rates["blank_rate"].tolist() == pytest.approx([1 / 7, 3 / 7, 0, 1])


def test_age_bands_begin_at_their_lower_end():
    ages = np.array([0, 17.9, 18, 39.9, 40, 60, 79, 80, 95, NAN])
    expected = ["0-17", "0-17", "18-39", "18-39", "40-59", "60-79", "60-79", "80+", "80+", ""]
    assert eda.age_bands(ages).tolist() == expected


def test_cooccurrence_and_findings_per_image():
    counts = eda.cooccurrence(LABELS, classes=CLASSES)
    assert counts.to_numpy().tolist() == [["Edema", 3, 1], ["Fracture", 1, 1]]
    per_image = eda.findings_per_image(LABELS, groups=SPLIT, order=("all", "val"))
    assert per_image["findings"].tolist() == [0, 1, 2] * 2
    assert per_image["images"].tolist() == [4, 2, 1, 1, 1, 1]
    assert per_image["share"].tolist() == pytest.approx([4 / 7, 2 / 7, 1 / 7, 1 / 3, 1 / 3, 1 / 3])


def test_changes_follow_a_patients_studies_in_time():
    table = eda.study_changes(LABELS, patients=PATIENTS, study_order=ORDER, classes=CLASSES)
    seen = table[table["pairs"] > 0]
    # a: studies 0, 1, 2; b: studies 0 (its first image), 1; c has one study, and no pair crosses patients.
    assert sorted(seen[["class", "from", "to", "pairs", "share"]].to_numpy().tolist()) == [
        ["Edema", "blank", "positive", 1, 1.0],
        ["Edema", "positive", "blank", 1, 0.5],
        ["Edema", "positive", "negative", 1, 0.5],
        ["Fracture", "blank", "blank", 1, 1.0],
        ["Fracture", "negative", "uncertain", 1, 1.0],
        ["Fracture", "positive", "negative", 1, 1.0],
    ]
    assert len(table) == 2 * 16
    unseen = table[(table["class"] == "Edema") & (table["from"] == "uncertain")]
    assert unseen["pairs"].tolist() == [0] * 4 and unseen["share"].isna().all()


def test_pairs_count_first_studies_with_blank_as_absent_and_leave_out_uncertain():
    one = [(1, 1)] * 6 + [(1, NAN)] * 2 + [(NAN, 1)] * 3 + [(0, NAN)] * 9 + [(1, -1), (-1, 0)]
    labels = np.array(one + [(1, 1)] * 5, dtype=np.float64)  # the last five: later studies and second images
    patients = np.array([*range(len(one)), 0, 0, 1, 8, 9])
    order = np.array([0] * len(one) + [1, 2, 1, 0, 0])
    row = eda.pairs(labels, patients=patients, study_order=order, classes=CLASSES).iloc[0]
    assert (row["patients"], row["both"], row["only_a"], row["only_b"]) == (20, 6, 2, 3)
    assert row["expected"] == pytest.approx(8 * 9 / 20)
    assert row["lift"] == pytest.approx(6 / (8 * 9 / 20))
    assert row["log_odds_ratio"] == pytest.approx(np.log(6.5 * 9.5 / (2.5 * 3.5)))
    assert row["p"] == pytest.approx(2 * fisher_exact([[6, 2], [3, 9]], alternative="greater").pvalue)
    assert row["p_bonferroni"] == row["p"]


def test_pairs_that_avoid_each_other_and_pairs_that_cannot_be_tested():
    labels = np.zeros((40, 4))
    labels[:20, 0] = labels[20:, 1] = labels[:10, 2] = labels[20:30, 2] = 1  # class 3 is never positive
    table = eda.pairs(labels, patients=np.arange(40), study_order=np.zeros(40, int), classes=tuple("ABCD"))
    found = table.set_index(["class_a", "class_b"])
    never = 2 * fisher_exact([[0, 20], [20, 0]], alternative="less").pvalue
    assert found.loc[("A", "B"), "lift"] == 0
    assert found.loc[("A", "B"), "p"] == pytest.approx(never, rel=1e-9)
    assert found.loc[("A", "B"), "p_bonferroni"] == pytest.approx(3 * never)  # of six pairs three are tested
    assert found.loc[("A", "C"), ["lift", "p", "p_bonferroni"]].tolist() == [1, 1, 1]
    assert found.loc[("A", "D"), ["lift", "p", "p_bonferroni"]].isna().all()


def _write_run(folder, *, rows=ROWS, classes=CLASSES):
    columns = ["patient_id", "study_order", "split", "view", "sex", "age", *CLASSES]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(0, "image_id", [f"{i}.png" for i in range(len(table))])
    table["study_id"] = table["patient_id"] + table["study_order"].astype(str)
    # The context goes by image id, not by position.
    context = table[["image_id", "sex", "age", "study_order"]][::-1]
    meta = {"dataset": "csv", "image_root": "x", "classes": classes, "split": "by patient", "failed": []}
    write_manifest(folder, table, meta, context)


@pytest.mark.filterwarnings("error")
def test_the_stage_writes_what_it_says(tmp_path, capsys):
    _write_run(tmp_path)
    eda_labels.main(["--run-dir", str(tmp_path)])
    printed = capsys.readouterr().out
    said = printed.splitlines()[-1].split(": ", 1)[1].split()
    assert sorted(said) == sorted(path.name for path in (tmp_path / "eda").glob("[!.]*"))
    assert len([name for name in said if name.endswith(".csv")]) == 9
    assert "Edema    | 3 | 2 |  1 |     1" in printed
    for name in said:
        if name.endswith(".png"):
            with Image.open(tmp_path / "eda" / name) as picture:
                picture.load()
    by_sex = pd.read_csv(tmp_path / "eda" / "by_sex.csv")
    assert by_sex.loc[by_sex["class"] == "Edema", ["sex", "positive"]].to_numpy().tolist() == [["F", 1], ["M", 2]]
    by_view = pd.read_csv(tmp_path / "eda" / "rates_by_view.csv")
    assert dict(zip(by_view["view"], by_view["images"], strict=True)) == {"frontal": 5, "lateral": 1, "unknown": 1}
    changes = pd.read_csv(tmp_path / "eda" / "study_changes.csv")
    assert changes["pairs"].sum() == 2 * 3


def test_the_stage_keeps_earlier_outputs_unless_told(tmp_path, capsys):
    _write_run(tmp_path)
    eda_labels.main(["--run-dir", str(tmp_path)])
    with pytest.raises(ValueError, match="already exists; pass --overwrite"):
        eda_labels.main(["--run-dir", str(tmp_path)])
    _write_run(tmp_path, rows=[(*row[:4], "", NAN, *row[6:]) for row in ROWS])
    eda_labels.main(["--run-dir", str(tmp_path), "--overwrite"])
    assert not (tmp_path / "eda" / "by_sex.csv").exists()
    assert not (tmp_path / "eda" / "by_age.csv").exists()
    assert "by_sex" not in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("0.png", "new.png"), "'0.png' is missing"),
        (lambda text: text + "0.png,F,3,0\n", "'0.png' appears more than once"),
        (lambda text: text + "9.png,F,3,0\n", "'9.png' is not in the manifest"),
    ],
)
def test_a_context_of_other_images_is_refused(tmp_path, change, message):
    _write_run(tmp_path)
    context = tmp_path / "context.csv"
    context.write_text(change(context.read_text()))
    with pytest.raises(ValueError, match=message):
        eda_labels.main(["--run-dir", str(tmp_path)])
    assert not (tmp_path / "eda").exists()


@pytest.mark.filterwarnings("error")
def test_one_class_and_one_image_per_split(tmp_path):
    rows = [
        ("a", 0, "train", "", "", NAN, NAN, 1),
        ("b", 0, "val", "", "", NAN, NAN, -1),
        ("c", 0, "test", "", "", NAN, 0, 0),
    ]
    _write_run(tmp_path / "one", rows=rows, classes=("Edema",))
    eda_labels.main(["--run-dir", str(tmp_path / "one")])
    _write_run(tmp_path / "two", rows=rows)
    eda_labels.main(["--run-dir", str(tmp_path / "two")])
    assert pd.read_csv(tmp_path / "one" / "eda" / "pairs.csv").empty
