"""The cache of decoded images: built once, shared, never wrong, whatever happens while it is filled."""

import errno
import os
import pickle
import resource
import signal
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from src.images import cache
from src.images.cache import open_cache
from src.images.decode import AccessError, read_image
from src.runtime import workers as process_pool
from tests.trees import FORK

SIZE = 16


@pytest.fixture(autouse=True)
def own_progress_lock():
    """A lock of tqdm's that a forked process does not share: one that is killed would keep it for ever."""
    shared = tqdm.get_lock()
    tqdm.set_lock(threading.RLock())
    yield
    tqdm.set_lock(shared)


@pytest.fixture
def files(tmp_path):
    return [save(tmp_path / "images" / f"{number}.png", seed=number) for number in range(40)]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch, tmp_path):
    """The files that `read_image` is asked for from now on, in whichever process."""
    log = tmp_path / "decoded.log"

    def logged(path, *, size):
        with open(log, "a") as stream:
            stream.write(f"{path.name} {os.getpid()}\n")
        return read_image(path, size=size)

    log.touch()
    monkeypatch.setattr(cache, "read_image", logged)

    def names():
        asked = [line.split()[0] for line in log.read_text().splitlines()]
        log.write_text("")
        return asked

    names.log = log
    return names


@pytest.fixture
def slow(monkeypatch, decoded, tmp_path):
    """Decoding that takes 5 ms an image, with the index written after each; the last waits while the file is there."""
    quick, hold = cache.read_image, tmp_path / "hold"

    def slowly(path, *, size):
        time.sleep(0.005)
        while path.name == "39.png" and hold.exists():
            time.sleep(0.005)
        return quick(path, size=size)

    monkeypatch.setattr(cache, "read_image", slowly)
    monkeypatch.setattr(cache, "COMMIT_SECONDS", 0)
    monkeypatch.setattr(process_pool, "CHUNK", 1)
    return hold


def save(path, *, seed, side=20):
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side), dtype=np.uint8)).save(path)
    return path


def fill(folder, files, *, size=SIZE, workers=0):
    return open_cache(folder, files, size=size, workers=workers)


def assert_right(images, files, *, size=SIZE):
    """Every row is what its file holds."""
    pixels, faults = images.read(range(len(files)))
    assert pixels.shape == (len(files), 1, size, size) and pixels.dtype == np.uint8
    assert faults == [""] * len(files)
    for row, path in enumerate(files):
        np.testing.assert_array_equal(pixels[row], read_image(path, size=size).numpy())


def known(folder, size=SIZE):
    """Rows of the index."""
    index = folder / f"{size}.sqlite"
    if not index.exists():
        return 0
    connection = sqlite3.connect(index, timeout=10)
    try:
        return connection.execute("SELECT count(*) FROM images").fetchone()[0]
    except sqlite3.OperationalError:
        return 0
    finally:
        connection.close()


def start(target, *args):
    process = FORK.Process(target=target, args=args)
    process.start()
    return process


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the latter if it ends between opening and reading
        return False


def wait_until(condition, *, seconds=10):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def test_images_are_decoded_once_and_their_number_and_size_said_before(folder, files, decoded, capsys):
    images = fill(folder, files, workers=2)
    assert capsys.readouterr().err.startswith(f"cache {folder}: 40 images of 16 px to decode, 10 kB\n")
    assert sorted(decoded()) == sorted(path.name for path in files)
    assert_right(images, files)
    assert (folder / "16.u8").stat().st_size == 40 * SIZE**2
    assert_right(fill(folder, files[::-1], workers=2), files[::-1])
    assert decoded() == [] and capsys.readouterr().err == ""


def test_other_files_and_sizes_are_added(folder, files, decoded):
    first = fill(folder, files[:10])
    decoded()
    both = fill(folder, files[5:15])
    assert decoded() == [path.name for path in files[10:15]]
    large = fill(folder, files[:10], size=24)
    assert_right(first, files[:10])
    assert_right(both, files[5:15])
    assert_right(large, files[:10], size=24)


def test_a_file_listed_twice_is_decoded_once(folder, files, decoded, monkeypatch):
    monkeypatch.chdir(files[0].parent)
    images = fill(folder, [files[0], files[1], files[0], Path("1.png")])
    assert decoded() == ["0.png", "1.png"]
    assert_right(images, [files[0], files[1], files[0], files[1]])


@pytest.mark.parametrize("change", ["time", "size", "both"])
def test_a_changed_file_is_decoded_anew_while_who_has_the_old_one_keeps_it(folder, files, decoded, change):
    before = fill(folder, files)
    status = files[4].stat()
    files[4].unlink()
    if change == "time":  # the same bytes
        save(files[4], seed=4)
        os.utime(files[4], ns=(0, status.st_mtime_ns + 1))
    else:
        save(files[4], seed=99, side=21)
    if change == "size":
        assert files[4].stat().st_size != status.st_size
        os.utime(files[4], ns=(0, status.st_mtime_ns))
    old = before.read([4])[0]
    decoded()
    after = fill(folder, files)
    assert decoded() == ["4.png"]
    assert_right(after, files)
    np.testing.assert_array_equal(before.read([4])[0], old)


