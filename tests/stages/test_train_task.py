"""What a training is over: the loss, the scored entries and the repeats that flags and labels make."""

import dataclasses

import numpy as np
import pytest
import torch

import check_split
from src.artifacts.manifest import read_manifest
from src.config import ResNetConfig
from src.stages.train_task import build_task
from tests.trees import make_csv


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    root = tmp_path_factory.mktemp("task")
    data = make_csv(root / "data", patients=40)
    check_split.main(["--run-dir", str(root / "run"), "--data", str(data), "--val-fraction", "0.2"])
    return read_manifest(root / "run")


def task_of(manifest, **flags):
    config = dataclasses.replace(ResNetConfig(image_size=32, workers=0), **flags)
    return build_task(config, manifest, torch.device("cpu"))


def totals(task):
    """The loss weight of each class over the training labels."""
    targets, mask, loss = task.train.targets, task.train.mask, task.loss
    return (torch.where(mask, targets * loss.pos_weight + 1 - targets, 0) * loss.class_weight).sum(dim=0)


def test_class_weighting_levels_the_loss_weights_of_the_training_labels(manifest):
    entry, level = task_of(manifest), task_of(manifest, loss_weighting="class")
    assert totals(entry).std() > 0.5
    torch.testing.assert_close(totals(level), totals(entry).mean().expand(len(manifest.classes)))
    assert torch.equal(entry.loss.class_weight, torch.ones(len(manifest.classes)))


def test_a_file_of_class_weights_is_matched_by_name(manifest, tmp_path):
    path, classes = tmp_path / "weights.csv", manifest.classes
    rows = [f"{name},{number}" for number, name in enumerate(classes, 1)]
    path.write_text("\n".join(["class,weight", *reversed(rows)]))
    level = totals(task_of(manifest, loss_weighting="class", class_weights=str(path)))
    torch.testing.assert_close(level / level[0], torch.arange(1.0, len(classes) + 1))
    for text, said in (
        ("class,share\n" + "\n".join(rows), "has no column 'weight'"),
        ("class,weight\n" + "\n".join(rows[1:]), f"differ from the data's by {classes[0]!r}"),
        ("class,weight\n" + "\n".join([*rows, "Other,1"]), "differ from the data's by 'Other'"),
        ("class,weight\n" + "\n".join([*rows, rows[0]]), f"class {classes[0]!r} appears more than once"),
        (
            "class,weight\n" + "\n".join([f"{classes[0]},0", *rows[1:]]),
            f"weight of {classes[0]} is not a number above 0",
        ),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=said):
            task_of(manifest, class_weights=str(path))


def test_blanks_are_negatives_in_the_scores_where_negatives_are_few(manifest, capsys):
    plain, auto = task_of(manifest), task_of(manifest, monitor_blanks="auto")
    labels = manifest.part("val").labels()
    blank = np.isnan(labels)
    assert blank.any() and torch.equal(plain.val.scored, plain.val.mask)
    np.testing.assert_array_equal(auto.val.scored, (labels >= 0) | blank)  # all classes have few in so small a val
    assert "fewer than 50 negatives in val, so val scores count their blanks as negative: " in capsys.readouterr().out
    unmasked = task_of(manifest, monitor_blanks="auto", missing=("0",)).val
    assert torch.equal(unmasked.scored, unmasked.mask)
    assert "note" not in capsys.readouterr().out


def test_balanced_sampling_shows_images_of_rare_findings_more_often(manifest):
    shuffled = task_of(manifest).train.loader.sampler
    balanced = task_of(manifest, sampling="balanced", repeat_threshold=1.0).train.loader.sampler
    assert len(sum(shuffled, [])) == len(manifest.part("train").table) < len(sum(balanced, []))
