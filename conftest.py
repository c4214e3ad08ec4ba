"""Keep pytest away from the stage scripts whose names look like tests, and share the cores and what tests prepare."""

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

collect_ignore_glob = ["test_*.py"]
os.environ["OMP_NUM_THREADS"] = "1"  # xdist uses all cores, and a forked process hangs if OpenMP has threads


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Call `make(folder)` with a new folder of this name and return the folder; the workers of xdist make it once."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder = root / f"once_{name}"
        with open(root / f"{name}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / ".made").exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a worker that failed has left
                folder.mkdir()
                make(folder)
                (folder / ".made").touch()
        return folder

    return made
