"""Errors, interruptions and closed pipes, as every command and script handles them.

Exit codes: 0 done, 1 a defect of ours or no reader left, 2 an error that the user can mend, 130 interrupted,
143 terminated, 129 the terminal has gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, TextIO, cast

from vidtok.cli import verbosity
from vidtok.errors import VidTokError

_PATH_ERRORS = {
    errno.ENAMETOOLONG: "give a shorter name",
    errno.EACCES: "check the permissions of it and of the folders above it",
    errno.EPERM: "check the permissions of it and of the folders above it",
    errno.ELOOP: "a symbolic link leads back to itself; give another path",
    errno.EROFS: "give a path on a file system that can be written to",
    errno.ENOSPC: "make room there, or give a path elsewhere",
}
"""Advice for a path that the operating system refuses, by the error."""
_FAILED, _USER_ERROR, _INTERRUPTED, _SIGNALLED = 1, 2, 130, 128


def guarded(command: Callable[[], object], *, advice: Callable[[str], str] | None = None) -> int:
    """Run `command` and return the exit code.

    A `VidTokError` is printed as one message on stderr. Ctrl-C, SIGTERM and SIGHUP end the command as an exception
    does, so that unfinished outputs are removed. A reader of stdout that has gone, as in `vidtok models | head -1`,
    ends it quietly. A full disk behind stdout ends it with a message, and so does a path that the system refuses. Other
    exceptions are raised: they are defects, and need their traceback. `advice` rewrites messages for a command that
    lacks the options which messages recommend.
    """
    verbosity.start()
    code = 0
    try:
        with _terminable(), _checked_output():
            command()
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 0
        if isinstance(exit.code, str):
            sys.stderr.write(f"{exit.code}\n")
            code = _FAILED
    except VidTokError as error:
        sys.stderr.write(f"error: {str(error) if advice is None else advice(str(error))}\n")
        code = _USER_ERROR
    except KeyboardInterrupt:
        code = _INTERRUPTED
    except BrokenPipeError:
        code = _FAILED
    except OSError as error:
        if error.filename is None or error.errno not in _PATH_ERRORS:
            raise
        sys.stderr.write(f"error: {error.filename}: {error.strerror}; {_PATH_ERRORS[error.errno]}\n")
        code = _USER_ERROR
    return code if _flushed() else _FAILED


def _flushed() -> bool:
    """True if all output is written; if not, the interpreter's own flush at its end is silenced."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


class _CheckedOutput:
    """A text stream whose failures, other than a reader that has gone, are errors that the user can mend."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._checked():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._checked():
            self._stream.flush()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise VidTokError(f"the output cannot be written: {error.strerror}; send it elsewhere") from error


@contextlib.contextmanager
def _checked_output() -> Iterator[None]:
    """Make stdout a `_CheckedOutput` inside the block; it is flushed at the end, unless an error ends the block."""
    before = sys.stdout
    checked = _CheckedOutput(before)
    sys.stdout = cast(TextIO, checked)
    try:
        yield
    except SystemExit:
        checked.flush()
        raise
    else:
        checked.flush()
    finally:
        sys.stdout = before


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise `SystemExit` inside the block, so that nothing half-written is left."""
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
