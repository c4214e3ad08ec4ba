"""A function of many items computed by several processes at once, in order."""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Sequence
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

CHUNK = 32  # with many results in a chunk, each takes about the same time


def mapped(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int,
    remedy: str,
    prepare: Callable[[], object] | None = None,
    chunk: int | None = None,
) -> Generator[Result]:
    """`function(item)` of each item, in order; with 0 workers in this process.

    `prepare` is called first in each worker, which sends `chunk` results at a time. Raises ValueError, which ends with
    `remedy`, where a worker is killed, and the error of `function` where it raises one.

    Every worker has a fixed share of the items and a pipe of its own. An executor or a DataLoader would share queues
    among the workers: if one is killed while it holds a queue, or the parent is, the others can wait forever.
    """
    if workers == 0:
        yield from map(function, items)
        return
    # Forked processes need not import modules again; those of macOS do not survive its system libraries.
    context = get_context("fork") if sys.platform == "linux" else get_context("spawn")
    size = chunk or CHUNK
    chunks = [items[start : start + size] for start in range(0, len(items), size)]
    processes, inboxes = [], []
    try:
        for first in range(min(workers, len(chunks))):
            inbox, outbox = context.Pipe(duplex=False)
            inboxes.append(inbox)
            share = (function, chunks[first::workers], outbox, inboxes, prepare)
            processes.append(context.Process(target=_work, args=share, daemon=True))
            processes[-1].start()
            outbox.close()  # else the end of the process would not be the end of the pipe
        for turn in range(len(chunks)):
            yield from _received(inboxes[turn % len(inboxes)], remedy)
    finally:
        for process in processes:
            if process.pid:
                process.kill()
                process.join()


def _received(inbox: Connection, remedy: str) -> list:
    try:
        received = inbox.recv()
    except (EOFError, OSError):  # the end of the pipe, between two messages or within one
        raise ValueError(f"a process that reads or writes images was killed (out of memory?); {remedy}") from None
    if isinstance(received, BaseException):
        raise received
    return received


def _work(
    function: Callable,
    chunks: Sequence[Sequence],
    outbox: Connection,
    inboxes: Sequence[Connection],
    prepare: Callable[[], object] | None,
) -> None:
    """Compute a worker's share, until done or until the parent has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for inbox in inboxes:  # the parent's ends, so that the pipe breaks when the parent ends
        inbox.close()
    if prepare is not None:
        prepare()
    try:
        for chunk in chunks:
            outbox.send(_results(function, chunk))
    except BrokenPipeError:
        os._exit(1)


def _results(function: Callable, chunk: Sequence) -> list | Exception:
    """The results of a chunk, or the error that ends it all, to be raised by the parent."""
    try:
        return [function(item) for item in chunk]
    except Exception as error:
        error.add_note(traceback.format_exc())
        return error
