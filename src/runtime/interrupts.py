"""When to save in the middle of an epoch: every so many minutes, and at once where somebody asks to stop."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
GRACE = 8.0  # seconds after SIGTERM within which the batch must have ended; a container is killed after 10


class Interrupts:
    """Within its `with` block SIGINT and SIGTERM only set `signal`, so that a batch can end and be saved.

    A second SIGINT, a second or more after the first, interrupts at once. SIGTERM ends the process after `GRACE`
    seconds even if the batch does not end, as when the system waits for a disk or for a reader that has died; what was
    saved before is kept.
    """

    def __init__(self, minutes: float):
        self.seconds = 60 * minutes
        self.signal: int | None = None
        self._before: dict[int, Any] = {}
        self._asked = 0.0
        self._patience: threading.Timer | None = None
        self.saved()

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._on_signal) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        self.reached()
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def reached(self) -> None:
        """Say that the batch has ended and is being saved, however long that takes."""
        if self._patience is not None:
            self._patience.cancel()

    def saved(self) -> None:
        """Count the minutes from now."""
        self._since = time.monotonic()

    @property
    def stop(self) -> bool:
        """Whether somebody asked to stop."""
        return self.signal is not None

    @property
    def due(self) -> bool:
        """Whether it is time to save."""
        return self.stop or time.monotonic() - self._since >= self.seconds

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Ask to stop, as another process was."""
        if not self.stop:
            self.signal, self._asked = number, time.monotonic()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.stop and time.monotonic() - self._asked >= 1:
            raise KeyboardInterrupt
        if number == signal.SIGTERM and self._patience is None:
            self._patience = _patience()
        self.ask(number)


def end_on_sigterm(number: int, frame: FrameType | None) -> None:
    """Handle SIGTERM outside of a training: leave every block on the way out, which takes `GRACE` seconds at most."""
    signal.signal(number, signal.SIG_IGN)  # a second one must not break what the first one began
    timer = _patience()
    sys.unraisablehook = functools.partial(_end_again, timer)
    sys.exit(128 + number)


def _end_again(timer: threading.Timer, lost: "sys.UnraisableHookArgs") -> None:
    """Ask again a little later: in a callback, such as one that runs before a fork, Python drops an exception."""
    if not isinstance(lost.exc_value, SystemExit):
        sys.__unraisablehook__(lost)
    else:
        timer.cancel()  # the handler that is then in force has its own
        signal.signal(signal.SIGTERM, end_on_sigterm)
        main = threading.main_thread().ident or 0
        threading.Timer(0.1, signal.pthread_kill, [main, signal.SIGTERM]).start()


def _patience() -> threading.Timer:
    """The end of the process in `GRACE` seconds, unless it is canceled."""
    timer = threading.Timer(GRACE, _give_up)
    timer.daemon = True
    timer.start()
    return timer


def _give_up() -> None:
    for process in multiprocessing.active_children():
        process.kill()
    print("stopped without waiting any longer; what was saved before is kept", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGTERM)
