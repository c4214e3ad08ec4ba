"""predict.py on a small run of random networks, its inputs hostile."""

import csv
import functools
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import predict
from src.artifacts.manifest import read_manifest
from src.artifacts.predictions import PredictionTable, image_id
from src.artifacts.probs import as_stored, read_probs, write_probs
from src.images import files as image_files
from src.images.files import find_images
from src.images.heatmaps import SIDE
from src.stages.predict import Member, _load_members, heatmap_name
from tests.page_runs import random_run
from tests.trees import copy_run, write_image


@pytest.fixture(scope="module")
def run_dir(once):
    """A run folder as stage 6 leaves it, of two networks with random weights."""
    return next(once("random_run", random_run).glob("*/run"))


@functools.cache
def members_of(run_dir, device):
    return _load_members(run_dir, read_manifest(run_dir), device)


@pytest.fixture(autouse=True)
def loaded_once(run_dir, monkeypatch):
    """The networks of the shared run are loaded once, which takes longer than most predictions here."""

    def load(folder, manifest, device):
        members, origin = members_of(folder, device) if folder == run_dir else _load_members(folder, manifest, device)
        return members, dict(origin)

    monkeypatch.setattr("src.stages.predict._load_members", load)


@pytest.fixture
def copied(run_dir, tmp_path):
    """A copy of the run that a test may spoil."""
    return copy_run(run_dir, tmp_path / "run")


@pytest.fixture
def images(tmp_path):
    """A folder with five radiographs."""
    for seed in range(5):
        write_image(tmp_path / "images" / f"{seed}.png", size=40, seed=seed)
    return tmp_path / "images"


def run(run_dir, *arguments, out, recall="0.85"):
    """Exit status and table by image id, as texts."""
    flags = ["--run-dir", run_dir, "--recall", recall, "--workers", "0", "--out", out]
    status = predict.main([*map(str, arguments), *map(str, flags)])
    with open(out, encoding="utf-8", newline="") as stream:
        return status, {row["image_id"]: row for row in csv.DictReader(stream)}


def refused(run_dir, *arguments, out, match):
    with pytest.raises(ValueError, match=match) as raised:
        run(run_dir, *arguments, out=out)
    assert "\n" not in str(raised.value)


def change(path, **changed):
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def probs_of(rows, classes):
    return np.array([[float(row[name]) for name in classes] for row in rows])


def test_an_image_of_the_test_split_gets_what_stage_5_gave_it(run_dir, tmp_path):
    manifest = read_manifest(run_dir)
    paths = manifest.part("test").image_paths()
    status, rows = run(run_dir, *paths, "--batch-size", 5, out=tmp_path / "new" / "p.csv")
    expected = pd.read_csv(run_dir / "ensemble" / "probs_test.csv").set_index("image_id")
    ids = [str(path.relative_to(manifest.image_root)) for path in paths]
    found = probs_of([rows[str(path)] for path in paths], manifest.classes)
    assert status == 0 and len(rows) == len(paths)
    assert np.abs(found - expected.loc[ids, list(manifest.classes)].to_numpy()).max() < 1e-6


def test_flags_are_probabilities_at_or_above_the_threshold(run_dir, images, tmp_path):
    _, rows = run(run_dir, images, out=tmp_path / "p.csv", recall="0.9")
    points = json.loads((run_dir / "ensemble" / "thresholds.json").read_text())["recall"]["0.9"]
    for row in rows.values():
        flags = [row[f"{name} flagged"] for name in points]
        assert flags == [str(int(float(row[name]) >= point["threshold"])) for name, point in points.items()]
        assert row["flags"] == str(flags.count("1"))


def test_probabilities_are_the_numbers_that_a_stages_file_gives_back(tmp_path):
    rng = np.random.default_rng(0)
    probs = 10.0 ** rng.uniform(-12, 0, (5000, 2))
    ids = [f"{row}.png" for row in range(len(probs))]
    write_probs(tmp_path / "probs.csv", ids=ids, classes="AB", values=probs)
    stored = as_stored(probs)
    np.testing.assert_array_equal(stored, read_probs(tmp_path / "probs.csv").values)
    table = PredictionTable(tmp_path / "p.csv", "AB")
    for name, row in zip(ids, stored, strict=True):
        table.add(Path(name), row, row >= 0.5)
    table.save()
    theirs = [line.split(",")[1:] for line in (tmp_path / "probs.csv").read_text().splitlines()[1:]]
    assert [row[1:4:2] for row in table.rows.values()] == theirs


