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

import ensemble_threshold_search
import predict
from src.artifacts.calibration_record import Calibration
from src.artifacts.manifest import read_manifest
from src.artifacts.predictions import image_id
from src.artifacts.probs import read_probs
from src.artifacts.truth import Truth, Units
from src.images import files as image_files
from src.images.files import find_images
from src.images.heatmaps import SIDE
from src.images.pixels import equalized, gray_pixels
from src.stages.predict import Member, _load_members, heatmap_name
from src.stats.calibration_maps import OddsMap
from tests.page_runs import random_run
from tests.trees import copy_run, write_image


@pytest.fixture(scope="module")
def run_dir(once):
    """A run folder as stage 6 leaves it, of two networks with random weights; its thresholds are of studies."""
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
    """A folder with five radiographs like those of the run."""
    for seed in range(5):
        write_image(tmp_path / "images" / f"{seed}.png", seed=seed)
    return tmp_path / "images"


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    return {row[0]: dict(zip(header, row, strict=True)) for row in rows}


def studies_of(out):
    return read_rows(out.with_name(f"{out.stem}_studies.csv"))


def run(run_dir, *arguments, out, recall="0.85"):
    """Exit status and table by image id, as texts."""
    flags = ["--run-dir", run_dir, "--recall", recall, "--workers", "0", "--out", out]
    return predict.main([*map(str, arguments), *map(str, flags)]), read_rows(out)


def refused(run_dir, *arguments, out, match, **flags):
    with pytest.raises(ValueError, match=match) as raised:
        run(run_dir, *arguments, out=out, **flags)
    assert "\n" not in str(raised.value)


def change(path, target=None, **changed):
    """Change entries of a JSON file, or write them to `target`; those of ... are removed."""
    content = json.loads(path.read_text()) | changed
    (target or path).write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))
    return target or path


def points_of(run_dir):
    return json.loads((run_dir / "ensemble" / "thresholds.json").read_text())["recall"]["0.85"]


def probs_of(rows, classes):
    return np.array([[float(row[name]) for name in classes] for row in rows])


def flags_of(rows, classes):
    return np.array([[row[f"{name} flagged"] == "1" for name in classes] for row in rows])


@pytest.mark.parametrize("aggregate", ["max", "mean"])
def test_images_and_studies_of_the_run_get_what_its_stages_gave_them(run_dir, copied, tmp_path, aggregate, capsys):
    """Flags are the same to the last study: an empirical threshold is the probability of one, a digit less flags it."""
    flags = ["--recall", "0.85", "--rule", "empirical", "--aggregate", aggregate, "--resamples", "0", "--no-pictures"]
    ensemble_threshold_search.main(["--run-dir", str(copied), *flags, "--overwrite"])
    saved, out, manifest = (
        ("--thresholds", copied / "ensemble" / "thresholds.json"),
        tmp_path / "p.csv",
        read_manifest(run_dir),
    )
    thresholds = np.array([point["threshold"] for point in points_of(copied).values()])
    at, alone = 0, 0
    for split in ("val", "test"):
        part, classes = manifest.part(split), manifest.classes
        paths = part.image_paths()
        status, rows = run(run_dir, *paths, *saved, "--study", "folder", "--batch-size", 5, "--overwrite", out=out)
        assert status == 0 and list(rows) == list(map(str, paths))
        images = read_probs(run_dir / "ensemble" / f"probs_{split}.csv").aligned(part.table["image_id"], classes)
        found = probs_of(rows.values(), classes)
        assert np.abs(found - images).max() < 1e-6
        assert np.array_equal(flags_of(rows.values(), classes), found >= thresholds)
        units = Units.of(Truth.of_split(manifest, split), unit="study", aggregate=aggregate)
        probs, studies = units.probs(images), studies_of(out)
        first = pd.Series(paths).groupby(units.codes).first()
        assert list(studies) == [str(path.parent) for path in first]
        assert [int(row["images"]) for row in studies.values()] == np.bincount(units.codes).tolist()
        flagged = flags_of(studies.values(), classes)
        assert np.array_equal(flagged, probs >= thresholds) and 0 < flagged.mean() < 1
        assert [int(row["flags"]) for row in studies.values()] == flagged.sum(axis=1).tolist()
        at += (probs == thresholds).sum()
        alone += (flags_of(rows.values(), classes) != flagged[units.codes]).sum()
    assert at >= len(classes) and alone  # what an image alone would get is another matter
    maps = json.loads((copied / "ensemble" / "probs.json").read_text())["calibration"]["resnet50"]["maps"]
    assert len({found["slope"] for found in maps.values()}) > 2  # fitted by Platt's method
    said = capsys.readouterr().out
    assert f"empirical, for the recall of a random study of val; the probability of a study is the {aggregate}" in said
    assert f"flagged among {len(studies)} studies, for recall >= 0.85" in said and "StudyInstanceUID" not in said


