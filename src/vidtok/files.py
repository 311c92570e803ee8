"""Files that are written whole or not at all, and locks on files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write `tensors` to `path` with the permissions that the process gives to new files.

    The library itself leaves them readable by their owner alone. Raises `safetensors.SafetensorError` or `OSError`.
    """
    from safetensors.torch import save_file

    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(dict(tensors), path, metadata=dict(metadata))
    os.chmod(path, mode)


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
