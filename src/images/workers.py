"""Image files decoded by several processes at once, in order."""

import os
import signal
import sys
from collections.abc import Generator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch

from src.images.decode import read_image

CHUNK = 32  # images that a worker sends at a time; with many, each chunk takes about the same time


def decoded(paths: Sequence[bytes], *, size: int, workers: int) -> Generator[np.ndarray | ValueError]:
    """Each file's image uint8 [1, S, S], or why there is none, in order; raises ValueError where a worker is killed.

    Every worker has a fixed share of the files and a pipe of its own. An executor or a DataLoader would share queues
    among the workers, and a worker that is killed while it holds one can make the others wait forever.
    """
    if workers == 0:
        yield from (_decode(path, size) for path in paths)
        return
    # Forked processes need not import torch again; those of macOS do not survive its system libraries.
    context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes, inboxes = [], []
    try:
        for first in range(min(workers, len(chunks))):
            inbox, outbox = context.Pipe(duplex=False)
            inboxes.append(inbox)
            share = (chunks[first::workers], size, outbox, inboxes)
            processes.append(context.Process(target=_work, args=share, daemon=True))
            processes[-1].start()
            outbox.close()  # else the end of the process would not be the end of the pipe
        for turn in range(len(chunks)):
            yield from _received(inboxes[turn % len(inboxes)], workers)
    finally:
        for process in processes:
            if process.pid:
                process.kill()
                process.join()


def _received(inbox: Connection, workers: int) -> list[np.ndarray | ValueError]:
    try:
        return inbox.recv()
    except (EOFError, OSError):  # the end of the pipe, between two messages or within one
        raise ValueError(
            "a process that decodes images was killed (out of memory?); what is decoded is kept; run again with fewer "
            f"than {workers} --workers"
        ) from None


def _work(chunks: Sequence[Sequence[bytes]], size: int, outbox: Connection, inboxes: Sequence[Connection]) -> None:
    """Decode a worker's share of the files, until done or until the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # with more, OpenMP hangs in a forked process
    for inbox in inboxes:  # the parent's ends, so that the pipe breaks when the parent ends
        inbox.close()
    try:
        for chunk in chunks:
            outbox.send([_decode(path, size) for path in chunk])
    except BrokenPipeError:
        os._exit(1)


def _decode(path: bytes, size: int) -> np.ndarray | ValueError:
    try:
        return read_image(Path(os.fsdecode(path)), size=size).numpy()
    except ValueError as error:
        return error