def test_an_image_gets_the_same_in_any_company(run_dir, images, tmp_path):
    class DependsOnBatch(nn.Module):
        def forward(self, images):
            return images.mean(dim=(1, 2, 3))[:, None] + len(images)

    as_it_is = Calibration("none", ("A",), (OddsMap(1.0, 1.0),))
    member = Member("resnet50", DependsOnBatch(), DependsOnBatch(), 8, as_it_is, 0.5, None)
    batch = torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8)
    for full in (4, 8):
        alone = member.probs(batch[:1], full=full)
        assert np.array_equal(member.probs(batch[: full - 1], full=full)[:1], alone)
        assert alone.dtype == np.float64
    _, together = run(run_dir, images, out=tmp_path / "a.csv")
    _, alone = run(run_dir, images, "--batch-size", 1, out=tmp_path / "b.csv")
    classes = read_manifest(run_dir).classes
    assert np.abs(probs_of(together.values(), classes) - probs_of(alone.values(), classes)).max() < 1e-7


def test_what_cannot_be_read_gets_a_row_and_the_others_their_results(run_dir, images, tmp_path, capsys):
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("no image")
    (images / "notes").write_text("no image")
    (images / "x.png").mkdir()
    (images / "none").mkdir()
    (images / "cut.png").write_bytes((images / "0.png").read_bytes()[:300])
    os.mkfifo(images / "pipe.png")
    write_image(images / "x.png" / "inside.png")
    for number in range(20):
        shutil.copy(images / "0.png", images / f"copy{number}.png")
    status, rows = run(
        run_dir, images, images / "away.png", images / "none", "--study", "folder", out=tmp_path / "p.csv"
    )
    reasons = {Path(name).name: row["error"] for name, row in rows.items() if row["error"]}
    assert status == 1
    assert set(reasons) == {"empty.png", "text.jpg", "cut.png", "pipe.png", "away.png", "none"}
    assert "does not exist" in reasons["away.png"] and "not an image" in reasons["text.jpg"]
    assert "holds no image" in reasons["none"] and not any("check_split" in text for text in reasons.values())
    assert all((row["flags"] == "") == bool(row["error"]) for row in rows.values())
    assert len(rows) == 5 + 20 + 1 + 6
    studies = {Path(name).name: (row["images"], row["error"]) for name, row in studies_of(tmp_path / "p.csv").items()}
    assert studies == {
        "images": ("30", "5 of 30 images could not be read"),
        "x.png": ("1", ""),
        "none": ("1", "1 of 1 image could not be read"),
    }
    out = capsys.readouterr().out
    assert "flagged among 2 studies" in out and "6 could not be read" in out
    assert f"skipped in folders, neither named as an image nor DICOM: 1 file, such as {images / 'notes'}\n" in out
    assert all(f"\n{row['error']}\n" in out for row in rows.values() if row["error"])
    status, rows = run(run_dir, images, "--study", "file", out=tmp_path / "q.csv")
    out = capsys.readouterr().out  # the first twenty, and those with an error
    assert status == 1 and out.count("/copy") == 15 and "... and 6 more" in out


