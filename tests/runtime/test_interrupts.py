"""SIGTERM ends what is stuck, and lets what is not save or tidy up first."""

import signal
import subprocess
import sys
import time

import pytest

from tests.trees import ROOT

STUCK = """
import sys, time
from src.runtime import interrupts
interrupts.GRACE = 0.5
with interrupts.Interrupts(10) as found:
    print("ready", flush=True)
    while not (sys.argv[1] == "reached" and found.stop):
        time.sleep(0.05)
    found.reached()
    time.sleep(1.5)  # a slow disk
    sys.exit(7)
"""


@pytest.mark.parametrize(("state", "status"), [("stuck", 128 + signal.SIGTERM), ("reached", 7)])
def test_sigterm_ends_a_batch_that_does_not_end_and_waits_for_a_save(state, status):
    command = [sys.executable, "-c", STUCK, state]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status and time.monotonic() - sent < 20
    assert ("stopped without waiting any longer" in err) == (state == "stuck")


WRITING = """
import sys, time
from pathlib import Path
from src.artifacts.io import atomic_path
from src.runtime import interrupts, script
interrupts.GRACE = 0.5
def main():
    with atomic_path(Path(sys.argv[2])) as temporary:
        temporary.write_text("half")
        try:
            print("ready", flush=True)
            time.sleep(60)
        finally:
            time.sleep(60 if sys.argv[1] == "stuck" else 0)
script.run(main)
"""


@pytest.mark.parametrize("state", ["stuck", "tidy"])
def test_sigterm_ends_a_stage_that_writes_and_what_is_half_written_goes(state, tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("whole")
    command = [sys.executable, "-c", WRITING, state, str(path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM and path.read_text() == "whole"
    assert ("stopped without waiting" in err, len(list(tmp_path.iterdir()))) == (
        state == "stuck",
        1 + (state == "stuck"),
    )


DROPPED = """
import os, signal, sys, time
from src.runtime import interrupts
signal.signal(signal.SIGTERM, interrupts.end_on_sigterm)
class Callback:
    def __del__(self):  # Python drops what is raised in here
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
try:
    for _ in range(2):
        Callback()
    time.sleep(60)
finally:
    print("tidied up", flush=True)
"""


def test_sigterm_in_a_callback_that_drops_it_still_ends_the_stage():
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "tidied up\n"), done.stderr
    assert time.monotonic() - began < 8
