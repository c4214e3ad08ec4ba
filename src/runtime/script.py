"""How a script ends: with its result, or with one line that says what was wrong."""

import gc
import os
import signal
import sys
import typing
import warnings
from collections.abc import Callable
from pathlib import Path

from src.runtime.interrupts import end_on_sigterm
from src.runtime.system_errors import in_words


def run(main: Callable[[], int | None]) -> typing.NoReturn:
    """Run a stage script: ValueError and OSError become one line on stderr and exit status 2.

    SIGTERM ends it as Ctrl-C does, so that nothing half-written is left.
    """
    script = Path(sys.argv[0]).name
    if os.environ.get("RANK", "0") != "0":
        script += f" (process {os.environ['RANK']})"
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    if sys.stderr is None:  # closed by who started it
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # a file's name may be no text
    before = signal.signal(signal.SIGTERM, end_on_sigterm)
    try:
        sys.exit(main())
    except BrokenPipeError:  # the reader of stdout has gone, as `| head` does
        sys.stdout = None
        sys.exit(141)
    except (ValueError, OSError) as error:
        text = str(error)
        if isinstance(error, OSError) and error.errno is not None:
            name = "a file" if error.filename is None else error.filename
            text = f"{name} cannot be read or written ({in_words(error)})"
        print(f"{script}: error: {text}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        advice = _advice(str(error)) if isinstance(error, RuntimeError) else "out of memory"
        if not advice:
            raise
        print(f"{script}: error: {advice}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{script}: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)
        gc.freeze()  # else Python looks through all of torch's objects as it ends, which takes a second or two


def _advice(error: str) -> str:
    """What to do about an error of torch that is not a bug, else ""."""
    if "out of memory" in error:
        return "out of memory; lower --batch-size or --image-size"
    if "DataLoader worker" in error:
        return "a process that reads images was killed by the system (out of memory?); lower --workers or --batch-size"
    return ""