def test_dicom_files_of_one_study_are_found_in_any_folder(run_dir, images, tmp_path, capsys):
    pytest.importorskip("pydicom")
    from tests.images.test_dicom import GRADIENT, write

    for name, tags in (
        ("a/1", {"StudyInstanceUID": "1.2.3"}),
        ("b/2", {"StudyInstanceUID": "1.2.3"}),
        ("b/cut", {"StudyInstanceUID": "1.2.3", "PixelData": None}),
        ("b/3", {}),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, GRADIENT, **tags)
    out, own = tmp_path / "p.csv", (str(tmp_path / "b" / "3"), str(images / "0.png"))
    assert run(run_dir, tmp_path / "a", images / "0.png", out=out)[0] == 0
    note = "note: 1 image without a StudyInstanceUID (only DICOM files have one): each counts as its own study; --study"
    assert note in capsys.readouterr().out
    status, rows = run(run_dir, tmp_path / "a", tmp_path / "b", "--append", out=out)
    studies, classes = studies_of(out), read_manifest(run_dir).classes
    assert status == 1 and set(studies) == {"1.2.3", *own}
    assert studies["1.2.3"]["images"] == "3" and studies["1.2.3"]["error"] == "1 of 3 images could not be read"
    both = probs_of([rows[str(tmp_path / "a" / "1")], rows[str(tmp_path / "b" / "2")]], classes)
    assert np.array_equal(probs_of([studies["1.2.3"]], classes)[0], both.max(axis=0))
    for by in ("folder", "file"):
        status, rows = run(run_dir, tmp_path / "a", tmp_path / "b", "--study", by, "--overwrite", out=out)
        assert {row["study"] for row in rows.values()} == (
            {str(tmp_path / "a"), str(tmp_path / "b")} if by == "folder" else set(rows)
        )
    refused(run_dir, tmp_path / "a", "--append", "--study", "auto", out=out, match="made with other settings .--study")


def test_dicom_for_a_run_of_mimic_is_warned_of_and_equalized_where_asked(copied, tmp_path, capsys):
    pytest.importorskip("pydicom")
    from tests.images.test_dicom import GRADIENT, write

    folder, out = tmp_path / "in", tmp_path / "p.csv"
    folder.mkdir()
    values = np.square(GRADIENT.astype(np.float64))
    dicom = write(folder / "a.dcm", (values * 4095 / values.max()).astype(np.uint16))
    shown, classes = gray_pixels(dicom, dicom.read_bytes(), size=32), read_manifest(copied).classes
    Image.fromarray(equalized(shown)).save(folder / "equalized.png")
    warning = "warning: 1 of 2 images are DICOM, and the run was trained on MIMIC-CXR-JPG"
    _, raw = run(copied, folder, out=out)
    assert "warning" not in capsys.readouterr().out
    change(copied / "manifest.json", dataset="mimic")
    _, same = run(copied, folder, "--overwrite", out=out)
    assert warning in capsys.readouterr().out and same == raw
    refused(copied, folder, "--append", "--equalize", out=out, match="made with other settings .--equalize")
    capsys.readouterr()
    _, rows = run(copied, folder, "--overwrite", "--equalize", out=out)
    assert "warning" not in capsys.readouterr().out
    probs = {Path(image).name: probs_of([row], classes) for image, row in rows.items()}
    assert np.abs(probs["a.dcm"] - probs["equalized.png"]).max() < 0.01
    assert np.abs(probs["a.dcm"] - probs_of([raw[str(dicom)]], classes)).max() > 0.01


