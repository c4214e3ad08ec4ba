"""The real training script, killed at any moment, told to stop, and in several processes."""

import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import check_split
from src.models import build_model
from tests.trees import make_csv

ROOT = Path(__file__).resolve().parents[2]
TINY = ["--weights", "none", "--image-size", "32", "--batch-size", "16", "--workers", "0", "--device", "cpu"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A CSV of 80 images of 40 patients."""
    return make_csv(tmp_path_factory.mktemp("data"), patients=40)


@pytest.fixture
def new_run(data, tmp_path):
    """Makes run folders with the same manifest."""

    def make(name):
        flags = ["--run-dir", str(tmp_path / name), "--data", str(data)]
        check_split.main([*flags, "--val-fraction", "0.2", "--test-fraction", "0.2"])
        return tmp_path / name

    return make


def start(script, run_dir, *flags, launcher=(sys.executable,)):
    command = [*launcher, str(ROOT / script), "--run-dir", str(run_dir), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, **pipes)


def two_nodes():
    """What starts each of two nodes of one process, on one machine."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        meeting = f"127.0.0.1:{server.getsockname()[1]}"
    nodes = ["--nnodes=2", "--nproc_per_node=1", "--local_addr=127.0.0.1"]
    return [*TORCHRUN[:3], *nodes, "--rdzv_backend=c10d", f"--rdzv_endpoint={meeting}"]


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return out


def wait_for(path, process, *, newer_than=0):
    """Until the file is there and newer, or the process has ended."""
    while process.poll() is None and not (path.exists() and path.stat().st_mtime_ns > newer_than):
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


def pretrained(path):
    """A state dict whose BatchNorms have the statistics of what passes through them, as after a training."""
    torch.manual_seed(0)
    model = build_model("resnet50", num_classes=2).train()
    with torch.no_grad():
        for _ in range(20):
            model(torch.randn(32, 3, 32, 32))
    torch.save(model.net.state_dict(), path)
    return path


def test_killed_again_and_again_it_ends_as_if_never_interrupted(new_run, tmp_path):
    flags = [*TINY, "--unfreeze-last-n-blocks", "2", "--epochs", "2", "--checkpoint-minutes", "0", "--resume"]
    whole, killed = new_run("whole"), new_run("killed")
    finish(start("train_efficientnet.py", whole, *flags))
    flags += ["--workers", "1", "--cache", str(tmp_path / "cache")]  # which change nothing
    last, chance, kills = killed / "efficientnet_b1" / "last.pt", random.Random(0), 0
    for _ in range(4):
        before = last.stat().st_mtime_ns if last.exists() else 0
        process = start("train_efficientnet.py", killed, *flags)
        wait_for(last, process, newer_than=before)
        time.sleep(chance.uniform(0, 0.3))
        process.kill()
        process.communicate()
        kills += process.returncode == -signal.SIGKILL
    assert kills >= 2, "it was too fast to be killed"
    assert "resuming after epoch" in finish(start("train_efficientnet.py", killed, *flags))
    assert_same(killed / "efficientnet_b1", whole / "efficientnet_b1")
    history = killed / "efficientnet_b1" / "history.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:-1]))  # killed right before its last row
    finish(start("train_efficientnet.py", killed, *flags))
    assert_same(killed / "efficientnet_b1", whole / "efficientnet_b1")


@pytest.mark.parametrize(
    ("script", "arch", "flags"),
    [
        ("train_efficientnet.py", "efficientnet_b1", ["--unfreeze-last-n-blocks", "0"]),
        ("train_resnet.py", "resnet50", ["--unfreeze-from", "layer4", "--bfloat16"]),
    ],
)
def test_told_to_stop_it_saves_and_says_how_to_go_on(new_run, script, arch, flags):
    whole, stopped = new_run("whole"), new_run("stopped")
    flags = [*TINY, *flags, "--epochs", "2", "--checkpoint-minutes", "0"]
    finish(start(script, whole, *flags))
    process = start(script, stopped, *flags)
    wait_for(stopped / arch / "last.pt", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, err
    command = out.splitlines()[-1].split()
    assert command[:2] == ["python", script] and "--resume" in command
    again = subprocess.run([sys.executable, *command[1:]], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert_same(stopped / arch, whole / arch)


def test_the_score_that_two_processes_keep_is_that_of_the_weights_they_keep(new_run):
    run = new_run("two")
    flags = ["--image-size", "64", "--batch-size", "3", "--unfreeze-from", "layer4", "--epochs", "1", "--lr", "1e-2"]
    finish(start("train_resnet.py", run, *TINY, *flags, launcher=TORCHRUN))
    finish(start("test_resnet.py", run, "--device", "cpu", "--workers", "0", "--no-prior-correction"))
    history = pd.read_csv(run / "resnet50" / "history.csv")
    metrics = json.loads((run / "resnet50" / "metrics_val.json").read_text())
    assert history["val_loss"].item() == pytest.approx(metrics["loss"], rel=1e-5)


def test_two_processes_train_and_resume_and_test_as_one(new_run):
    """In the same passes: AdamW would make much of how the gradients next to nothing are rounded in others."""
    one, two = new_run("one"), new_run("two")
    weights = str(pretrained(one / "weights.pth"))
    flags = [*TINY, "--no-bfloat16", "--unfreeze-from", "layer4", "--freeze-batchnorm", "--weights", weights]
    finish(start("train_resnet.py", one, *flags, "--batch-size", "8", "--accumulate", "2", "--epochs", "2"))
    out = finish(start("train_resnet.py", two, *flags, "--epochs", "1", launcher=TORCHRUN))
    assert out.count("epoch 1/1") == 1 and "in 2 processes" in out
    finish(start("train_resnet.py", two, *flags, "--epochs", "2", "--resume", launcher=TORCHRUN))
    assert_moved_together(one / "resnet50", two / "resnet50", weights, block="layer4")
    finish(start("test_resnet.py", one, "--device", "cpu", "--workers", "0", "--batch-size", "5"))
    probs = {split: pd.read_csv(one / "resnet50" / f"probs_{split}.csv") for split in ("val", "test")}
    again = ("--device", "cpu", "--workers", "0", "--batch-size", "5", "--overwrite")
    assert finish(start("test_resnet.py", one, *again, launcher=TORCHRUN)).count("wrote to") == 1
    for split, before in probs.items():
        after = pd.read_csv(one / "resnet50" / f"probs_{split}.csv")
        assert after["image_id"].equals(before["image_id"])
        np.testing.assert_allclose(after.iloc[:, 1:], before.iloc[:, 1:], rtol=0, atol=1e-6)


def test_two_nodes_of_two_passes_each_take_the_steps_of_one_pass(new_run):
    one, two = new_run("one"), new_run("two")
    weights = str(pretrained(one / "weights.pth"))
    flags = [*TINY, "--no-bfloat16", "--unfreeze-from", "fc", "--weights", weights, "--epochs", "1"]
    finish(start("train_resnet.py", one, *flags))
    flags, launcher = [*flags, "--batch-size", "8", "--accumulate", "2"], two_nodes()
    nodes = [start("train_resnet.py", two, *flags, launcher=launcher) for _ in range(2)]
    assert sorted(finish(node).count("wrote") for node in nodes) == [0, 1]
    assert_moved_together(one / "resnet50", two / "resnet50", weights, block="fc")


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
