"""Locks on files, by which processes keep out of each other's way."""

from __future__ import annotations


def lock(handle: int, *, of_process: bool = False) -> None:
    """Lock the open file `handle`, or raise `BlockingIOError` if that is taken; nothing on Windows.

    The lock is that of the open file, which forked children share; with `of_process` it is this process's alone, and
    ends with it whatever its children do. Where a file system has no locks, as some network ones, nothing happens.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        return
    take = fcntl.lockf if of_process else fcntl.flock
    try:
        take(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except PermissionError as error:  # what some systems say of a record lock that is taken
        raise BlockingIOError(*error.args) from error
    except OSError:
        return
