"""What is said where memory does not suffice, and what is let through."""

from __future__ import annotations

import pytest
import torch

from tiny import FSQ_1_1, KL_1_0, KL_NONCAUSAL
from vidtok import VidTokError
from vidtok.config.read import read_config
from vidtok.runtime.limits import computing, frames_at_a_time, memory_advice


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


@pytest.mark.parametrize(
    ("name", "side", "given", "expected"),
    [
        (KL_1_0, 64, None, 16), (KL_1_0, 512, None, 16), (KL_1_0, 1024, None, 4), (KL_1_0, 4096, None, 4),
        (KL_1_0, 4096, 16, 16), (KL_1_0, 64, 7, 4), (KL_1_0, 64, 1, 4), (FSQ_1_1, 1024, None, 8),
        (KL_NONCAUSAL, 4096, None, 16), (KL_NONCAUSAL, 64, 8, 8),
    ],
)  # fmt: skip
def test_frames_at_a_time_suit_model_and_size(name: str, side: int, given: int | None, expected: int) -> None:
    """Fewer where frames are large, whole groups, and what was asked for."""
    assert frames_at_a_time(read_config(name).model, (side, side), given) == expected


def test_a_clip_of_a_non_causal_model_is_of_whole_groups() -> None:
    with pytest.raises(VidTokError, match=r"chunk_frames is 10; expected a multiple of 4, since a non-causal model"):
        frames_at_a_time(read_config(KL_NONCAUSAL).model, (64, 64), 10)
