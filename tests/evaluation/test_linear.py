from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import draw
from vidtok import VidTokError
from vidtok.evaluation.linear import BlockShape, BlockTransform
from vidtok.video import to_float


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_components_of_all_numbers_lose_nothing() -> None:
    shape = BlockShape(2, 2, 24, first_alone=False)
    transform = BlockTransform.fit(shape, [noise(2, 3, 8, 16, 16)])
    video = noise(1, 3, 5, 7, 9, seed=1)
    torch.testing.assert_close(transform(video), video, atol=1e-5, rtol=0)


def test_it_is_the_projection_that_principal_components_give() -> None:
    """Against NumPy's SVD of the centred blocks, which has nothing in common with the code under test."""
    clip = noise(1, 3, 4, 8, 8).cumsum(-1) / 3
    shape = BlockShape(2, 4, 5, first_alone=False)
    x = clip[0].numpy()
    blocks = np.stack([
        x[:, t : t + 2, i : i + 4, j : j + 4].ravel() for t in (0, 2) for i in (0, 4) for j in (0, 4)
    ]).astype(np.float64)  # fmt: skip
    mean = blocks.mean(0)
    directions = np.linalg.svd(blocks - mean)[2][:5]
    kept = mean + (blocks - mean) @ directions.T @ directions
    found = BlockTransform.fit(shape, [clip])(clip)[0].numpy()
    places = [(t, i, j) for t in (0, 2) for i in (0, 4) for j in (0, 4)]
    for (t, i, j), block in zip(places, kept, strict=True):
        np.testing.assert_allclose(found[:, t : t + 2, i : i + 4, j : j + 4].ravel(), block, atol=1e-4)


def test_first_frame_is_coded_by_itself() -> None:
    transform = BlockTransform.fit(BlockShape(4, 8, 6), [to_float(draw(17, 32, 32))])
    video = to_float(draw(9, 32, 32))
    changed = video.clone()
    changed[:, :, 1:] = 0
    torch.testing.assert_close(transform(video)[:, :, :1], transform(changed)[:, :, :1])
    assert not torch.allclose(transform(video)[:, :, 1:5], transform(changed)[:, :, 1:5])


@settings(deadline=None, max_examples=25)
@given(frames=st.integers(1, 12), cuts=st.lists(st.integers(1, 5), max_size=8), alone=st.booleans())
def test_how_a_video_is_cut_makes_no_difference(frames: int, cuts: list[int], alone: bool) -> None:
    transform = BlockTransform.fit(BlockShape(3, 4, 4, alone), [to_float(draw(9, 16, 16))])
    video = draw(frames, 10, 14)
    bounds = np.cumsum(cuts)
    pieces = [piece for piece in np.split(video, bounds[bounds < frames]) if len(piece)]
    pairs = list(transform.pairs(pieces))
    np.testing.assert_array_equal(np.concatenate([pair.source for pair in pairs]), video)
    together = torch.cat([pair.reconstruction for pair in pairs], 2)
    torch.testing.assert_close(together, transform(to_float(video)).clamp(-1, 1), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("shape", "size", "values"),
    [
        (BlockShape(4, 8, 16), (17, 256, 256), 5 * 32 * 32 * 16),
        (BlockShape(4, 8, 16, first_alone=False), (16, 256, 256), 4 * 32 * 32 * 16),
        (BlockShape(4, 8, 16), (18, 250, 9), 6 * 32 * 2 * 16),
    ],
)
def test_numbers_of_values_are_those_of_a_model(shape: BlockShape, size: tuple[int, int, int], values: int) -> None:
    assert shape.values(*size) == values


def test_more_components_are_never_worse_on_what_was_fitted() -> None:
    clip = to_float(draw(13, 32, 32))
    errors = []
    for components in (1, 4, 16):
        transform = BlockTransform.fit(BlockShape(4, 8, components), [clip])
        errors.append((transform(clip) - clip).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1 * errors[0]


def test_what_cannot_be_fitted() -> None:
    with pytest.raises(VidTokError, match=r"blocks of 16 x 64 x 64 in 8 numbers were asked for; expected at least 1"):
        BlockShape(16, 64, 8)
    with pytest.raises(VidTokError, match="no blocks to fit"):
        BlockTransform.fit(BlockShape(4, 8, 16), [])


def test_fitting_on_synthetic_clips_is_repeatable() -> None:
    video = to_float(draw(5, 24, 24))
    one, other = (BlockTransform.fit_synthetic(BlockShape(2, 4, 8), clips=2)(video) for _ in range(2))
    torch.testing.assert_close(one, other)
    assert (one - video).square().mean() < 0.5 * (video - video.mean()).square().mean()
