"""The real training script, killed at any moment, told to stop, and in several processes."""

import hashlib
import json
import os
import random
import runpy
import shutil
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributed.run import main as torchrun
from tqdm import tqdm

import check_split
from src.models import build_model
from tests import networks
from tests.trees import FORK, ROOT, make_csv

REMEDIES = ["--sampling", "balanced", "--repeat-threshold", "1", "--hard-fraction", "0.6", "--loss", "asymmetric"]
REMEDIES += ["--gamma", "0.5", "2", "--loss-weighting", "class", "--class-weights", "effective", "--ema", "0.9"]
REMEDIES += ["--warmup-epochs", "1.5", "--head-lr-factor", "2", "--flip", "--monitor", "loss"]
TINY = ["--weights", "none", "--image-size", "32", "--batch-size", "16", "--workers", "0", "--device", "cpu"]


@pytest.fixture(scope="module")
def split_run(once):
    """A run folder with the manifest of 80 images of 40 patients."""
    return once("survival", write_split) / "run"


def write_split(root):
    flags = ["--run-dir", str(root / "run"), "--data", str(make_csv(root / "data", patients=40))]
    check_split.main([*flags, "--val-fraction", "0.2", "--test-fraction", "0.2"])


@pytest.fixture
def new_run(split_run, tmp_path):
    """Makes run folders with the same manifest."""
    return lambda name: Path(shutil.copytree(split_run, tmp_path / name))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A state dict whose BatchNorms have the statistics of what passes through them, as after a training."""
    torch.manual_seed(0)
    model = build_model("resnet50", num_classes=2).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 3, 32, 32))
    path = tmp_path_factory.mktemp("pretrained") / "weights.pth"
    torch.save(model.net.state_dict(), path)
    return str(path)


def start(script, run_dir, *flags, **environment):
    """Run a script in a process of its own."""

    def main():
        os.environ.update(environment)
        sys.argv = [script, "--run-dir", str(run_dir), *flags]
        tqdm.set_lock(threading.RLock())  # a process that is killed would keep the shared one for ever
        runpy.run_path(str(ROOT / script), run_name="__main__")

    process = FORK.Process(target=main)
    process.start()
    return process


def start_two(script, run_dir, *flags):
    """Run a script as torchrun starts it on two nodes of one process each."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])}
    world |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    return [start(script, run_dir, *flags, **world, RANK=rank) for rank in "01"]


def finish(*processes):
    for process in processes:
        process.join(300)
        process.kill()  # one that hangs would outlive the tests; nothing happens to one that has ended
    assert {process.exitcode for process in processes} == {0}


def wait_for(path, process, *, newer_than=0):
    """Until the file is there and newer, or the process has ended."""
    while process.is_alive() and not (path.exists() and path.stat().st_mtime_ns > newer_than):
        time.sleep(0.005)


def assert_same(folder, other):
    """Both hold the same files; best.pt and history.csv are the same bytes, last.pt the same weights."""
    assert sorted(os.listdir(folder)) == sorted(os.listdir(other))
    for name in ("best.pt", "history.csv"):
        first, second = (hashlib.sha256((path / name).read_bytes()).hexdigest() for path in (folder, other))
        assert first == second, name
    assert largest_difference(folder, other) == 0


def state(folder):
    """The weights and buffers of last.pt, float64 by name."""
    model = torch.load(folder / "last.pt", weights_only=True)["model"]
    return {name: value.double() for name, value in model.items()}


def gradients(folder):
    """The norm of AdamW's mean gradient of each parameter in last.pt."""
    moments = torch.load(folder / "last.pt", weights_only=True)["optimizer"]["state"].values()
    return [moment["exp_avg"].norm().item() for moment in moments]


def largest_difference(folder, other):
    one, two = state(folder), state(other)
    assert one.keys() == two.keys()
    return max((one[name] - two[name]).abs().max().item() for name in one)


def test_killed_again_and_again_it_ends_as_if_never_interrupted(new_run, tmp_path, capfd):
    flags = [*TINY, "--unfreeze-last-n-blocks", "2", "--epochs", "6", "--resume"]  # long enough for four kills
    whole, killed = new_run("whole"), new_run("killed")
    finish(start("train_efficientnet.py", whole, *flags))
    flags += ["--workers", "1", "--cache", str(tmp_path / "cache")]  # which change nothing
    last, chance, kills = killed / "efficientnet_b1" / "last.pt", random.Random(0), 0
    for _ in range(4):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start("train_efficientnet.py", killed, *flags, "--checkpoint-minutes", "0")
        wait_for(last, process, newer_than=before)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
    assert kills >= 2, "it was too fast to be killed"
    capfd.readouterr()
    finish(start("train_efficientnet.py", killed, *flags))
    assert "resuming after epoch" in capfd.readouterr().out
    assert_same(killed / "efficientnet_b1", whole / "efficientnet_b1")
    history = killed / "efficientnet_b1" / "history.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))  # killed right before its last row
    finish(start("train_efficientnet.py", killed, *flags))
    assert_same(killed / "efficientnet_b1", whole / "efficientnet_b1")


