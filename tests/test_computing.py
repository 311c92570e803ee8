"""What is said where memory does not suffice, and what is let through."""

from __future__ import annotations

import pytest
import torch

from vidtok import VidTokError
from vidtok.computing import computing, memory_advice


@pytest.mark.parametrize(
    "shortage",
    [torch.cuda.OutOfMemoryError("CUDA"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()],
)
def test_short_memory_is_advised(shortage: Exception) -> None:
    with pytest.raises(VidTokError, match=r"memory is too small for this; choose smaller frames"), computing():
        raise shortage


def test_a_real_shortage_is_advised() -> None:
    with pytest.raises(VidTokError, match="memory is too small"), memory_advice():
        torch.empty(1 << 48)


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_advice():
        raise RuntimeError("shapes differ")
