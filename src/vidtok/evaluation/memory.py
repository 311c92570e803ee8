"""Peak memory while a subject computes: of the GPU that it is on, else of the whole process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import re
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


class PeakMemory:
    """The largest memory in use from `start` on.

    On a GPU, the bytes that PyTorch has allocated there. On a CPU, those of the process in main memory, with the frames
    that are read ahead and the figures that are computed behind, as Linux counts them; elsewhere they are not known.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.kind = "device" if device.type == "cuda" else "process"
        """The memory that is counted."""

    def start(self) -> None:
        """Forget the peak so far."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
            return
        # Freed memory that the C library keeps would count for whatever runs next.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        with contextlib.suppress(OSError):
            _RESET.write_text(_FORGET_PEAK)

    def peak(self) -> int | None:
        """Bytes; None where they are not known."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if self._device.type != "cpu":
            return None
        try:
            found = re.search(r"^VmHWM:\s+(\d+) kB", _STATUS.read_text(), re.MULTILINE)
        except OSError:
            return None
        return int(found[1]) * 1024 if found else None
