"""Image files decoded by several processes at once, in order."""

import itertools
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from pathlib import Path

import numpy as np
import torch

from src.images.decode import read_image

CHUNK = 16  # images that a worker sends at a time
AHEAD = 4  # chunks


def decoded(paths: Sequence[bytes], *, size: int, workers: int) -> Iterator[np.ndarray | ValueError]:
    """Each file's image uint8 [1, S, S], or why there is none, in order; raises ValueError where a worker is killed.

    Every worker has its fixed share of the files and a pipe of its own. With nothing shared (an executor's queues and
    threads), Ctrl-C and kills at any moment leave nothing that hangs.
    """
    if workers == 0:
        yield from (_decode(path, size) for path in paths)
        return
    # Forked processes need not import torch again; those of macOS do not survive its system libraries.
    context = get_context("fork" if sys.platform == "linux" else "spawn")
    chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
    processes, inboxes = [], []
    try:
        for first in range(min(workers, len(chunks))):
            inbox, outbox = context.Pipe(duplex=False)
            share = (outbox, chunks[first::workers], size, os.getpid())
            processes.append(context.Process(target=_work, args=share, daemon=True))
            inboxes.append(inbox)
            processes[-1].start()
            outbox.close()  # else the end of the process would not be the end of the pipe
        yield from _in_turn(inboxes)
    finally:
        for process in processes:
            if process.pid:
                process.kill()
                process.join()


def _in_turn(inboxes: Sequence[Connection]) -> Iterator[np.ndarray | ValueError]:
    """The images of all workers, a chunk of each in turn; a worker may be `AHEAD` chunks ahead of the others."""
    arrived = [deque() for _ in inboxes]
    for turn in itertools.cycle(range(len(inboxes))):
        while not arrived[turn]:
            hungry = [inbox for inbox, chunks in zip(inboxes, arrived, strict=True) if len(chunks) < AHEAD]
            for inbox in wait([inbox for inbox in hungry if not inbox.closed]):
                arrived[inboxes.index(inbox)].append(chunk := _received(inbox, len(inboxes)))
                if chunk is None:  # its share is done
                    inbox.close()
        if arrived[turn][0] is None:  # and that of those after it too
            return
        yield from arrived[turn].popleft()


def _received(inbox: Connection, workers: int) -> list[np.ndarray | ValueError] | None:
    try:
        return inbox.recv()
    except (EOFError, OSError):  # the end of the pipe, between two messages or within one
        raise ValueError(
            "a process that decodes images was killed (out of memory?); what is decoded is kept, run again with fewer "
            f"than {workers} --workers"
        ) from None


def _work(outbox: Connection, chunks: Sequence[Sequence[bytes]], size: int, parent: int) -> None:
    """A worker: decode its share of the files."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)  # with more, OpenMP hangs in a forked process
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    for chunk in chunks:
        outbox.send([_decode(path, size) for path in chunk])
    outbox.send(None)


def _decode(path: bytes, size: int) -> np.ndarray | ValueError:
    try:
        return read_image(Path(os.fsdecode(path)), size=size).numpy()
    except ValueError as error:
        return error


def _end_with(parent: int) -> None:
    """Exit when the parent has ended, which a worker that is blocked on its pipe would not notice."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