@pytest.mark.parametrize(
    ("script", "arch", "flags"),
    [
        ("train_efficientnet.py", "efficientnet_b1", ["--unfreeze-last-n-blocks", "0", "--attention", "cbam"]),
        ("train_resnet.py", "resnet50", ["--unfreeze-from", "fc", "--bfloat16", *REMEDIES]),
    ],
)
def test_told_to_stop_it_saves_and_says_how_to_go_on(new_run, script, arch, flags, capfd):
    whole, stopped = new_run("whole"), new_run("stopped")
    flags = [*TINY, *flags, "--epochs", "2"]
    finish(start(script, whole, *flags))
    process = start(script, stopped, *flags, "--checkpoint-minutes", "0")
    wait_for(stopped / arch / "last.pt", process)
    os.kill(process.pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 128 + signal.SIGTERM
    command = capfd.readouterr().out.splitlines()[-1].split()
    assert command[:2] == ["python", script] and "--resume" in command
    assert command[command.index("--run-dir") + 1] == str(stopped)
    finish(start(script, stopped, *command[2:], "--checkpoint-minutes", "10"))
    assert_same(stopped / arch, whole / arch)


def test_the_score_that_two_processes_keep_is_that_of_the_weights_they_keep(new_run):
    """With BatchNorms that train, whose statistics each process gathers from its share."""
    run = new_run("two")
    flags = ["--image-size", "64", "--batch-size", "3", "--unfreeze-last-n-blocks", "1", "--epochs", "1"]
    finish(*start_two("train_efficientnet.py", run, *TINY, *flags, "--lr", "1e-2"))
    flags = ["--device", "cpu", "--workers", "0", "--resamples", "0", "--calibration-method", "none"]
    finish(start("test_efficientnet.py", run, *flags))
    history = pd.read_csv(run / "efficientnet_b1" / "history.csv")
    metrics = json.loads((run / "efficientnet_b1" / "metrics_val.json").read_text())
    assert history["val_loss"].item() == pytest.approx(metrics["loss"], rel=1e-5)


def test_two_processes_train_and_resume_and_test_as_one(new_run, pretrained, capfd):
    """In the same passes: AdamW would make much of how the gradients next to nothing are rounded in others."""
    one, two = new_run("one"), new_run("two")
    flags = [*TINY, "--no-bfloat16", "--unfreeze-from", "layer4", "--freeze-batchnorm", "--weights", pretrained]
    finish(start("train_resnet.py", one, *flags, "--batch-size", "8", "--accumulate", "2", "--epochs", "2"))
    capfd.readouterr()
    finish(*start_two("train_resnet.py", two, *flags, "--epochs", "1"))
    out = capfd.readouterr().out
    assert out.count("epoch 1/1") == 1 and "in 2 processes" in out
    finish(*start_two("train_resnet.py", two, *flags, "--epochs", "2", "--resume"))
    assert_moved_together(one / "resnet50", two / "resnet50", pretrained, block="layer4")
    flags = ("--device", "cpu", "--workers", "0", "--batch-size", "5", "--resamples", "0")
    finish(start("test_resnet.py", one, *flags))
    probs = {split: pd.read_csv(one / "resnet50" / f"probs_{split}.csv") for split in ("val", "test")}
    capfd.readouterr()
    finish(*start_two("test_resnet.py", one, *flags, "--overwrite"))
    assert capfd.readouterr().out.count("wrote to") == 1
    for split, before in probs.items():
        after = pd.read_csv(one / "resnet50" / f"probs_{split}.csv")
        assert after["image_id"].equals(before["image_id"])
        np.testing.assert_allclose(after.iloc[:, 1:], before.iloc[:, 1:], rtol=0, atol=1e-6)


def test_torchrun_starts_two_processes_whose_two_passes_are_the_steps_of_one_pass(
    new_run, pretrained, capfd, monkeypatch
):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    one, two = new_run("one"), new_run("two")
    flags = [*TINY, "--no-bfloat16", "--unfreeze-from", "fc", "--attention", "se", "--weights", pretrained]
    flags += ["--epochs", "2", *REMEDIES]
    finish(start("train_resnet.py", one, *flags))
    command = ["--standalone", "--nproc_per_node=2", "--", networks.__file__]  # which runs the script that follows
    command += [str(ROOT / "train_resnet.py"), "--run-dir", str(two)]
    command += [*flags, "--batch-size", "8", "--accumulate", "2"]
    capfd.readouterr()
    process = FORK.Process(target=torchrun, args=[command])
    process.start()
    finish(process)
    assert capfd.readouterr().out.count("wrote") == 1
    assert_moved_together(one / "resnet50", two / "resnet50", pretrained, block="fc")


def assert_moved_together(one, two, weights, *, block):
    """Every weight of both agrees to 1e-5, and those of the block have moved by far more from the weights' file."""
    assert largest_difference(one, two) < 1e-5
    np.testing.assert_allclose(gradients(one), gradients(two), rtol=1e-3)  # whose size AdamW does not feel
    begun, ended = torch.load(weights, weights_only=True), state(one)
    moved = [(ended[f"net.{name}"] - begun[name]).abs().max() for name in begun if name.startswith(block + ".")]
    assert max(moved) > 1e-4
    first, second = (pd.read_csv(folder / "history.csv") for folder in (one, two))
    losses = ["train_loss", "val_loss"]
    np.testing.assert_allclose(first[losses], second[losses], rtol=1e-5)
