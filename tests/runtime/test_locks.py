"""One writer per folder, and no lock left by a process that was killed."""

import os
import signal
import subprocess
import sys

import pytest

from src.runtime.locks import exclusive, holder
from tests.trees import ROOT

HOLD = """
import os, sys, time
from pathlib import Path
from src.runtime.locks import exclusive
with exclusive(Path(sys.argv[1])):
    if os.fork() == 0:
        time.sleep(60)  # a reader that outlives its parent
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """Another process that holds the lock of a folder, and that folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_the_second_writer_is_told_who_the_first_is(other, tmp_path):
    match = rf"is being written by -c \(process {other.pid} on .*since 20"
    with pytest.raises(ValueError, match=match), exclusive(tmp_path):
        pass
    assert f"process {other.pid}" in holder(tmp_path)


def test_a_killed_writer_leaves_no_lock(other, tmp_path):
    other.kill()
    other.wait()
    assert holder(tmp_path) == ""
    with exclusive(tmp_path):
        pass


def test_a_folder_that_stays_empty_is_not_left(tmp_path):
    with pytest.raises(ValueError, match="refused"), exclusive(tmp_path / "run" / "model"):
        raise ValueError("refused")
    assert not (tmp_path / "run").exists()
    with exclusive(tmp_path / "run" / "model"):
        (tmp_path / "run" / "model" / "file").touch()
    assert (tmp_path / "run" / "model" / "file").exists()
    assert holder(tmp_path / "nowhere") == ""
