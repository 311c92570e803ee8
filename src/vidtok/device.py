"""Devices by name, and memory that the CPU keeps between allocations."""

from __future__ import annotations

import ctypes
import os

import torch

from vidtok.errors import VidTokError
from vidtok.text import counted

MMAP_THRESHOLD = 64 << 20
"""Bytes; smaller allocations come from memory that is kept. Room for some frames of the widest layers at 256 x 256."""
TRIM_THRESHOLD = 256 << 20
"""Bytes of free memory at the end of the heap; beyond it, memory goes back to the system."""

TRAINING_MMAP_THRESHOLD = 1 << 30
NEVER_TRIM = -1
"""mallopt's value for keeping all free memory."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_")


def choose_device(name: str | None = None) -> torch.device:
    """The device called `name`, such as "cpu", "cuda" or "cuda:1"; None: CUDA if this machine has it, else the CPU.

    Raises `VidTokError` if there is no such device on this machine.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise VidTokError(f"there is no device {name!r}; expected cpu, cuda, cuda:1 and so on, or mps") from error
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        count = torch.cuda.device_count()
        has = counted(count, "CUDA device") if count else "no CUDA device"
        raise VidTokError(
            f"device {name!r} cannot be used: this PyTorch was not built for it, or sees none on this machine, "
            f"which has {has}; choose another, such as cpu"
        ) from error
    if device.type == "meta":
        raise VidTokError("device 'meta' computes nothing; expected cpu, cuda, cuda:1 and so on, or mps")
    return device


def keep_freed_memory(*, training: bool = False) -> bool:
    """Let this process keep memory between the layers of a model on the CPU. Returns True if it does.

    The GNU C library gives allocations above 32 MiB back to the system as soon as they are freed, so that every large
    activation starts with page faults: full-width models take a quarter to a third more time at 256 x 256. This
    raises the limit to 64 MiB; the peak of memory grows by some 7%, and up to a few hundred MiB stay with the process
    between two calls. With `training`, where every step needs as much as the step before, all of it is kept.

    This is a setting of the whole process, so only the commands of this package call it. It does nothing with another
    C library, or if the environment sets the limits already.
    """
    if any(name in os.environ for name in _OWN_SETTINGS):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    largest, kept = (TRAINING_MMAP_THRESHOLD, NEVER_TRIM) if training else (MMAP_THRESHOLD, TRIM_THRESHOLD)
    settings = ((_M_MMAP_THRESHOLD, largest), (_M_TRIM_THRESHOLD, kept))
    return all(mallopt(ctypes.c_int(which), ctypes.c_int(value)) == 1 for which, value in settings)
