"""One writer per folder: a lock that the system takes back when its holder ends, however it ends."""

import contextlib
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextlib.contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for the block, making the folder if it does not exist.

    Raises ValueError that says who holds it where another process does. The lock is one of POSIX records: it is not
    inherited by the processes that read images, ends with the process that took it, and reaches over NFS. Where there
    are no such locks (Windows, some network drives) the block runs without one.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open(folder / NAME, "a+", encoding="utf-8") as stream:
            if not _taken(stream):
                raise ValueError(
                    f"{folder} is being written by {_holder(stream)}; wait for it to finish, or pass another --run-dir"
                )
            stream.truncate(0)
            stream.write(f"{Path(sys.argv[0]).name} (process {os.getpid()} on {platform.node()}, since {_now()})")
            stream.flush()
            try:
                yield
            finally:
                stream.truncate(0)
    finally:
        _remove_empty(made)


def holder(folder: Path) -> str:
    """Who writes to a folder at the moment, "" where nobody does."""
    try:
        with open(folder / NAME, "r+", encoding="utf-8") as stream:
            return "" if _taken(stream) else _holder(stream)
    except OSError:  # no lock file, or one that this user may not touch
        return ""


def _taken(stream: IO[str]) -> bool:
    """Whether this process has the lock now; also where the file system has none."""
    if fcntl is None:
        return True
    try:
        fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return True
    return True


def _holder(stream: IO[str]) -> str:
    stream.seek(0)
    return stream.read().strip() or "another process"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _remove_empty(made: list[Path]) -> None:
    """Remove the folders that were made and hold nothing but the lock."""
    for path in made:
        if path == made[0] and [entry.name for entry in path.iterdir()] == [NAME]:
            (path / NAME).unlink()
        with contextlib.suppress(OSError):
            path.rmdir()
