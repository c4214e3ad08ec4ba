"""Pictures: they are there, whole and of the size asked for, whatever the numbers look like."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from src.plots import audits
from src.plots import labels as plots_labels
from src.plots import results as plots
from src.plots import style as plots_style
from src.plots.style import DPI, canvas, short
from src.stats.subgroups import COLUMNS

pytestmark = pytest.mark.filterwarnings("error")

DRAWS_PICTURES = True
NAN = np.nan
LONG = "A finding with a name of many words that goes on and on"
NAMES = ["Edema", "Enlarged Cardiomediastinum", LONG, "x" * 70, r"$\frac$"]


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def drawn(path):
    """Whether a picture can be read and has more in it than a blank page."""
    return (pixels(path) < 200).sum() > 500


def names(count):
    return [NAMES[i] if i < len(NAMES) else f"finding {i}" for i in range(count)]


def history(epochs, **columns):
    rng = np.random.default_rng(0)
    table = pd.DataFrame(rng.random((epochs, 4)), columns=["train_loss", "val_loss", "val_auroc", "val_auprc"])
    return table.assign(epoch=np.arange(1, epochs + 1), lr=1e-4, **columns)


def panels(axes_of, monkeypatch, module):
    """Record the axes that a private `_draw` function of `module` draws on."""
    seen, draw = [], getattr(module, axes_of)
    monkeypatch.setattr(module, axes_of, lambda axes, *args: (draw(axes, *args), seen.append(axes)))
    return seen


def test_a_canvas_has_the_size_asked_for_and_the_same_bytes_each_time(tmp_path):
    for name in ("a.png", "b.png"):
        with canvas(tmp_path / name, width=3, height=2) as figure:
            figure.add_subplot().plot([1, 2])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (3 * DPI, 2 * DPI)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert b"matplotlib" not in (tmp_path / "a.png").read_bytes().lower()


def test_a_failed_picture_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyError), canvas(path, width=3, height=2):
        raise KeyError
    assert path.read_bytes() == b"old"


def test_an_interrupted_write_leaves_the_old_picture_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def half(self, target, **kwargs):
        with open(target, "wb") as handle:
            handle.write(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(plots_style.Figure, "savefig", half)
    with pytest.raises(OSError, match="no space"), canvas(path, width=3, height=2):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"] and path.read_bytes() == b"old"


def test_drawing_changes_no_settings_and_needs_neither_pyplot_nor_torch(tmp_path):
    code = f"""
import sys
import matplotlib
before = matplotlib.rcParams.copy()
from src.plots import results as plots
from src.plots import labels as plots_labels
with plots.canvas({str(tmp_path / "a.png")!r}, width=3, height=2) as figure:
    figure.add_subplot()
