"""The images that stage 1 is told to keep: those of a view, those whose file exists."""

import pytest

import check_split
import eda_labels
import ensemble_alpha_search
import ensemble_threshold_search
from src.artifacts.io import read_json, write_json
from src.artifacts.manifest import read_manifest
from tests.page_runs import make_run
from tests.trees import ROOT, make_chexpert, make_csv, make_mimic, make_nih


def split(data, run, *flags):
    return check_split.main(["--data", str(data), "--run-dir", str(run), "--val-fraction", "0.3", *flags])


@pytest.mark.parametrize(
    ("make", "others"),
    [(make_chexpert, "20 lateral"), (make_mimic, "24 lateral"), (make_nih, "0 lateral")],
)
def test_frontal_views_of_every_data_set(tmp_path, make, others, capsys):
    data = make(tmp_path / "data", patients=12 if make is make_mimic else 6)
    split(data, tmp_path / "run", "--views", "frontal")
    assert f"\n--views frontal left out {others}" in capsys.readouterr().out
    manifest = read_manifest(tmp_path / "run")
    assert set(manifest.table["view"]) == {"frontal"} and len(manifest.filters) == 1


def test_rows_of_unknown_view_are_left_out_and_counted(tmp_path, capsys):
    views = ["PA", "lateral", "", "oblique"] * 15
    data = make_csv(tmp_path / "data", patients=30, view=views)
    split(data, tmp_path / "run", "--views", "lateral")
    assert "--views lateral left out 15 frontal images and 30 of unknown view" in capsys.readouterr().out
    assert len(read_manifest(tmp_path / "run").table) == 15


def test_a_view_that_no_image_has_is_an_error_and_nothing_is_written(tmp_path):
    nih = make_nih(tmp_path / "nih")
    with pytest.raises(ValueError, match="--views lateral: .*nih has no lateral image; leave it out"):
        split(nih, tmp_path / "run", "--views", "lateral")
    for value in ("", "oblique"):
        data = make_csv(tmp_path / f"csv{value}", view=[value] * 12)
        with pytest.raises(ValueError, match="not say which images are frontal; name its column with --view-column"):
            split(data, tmp_path / "run", "--views", "frontal")
    assert not (tmp_path / "run").exists()


def test_a_partial_download_is_split_by_what_is_there(tmp_path, capsys):
    data = make_chexpert(tmp_path / "data", patients=12)
    for patient in (3, 7, 14):
        for image in (data / ("train" if patient < 13 else "valid") / f"patient{patient:05d}" / "study1").iterdir():
            image.unlink()
    split(data, tmp_path / "run", "--images", "present", "--views", "frontal")
    out = capsys.readouterr().out
    assert "--images present left out 3 images whose file does not exist" in out and "cannot be used" not in out
    manifest = read_manifest(tmp_path / "run")
    assert len(manifest.table) == 29 and all(path.is_file() for path in manifest.image_paths())
    assert [line.split(" left")[0] for line in manifest.filters] == ["--views frontal", "--images present"]


def test_no_image_present_is_an_error_that_names_the_image_root(tmp_path):
    data = make_csv(tmp_path / "data", images=False)
    with pytest.raises(ValueError, match=r"none of the 12 images is in .*data, such as png/0_0.png; .*--image-root"):
        split(data, tmp_path / "run", "--images", "present")


def test_every_later_stage_says_in_a_line_what_was_left_out(tmp_path, capsys):
    run = tmp_path / "run"
    make_run(run, patients=30)
    said = ["--views frontal left out 3 lateral images and 0 of unknown view", "--images present left out 2 images"]
    write_json(run / "manifest.json", read_json(run / "manifest.json") | {"filters": said})
    flags = ["--run-dir", str(run), "--overwrite"]
    for main, more in (
        (eda_labels.main, []),
        (ensemble_alpha_search.main, ["--select", "best", "--resamples", "0"]),
        (ensemble_threshold_search.main, ["--no-pictures"]),
    ):
        capsys.readouterr()
        main([*flags, *more])
        assert capsys.readouterr().out.splitlines().count("; ".join(said)) == 1


@pytest.mark.parametrize("stage", ["train", "test", "predict", "report"])
def test_no_stage_opens_a_manifest_without_saying_so(stage):
    source = (ROOT / "src" / "stages" / f"{stage}.py").read_text()
    assert "open_manifest(" in source and "read_manifest(" not in source