def test_what_is_no_image_is_a_fault_until_it_changes(folder, files, decoded):
    files[2].write_text("not an image")
    for _ in range(2):
        images = fill(folder, files)
        pixels, faults = images.read([1, 2, 3])
        assert faults[0] == faults[2] == "" and "2.png is not an image" in faults[1]
        assert pixels[0].any() and not pixels[1].any() and pixels[2].any()
    assert decoded().count("2.png") == 1
    save(files[2], seed=2)
    assert_right(fill(folder, files), files)


def test_a_cache_of_faults_alone_can_be_read(folder, tmp_path):
    text = tmp_path / "a.png"
    text.write_text("not an image")
    pixels, faults = fill(folder, [text]).read([0, 0])
    assert not pixels.any() and pixels.shape == (2, 1, SIZE, SIZE) and all(faults)


def test_a_missing_file_is_a_fault_that_is_not_remembered(folder, files):
    files[2].unlink()
    assert "2.png does not exist" in fill(folder, files).read([2])[1][0]
    save(files[2], seed=2)
    assert_right(fill(folder, files), files)


def test_a_file_that_may_not_be_read_is_a_fault_that_is_not_remembered(folder, files, monkeypatch):
    def denied(path, *, size):
        if path.name == "2.png":
            raise AccessError("2.png: no")
        return read_image(path, size=size)

    with monkeypatch.context() as patch:
        patch.setattr(cache, "read_image", denied)
        for workers in (0, 2):
            assert fill(folder, files, workers=workers).read([1, 2])[1] == ["", "2.png: no"]
    assert_right(fill(folder, files), files)


def test_the_number_of_workers_does_not_change_a_byte(tmp_path, files):
    files[7].write_text("not an image")
    folders = []
    for workers in (0, 1, 3):
        folders.append(tmp_path / f"cache{workers}")
        fill(folders[-1], files, workers=workers)
    arrays = {folder.joinpath("16.u8").read_bytes() for folder in folders}
    assert len(arrays) == 1 and len(arrays.pop()) == 39 * SIZE**2


def test_a_reader_is_pickled_without_its_images_and_read_in_other_processes(folder, files):
    images = fill(folder, files)
    expected = images.read(range(40))[0]
    packed = pickle.dumps(images)
    assert len(packed) < 2000 + 8 * len(files)
    np.testing.assert_array_equal(pickle.loads(packed).read(range(40))[0], expected)
    child = start(lambda: os._exit(0 if (images.read(range(40))[0] == expected).all() else 1))
    child.join()
    assert child.exitcode == 0


def test_killed_again_and_again_it_goes_on_where_it_stopped(folder, files, slow, decoded):
    slow.touch()
    progress = [0]
    for target in (1, 2, 9, 9, 20, 39):
        builder = start(lambda: fill(folder, files, workers=2))
        wait_until(lambda target=target: known(folder) >= target)
        os.kill(builder.pid, signal.SIGKILL)
        builder.join()
        progress.append(known(folder))
    slow.unlink()
    assert progress == sorted(progress)
    workers = {int(line.split()[1]) for line in decoded.log.read_text().splitlines()}
    wait_until(lambda: not any(map(running, workers)), seconds=10)  # none outlives its parent
    decoded()
    images = fill(folder, files)
    assert len(decoded()) == 40 - progress[-1]
    assert_right(images, files)
    assert (folder / "16.u8").stat().st_size == 40 * SIZE**2


def test_workers_that_wait_to_be_read_end_with_their_reader(folder, files, decoded, monkeypatch):
    monkeypatch.setattr(cache._Filling, "put", lambda *_: time.sleep(60))
    monkeypatch.setattr(process_pool, "CHUNK", 5)
    builder = start(lambda: fill(folder, files, size=256, workers=2))  # five images are more than a pipe holds
    wait_until(lambda: len(decoded.log.read_text().splitlines()) == 15)  # one chunk is read, two are being sent
    builder.kill()
    builder.join()
    workers = {int(line.split()[1]) for line in decoded.log.read_text().splitlines()}
    wait_until(lambda: not any(map(running, workers)))


def test_bytes_that_the_index_does_not_know_are_never_served(folder, files):
    fill(folder, files[:10])
    with open(folder / "16.u8", "ab") as stream:
        stream.write(b"\xff" * 1000)  # half-written images of a process that was killed
    assert_right(fill(folder, files), files)


