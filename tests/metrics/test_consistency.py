"""Flicker: known errors, and any way of cutting a video."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidtok.errors import VidTokError
from vidtok.metrics.consistency import Flicker, flicker


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_is_the_error_of_frame_differences_in_levels() -> None:
    x, y = noise(2, 3, 5, 8, 9), noise(2, 3, 5, 8, 9, seed=1)
    scores = flicker(y, x)
    assert scores.shape == (2, 4)
    changes = [(video + 1) * 127.5 for video in (x, y)]
    changes = [video[:, :, 1:] - video[:, :, :-1] for video in changes]
    torch.testing.assert_close(scores, (changes[1] - changes[0]).abs().mean(dim=(1, 3, 4)))


def test_an_error_that_stays_costs_nothing_and_one_that_comes_and_goes_costs_twice() -> None:
    x = noise(1, 3, 6, 8, 8)
    still = x + noise(1, 3, 1, 8, 8, seed=1)
    torch.testing.assert_close(flicker(still, x), torch.zeros(1, 5), atol=1e-4, rtol=0)
    signs = torch.tensor([1.0, -1, 1, -1, 1, -1]).view(1, 1, 6, 1, 1)
    ten_levels = 10 / 127.5
    torch.testing.assert_close(flicker(x + ten_levels * signs, x), torch.full((1, 5), 20.0), atol=1e-3, rtol=0)


def test_noise_costs_the_root_of_two_of_its_size() -> None:
    x = torch.zeros(1, 3, 3, 128, 128)
    error = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)) * 0.1
    size = error.abs().mean() * 127.5
    torch.testing.assert_close(flicker(error, x).mean(), 2**0.5 * size, rtol=0.01, atol=0)


@settings(deadline=None, max_examples=30)
@given(lengths=st.lists(st.integers(0, 4), min_size=1, max_size=6))
def test_any_cut_gives_what_the_whole_gives(lengths: list[int]) -> None:
    frames = sum(lengths)
    x, y = noise(1, 3, frames, 4, 5), noise(1, 3, frames, 4, 5, seed=1)
    meter = Flicker()
    pieces = [meter.update(a, b) for a, b in zip(y.split(lengths, 2), x.split(lengths, 2), strict=True)]
    torch.testing.assert_close(torch.cat(pieces, 1), flicker(y, x) if frames else torch.zeros(1, 0))


def test_half_precision_is_measured_in_float32() -> None:
    x, y = noise(1, 3, 3, 8, 8).bfloat16(), noise(1, 3, 3, 8, 8, seed=1).bfloat16()
    torch.testing.assert_close(flicker(y, x), flicker(y.float(), x.float()))


def test_shapes_that_differ() -> None:
    for function in (flicker, Flicker().update):
        with pytest.raises(VidTokError, match=r"prediction is \(1, 3, 2, 8, 8\) and target \(1, 3, 3, 8, 8\); flicker"):
            function(torch.zeros(1, 3, 2, 8, 8), torch.zeros(1, 3, 3, 8, 8))
