"""SIGTERM ends a training that is stuck, and lets one that is not save first."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
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
