"""Decoded images on disk: one array of uint8 per size, filled on first use, shared by data sets, splits and runs.

For images of 224 px, a cache folder holds `224.u8` (the images, one after the other), `224.sqlite` (the index, which
maps path, size and modification time of a file to the place of its image, or to the reason why it cannot be read) and
`224.lock`. Both only grow, and images are indexed once they are on disk. A process that fills the cache can therefore
be killed at any time without making the index wrong, and does not disturb processes that read. Linux and macOS only.
"""

import contextlib
import errno
import functools
import itertools
import os
import shutil
import sqlite3
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from src.images.decode import AccessError, access_error, read_image
from src.runtime.distributed import is_main
from src.runtime.system_errors import in_words
from src.runtime.tables import data_size, plural
from src.runtime.workers import mapped

FORMAT = 4  # raise it when the index changes, or when `read_image` returns other pixels for the same file
COMMIT_SECONDS = 5.0  # between writes to the index, which is as much decoding as a kill can cost
STAT_THREADS = 32  # more than there are cores, since a network drive makes them wait
COLUMNS = "path BLOB, size INTEGER, mtime_ns INTEGER, place INTEGER, fault TEXT, PRIMARY KEY (path, size, mtime_ns)"
LOSS = "what has been decoded is kept; run again with fewer --workers"
INDEX_BYTES = 400  # per image in the index, a generous estimate


class Key(NamedTuple):
    """What identifies the content of a file: absolute path, size in bytes, time of modification."""

    path: bytes
    size: int
    mtime_ns: int


class Entry(NamedTuple):
    """The index's entry for a file: its place in the array, or -1 and the reason why it cannot be read."""

    place: int
    fault: str


class CachedImages:
    """The cached images of a list of files, as `open_cache` returns them.

    It can be pickled and forked: every process maps the array into memory at its own first `read`.
    """

    def __init__(self, array: Path, *, size: int, places: np.ndarray, faults: Mapping[int, str]):
        self.array = array
        self.size = size
        self.places = places  # [N] int64 by row, -1 where there is a fault
        self.faults = dict(faults)  # by row

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != "_images"}  # which would be copied whole

    @functools.cached_property
    def _images(self) -> np.ndarray:
        count = int(self.places.max(initial=-1)) + 1
        if count == 0:  # an empty file cannot be mapped
            return np.zeros((1, self.size, self.size), np.uint8)
        memory = np.memmap(self.array, np.uint8, mode="r", shape=(count, self.size, self.size))
        return memory.view(np.ndarray)  # memmap's own indexing is slower

    def read(self, rows: Sequence[int]) -> tuple[np.ndarray, list[str]]:
        """Images uint8 [B, 1, S, S] of these rows, zeros where there is a fault, and the fault or "" of each row."""
        places = self.places[np.asarray(rows, dtype=np.int64)]
        images = self._images[places]
        images[places < 0] = 0
        return images[:, None], [self.faults.get(int(row), "") for row in rows]


def open_cache(folder: Path, paths: Sequence[Path], *, size: int, workers: int) -> CachedImages:
    """The images of these files at `size` x `size` px, after decoding those that the cache lacks.

    `workers` processes decode; with 0, this process does. The number of files to decode is printed on stderr first. A
    file that is missing or cannot be opened is tried again the next time; a file that is not an image, once it has
    changed. If another process is filling the cache, this one waits. Raises ValueError if the disk has no room (the
    cache then keeps what it had) or if the folder holds other files.
    """
    store = _Store(Path(folder), size)
    keys = _keys(paths)
    entries = store.entries()
    if _lacking(keys, entries):
        with store.lock():
            entries = store.entries()  # the previous owner of the lock may have added them
            if lacking := _lacking(keys, entries):
                _fill(store, lacking, entries, workers=workers)
    found = [Entry(-1, key) if isinstance(key, str) else entries[key] for key in keys]
    faults = {row: entry.fault for row, entry in enumerate(found) if entry.fault}
    places = np.array([entry.place for entry in found], np.int64)
    return CachedImages(store.array, size=size, places=places, faults=faults)


def _keys(paths: Sequence[Path]) -> list[Key | str]:
    """The key of each file, or why it has none."""
    parts = [paths[start : start + 1000] for start in range(0, len(paths), 1000)]  # one task per file is slower
    shown = {"unit": "file", "leave": False, "delay": 2, "disable": not is_main()}
    with ThreadPoolExecutor(STAT_THREADS) as pool:
        keys = itertools.chain.from_iterable(pool.map(lambda part: [_key(path) for path in part], parts))
        return list(tqdm(keys, total=len(paths), desc="looking at the image files", **shown))


def _key(path: Path) -> Key | str:
    try:
        status = os.stat(path)
    except OSError as error:
        return str(access_error(path, error))
    return Key(os.fsencode(os.path.abspath(path)), status.st_size, status.st_mtime_ns)


def _lacking(keys: Sequence[Key | str], entries: Mapping[Key, Entry]) -> list[Key]:
    return [key for key in dict.fromkeys(keys) if not isinstance(key, str) and key not in entries]