assert matplotlib.rcParams.copy() == before
assert not {{"torch", "scipy.stats", "matplotlib.pyplot"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_long_names_are_broken_and_cut():
    assert short("Pleural Effusion", width=8) == "Pleural\nEffusion"
    assert short("one two three four", width=9, lines=1) == "one two…"
    assert short("x" * 70, width=10, lines=2) == "x" * 10 + "\n" + "x" * 9 + "…"


@pytest.mark.parametrize("epochs", [1, 2, 30])
def test_learning_curves(tmp_path, epochs):
    paths = plots.learning_curves(history(epochs), folder=tmp_path, title="resnet50")
    assert [path.stem for path in paths] == ["train_loss", "val_loss", "val_auroc", "val_auprc"]
    assert all(drawn(path) for path in paths)


def test_learning_curves_mark_the_first_best_epoch(tmp_path, monkeypatch):
    marked = []
    monkeypatch.setattr(plots, "dots", lambda axes, x, y, **look: marked.append((x, y)))
    table = history(4).assign(val_auprc=[0.1, 0.7, NAN, 0.7], val_loss=[4.0, 3.0, 2.0, 1.0])
    plots.learning_curves(table, folder=tmp_path, title="m")
    assert marked[1] == (2, 3.0) and marked[3] == (2, 0.7)


def test_learning_curves_without_a_score(tmp_path):
    paths = plots.learning_curves(history(3).assign(val_auprc=NAN, val_auroc=NAN), folder=tmp_path, title="m")
    assert all(drawn(path) for path in paths)


@pytest.mark.parametrize("standard_error", [None, 0.01, NAN, np.linspace(0, 0.02, 11)])
@pytest.mark.parametrize("score", [0.5, NAN])
def test_alpha_curve(tmp_path, standard_error, score):
    alpha = np.linspace(0, 1, 11)
    table = pd.DataFrame({"alpha": alpha, "accuracy": 0.8, "auroc": score, "auprc": score - (alpha - 0.3) ** 2})
    path = plots.alpha_curve(table, chosen=0.30000000000000004, path=tmp_path / "a.png", standard_error=standard_error)
    assert path == tmp_path / "a.png" and drawn(path)


def curve(name, *, points, **fields):
    recall = np.linspace(0, 1, 50)
    return {"name": name, "recall": recall, "precision": 1 - recall / 2, "prevalence": 0.5, "points": points} | fields


def point(kind, recall, **fields):
    return {"label": f"{kind} rule", "kind": kind, "recall": recall, "precision": 0.6, "verdict": "", **fields}


@pytest.mark.parametrize("count", [1, 2, 5, 15])
def test_precision_recall_curves(tmp_path, count):
    points = [point("empirical", 0.85), point("certified", 0.95)]
    curves = [curve(name, points=points) for name in names(count)]
    curves[-1] |= {"recall": [], "precision": [], "prevalence": NAN, "points": [], "note": "no positives"}
    assert drawn(plots.precision_recall_curves(curves, target=0.85, path=tmp_path / "pr.png"))
    curves[-1] |= {"recall": [NAN], "precision": [NAN], "points": [point("empirical", NAN)]}
    assert drawn(plots.precision_recall_curves(curves, target=0.85, path=tmp_path / "pr.png"))


def test_precision_recall_steps_enclose_the_average_precision(tmp_path, monkeypatch):
    seen = panels("_draw_precision_recall", monkeypatch, plots)
    recall, precision = np.array([0.5, 0.5, 1.0]), np.array([1.0, 0.5, 0.4])
    for way in (slice(None), slice(None, None, -1)):
        given = curve("x", points=[]) | {"recall": recall[way], "precision": precision[way]}
        plots.precision_recall_curves([given], target=0.9, path=tmp_path / "pr.png")
        line = next(line for line in seen[-1].lines if line.get_drawstyle() == "steps-pre")
        assert np.array_equal(line.get_xdata(), recall) and np.array_equal(line.get_ydata(), precision)


@pytest.mark.parametrize("count", [1, 15])
def test_recall_intervals(tmp_path, count):
    points = [point("empirical", 0.8, lower=0.7, upper=0.9), point("certified", 1.0, lower=NAN, upper=NAN)]
    rows = [{"name": name, "positives": 1234, "points": points} for name in names(count)]
    rows[-1] |= {"points": [point("empirical", NAN, lower=NAN, upper=NAN)], "positives": 0, "note": "infeasible"}
    assert drawn(plots.recall_intervals(rows, target=0.85, path=tmp_path / "r.png"))
    rows[-1]["points"] = []
    assert drawn(plots.recall_intervals(rows, target=0.85, path=tmp_path / "r.png"))


def test_recall_intervals_count_the_verdicts_of_each_rule(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr(plots, "headline", lambda figure, text: said.append(text))
    rows = []
    for pair in (("contradicted", "consistent"), ("consistent", "confirmed"), ("", "confirmed")):
        points = [point(kind, 0.9, lower=0.8, upper=1, verdict=v) for kind, v in zip(plots.RULES, pair, strict=True)]
        rows.append({"name": "x", "positives": 5, "points": points})
    plots.recall_intervals(rows, target=0.85, path=tmp_path / "r.png")
    text = said[0].replace("\N{NO-BREAK SPACE}", " ")
    assert "empirical rule: 1 contradicted, 0 confirmed, 1 consistent" in text
    assert "certified rule: 0 contradicted, 2 confirmed, 1 consistent" in text


@pytest.mark.parametrize("count", [1, 3, 14])
def test_subgroup_intervals(tmp_path, count):
    rows = [
        (name, by, group, 9, 8, 1, 0.9, 0.8, 0.95, verdict, 0)
        for name in names(count)
        for by, group, verdict in (("sex", "F", "confirmed"), ("sex", "M", "contradicted"), ("age", "80+", ""))
    ]
    rows[-1] = (*rows[-1][:3], 0, 0, 0, NAN, NAN, NAN, "", 19)
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    path = tmp_path / "s.png"
    assert drawn(audits.subgroup_intervals(table, target=0.85, path=path, left_out=12))


def test_a_group_without_positives_or_beyond_the_panel_says_so():
    axes = Figure().add_subplot(xlim=(0.7, 1.02))
    table = pd.DataFrame(
        [
            ("Edema", "sex", "F", 0, 0, 0, NAN, NAN, NAN, "", 19),
            ("Edema", "sex", "M", 9, 8, 1, 0.6, 0.2, 0.95, "", 11),
            ("Edema", "sex", "O", 9, 8, 1, 0.9, 0.8, 0.95, "", 11),
        ],
        columns=list(COLUMNS),
    )
    for y, row in enumerate(table.to_dict("records")):
        audits._draw_group(axes, y, pd.Series(row))
    assert [text.get_text() for text in axes.texts] == ["no positives"]
    assert [(line.get_marker(), *line.get_xdata()) for line in axes.lines] == [("<", 0.7), ("o", 0.9)]


@pytest.mark.parametrize("count", [1, 5])
def test_reader_curves(tmp_path, count):
    figures = {"recall": 0.8, "precision": 0.7, "specificity": NAN}
    pairs = {f"{name}_ci": (value - 0.1, value + 0.1) for name, value in figures.items()}
    line = {"x": np.linspace(0, 1, 9), "y": np.linspace(1, 0, 9)}
    readers = [{"reader": f"reader {n}", "cases": 90 + n, **figures, **pairs} for n in range(7)]
    curves = [{"name": name, "readers": readers, "roc": line, "precision_recall": line} for name in names(count)]
    for path in audits.reader_curves(curves, folder=tmp_path):
        assert drawn(path)
    assert audits._cases(readers) == "90 to 96 cases per reader"
    assert audits._cases(readers[:1]) == "90 cases per reader"


@pytest.mark.parametrize("count", [1, 15])
def test_reliability(tmp_path, count, monkeypatch):
    seen = panels("_draw_reliability", monkeypatch, plots)
    before, after = (
        {"label": kind, "kind": kind, "predicted": np.array(predicted), "observed": np.array(predicted) / 2}
        for kind, predicted in (("before", [0.1, 0.5]), ("after", [0.2]))
    )
    curves = [{"name": name, "series": [before, after]} for name in names(count)]
    curves[-1] = {"name": "none", "series": [{**before, "predicted": [], "observed": []}]}
    assert drawn(plots.reliability(curves, path=tmp_path / "c.png"))
    *known, unknown = [[text.get_text() for text in axes.texts] for axes in seen]
    assert known == [[]] * (count - 1) and unknown == ["not defined"]


def test_panels_fill_the_page_where_a_class_has_nothing_to_show(tmp_path, monkeypatch):
    """An artist without extent must not push the others aside."""
    seen = panels("_draw_reliability", monkeypatch, plots)
    full = {"label": "after", "kind": "after", "predicted": [0.2], "observed": [0.2]}
    curves = [{"name": "x", "series": [full]} for _ in range(8)]
    curves[5] = {"name": "x", "series": [{**full, "predicted": [], "observed": []}]}
    plots.reliability(curves, path=tmp_path / "c.png")
    widths = [axes.get_position().width for axes in seen]
    assert min(widths) > 0.18


def label_tables(count):
    from src.labels import eda

    rng = np.random.default_rng(0)
    labels = rng.choice([1, 0, -1, NAN], size=(60, count))
    labels[:, -1] = NAN  # a class that no report mentions
    classes, ids = names(count), np.arange(60) // 2

    def by(name, values):
        groups = np.array(values)[np.arange(60) % len(values)]
        states = eda.count_states(labels, groups=groups, order=("all", *values), classes=classes, name=name)
        return eda.with_rates(states)

    def known(name, values):
        return by(name, values).query(f"{name} != 'all'")

    return {
        "label_states": by("split", ("train",)),
        "prevalence": by("split", ("train",)),
        "cooccurrence": eda.cooccurrence(labels, classes=classes),
        "findings_per_image": eda.findings_per_image(labels, groups=np.full(60, "train"), order=("all", "train")),
        "rates_by_view": known("view", ("frontal", "lateral", "unknown")),
        "by_sex": known("sex", ("F", "M")),
        "by_age": known("age", ("0-17", "80+")),
        "study_changes": eda.study_changes(labels, patients=ids, study_order=np.arange(60) % 2, classes=classes),
        "pairs": eda.pairs(labels, patients=ids, study_order=np.arange(60) % 2, classes=classes),
    }


@pytest.mark.parametrize("count", [1, 2, 15])
def test_pictures_of_labels(tmp_path, count):
    tables = label_tables(count)
    for name in ("label_states", "prevalence", "cooccurrence", "findings_per_image"):
        assert drawn(getattr(plots_labels, name)(tables[name], path=tmp_path / f"{name}.png"))
    assert drawn(plots_labels.overview(tables, path=tmp_path / "overview.png", title="labels"))


@pytest.mark.parametrize("absent", [("by_sex",), ("by_sex", "by_age")])
def test_the_overview_leaves_no_gap(tmp_path, absent):
    tables = {name: table for name, table in label_tables(5).items() if name not in absent}
    tables["study_changes"] = tables["study_changes"].assign(pairs=0)
    page = pixels(plots_labels.overview(tables, path=tmp_path / "overview.png", title="labels"))
    height, width = page.shape
    for corner in (page[height * 2 // 3 :, : width // 2], page[height * 2 // 3 :, width // 2 :]):
        assert (corner < 200).sum() > 500


def test_shares_of_few_pairs_of_studies_are_dashes_and_only_states_that_occur_are_named(tmp_path, monkeypatch):
    drew, said, heat_map = [], [], plots_labels.heat_map

    def draw(axes, values, texts, **options):
        drew.append(texts)
        heat_map(axes, values, texts, **options)

    monkeypatch.setattr(plots_labels, "heat_map", draw)
    monkeypatch.setattr(plots_labels, "headline", lambda figure, text: said.append((figure, text)))
    tables = label_tables(2)
    changes = tables["study_changes"].assign(pairs=0, share=np.nan)
    first, second = changes["class"].unique()
    for name, count in ((first, 10), (second, 9)):
        row = (changes["class"] == name) & (changes["from"] == "positive") & (changes["to"] == "negative")
        changes.loc[row, ["pairs", "share"]] = count, 1.0
    tables["study_changes"] = changes
    states = tables["label_states"]
    tables["label_states"] = states.assign(blank=states["blank"] + states["uncertain"], uncertain=0)
    plots_labels.overview(tables, path=tmp_path / "overview.png", title="labels")
    assert sorted(drew[-1]) == [["100"], ["–"]] and said[-1][1].endswith("; dash: fewer than 10 pairs")
    figure = next(figure for figure, text in said if text.startswith("Label states"))
    assert figure.axes[0].get_legend_handles_labels()[1] == ["positive", "negative", "blank"]
    tables["study_changes"] = changes.assign(pairs=0)
    drew.clear()
    plots_labels.overview(tables, path=tmp_path / "overview.png", title="labels")
    assert all(texts != [["100"], ["–"]] for texts in drew)


def test_names_in_scripts_without_a_font_are_said_once_and_warn_of_nothing(tmp_path, capsys, monkeypatch, recwarn):
    monkeypatch.setattr("src.plots.style.installed", tuple)
    for _ in range(2):
        with canvas(tmp_path / "a.png", width=2, height=2) as figure:
            figure.suptitle("\u80ba\u708e")
    assert capsys.readouterr().err.count("no font with some characters") <= 1  # at most: once per process
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