def test_two_processes_at_once_share_the_work(folder, files, slow, decoded, capfd):
    slow.touch()  # the first process is not done before the second has met it, however busy the machine
    others = [start(lambda: (fill(folder, files, workers=1), print("done"))) for _ in range(2)]
    said = []
    wait_until(lambda: said.append(capfd.readouterr().err) or "waiting for another" in "".join(said), seconds=30)
    slow.unlink()
    for process in others:
        process.join()
        assert process.exitcode == 0
    assert sorted(decoded()) == sorted(path.name for path in files)
    assert_right(fill(folder, files), files)
    err = "".join(said) + capfd.readouterr().err
    assert err.count("waiting for another process that is filling it") == 1 and err.count("to decode") == 1


def test_ctrl_c_keeps_what_is_done(folder, files, slow, decoded, monkeypatch):
    monkeypatch.setattr(cache, "COMMIT_SECONDS", 60)

    def build():
        try:
            fill(folder, files, workers=2)
        except KeyboardInterrupt:
            os._exit(130)

    slow.touch()
    builder = start(build)
    wait_until(lambda: len(decoded.log.read_text().splitlines()) > 12)
    os.kill(builder.pid, signal.SIGINT)
    builder.join(60)  # it also waits for its readers
    assert builder.exitcode == 130
    slow.unlink()
    done = known(folder)
    assert 0 < done < 40 and (folder / "16.u8").stat().st_size == done * SIZE**2
    decoded()
    assert_right(fill(folder, files), files)
    assert len(decoded()) == 40 - done


def test_a_worker_that_is_killed_ends_it_in_one_line_and_what_is_done_is_kept(folder, files, monkeypatch):
    def deadly(path, *, size):
        if path.name == "30.png":
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGKILL)
        return read_image(path, size=size)

    monkeypatch.setattr(process_pool, "CHUNK", 1)
    with monkeypatch.context() as patch, pytest.raises(ValueError, match="was killed.*fewer --workers"):
        patch.setattr(cache, "read_image", deadly)
        fill(folder, files, workers=2)
    assert known(folder) >= 20
    assert_right(fill(folder, files), files)


@pytest.mark.parametrize("where", ["before", "reserving", "writing", "index"])
def test_a_full_disk_is_one_line_and_leaves_the_cache_as_it_was(folder, files, monkeypatch, where):
    before = fill(folder, files[:10])
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_):
        raise full

    with monkeypatch.context() as patch:
        if where == "before":
            usage = cache.shutil.disk_usage(folder)
            patch.setattr(cache.shutil, "disk_usage", lambda _: usage._replace(free=30 * SIZE**2 - 1))
        elif where == "index":
            patch.setattr(cache._Store, "add", fail)
        else:
            patch.setattr(os, {"reserving": "posix_fallocate", "writing": "pwrite"}[where], fail)
        message = "the disk is full.*: 30 images of 16 px take 7.7 kB, and .*B are free"
        with pytest.raises(ValueError, match=message) as caught:
            fill(folder, files)
    assert "\n" not in str(caught.value)
    assert (folder / "16.u8").stat().st_size == 10 * SIZE**2 and known(folder) == 10
    assert_right(before, files[:10])
    assert_right(fill(folder, files), files)


@pytest.mark.parametrize("reserved", [True, False])
def test_a_limit_of_the_system_on_the_file_leaves_what_fitted(folder, files, monkeypatch, reserved):
    if not reserved:
        monkeypatch.delattr(os, "posix_fallocate")

    def build():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100 * SIZE**2, 100 * SIZE**2))  # enough for the index
        try:
            fill(folder, many)
        except ValueError as error:
            os._exit(3 if "larger than the system allows" in str(error) else 1)

    many = [save(files[0].parent / f"more{number}.png", seed=number) for number in range(120)]
    builder = start(build)
    builder.join()
    assert builder.exitcode == 3
    assert known(folder) == (0 if reserved else 100)
    assert (folder / "16.u8").stat().st_size == known(folder) * SIZE**2
    assert_right(fill(folder, many), many)


def test_a_cache_of_another_version_or_one_that_was_damaged_is_said_in_one_line(folder, files):
    fill(folder, files)
    with sqlite3.connect(folder / "16.sqlite") as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match=rf"16.sqlite has format 99, expected {cache.FORMAT}; delete .*16\.\* "):
        fill(folder, files)
    with sqlite3.connect(folder / "16.sqlite") as connection:
        connection.execute(f"PRAGMA user_version = {cache.FORMAT}")
    os.truncate(folder / "16.u8", 39 * SIZE**2)
    with pytest.raises(ValueError, match="16.u8 has 9,984 of the 10,240 bytes of its index; delete"):
        fill(folder, files)
    (folder / "16.sqlite").write_text("something else, and long enough to have a header\n" * 20)
    with pytest.raises(ValueError, match="16.sqlite cannot be used .file is not a database.; delete"):
        fill(folder, files)


def test_an_index_without_its_table_is_an_empty_one(folder, files):
    folder.mkdir()
    (folder / "16.sqlite").touch()
    assert_right(fill(folder, files), files)
