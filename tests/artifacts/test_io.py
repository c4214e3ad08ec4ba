"""Atomic writes and validated reads."""

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from src.artifacts.io import atomic_path, read_json, refuse_overwrite, sha256, write_json, write_table
from src.artifacts.manifest import read_manifest, write_manifest
from src.runtime.csv_files import read_table

CLASSES = ["Edema", "Lung, Opacity"]


def small_manifest(run_dir):
    table = pd.DataFrame(
        {
            "image_id": ["a/1.jpg", "a/2.jpg", "NA"],
            "patient_id": ["001", "001", "2"],
            "study_id": ["s1", "s2", "s3"],
            "view": ["frontal", "", "lateral"],
            "split": ["train", "train", "val"],
            "Edema": [1.0, np.nan, -1.0],
            "Lung, Opacity": [0.0, 0.0, np.nan],
        }
    )
    context = pd.DataFrame({"image_id": table["image_id"], "sex": "", "age": [1.0, np.nan, 3.0], "study_order": 0})
    meta = {"dataset": "csv", "split": "by patient", "classes": CLASSES, "image_root": run_dir, "failed": []}
    write_manifest(run_dir, table, meta, context)
    return table


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("killed")
    assert read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_json_has_null_for_what_is_not_finite_and_plain_numbers_for_numpy(tmp_path):
    write_json(tmp_path / "a.json", {"a": np.float32(0.5), "b": np.nan, "c": [np.int64(3), np.inf], "d": tmp_path})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text) == {"a": 0.5, "b": None, "c": [3, None], "d": str(tmp_path)}


@pytest.mark.parametrize(
    "content", [None, b"{", b"\xff\xfe\x00", b'{"a": ' + b"9" * 5000 + b"}", b"[" * 100_000, b"[1]"]
)
def test_unreadable_json_is_an_error_that_names_the_file(tmp_path, content):
    if content is not None:
        (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="a.json"):
        read_json(tmp_path / "a.json")


def test_a_float32_survives_a_table_and_a_float64_an_exact_one(tmp_path):
    values = np.random.default_rng(0).random(1000)
    table = pd.DataFrame({"single": values.astype(np.float32), "double": values})
    write_table(tmp_path / "a.csv", table)
    assert (read_table(tmp_path / "a.csv")["single"].astype(np.float32) == table["single"]).all()
    assert (read_table(tmp_path / "a.csv")["double"] != table["double"]).any()
    write_table(tmp_path / "b.csv", table, exact=True)
    assert (read_table(tmp_path / "b.csv", dtype=str)["double"].map(float) == table["double"]).all()


def test_json_that_a_windows_editor_saved_is_read(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}', encoding="utf-8-sig")
    assert read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("manifest.json", "check_split.py"),
        ("resnet50/manifest.csv", "check_split.py"),
        ("resnet50/config.json", "train_resnet.py"),
        ("efficientnet_b1/probs.json", "test_efficientnet.py"),
        ("ensemble/alpha.json", "ensemble_alpha_search.py"),
        ("ensemble/thresholds.json", "ensemble_threshold_search.py"),
        ("elsewhere/a.json", "the script that writes it"),
    ],
)
def test_a_missing_file_of_a_run_is_an_error_that_names_its_script(tmp_path, name, script):
    for read in (read_json, sha256):
        with pytest.raises(ValueError, match=f"does not exist; run {script} first"):
            read(tmp_path / name)


def test_a_file_that_cannot_be_written_is_named_and_not_its_temporary_one(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.json").mkdir()
    for path in (tmp_path / "file" / "a.json", tmp_path / "folder.json"):
        with pytest.raises(OSError) as raised:
            write_json(path, {})
        assert raised.value.filename == str(path)
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "b.json"):
        raise OSError(28, "No space left on device")  # as a write says it
    assert raised.value.filename == str(tmp_path / "b.json")
    with pytest.raises(OSError) as raised, atomic_path(tmp_path / "b.json"):
        (tmp_path / "read meanwhile").read_bytes()
    assert raised.value.filename == str(tmp_path / "read meanwhile")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "folder.json"}


def test_claim_refuses_an_output_that_is_there(tmp_path):
    path = tmp_path / "a.csv"
    refuse_overwrite([path], overwrite=False)
    path.touch()
    with pytest.raises(ValueError, match=r"a.csv already exists; pass --overwrite"):
        refuse_overwrite([tmp_path / "b.csv", path], overwrite=False)
    refuse_overwrite([path], overwrite=True)
    for overwrite in (False, True):
        with pytest.raises(ValueError, match="is a folder; expected the name of a file"):
            refuse_overwrite([tmp_path], overwrite=overwrite)


def test_a_manifest_comes_back_as_it_was(tmp_path):
    table = small_manifest(tmp_path)
    manifest = read_manifest(tmp_path)
    pd.testing.assert_frame_equal(manifest.table, table, check_dtype=False)
    assert manifest.classes == tuple(CLASSES)
    np.testing.assert_array_equal(manifest.labels(), table[CLASSES].to_numpy())
    part = manifest.part("val")
    assert list(part.table["image_id"]) == list(part.context["image_id"]) == ["NA"] and part.context["age"].item() == 3
    assert manifest.context["no_finding"].isna().all()  # a context of an earlier version
    with pytest.raises(ValueError, match="no images in test"):
        manifest.part("test")


def test_images_that_were_moved_are_one_clear_line(tmp_path):
    small_manifest(tmp_path)
    manifest = read_manifest(tmp_path)
    gone = dataclasses.replace(manifest, meta=manifest.meta | {"image_root": str(tmp_path / "gone")})
    with pytest.raises(ValueError, match="the images were in .*gone, which does not exist any more; .* its new --data"):
        gone.image_paths()
    emptied = dataclasses.replace(manifest, meta=manifest.meta | {"image_root": str(tmp_path)})
    with pytest.raises(
        ValueError, match="has neither .* nor any other image of the split; is its drive .*--image-root"
    ):
        emptied.image_paths()
    (tmp_path / manifest.table["image_id"].iloc[-1]).touch()
    assert len(emptied.image_paths()) == len(manifest.table)


def test_a_manifest_changed_by_hand_is_refused(tmp_path):
    small_manifest(tmp_path)
    path = tmp_path / "manifest.csv"
    path.write_text(path.read_text().replace("val", "test"))
    with pytest.raises(ValueError, match="does not match manifest.json"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("key", ["dataset", "classes", "failed"])
def test_a_manifest_without_an_entry_is_refused(tmp_path, key):
    small_manifest(tmp_path)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: None}))
    with pytest.raises(ValueError, match=f"manifest.json: its {key} is None; .* run check_split.py --overwrite"):
        read_manifest(tmp_path)


def test_a_missing_manifest_says_which_stage_writes_it(tmp_path):
    with pytest.raises(ValueError, match="run check_split.py"):
        read_manifest(tmp_path)