def test_thresholds_of_images_make_no_table_of_studies(run_dir, images, tmp_path, capsys):
    path = change(run_dir / "ensemble" / "thresholds.json", tmp_path / "t.json", unit=..., aggregate=..., weights=...)
    out, flags = tmp_path / "p.csv", ("--thresholds", path)
    run(run_dir, images, out=out)
    assert "study" in next(iter(read_rows(out).values())) and studies_of(out)
    refused(run_dir, images, *flags, "--append", out=out, match="made with other settings .unit")
    refused(
        run_dir,
        images,
        *flags,
        "--study",
        "auto",
        out=out,
        match="--study is auto, but the thresholds in .* are for images",
    )
    status, rows = run(run_dir, images, *flags, "--overwrite", out=out)
    assert status == 0 and "study" not in next(iter(rows.values())) and not list(tmp_path.glob("*_studies.csv"))
    said = capsys.readouterr().out
    assert "empirical, for the recall of a random image of val\n" in said and "flagged among 5 images" in said
    change(path, unit="banana")
    refused(run_dir, images, *flags, out=tmp_path / "q.csv", match="its unit is 'banana'; expected study or image")


def test_odd_names_and_a_file_given_twice_survive(run_dir, tmp_path, monkeypatch, capsys):
    names = [
        "a b.png",
        "quote'\".png",
        "brustkorb_é_胸.png",
        "<script>alert(1)<_script>.png",
        "new\nline.png",
        "a,b.png",
    ]
    folder, out = tmp_path / "in\r", tmp_path / "p.csv"
    for seed, name in enumerate(names):
        write_image(folder / name, seed=seed)
    shutil.copy(folder / "a b.png", os.fsencode(folder) + b"/bad\xff.png")
    twice = folder / ".." / "in\r" / "a b.png"
    status, rows = run(run_dir, folder, twice, "--study", "folder", out=out)
    assert status == 0 and {Path(name).name for name in rows} == {*names, "bad\\xff.png"}
    assert list(studies_of(out)) == [f"{tmp_path}/in\\r"]
    assert "... and" not in capsys.readouterr().out
    out.write_text(out.read_text(encoding="utf-8"), encoding="utf-8-sig")  # as an editor saves it
    monkeypatch.chdir(folder)
    write_image(folder / "c.png")
    status, rows = run(run_dir, ".", "c.png", "--study", "folder", "--append", out=out)
    assert status == 0 and len(rows) == len(names) + 2 and len(studies_of(out)) == 1
    run(run_dir, ".", "--overwrite", out=out)
    assert "new?line.png" in capsys.readouterr().out


def test_a_100_megapixel_png_is_read(run_dir, tmp_path):
    Image.linear_gradient("L").resize((10_000, 10_000)).save(tmp_path / "large.png", compress_level=1)
    status, rows = run(run_dir, tmp_path / "large.png", out=tmp_path / "p.csv")
    assert status == 0 and not rows[str(tmp_path / "large.png")]["error"]


def test_append_does_what_is_left_and_tries_again_what_failed(run_dir, images, tmp_path, monkeypatch):
    out = tmp_path / "p.csv"
    whole = (images / "2.png").read_bytes()
    (images / "2.png").write_bytes(b"")
    _, before = run(run_dir, images / "0.png", images / "2.png", "--append", out=out)  # nothing there: it starts anew
    (images / "2.png").write_bytes(whole)
    read = []
    original = image_files.read_file
    monkeypatch.setattr(image_files, "read_file", lambda path, **kw: read.append(path.name) or original(path, **kw))
    status, rows = run(run_dir, images, "--append", out=out)
    assert status == 0 and sorted(read) == ["1.png", "2.png", "3.png", "4.png"]
    assert rows[str(images / "0.png")] == before[str(images / "0.png")] and len(rows) == 5
    _, fresh = run(run_dir, images, out=tmp_path / "fresh.csv")
    classes = read_manifest(run_dir).classes
    difference = probs_of([rows[name] for name in fresh], classes) - probs_of(fresh.values(), classes)
    assert np.abs(difference).max() < 1e-7


