"""What a command does about errors, interruptions and readers that have gone; used by the scripts too.

Exit codes: 0 done, 1 a defect of ours or no reader left, 2 an error that the user can mend, 130 interrupted,
143 terminated, 129 the terminal has gone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

from vidtok.errors import VidTokError

_FAILED, _USER_ERROR, _INTERRUPTED, _SIGNALLED = 1, 2, 130, 128


def guarded(command: Callable[[], object]) -> int:
    """Run `command` and return the exit code.

    A `VidTokError` is printed as one message on stderr. Ctrl-C, SIGTERM and SIGHUP end the command as an exception
    does, so that outputs begun are removed. A reader of stdout that has gone, as in `vidtok models | head -1`, ends it
    quietly, and a full disk behind stdout with a message. Other exceptions are raised: they are defects, and their
    traceback is wanted.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    code = 0
    try:
        with _terminable():
            command()
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0
        if isinstance(exit.code, str):
            sys.stderr.write(f"{exit.code}\n")
            code = _FAILED
    except VidTokError as error:
        sys.stderr.write(f"error: {error}\n")
        code = _USER_ERROR
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        code = _FAILED
    except OSError:
        code = _flush()
        if not code:
            raise
        return code
    return _flush() or code


def _flush() -> int:
    """The exit code if what was printed cannot be written, else 0; the interpreter's own flush is silenced then."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _FAILED
        sys.stderr.write(f"error: what is printed cannot be written: {error.strerror}; send it elsewhere\n")
        return _USER_ERROR
    return 0


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP raise `SystemExit`, which ends the process with nothing half-written left."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise SystemExit(_SIGNALLED + number)

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.signal(number, terminate) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