def test_an_image_whose_row_is_the_threshold_is_flagged(run_dir, tmp_path):
    """On the rows that chose the thresholds: an empirical threshold is one of them, so a digit less flags another."""
    manifest = read_manifest(run_dir)
    paths = manifest.part("val").image_paths()
    _, rows = run(run_dir, *paths, out=tmp_path / "p.csv")
    theirs = pd.read_csv(run_dir / "ensemble" / "probs_val.csv", dtype=str).set_index("image_id")
    points = json.loads((run_dir / "ensemble" / "thresholds.json").read_text())["recall"]["0.85"]
    at = 0
    for name, point in points.items():
        assert point["status"] == "ok"
        for path in paths:
            text = theirs.loc[str(path.relative_to(manifest.image_root)), name]
            if float(text) == point["threshold"]:
                at += 1
                assert (rows[str(path)][name], rows[str(path)][f"{name} flagged"]) == (text, "1")
    assert at >= len(points)


def test_an_image_gets_the_same_in_any_company():
    class DependsOnBatch(nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))[:, None] + len(images)

    member = Member("resnet50", DependsOnBatch(), 8, None, 0.5)
    images = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    for full in (4, 8):
        alone = member.probs(images[:1], full=full)
        assert np.array_equal(member.probs(images[: full - 1], full=full)[:1], alone)
        assert alone.dtype == np.float64


def test_real_networks_give_an_image_the_same_in_any_company(run_dir, images, tmp_path):
    _, together = run(run_dir, images, out=tmp_path / "a.csv")
    _, alone = run(run_dir, images, "--batch-size", 1, out=tmp_path / "b.csv")
    classes = read_manifest(run_dir).classes
    assert np.abs(probs_of(together.values(), classes) - probs_of(alone.values(), classes)).max() < 1e-7


def test_what_cannot_be_read_gets_a_row_and_the_others_their_results(run_dir, images, tmp_path, capsys):
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("no image")
    (images / "x.png").mkdir()
    (images / "none").mkdir()
    (images / "cut.png").write_bytes((images / "0.png").read_bytes()[:300])
    os.mkfifo(images / "pipe.png")
    write_image(images / "x.png" / "inside.png", size=20)
    status, rows = run(run_dir, images, images / "away.png", images / "none", out=tmp_path / "p.csv")
    reasons = {Path(name).name: row["error"] for name, row in rows.items() if row["error"]}
    assert status == 1
    assert set(reasons) == {"empty.png", "text.jpg", "cut.png", "pipe.png", "away.png", "none"}
    assert "does not exist" in reasons["away.png"] and "not an image" in reasons["text.jpg"]
    assert "holds no JPEG" in reasons["none"] and not any("check_split" in text for text in reasons.values())
    assert all((row["flags"] == "") == bool(row["error"]) for row in rows.values())
    assert len(rows) == 5 + 1 + 6
    assert "6 could not be read" in capsys.readouterr().out


def test_the_short_table_names_what_could_not_be_read(run_dir, images, tmp_path, capsys):
    (tmp_path / "zero.png").touch()
    files = [images / f"{seed}.png" for seed in range(5)]
    more = [shutil.copy(files[0], images / f"copy{number}.png") for number in range(20)]
    assert run(run_dir, *files, *more, tmp_path / "zero.png", out=tmp_path / "p.csv")[0] == 1
    out = capsys.readouterr().out
    assert "zero.png is not an image" in out and out.count("copy") == 15 and "... and 5 more" in out


def test_odd_names_and_a_file_given_twice_survive(run_dir, tmp_path, capsys):
    names = [
        "a b.png",
        "quote'\".png",
        "brustkorb_é_胸.png",
        "<script>alert(1)<_script>.png",
        "new\nline.png",
        "a,b.png",
    ]
    for seed, name in enumerate(names):
        write_image(tmp_path / "in" / name, seed=seed)
    shutil.copy(tmp_path / "in" / "a b.png", os.fsencode(tmp_path / "in") + b"/bad\xff.png")
    twice = tmp_path / "in" / ".." / "in" / "a b.png"
    status, rows = run(run_dir, tmp_path / "in", twice, out=tmp_path / "p.csv")
    assert status == 0 and len(rows) == len(names) + 1
    assert {Path(name).name for name in rows} == {*names, "bad\\xff.png"}
    assert "new?line.png" in capsys.readouterr().out