def test_append_knows_an_image_under_another_spelling_and_leaves_a_complete_table(
    run_dir, images, tmp_path, monkeypatch, capsys
):
    out, heat = tmp_path / "p.csv", tmp_path / "heat"
    run(run_dir, images, out=out)
    before = out.read_bytes(), (tmp_path / "p_studies.csv").read_bytes()
    monkeypatch.chdir(images)
    status, rows = run(run_dir, ".", Path("..") / images.name, "--append", "--heatmaps", heat, out=out)
    assert status == 0 and len(rows) == 5
    assert (out.read_bytes(), (tmp_path / "p_studies.csv").read_bytes()) == before
    assert "results of 5 images already; no heat maps are drawn for them" in capsys.readouterr().out
    assert not list(heat.glob("*"))


def test_append_from_another_folder_takes_no_image_for_one_of_the_same_name(run_dir, images, tmp_path, monkeypatch):
    out, other = tmp_path / "p.csv", tmp_path / "other"
    monkeypatch.chdir(images)
    run(run_dir, "0.png", "--study", "folder", out=out)
    write_image(other / "0.png", size=40, seed=9)
    monkeypatch.chdir(other)
    for _ in range(2):
        _, rows = run(run_dir, "0.png", images / "0.png", "--study", "folder", "--append", out=out)
        assert {name: row["study"] for name, row in rows.items()} == {"0.png": ".", "../other/0.png": "../other"}
    assert probs_of([rows["0.png"]], ["Edema"]) != probs_of([rows["../other/0.png"]], ["Edema"])