class _Store:
    """The files of a cache for one size."""

    def __init__(self, folder: Path, size: int):
        self.folder = folder
        self.size = size
        self.image_bytes = size**2
        self.array, self.index, self.lock_file = (folder / f"{size}.{end}" for end in ("u8", "sqlite", "lock"))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from filling the cache; a lock ends with its process, whatever children it has."""
        import fcntl  # missing on Windows, where everything else works

        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.lock_file, "w") as handle:
            try:
                fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                print(f"cache {self.folder}: waiting for another process that is filling it", file=sys.stderr)
                fcntl.lockf(handle, fcntl.LOCK_EX)
            yield

    def entries(self) -> dict[Key, Entry]:
        """All entries of the index. Raises ValueError where it has another format, or the array is too short."""
        if not self.index.exists():
            return {}
        with self._connection() as connection:
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                return {}  # its first writer was killed before it made the table
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found != FORMAT:
                raise ValueError(f"cache index {self.index} has format {found}, expected {FORMAT}; {self._way_out()}")
            rows = connection.execute("SELECT path, size, mtime_ns, place, fault FROM images")
            entries = {Key(*row[:3]): Entry(*row[3:]) for row in rows}
        expected = _end(entries) * self.image_bytes
        length = self.array.stat().st_size if self.array.exists() else 0
        if length < expected:
            raise ValueError(f"{self.array} has {length:,} of the {expected:,} bytes of its index; {self._way_out()}")
        return entries

    def add(self, entries: Mapping[Key, Entry]) -> None:
        """Add the entries of images that are on disk to the index."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"CREATE TABLE IF NOT EXISTS images ({COLUMNS}) WITHOUT ROWID")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            rows = ((*key, *entry) for key, entry in entries.items())
            connection.executemany("INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with contextlib.closing(sqlite3.connect(self.index, timeout=60, isolation_level=None)) as connection:
                yield connection
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from None
            raise ValueError(f"cache index {self.index} cannot be used ({error}); {self._way_out()}") from None

    def _way_out(self) -> str:
        return f"delete {self.folder}/{self.size}.* to rebuild it, or pass another --cache"


def _end(entries: Mapping[Key, Entry]) -> int:
    """The number of places in the array that are taken."""
    return max((entry.place for entry in entries.values()), default=-1) + 1


def _fill(store: _Store, lacking: Sequence[Key], entries: dict[Key, Entry], *, workers: int) -> None:
    """Decode files into the cache and add them to `entries`. What is decoded is kept, whatever ends this early."""
    need = len(lacking) * store.image_bytes
    plan = f"cache {store.folder}: {plural(len(lacking), 'image')} of {store.size} px to decode, {data_size(need)}"
    print(plan, file=sys.stderr)  # by whichever process fills, not by the main one alone
    try:
        with _Filling(store, entries) as filling:
            filling.reserve(len(lacking))
            read, paths = functools.partial(_decode, size=store.size), [key.path for key in lacking]
            images = mapped(read, paths, workers=workers, remedy=LOSS, prepare=_one_thread)
            with contextlib.closing(images):
                for key, image in tqdm(zip(lacking, images, strict=True), "decoding", len(lacking), unit="image"):
                    filling.put(key, image)
    except OSError as error:
        free = shutil.disk_usage(store.folder).free
        raise ValueError(
            f"cache {store.folder} cannot be filled ({in_words(error)}): {plural(len(lacking), 'image')} of "
            f"{store.size} px take {data_size(need)}, and {data_size(free)} are free; make room or pass another --cache"
        ) from None


def _one_thread() -> None:
    torch.set_num_threads(1)  # with more, OpenMP hangs in a forked process


def _decode(path: bytes, *, size: int) -> np.ndarray | ValueError:
    try:
        return read_image(Path(os.fsdecode(path)), size=size).numpy()
    except ValueError as error:
        return error


class _Filling:
    """Writes images to the end of the array, and gives back the room that they do not fill.

    It does not write to a memory map, since a full disk would then end the process.
    """

    def __init__(self, store: _Store, entries: dict[Key, Entry]):
        self.store = store
        self.entries = entries
        self.end = self.known = _end(entries)  # places taken, and how many of them are in the index
        self._new: dict[Key, Entry] = {}
        self._committed = time.monotonic()

    def __enter__(self) -> "_Filling":
        self._fd = os.open(self.store.array, os.O_RDWR | os.O_CREAT, 0o666)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.ftruncate(self._fd, self.end * self.store.image_bytes)  # so that a full disk has room for the index
            self._commit()
        finally:
            try:
                os.ftruncate(self._fd, self.known * self.store.image_bytes)
            finally:
                os.close(self._fd)

    def reserve(self, count: int) -> None:
        """Reserve disk space for `count` images. Raises OSError where there is too little."""
        need, start = count * self.store.image_bytes, self.end * self.store.image_bytes
        left_over = os.fstat(self._fd).st_size - start
        if shutil.disk_usage(self.store.folder).free + left_over < need + count * INDEX_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if hasattr(os, "posix_fallocate"):  # not on macOS, where a full disk shows only later
            os.posix_fallocate(self._fd, start, need)

    def put(self, key: Key, image: np.ndarray | ValueError) -> None:
        """Take in an image uint8 [1, S, S], or why there is none."""
        if isinstance(image, AccessError):
            self.entries[key] = Entry(-1, str(image))  # not in the index, so that it is tried again
        elif isinstance(image, ValueError):
            self._new[key] = Entry(-1, str(image))
        else:
            self._write(image)
            self.end += 1  # before the entry is made, so that Ctrl-C between the two wastes a place and no more
            self._new[key] = Entry(self.end - 1, "")
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self._commit()

    def _write(self, image: np.ndarray) -> None:
        left, offset = image.data.cast("B"), self.end * self.store.image_bytes
        while left:  # the system may write only a part
            written = os.pwrite(self._fd, left, offset)
            left, offset = left[written:], offset + written

    def _commit(self) -> None:
        if not self._new:
            return
        os.fsync(self._fd)
        before, self.known = self.known, self.end  # first, so that Ctrl-C cannot cut off images that are in the index
        try:
            self.store.add(self._new)
        except (OSError, ValueError):
            self.known = before
            raise
        self.entries.update(self._new)
        self._new = {}
        self._committed = time.monotonic()