def test_a_100_megapixel_png_is_read(run_dir, tmp_path):
    Image.new("L", (10_000, 10_000), 90).save(tmp_path / "large.png", compress_level=1)
    status, rows = run(run_dir, tmp_path / "large.png", out=tmp_path / "p.csv")
    assert status == 0 and not rows[str(tmp_path / "large.png")]["error"]


def test_append_does_what_is_left_and_tries_again_what_failed(run_dir, images, tmp_path, monkeypatch):
    out = tmp_path / "p.csv"
    whole = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(b"")
    _, before = run(run_dir, images / "0.png", images / "2.png", out=out)
    (images / "2.png").write_bytes(whole)
    read = []
    original = image_files.read_file
    monkeypatch.setattr(image_files, "read_file", lambda path, **kw: read.append(path.name) or original(path, **kw))
    status, rows = run(run_dir, images, "--append", out=out)
    assert status == 0 and sorted(read) == ["1.png", "2.png", "3.png", "4.png"]
    assert rows[str(images / "0.png")] == before[str(images / "0.png")] and len(rows) == 5
    _, fresh = run(run_dir, images, out=tmp_path / "fresh.csv")
    classes = read_manifest(run_dir).classes
    ids = list(fresh)
    difference = probs_of([rows[i] for i in ids], classes) - probs_of([fresh[i] for i in ids], classes)
    assert np.abs(difference).max() < 1e-7


def test_append_to_a_table_that_is_complete_leaves_it_as_it_is(run_dir, images, tmp_path, capsys):
    run(run_dir, images, "--append", out=tmp_path / "p.csv")  # nothing is there yet: it starts anew
    before = (tmp_path / "p.csv").read_bytes()
    status, rows = run(run_dir, images, "--append", out=tmp_path / "p.csv")
    assert status == 0 and len(rows) == 5 and (tmp_path / "p.csv").read_bytes() == before
    assert "has results of 5 images already" in capsys.readouterr().out