def test_an_interrupted_run_keeps_its_results_and_append_goes_on(run_dir, images, tmp_path, monkeypatch):
    original, stop = image_files.read_file, "3.png"

    def interrupted(path, **kwargs):
        if path.name == stop:
            raise KeyboardInterrupt
        return original(path, **kwargs)

    monkeypatch.setattr(image_files, "read_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(run_dir, images, "--batch-size", 1, out=tmp_path / "p.csv")
    # The one ahead of the interrupt was read, not yet computed.
    assert len(read_rows(tmp_path / "p.csv")) == len(studies_of(tmp_path / "p.csv")) == 2
    before, stop = (tmp_path / "p.csv").read_bytes(), "0.png"
    with pytest.raises(KeyboardInterrupt):
        run(run_dir, images, "--overwrite", out=tmp_path / "p.csv")
    assert (tmp_path / "p.csv").read_bytes() == before  # kept until there are results to replace it with
    monkeypatch.undo()
    status, rows = run(run_dir, images, "--append", out=tmp_path / "p.csv")
    assert status == 0 and len(rows) == 5


def test_files_that_are_there_are_left_alone(run_dir, images, tmp_path):
    out, image = tmp_path / "p.csv", images / "0.png"
    run(run_dir, images, out=out)
    before = out.read_bytes()
    refused(run_dir, images, out=out, match=r"p\.csv already exists; pass --append")
    refused(run_dir, images, "--append", "--overwrite", out=out, match="pass one of them")
    refused(run_dir, tmp_path / "imgaes", "--overwrite", out=out, match="imgaes does not exist; expected images or fol")
    refused(run_dir, images, "--overwrite", "--heatmaps", images, out=out, match="which is also searched for images")
    refused(run_dir, images, "--overwrite", "--heatmaps", image, out=out, match="a file; expected a folder")
    refused(run_dir, images, out=image, match=r"ends in \.csv")
    (tmp_path / "folder.csv").mkdir()
    refused(run_dir, images, "--append", out=tmp_path / "folder.csv", match="expected a file")
    for name, to in (("table.csv", "table.csv"), ("q_studies.csv", "q.csv")):
        (tmp_path / name).write_text("mine")
        refused(
            run_dir, image, "--overwrite", out=tmp_path / to, match=f"{name} exists and was not written by predict.py"
        )
        refused(
            run_dir,
            tmp_path / name,
            "--overwrite",
            out=tmp_path / to,
            match=f"{name} is both an output file and one of",
        )
        assert (tmp_path / name).read_text() == "mine"
    assert out.read_bytes() == before
    status, rows = run(run_dir, images, "--overwrite", out=out)
    assert status == 0 and len(rows) == 5 and out.read_bytes() == before
    refused(run_dir, images, "--append", out=out, recall="0.9", match="other settings .recall")
    change(tmp_path / "p.csv.json", checkpoint_sha256={})
    refused(run_dir, images, "--append", out=out, match="other settings .checkpoint_sha256")
    (tmp_path / "p.csv.json").unlink()
    refused(
        run_dir, images, "--append", out=out, match="was not written by predict.py, or .* is gone; pass another --out"
    )


def test_append_refuses_other_columns(run_dir, images, tmp_path):
    out = tmp_path / "p.csv"
    run(run_dir, images / "0.png", out=out)
    out.write_text("\n".join(line.rpartition(",")[0] for line in out.read_text().splitlines()))
    refused(run_dir, images, "--append", out=out, match="not have this run's columns")


def test_thresholds_saved_by_the_page_are_taken_and_an_infeasible_class_flags_all(run_dir, images, tmp_path, capsys):
    """One recall target, whole numbers without a point, and "report"."""
    points = points_of(run_dir)
    never, always = list(points)[:2]
    points[never] |= {"threshold": 1, "precision": None}
    points[always] |= {"threshold": 0, "status": "infeasible", "positives_needed": 7}
    chosen = dict.fromkeys(points, {"recall": 0.85, "confidence": 0.95}) | {always: {"recall": 0.97, "confidence": 0.9}}
    saved = {"recall": {"0.85": points}, "report": {"run": "other", "chosen": chosen}}
    change(run_dir / "ensemble" / "thresholds.json", tmp_path / "t.json", rule="certified", confidence=0.9, **saved)
    flags = ["--thresholds", str(tmp_path / "t.json"), "--workers", "0", "--out", str(tmp_path / "p.csv")]
    assert predict.main([str(images), "--run-dir", str(run_dir), *flags]) == 0  # its one recall need not be named
    for table in (read_rows(tmp_path / "p.csv"), studies_of(tmp_path / "p.csv")):
        assert flags_of(table.values(), [never, always]).tolist() == [[False, True]] * 5
    out = capsys.readouterr().out
    assert "thresholds: certified at 90% or more for the recall of the next study" in out
    assert "for the recall targets below" in out and "Recall target" in out
    assert f"{always}: no threshold is known to reach recall 0.97 (7 more positive patients" in out
    assert "it flags every study" in out


@pytest.mark.parametrize(
    ("file", "changed", "match"),
    [
        ("probs.json", {"manifest_sha256": "0"}, "a different manifest"),
        ("probs.json", {"probs_sha256": {}}, "does not match probs.json"),
        ("probs.json", {"checkpoint_sha256": ["0", "0"]}, "resnet50 was trained again"),
        ("probs.json", {"checkpoint_sha256": None}, "its checkpoint_sha256 is None; expected a list"),
        ("probs.json", {"probs_sha256": None}, "its probs_sha256 is None; expected a dict"),
        ("probs.json", {"calibration": "platt"}, "its calibration is 'platt'; expected a dict"),
        ("probs.json", {"calibration": {}}, "records no calibration because an earlier version"),
        ("probs.json", {"weights": ...}, "records no weights because an earlier version wrote it"),
        ("alpha.json", {"members": ["a", "b"]}, "blends"),
        ("alpha.json", {"weights": [0.25, 0.75]}, "does not hold the weights that the blend was made with"),
    ],
)
def test_a_run_whose_parts_do_not_fit_is_refused(copied, images, tmp_path, file, changed, match):
    change(copied / "ensemble" / file, **changed)
    refused(copied, images, out=tmp_path / "p.csv", match=match)
    assert not list(tmp_path.glob("p*"))


def test_heat_maps_are_one_picture_per_flagged_finding_and_model_of_an_image(run_dir, tmp_path):
    image, out = tmp_path / "<script>é" / "a 'b'.png", tmp_path / "p.csv"
    write_image(image)
    heat = image.parent / "heat"  # inside the input: its pictures are no radiographs
    heat.mkdir()
    (heat / ".notes.tmp.txt").write_text("mine")
    for _ in range(2):
        _, rows = run(run_dir, image.parent, "--heatmaps", heat, "--overwrite", out=out)
        flags = int(rows[str(image)]["flags"])
        assert len(rows) == 1 and flags and len(list(heat.glob("*.png"))) == 2 * flags
    with Image.open(next(heat.glob("*.png"))) as picture:
        assert picture.width == SIDE and picture.height > SIDE
    assert len(run(run_dir, image.parent, "--append", out=out)[1]) == 1
    points = {name: point | {"threshold": 1.0} for name, point in points_of(run_dir).items()}
    path = change(run_dir / "ensemble" / "thresholds.json", tmp_path / "t.json", recall={"0.85": points})
    _, rows = run(run_dir, image.parent, "--overwrite", "--heatmaps", heat, "--thresholds", path, out=out)
    assert rows[str(image)]["flags"] == "0" and [path.name for path in heat.iterdir()] == [".notes.tmp.txt"]


def test_images_unlike_the_training_images_are_marked_wherever_they_are_shown(run_dir, tmp_path, monkeypatch, capsys):
    """The run was trained on noise."""
    write_image(tmp_path / "in" / "noise.png", size=16, seed=77)
    Image.radial_gradient("L").save(tmp_path / "in" / "smooth.png")
    captions, out = {}, tmp_path / "p.csv"
    monkeypatch.setattr(
        "src.images.heatmaps.write_overlay", lambda path, *_, caption: captions.setdefault(path.name, caption)
    )
    status, rows = run(run_dir, tmp_path / "in", "--study", "folder", "--heatmaps", tmp_path / "heat", out=out)
    both, name = "resnet50 and efficientnet_b1", "unlike the training images"
    assert status == 0
    assert {Path(image).stem: row[name] for image, row in rows.items()} == {"noise": "", "smooth": both}
    assert [row[name] for row in studies_of(out).values()] == ["1 of 2 images"]
    said = capsys.readouterr().out
    assert f"{name} (1 of 2 images)" in said and f"smooth.png: {name} ({both})\n" in said
    assert f"{name}: 1 of 2 images. Do not trust" in said
    assert {bool(f"{name} ({both})" in caption) for file, caption in captions.items() if "smooth" in file} == {True}
    assert not any(name in "".join(caption) for file, caption in captions.items() if "noise" in file)
    before = out.read_bytes()
    run(run_dir, tmp_path / "in", "--study", "folder", "--append", out=out)
    assert out.read_bytes() == before


def test_a_run_that_cannot_tell_what_is_unlike_predicts_and_says_so(copied, images, tmp_path, capsys):
    out, file = tmp_path / "p.csv", copied / "resnet50" / "training_features.npz"
    file.unlink()
    status, rows = run(copied, images, out=out)
    assert status == 0 and {row["unlike the training images"] for row in rows.values()} == {"not checked"}
    assert {row["unlike the training images"] for row in studies_of(out).values()} == {"not checked"}
    said = capsys.readouterr().out
    note = f"images unlike the training images are not marked, since {file} is missing; to make it, run python"
    assert said.count(note) == 1 and said.count("unlike") == 1
    shutil.copy(copied / "efficientnet_b1" / "training_features.npz", file)
    refused(
        copied, images, "--overwrite", out=out, match="made from a different checkpoint .* run test_resnet.py --overwr"
    )


def test_heat_map_names_are_safe_and_of_one_image_however_its_path_is_typed(tmp_path, monkeypatch):
    one = heatmap_name(Path("a/<é>.png"), finding="A/B", arch="resnet50")
    assert one != heatmap_name(Path("b/<é>.png"), finding="A/B", arch="resnet50")
    assert one != heatmap_name(Path("a/<é>.png"), finding="A-B", arch="resnet50")
    assert "é" in one and not set('<>:"/\\|?* ') & set(one)  # letters of any script, and nothing that a system refuses
    names = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        names.append(heatmap_name(Path("1.png"), finding="Edema", arch="resnet50"))
    assert names[0] != names[1]


def test_folders_give_images_sorted_hidden_ones_left_out(tmp_path):
    named = ["c.jpg", "a.jpeg", "b/1.jfif", "b/2.PNG", "b/3.bmp", "b/3.gif", "b/3.jp2", "b/3.tif", "b/3.webp"]
    for name in (*named, "b/.hidden.png", ".git/1.png", "b/notes.txt", "b/0.heat.png", "d.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    found, others = find_images([tmp_path / "c.jpg", tmp_path / "d.csv", tmp_path])
    assert [image_id(path.relative_to(tmp_path)) for path in found] == ["c.jpg", "d.csv", *named[1:]]
    assert others == [tmp_path / "b" / "notes.txt"]


def test_folders_behind_links_are_followed_once(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "1.png").write_bytes(b"x")
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "a").symlink_to(tmp_path / "far")
    (tmp_path / "near" / "b").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "back").symlink_to(tmp_path / "near")
    (tmp_path / "near" / "up").symlink_to(tmp_path)
    assert list(find_images([tmp_path / "near"])[0]) == [tmp_path / "near" / "a" / "1.png"]
    (tmp_path / "near" / "c").mkdir()
    (tmp_path / "near" / "c" / "2.png").write_bytes(b"x")
    (tmp_path / "near" / "a2").symlink_to(tmp_path / "near" / "c")  # sorts first, but is only a link
    assert list(find_images([tmp_path / "near"])[0]) == [tmp_path / "near" / name for name in ("c/2.png", "a/1.png")]
    shutil.rmtree(tmp_path / "near" / "c")
    (tmp_path / "near" / "a2").unlink()
    assert find_images([tmp_path / "near"], skip=tmp_path / "far")[0][tmp_path / "near"]  # it says that there is none


