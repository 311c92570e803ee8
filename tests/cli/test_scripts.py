"""Advice in messages of the published scripts: with their own options."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from twin import tiny_twin
from vidtok.cli.scripts import published_advice
from vidtok.errors import TRUNCATION_ADVICE, VidTokError
from vidtok.runtime.limits import check_finite, check_frame_size, memory_advice


def out_of_memory() -> None:
    with memory_advice():
        raise MemoryError


@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (lambda: check_frame_size(tiny_twin(), (8, 8)), "give --input_height 32 --input_width 32"),
        (lambda: check_finite(torch.full((1,), torch.nan), tiny_twin()), "use --precision full, or check the checkp"),
        (out_of_memory, "fewer frames at a time (--chunk_size, of VidTwin --num_frames_per_batch), or --precision"),
    ],
)
def test_options_are_those_of_the_scripts(fail: Callable[[], None], expected: str) -> None:
    with pytest.raises(VidTokError) as caught:
        fail()
    advice = published_advice(str(caught.value))
    assert expected in advice
    for option in ("--height", "--size", "--dtype", "--chunk-frames", "(height"):
        assert option not in advice


def test_a_damaged_video_is_to_be_had_whole() -> None:
    assert published_advice(f"a.mp4 is damaged{TRUNCATION_ADVICE}") == "a.mp4 is damaged; get an undamaged copy"