def test_an_interrupted_run_keeps_its_results_and_append_goes_on(run_dir, images, tmp_path, monkeypatch):
    original = image_files.read_file

    def interrupted(path, **kwargs):
        if path.name == "3.png":
            raise KeyboardInterrupt
        return original(path, **kwargs)

    monkeypatch.setattr(image_files, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(run_dir, images, "--batch-size", 1, out=tmp_path / "p.csv")
    assert len(pd.read_csv(tmp_path / "p.csv")) == 2  # the one ahead of the interrupt was read, not yet computed
    monkeypatch.undo()
    status, rows = run(run_dir, images, "--append", out=tmp_path / "p.csv")
    assert status == 0 and len(rows) == 5


def test_the_table_is_saved_while_images_are_left(tmp_path):
    table = PredictionTable(tmp_path / "p.csv", ["A"])
    for number in range(3):
        table.add(Path(f"{number}.png"), np.array([0.1]), np.array([False]))
        table.save(every=1000)
    assert len(pd.read_csv(tmp_path / "p.csv")) == 1  # the first at once, the others when it is time
    table.save()
    assert len(pd.read_csv(tmp_path / "p.csv")) == 3


def test_an_output_that_is_there_is_left_alone(run_dir, images, tmp_path):
    out = tmp_path / "p.csv"
    run(run_dir, images, out=out)
    before = out.read_bytes()
    refused(run_dir, images, out=out, match="--append")
    lines = before.decode().split("\n")
    out.write_text("\n".join(line.rpartition(",")[0] for line in lines if line))
    refused(run_dir, images, "--append", out=out, match="other columns")
    refused(run_dir, images, out=images / "0.png", match=r"ends in \.csv")
    refused(run_dir, images, "--append", "--overwrite", out=out, match="pass one of them")
    (tmp_path / "folder.csv").mkdir()
    refused(run_dir, images, "--append", out=tmp_path / "folder.csv", match="expected a file")
    status, rows = run(run_dir, images, "--overwrite", out=out)
    assert status == 0 and len(rows) == 5 and out.read_bytes() == before


def test_append_refuses_rows_of_another_recall_or_model(run_dir, images, tmp_path):
    out = tmp_path / "p.csv"
    run(run_dir, images, out=out, recall="0.85")
    with pytest.raises(ValueError, match="other recall"):
        run(run_dir, images, "--append", out=out, recall="0.9")
    change(tmp_path / "p.csv.json", checkpoint_sha256={})
    refused(run_dir, images, "--append", out=out, match="other checkpoint_sha256")
    (tmp_path / "p.csv.json").unlink()
    refused(run_dir, images, "--append", out=out, match="which says what made it, is missing")


@pytest.mark.parametrize(
    ("column", "text", "match"),
    [
        (1, "abc", "corrupt"),
        (1, "1.5", "corrupt"),
        (1, "nan", "corrupt"),
        (2, "maybe", "corrupt"),
        (-2, "99", "corrupt"),
        (-1, "unreadable", "corrupt"),
        (0, None, "more than once"),
    ],
)
def test_append_refuses_rows_that_it_did_not_write(run_dir, images, tmp_path, column, text, match):
    out = tmp_path / "p.csv"
    run(run_dir, images, out=out)
    with open(out, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    rows[2][column] = rows[1][0] if text is None else text
    with open(out, "w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows(rows)
    refused(run_dir, images, "--append", out=out, match=match)


def test_append_knows_an_image_under_another_spelling_and_says_that_it_draws_none(
    run_dir, images, tmp_path, monkeypatch, capsys
):
    out, heat = tmp_path / "p.csv", tmp_path / "heat"
    run(run_dir, images, out=out)
    before = out.read_bytes()
    monkeypatch.chdir(images)
    status, rows = run(run_dir, ".", Path("..") / images.name, "--append", "--heatmaps", heat, out=out)
    assert status == 0 and len(rows) == 5 and out.read_bytes() == before
    assert "results of 5 images already; no heat maps are drawn of them" in capsys.readouterr().out
    assert not list(heat.glob("*"))


def test_append_from_another_folder_takes_no_image_for_one_of_the_same_name(run_dir, images, tmp_path, monkeypatch):
    out, other = tmp_path / "p.csv", tmp_path / "other"
    monkeypatch.chdir(images)
    run(run_dir, "0.png", out=out)
    write_image(other / "0.png", size=40, seed=9)
    monkeypatch.chdir(other)
    for _ in range(2):
        _, rows = run(run_dir, "0.png", images / "0.png", "--append", out=out)
        assert list(rows) == ["0.png", "../other/0.png"]
    assert rows["0.png"] | {"image_id": ""} != rows["../other/0.png"] | {"image_id": ""}


def test_a_recall_that_the_file_lacks_is_refused_naming_those_it_has(run_dir, images, tmp_path):
    with pytest.raises(ValueError, match=r"no thresholds for recall 0\.8; pass one of 0\.85, 0\.9"):
        run(run_dir, images, out=tmp_path / "p.csv", recall="0.8")
    with pytest.raises(ValueError, match=r"recall 0\.85, 0\.9; pass --recall"):
        predict.main([str(images), "--run-dir", str(run_dir), "--out", str(tmp_path / "p.csv")])
    assert not (tmp_path / "p.csv").exists()


def page_file(run_dir, path, **changed):
    """thresholds.json as the page saves it: one recall target, whole numbers without a point, and "report"."""
    content = json.loads((run_dir / "ensemble" / "thresholds.json").read_text())
    points = content["recall"]["0.85"]
    first, second = list(points)[:2]
    points[first] |= {"threshold": 1, "precision": None}
    points[second] |= {"threshold": 0, "status": "infeasible", "positives_needed": 7}
    chosen = {second: {"recall": 0.97, "confidence": 0.9}}
    content |= {"recall": {"0.85": points}, "report": {"run": "other", "chosen": chosen}}
    path.write_text(json.dumps(content | changed))
    return first, second


def test_thresholds_saved_by_the_page_are_taken_and_an_infeasible_class_flags_all(run_dir, images, tmp_path, capsys):
    never, always = page_file(run_dir, tmp_path / "t.json")
    flags = ["--thresholds", str(tmp_path / "t.json"), "--workers", "0", "--out", str(tmp_path / "p.csv")]
    assert predict.main([str(images), "--run-dir", str(run_dir), *flags]) == 0  # its one recall need not be named
    table = pd.read_csv(tmp_path / "p.csv")
    assert (table[f"{never} flagged"] == 0).all() and (table[f"{always} flagged"] == 1).all()
    out = capsys.readouterr().out
    assert "for the recall targets below" in out and "Recall target" in out
    assert f"{always}: no threshold is known to reach recall 0.97 (7 more positive patients" in out


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        ({"manifest_sha256": "0"}, "not of this run: its manifest_sha256"),
        ({"probs_val_sha256": "0"}, "not of this run: its probs_val_sha256"),
        ({"classes": ["Edema"]}, r"lacks the class '.+', as the run has them"),
        ({"classes": None}, r"lacks the class '.+', as the run has them"),
        ({"recall": {}}, "no thresholds"),
        ({"recall": {"0.85": {"Edema": {"threshold": 0.5}}}}, r"recall 0\.85 lacks the class '.+'"),
        ({"recall": {"0.85": None}}, r"recall 0\.85 lacks the class"),
        ({"recall": {"high": {}}}, "recall 'high'; expected a number"),
        ({"recall": {"nan": {}}}, "recall 'nan'; expected a number"),
        ({"recall": {"1e999": {}}}, "recall '1e999'; expected a number"),
        ({"recall": {"-3": {}}}, "recall '-3'; expected a number"),
        ({"report": {"chosen": {"Edema": {"recall": "high"}}}}, "recall chosen for Edema is 'high'"),
        ({"report": {"chosen": {"Edema": {"recall": 0}}}}, "recall chosen for Edema is 0; expected"),
        ({"report": {"chosen": {"Edema": {"recall": 1.5}}}}, "recall chosen for Edema is 1.5"),
        ({"report": {"chosen": None}}, "'report' is not what the report writes"),
    ],
)
def test_thresholds_of_another_run_are_refused(run_dir, images, tmp_path, changed, match):
    page_file(run_dir, tmp_path / "t.json", **changed)
    refused(run_dir, images, "--thresholds", tmp_path / "t.json", out=tmp_path / "p.csv", match=match)


@pytest.mark.parametrize(
    ("changed", "match"),
    [
        *(({"threshold": value}, "threshold of Edema is") for value in (None, "0.5", True, 1.5, 10**400)),
        ({"status": "fine"}, "status of Edema is 'fine'"),
        ({"status": None}, "status of Edema is None"),
        *(
            ({"status": "infeasible", "positives_needed": value}, "Edema is infeasible and its positives_needed is")
            for value in (0, -1, 0.5, True, "many", float("nan"), [], None)
        ),
        ({"status": "ok", "positives_needed": 3}, "Edema is ok and its positives_needed is 3"),
    ],
)
def test_an_operating_point_that_no_stage_writes_is_refused(run_dir, images, tmp_path, changed, match):
    content = json.loads((run_dir / "ensemble" / "thresholds.json").read_text())
    content["recall"]["0.85"]["Edema"] |= changed
    (tmp_path / "t.json").write_text(json.dumps(content))
    refused(run_dir, images, "--thresholds", tmp_path / "t.json", out=tmp_path / "p.csv", match=match)


@pytest.mark.parametrize(
    ("file", "changed", "match"),
    [
        ("probs.json", {"manifest_sha256": "0"}, "another manifest"),
        ("probs.json", {"probs_sha256": {}}, "not the file that probs.json describes"),
        ("probs.json", {"checkpoint_sha256": ["0", "0"]}, "resnet50 was trained again"),
        ("probs.json", {"checkpoint_sha256": None}, "its checkpoint_sha256 is None; expected a list"),
        ("probs.json", {"probs_sha256": None}, "its probs_sha256 is None; expected a dict"),
        ("probs.json", {"prior_correction": "false"}, "its prior_correction is 'false'; expected a bool"),
        ("alpha.json", {"members": ["a", "b"]}, "blends"),
        ("alpha.json", {"weights": [0.25, 0.75]}, "not what the probabilities beside it were blended by"),
    ],
)
def test_a_run_whose_parts_do_not_fit_is_refused(copied, images, tmp_path, file, changed, match):
    change(copied / "ensemble" / file, **changed)
    refused(copied, images, out=tmp_path / "p.csv", match=match)


def test_one_target_spelled_twice_is_refused(run_dir, images, tmp_path):
    page_file(run_dir, tmp_path / "t.json")
    targets = json.loads((tmp_path / "t.json").read_text())["recall"]
    change(tmp_path / "t.json", recall=targets | {"0.850": targets["0.85"]})
    flags = ("--thresholds", tmp_path / "t.json")
    refused(run_dir, images, *flags, out=tmp_path / "p.csv", match=r"recall '0\.850'; expected each target once")


def test_a_mistyped_thresholds_file_is_not_there(run_dir, images, tmp_path):
    match = r"gone\.json does not exist; run ensemble_threshold_search\.py, or save one from the report"
    refused(run_dir, images, "--thresholds", tmp_path / "gone.json", out=tmp_path / "p.csv", match=match)


def test_a_blend_of_an_older_version_is_refused_as_that(copied, images, tmp_path):
    path = copied / "ensemble" / "probs.json"
    story = json.loads(path.read_text())
    del story["weights"]
    path.write_text(json.dumps(story))
    refused(copied, images, out=tmp_path / "p.csv", match="does not record weights, as older versions did not")


def test_heat_maps_are_one_picture_per_flagged_finding_and_model(run_dir, tmp_path):
    folder = tmp_path / "<script>é"
    write_image(folder / "a 'b'.png")
    heat = folder / "heat"  # inside the input: its pictures are no radiographs
    for _ in range(2):
        _, rows = run(run_dir, folder, "--heatmaps", heat, "--overwrite", out=tmp_path / "p.csv")
        assert len(rows) == 1
    flags = sum(int(row["flags"]) for row in rows.values())
    assert flags and len(list(heat.glob("*.png"))) == 2 * flags
    with Image.open(next(heat.glob("*.png"))) as picture:
        assert picture.width == SIDE and picture.height > SIDE


def test_heat_map_names_are_safe_and_their_own():
    one = heatmap_name(Path("a/<é>.png"), finding="A/B", arch="resnet50")
    assert one != heatmap_name(Path("b/<é>.png"), finding="A/B", arch="resnet50")
    assert one != heatmap_name(Path("a/<é>.png"), finding="A-B", arch="resnet50")
    assert "/" not in one and one.isascii()


def test_folders_give_images_sorted_hidden_ones_left_out(tmp_path):
    for name in ("b/2.PNG", "a.jpeg", "b/.hidden.png", ".git/1.png", "b/notes.txt", "c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found = find_images([tmp_path / "c.jpg", tmp_path])
    assert [image_id(path.relative_to(tmp_path)) for path in found] == ["c.jpg", "a.jpeg", "b/2.PNG"]


def test_folders_behind_links_are_followed_once(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.png").write_bytes(b"x")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "a").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "b").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "near")
    (tmp_path / "near" / "up").symlink_to(tmp_path)
    assert list(find_images([tmp_path / "near"])) == [tmp_path / "near" / "a" / "1.png"]
    (tmp_path / "near" / "c").mkdir()
    (tmp_path / "near" / "c" / "2.png").write_bytes(b"x")
    (tmp_path / "near" / "a2").symlink_to(tmp_path / "near" / "c")  # sorts first, and is no place of its own
    assert list(find_images([tmp_path / "near"])) == [tmp_path / "near" / name for name in ("c/2.png", "a/1.png")]
    shutil.rmtree(tmp_path / "near" / "c")
    (tmp_path / "near" / "a2").unlink()
    assert find_images([tmp_path / "near"], skip=tmp_path / "far")[tmp_path / "near"]  # it says that there is none


def test_what_cannot_be_done_leaves_the_old_table(run_dir, images, tmp_path, monkeypatch):
    out = tmp_path / "p.csv"
    run(run_dir, images, out=out)
    before = out.read_bytes()
    refused(
        run_dir, tmp_path / "imgaes", "--overwrite", out=out, match="imgaes does not exist; expected images or folders"
    )
    refused(run_dir, images, "--overwrite", "--heatmaps", images, out=out, match="which is to be searched for images")

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(image_files, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(run_dir, images, "--overwrite", out=out)
    assert out.read_bytes() == before
    monkeypatch.undo()
    assert run(run_dir, images, "--append", out=out)[0] == 0


def test_of_two_runs_that_write_one_table_one_is_told(tmp_path):
    flags = {"origin": {"checkpoint_sha256": {}}, "append": True, "overwrite": False}
    first, second = (PredictionTable.open(tmp_path / "p.csv", ["A"], **flags) for _ in range(2))
    first.add(Path("1.png"), np.array([0.1]), np.array([False]))
    first.save()
    first.save()
    second.add(Path("2.png"), np.array([0.1]), np.array([False]))
    with pytest.raises(ValueError, match=r"another run of predict.py writes .*p\.csv"):
        second.save()
    third = PredictionTable.open(tmp_path / "p.csv", ["A"], **flags)
    third.save()
    with pytest.raises(ValueError, match="another run"):
        first.save()
    assert list(third.rows) == ["1.png"]


def test_heat_maps_are_no_radiographs_and_go_with_their_flags(run_dir, tmp_path):
    write_image(tmp_path / "in" / "a.png")
    heat = tmp_path / "in" / "heat"
    _, rows = run(run_dir, tmp_path / "in", "--heatmaps", heat, out=tmp_path / "p.csv")
    flags = int(rows[str(tmp_path / "in" / "a.png")]["flags"])
    assert flags and len(list(heat.iterdir())) == 2 * flags
    _, rows = run(run_dir, tmp_path / "in", "--append", out=tmp_path / "p.csv")
    assert len(rows) == 1
    content = json.loads((run_dir / "ensemble" / "thresholds.json").read_text())
    for point in content["recall"]["0.85"].values():
        point |= {"threshold": 1.0, "status": "ok", "positives_needed": 0}
    (tmp_path / "t.json").write_text(json.dumps(content))
    never = ("--overwrite", "--heatmaps", heat, "--thresholds", tmp_path / "t.json")
    _, rows = run(run_dir, tmp_path / "in", *never, out=tmp_path / "p.csv")
    assert rows[str(tmp_path / "in" / "a.png")]["flags"] == "0" and not list(heat.iterdir())


def test_a_link_as_out_stays_one(run_dir, images, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "p.csv")
    for flags in ((), ("--append",), ("--overwrite",)):
        status, rows = run(run_dir, images / "0.png", *flags, out=tmp_path / "link.csv")
        assert status == 0 and len(rows) == 1
        assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "far" / "p.csv").is_file()


def test_a_heat_map_is_of_the_image_and_not_of_how_its_path_is_typed(tmp_path, monkeypatch):
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        names.append(heatmap_name(Path("1.png"), finding="Edema", arch="resnet50"))
    assert names[0] != names[1]


def test_a_file_that_may_be_dicom_and_cannot_be_looked_into_gets_a_row(tmp_path, monkeypatch):
    for name in ("IM0001", "notes"):
        (tmp_path / name).write_text("text")

    def denied(path):
        if path.name == "IM0001":
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(image_files, "is_dicom", denied)
    assert list(find_images([tmp_path])) == [tmp_path / "IM0001"]


def test_a_folder_that_was_empty_loses_its_row_when_it_holds_images(run_dir, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    status, rows = run(run_dir, folder, out=tmp_path / "p.csv")
    assert status == 1 and list(rows) == [str(folder)]
    write_image(folder / "a.png")
    status, rows = run(run_dir, folder, "--append", out=tmp_path / "p.csv")
    assert status == 0 and list(rows) == [str(folder / "a.png")]


def test_a_table_survives_odd_names_and_an_editor(run_dir, tmp_path):
    write_image(tmp_path / "a\rb.png")
    _, rows = run(run_dir, tmp_path / "a\rb.png", out=tmp_path / "p.csv")
    assert list(rows) == [f"{tmp_path}/a\\rb.png"] and len(pd.read_csv(tmp_path / "p.csv")) == 1
    (tmp_path / "p.csv").write_text((tmp_path / "p.csv").read_text(), encoding="utf-8-sig")
    write_image(tmp_path / "c.png")
    status, _ = run(run_dir, tmp_path / "a\rb.png", tmp_path / "c.png", "--append", out=tmp_path / "p.csv")
    assert status == 0 and len(pd.read_csv(tmp_path / "p.csv")) == 2


def test_files_that_are_not_its_own_are_left_alone(run_dir, tmp_path):
    image, out, heat = tmp_path / "a.png", tmp_path / "o.csv", tmp_path / "heat"
    write_image(image)
    heat.mkdir()
    (heat / ".notes.tmp.txt").write_text("mine")
    run(run_dir, image, "--heatmaps", heat, out=out)
    assert (heat / ".notes.tmp.txt").read_text() == "mine"
    before = out.read_bytes()
    with pytest.raises(ValueError, match="a file; expected a folder"):
        run(run_dir, image, "--overwrite", "--heatmaps", image, out=out)
    assert out.read_bytes() == before
    other = tmp_path / "table.csv"
    other.write_text("mine")
    with pytest.raises(ValueError, match="not made by predict.py"):
        run(run_dir, image, "--overwrite", out=other)
    with pytest.raises(ValueError, match="one of the images"):
        run(run_dir, other, "--overwrite", out=other)
    assert other.read_text() == "mine"