def test_a_file_that_may_be_dicom_and_cannot_be_looked_into_gets_a_row(tmp_path, monkeypatch):
    for name in ("IM0001", "notes"):
        (tmp_path / name).write_text("text")

    def denied(path):
        if path.name == "IM0001":
            raise PermissionError(13, "Permission denied", str(path))
        return False

    monkeypatch.setattr(image_files, "is_dicom", denied)
    assert find_images([tmp_path]) == ({tmp_path / "IM0001": ""}, [tmp_path / "notes"])


def test_a_link_as_out_stays_one(run_dir, images, tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "link.csv").symlink_to(tmp_path / "far" / "p.csv")
    for flags in ((), ("--append",), ("--overwrite",)):
        status, rows = run(run_dir, images / "0.png", *flags, out=tmp_path / "link.csv")
        assert status == 0 and len(rows) == 1
        assert (tmp_path / "link.csv").is_symlink() and (tmp_path / "far" / "p.csv").is_file()


def test_a_folder_that_was_empty_loses_its_row_when_it_holds_images(run_dir, tmp_path):
    folder, other = tmp_path / "folder", tmp_path / "b.png"
    folder.mkdir()
    refused(run_dir, folder, out=tmp_path / "p.csv", match="holds no image")
    write_image(other)
    status, rows = run(run_dir, folder, other, out=tmp_path / "p.csv")
    assert status == 1 and list(rows) == [str(folder), str(other)]
    write_image(folder / "a.png")
    status, rows = run(run_dir, folder, other, "--append", out=tmp_path / "p.csv")
    assert status == 0 and {*rows} == {str(folder / "a.png"), str(other)}


def test_heat_maps_keep_names_in_any_script_and_fit_a_file_system(tmp_path):
    name = heatmap_name(tmp_path / "환자" / "肺.png", finding="무기폐", arch="resnet50")
    assert "환자-肺" in name and "무기폐" in name
    assert len(heatmap_name(tmp_path / ("肺" * 80 + ".png"), finding="炎" * 200, arch="efficientnet_b1").encode()) < 255
    assert "/" not in heatmap_name(tmp_path / "a.png", finding="a/b\\c", arch="resnet50")
