"""Stop every stage by SIGTERM at random moments, and see that it ends in time, leaves whole files, and runs again.

A small drawn data set goes through all stages once. Then each stage is started --times times on the run as the stages
before it left it, every second time on its own earlier output with --overwrite, and gets SIGTERM at a random moment of
its run time, the imports included. Within 10 seconds all of its processes must have ended; every file must be whole;
and started again, with --resume after half of the interrupts of a training, it must leave the tables and the model
that it leaves when nobody stops it.

Example: OMP_NUM_THREADS=1 python benchmarks/interrupt_stages.py --times 20
"""

import argparse
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 10.0  # seconds from SIGTERM to the end of the last process
SMALL = ["--weights", "none", "--image-size", "32", "--epochs", "2", "--workers", "1", "--checkpoint-minutes", "0.01"]
FEW = ["--resamples", "50"]
STAGES = {
    "make_demo_data.py": ["--out", "demo", "--patients", "60"],
    "check_split.py": ["--run-dir", "run", "--data", "demo", "--images", "open", "--val-fraction", "0.3"],
    "eda_labels.py": ["--run-dir", "run"],
    "train_resnet.py": ["--run-dir", "run", *SMALL, "--unfreeze-from", "fc", "--cache", "cache"],
    "train_efficientnet.py": ["--run-dir", "run", *SMALL, "--unfreeze-last-n-blocks", "0"],
    "test_resnet.py": ["--run-dir", "run", *FEW, "--workers", "1", "--cache", "cache"],
    "test_efficientnet.py": ["--run-dir", "run", *FEW, "--workers", "1"],
    "ensemble_alpha_search.py": ["--run-dir", "run", *FEW],
    "ensemble_threshold_search.py": ["--run-dir", "run", *FEW, "--recall", "0.85"],
    "predict.py": ["demo/valid", "--run-dir", "run", "--recall", "0.85", "--workers", "1", "--heatmaps", "heat"],
    "report.py": ["--run-dir", "run"],
}
MAY_BE = {"check_split.py": 1}  # status: the split of so few patients is not sound


@dataclass
class Tally:
    """What the interrupts of one stage showed."""

    stopped: int = 0
    slowest: float = 0.0
    temporary: int = 0
    problems: list[str] = field(default_factory=list)


def start(work, script, *flags):
    command = [sys.executable, str(ROOT / script), *STAGES[script], *flags]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=work, env=environment, start_new_session=True, **streams)


def finish(work, script, *flags):
    """Run a stage to its end; returns what went wrong, "" where nothing did."""
    process = start(work, script, *flags)
    _, err = process.communicate(timeout=600)
    if process.returncode in (0, MAY_BE.get(script, 0)):
        return ""
    return f"{script} {' '.join(flags)}: status {process.returncode}: {(err.strip().splitlines() or [''])[-1]}"


def copy(source, target):
    """A copy; checkpoints, which are replaced and never written into, are links."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=lambda a, b: (os.link if a.endswith(".pt") else shutil.copy2)(a, b))


def is_running(session):
    """Whether a process of the session is left."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, of = path.read_text().rsplit(")", 1)[1].split()[:4]
        except OSError:
            continue
        if int(of) == session and state != "Z":
            return True
    return False


def interrupt(work, script, moment, *flags):
    """SIGTERM after so many seconds; returns the seconds until all has ended, None where it had before."""
    process = start(work, script, *flags)
    try:
        process.communicate(timeout=moment)
        return None
    except subprocess.TimeoutExpired:
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
    while (process.poll() is None or is_running(process.pid)) and time.monotonic() - sent < 3 * LONGEST:
        time.sleep(0.02)
    took = time.monotonic() - sent
    if is_running(process.pid):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return took


def broken(path):
    """Why a file is not whole, "" where it is."""
    try:
        check(path)
    except Exception as error:  # each reader raises its own
        return f"{path}: {type(error).__name__}: {error}"
    return ""


def check(path):
    if path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".csv":
        text = path.read_text()
        widths = {len(row) for row in csv.reader(text.splitlines(), strict=True)}
        assert len(widths) == 1 and text.endswith("\n"), f"rows of {sorted(widths)} cells"
    elif path.suffix == ".pt":
        torch.load(path, weights_only=True)
    elif path.suffix == ".npz":
        with np.load(path) as content:
            assert all(content[name].size for name in content)
    elif path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".html":
        assert path.read_text().rstrip().endswith("</html>"), "no end"
    elif path.suffix == ".sqlite":
        assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def files(work):
    return sorted(path for path in work.rglob("*") if path.is_file())


def is_temporary(path, work):
    return any(".tmp" in part or part.endswith(".old") for part in path.relative_to(work).parts)


def results(work):
    """What must be the same however often a stage was stopped: the names of all files, and the tables and models."""
    left = [path for path in files(work) if not is_temporary(path, work) and path.name != ".lock"]
    content = {path: path.read_bytes() for path in left if path.suffix == ".csv" or path.name == "best.pt"}
    return {str(path.relative_to(work)): content.get(path, b"") for path in left}


def differences(work, expected):
    found = results(work)
    return [
        f"{name} is {'other' if name in found and name in expected else 'left' if name in found else 'missing'}"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]


def torment(script, before, after, work, *, seconds, times):
    """Interrupt a stage again and again."""
    chance, tally, expected = random.Random(script), Tally(), results(after)
    for number in range(times):
        again = number % 2 == 1  # on its own earlier output
        copy(after if again else before, work)
        moment = seconds * (number + chance.random()) / times
        took = interrupt(work, script, moment, *(["--overwrite"] if again else []))
        where = f"{script}, SIGTERM after {moment:.1f} of {seconds:.1f} s"
        if took is not None:
            tally.stopped += 1
            tally.slowest = max(tally.slowest, took)
            tally.problems += [f"{where}: ended after {took:.1f} s"] if took > LONGEST else []
        left = [path for path in files(work) if not is_temporary(path, work)]
        tally.temporary += len(left) < len(files(work))
        tally.problems += [f"{where}: {fault}" for fault in filter(None, map(broken, left))]
        resume = script.startswith("train") and not again
        fault = finish(work, script, "--resume" if resume else "--overwrite")
        tally.problems += [f"{where}: {fault}"] if fault else []
        tally.problems += [f"{where}, and run again: {fault}" for fault in differences(work, expected)]
    return tally


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="interrupts per stage")
    parser.add_argument("--stages", nargs="+", default=list(STAGES), metavar="SCRIPT", help="those that are stopped")
    options = parser.parse_args()
    print("| stage | left alone, s | stopped | slowest end, s | temporary files left | problems |")
    print("|---|---|---|---|---|---|", flush=True)
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        before, after, work = (Path(temporary) / name for name in ("before", "after", "work"))
        work.mkdir()
        for script in STAGES:
            copy(work, before)
            begun = time.monotonic()
            if fault := finish(work, script):
                raise SystemExit(fault)
            seconds = time.monotonic() - begun
            copy(work, after)
            if script in options.stages:
                tally = torment(script, before, after, work, seconds=seconds, times=options.times)
                problems += tally.problems
                cells = f"`{script}` | {seconds:.1f} | {tally.stopped} of {options.times} | {tally.slowest:.1f}"
                print(f"| {cells} | {tally.temporary} | {len(tally.problems)} |", flush=True)
                copy(after, work)
    print(*problems, sep="\n")
    raise SystemExit(bool(problems))


if __name__ == "__main__":
    main()
