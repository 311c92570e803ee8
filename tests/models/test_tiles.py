"""Tiles: where they lie, how they are blended, and that nothing but space is approximate."""

from __future__ import annotations

import errno
import tempfile
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support import make_clip
from tiny import FSQ_1_0, FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, tiny_model
from twin import CONFIG as TWIN
from vidtok import Tiling, Tokenizer, VidTokError
from vidtok.models.offloading import OffloadedState
from vidtok.models.state import StreamState
from vidtok.models.tiles import TiledCoder, TiledState, blending_weights

MODELS = {name: tiny_model(name) for name in (KL_1_0, KL_1_1, FSQ_1_0, FSQ_1_1, KL_NONCAUSAL)}
CAUSAL = [KL_1_0, KL_1_1, FSQ_1_1]
SMALL = Tiling(64, 24)


@settings(deadline=None)
@given(st.integers(1, 3000), st.integers(64, 512), st.integers(0, 256), st.sampled_from([4, 8, 16]))
def test_spans_cover_a_length_with_as_few_as_needed(length: int, size: int, overlap: int, factor: int) -> None:
    overlap = min(overlap, size // 2)
    spans = Tiling(size, overlap).spans(length, factor)
    units, shared = -(-length // factor), -(-overlap // factor)
    sizes = {span.stop - span.start for span in spans}
    assert len(sizes) == 1
    assert (spans[0].start, spans[-1].stop) == (0, units)
    assert max(sizes) <= max(size // factor, shared + 1)
    assert all(before.stop - after.start >= shared for before, after in pairwise(spans))
    assert all(before.start < after.start for before, after in pairwise(spans))
    if len(spans) > 1:
        fewer = (len(spans) - 1) * (max(size // factor, shared + 1) - shared) + shared
        assert fewer < units


@settings(deadline=None)
@given(st.integers(1, 1000), st.integers(64, 256), st.integers(0, 128), st.sampled_from([1, 8]))
def test_the_shares_of_tiles_sum_to_one(length: int, size: int, overlap: int, scale: int) -> None:
    spans = Tiling(size, min(overlap, size // 2)).spans(length, 8)
    total = torch.zeros(spans[-1].stop * scale)
    weights = blending_weights(spans, scale)
    for span, weight in zip(spans, weights, strict=True):
        assert weight.min() > 0
        total[span.scaled(scale)] += weight
    torch.testing.assert_close(total, torch.ones_like(total), atol=1e-6, rtol=0)
    # The picture's own edges are no edges of tiles.
    assert weights[0][0] == 1 or len(spans) > 2
    assert weights[-1][-1] == 1 or len(spans) > 2


def test_shares_fall_smoothly_to_nothing_at_an_edge() -> None:
    first, second = blending_weights(Tiling(64, 32).spans(96, 8), 8)
    assert torch.all(first[:32] == 1)
    assert first[-1] < 0.001
    torch.testing.assert_close(first[32:], second[:32].flip(0))
    assert first.diff().abs().max() < 0.05


@pytest.mark.parametrize("encodes", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (104, 200), (40, 136)])
def test_what_looks_at_no_neighbour_comes_out_as_from_the_whole(encodes: bool, size: tuple[int, int]) -> None:
    """Every tile lands where it belongs: a coder that only regroups pixels gives the same in tiles."""

    def regroup(x: Tensor, state: StreamState) -> Tensor:
        turn: Any = F.pixel_unshuffle if encodes else F.pixel_shuffle
        return torch.stack([turn(frame, 8) for frame in x.unbind(2)], 2)

    x = torch.randn(2, 3, 2, *size) if encodes else torch.randn(2, 192, 2, size[0] // 8, size[1] // 8)
    tiled = TiledCoder(regroup, SMALL, 8, encodes=encodes)
    torch.testing.assert_close(tiled(x), regroup(x, StreamState()), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_frame_that_fits_in_one_tile_is_left_whole(name: str) -> None:
    model = MODELS[name]
    video = make_clip(1, 3, 9, 61, 64)
    for whole, tiled in zip(model(video, sample=False)[:2], model.with_tiling(SMALL)(video, sample=False)[:2],
                            strict=True):  # fmt: skip
        assert torch.equal(whole, tiled)


@pytest.mark.parametrize("name", MODELS)
def test_tiles_give_what_their_blend_is_by_hand(name: str) -> None:
    """Encoding blends moments, so that a position has one token; decoding blends pixels."""
    model, spans = MODELS[name], SMALL.spans(104, 8)
    video = make_clip(1, 3, 9, 40, 104)
    moments = torch.zeros(1, model.config.moments_channels, *model.moments(video).shape[2:4], 13)  # type: ignore[attr-defined]
    for span, weight in zip(spans, blending_weights(spans, 1), strict=True):
        moments[..., span.start : span.stop] += weight * model.moments(video[..., span.scaled(8)])  # type: ignore[attr-defined]
    z, log = model.regularization(moments, sample=False)
    tiled = model.with_tiling(SMALL)
    found, found_log = tiled.encode(video, True, sample=False)
    torch.testing.assert_close(found, z, atol=1e-5, rtol=0)
    if model.regularization.discrete:
        assert torch.equal(found_log["indices"], log["indices"])
        z = tiled.decode(log["indices"], decode_from_indices=True)
    else:
        z = tiled.decode(found)
    expected = torch.zeros(1, 3, z.shape[2], 40, 104)
    for span, weight in zip(spans, blending_weights(spans, 8), strict=True):
        expected[..., span.scaled(8)] += weight * model.decode(found[..., span.start : span.stop])
    torch.testing.assert_close(z, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("name", CAUSAL)
def test_streams_of_tiles_give_what_tiles_of_the_whole_give(name: str, offload: bool) -> None:
    # In float64, for float32's rounding depends on the processor and on the shape of what is computed at a time.
    model = tiny_model(name).double().with_tiling(Tiling(64, 24, offload))
    video = make_clip(1, 3, 22, 45, 90).double()
    z = model.encode(video, sample=False)
    with model.encode_stream(sample=False) as encoder:
        pushed = [encoder.push(video[:, :, a:b]) for a, b in ((0, 3), (3, 4), (4, 17), (17, 22))]
        streamed = torch.cat([*pushed, encoder.flush()], 2)
    torch.testing.assert_close(streamed, z, atol=1e-9, rtol=0)
    whole = model.decode(z, size=(22, 45, 90))
    with model.decode_stream(size=(22, 45, 90)) as decoder:
        shown = [decoder.push(z[:, :, a : a + 1]) for a in range(z.shape[2])]
        shown.append(decoder.flush())
    torch.testing.assert_close(torch.cat(shown, 2), whole, atol=1e-9, rtol=0)


@pytest.mark.parametrize("offload", [False, True])
def test_a_copy_of_a_stream_of_tiles_goes_on_by_itself(offload: bool) -> None:
    model = MODELS[KL_1_1].with_tiling(Tiling(64, 24, offload))
    video = make_clip(1, 3, 13, 16, 90)
    stream = model.encode_stream(sample=False)
    stream.push(video[:, :, :5])
    twin = stream.copy()
    other = torch.cat([twin.push(-video[:, :, 5:]), twin.flush()], 2)
    rest = torch.cat([stream.push(video[:, :, 5:]), stream.flush()], 2)
    torch.testing.assert_close(rest, model.encode(video, sample=False)[:, :, 2:], atol=1e-5, rtol=0)
    changed = torch.cat([video[:, :, :5], -video[:, :, 5:]], 2)
    torch.testing.assert_close(other, model.encode(changed, sample=False)[:, :, 2:], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CAUSAL)
def test_tiles_in_space_go_with_chunks_in_time(name: str) -> None:
    model = tiny_model(name).with_tiling(SMALL)
    video = make_clip(1, 3, 33, 16, 90)
    z, reconstruction, _ = model(video, sample=False)
    model.use_tiling = True  # type: ignore[attr-defined]
    chunked = model(video, sample=False)
    torch.testing.assert_close(chunked[0], z, atol=1e-5, rtol=0)
    torch.testing.assert_close(chunked[1], reconstruction, atol=1e-5, rtol=0)


def test_tiling_belongs_to_one_view_of_a_model() -> None:
    model = MODELS[KL_1_1]
    tiled = model.with_tiling(SMALL)
    assert (model.tiling, tiled.tiling, tiled.name) == (None, SMALL, model.name)
    assert next(tiled.parameters()) is next(model.parameters())
    assert tiled.with_tiling(SMALL) is tiled
    assert isinstance(tiled, type(model))


def test_a_model_of_one_size_has_no_tiles() -> None:
    model = Tokenizer(TWIN, name="twin")
    assert model.with_tiling(None) is model
    with pytest.raises(VidTokError, match=r"twin takes frames of 32 x 32 pixels only and cannot take them in tiles"):
        model.with_tiling(SMALL)


def test_halves_are_blended_in_float32() -> None:
    model, spans = tiny_model(KL_1_1).bfloat16(), SMALL.spans(104, 8)
    z = torch.randn(1, 4, 2, 2, 13).bfloat16()
    found = model.with_tiling(SMALL).decode(z)
    expected = torch.zeros(1, 3, 5, 16, 104)
    for span, weight in zip(spans, blending_weights(spans, 8), strict=True):
        expected[..., span.scaled(8)] += weight * model.decode(z[..., span.start : span.stop]).float()
    torch.testing.assert_close(found, expected.bfloat16(), atol=0.01, rtol=0.01)


@pytest.mark.gradients
def test_gradients_pass_through_tiles() -> None:
    video = make_clip(1, 3, 5, 16, 90).requires_grad_()
    MODELS[KL_1_1].with_tiling(SMALL)(video, sample=False)[1].square().mean().backward()
    assert video.grad is not None
    assert (video.grad.abs().amax((0, 1, 2, 3)) > 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((63, 0), "a tile has 63 pixels a side; expected at least 64"),
        ((128, 65), "tiles of 128 pixels overlap by 65; expected 0 to 64, half a tile"),
        ((128, -1), "tiles of 128 pixels overlap by -1; expected 0 to 64, half a tile"),
    ],
)
def test_tiles_that_cannot_be(values: tuple[int, int], message: str) -> None:
    with pytest.raises(VidTokError, match=message):
        Tiling(*values)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_an_offloaded_state_comes_back(dtype: torch.dtype) -> None:
    past = {0: torch.randn(1, 2, 3, 4, 5).to(dtype), 3: torch.empty(1, 0, 3, 4, 5, dtype=dtype)}
    past[7] = torch.randn(1, 4, 3, 2, 5).to(dtype).transpose(1, 3)
    away = OffloadedState(StreamState(dict(past), started=True))
    for _ in range(2):
        state = away.load(torch.device("cpu"))
        assert (state.started, state.end) == (True, False)
        assert state.past.keys() == past.keys()
        assert all(torch.equal(state.past[slot], values) for slot, values in past.items())
        state.past[0].zero_()


def test_no_state_is_offloaded_where_the_stream_ends() -> None:
    state = TiledState(offload=True)
    state.put(0, StreamState({0: torch.zeros(1)}))
    assert isinstance(state.tiles[0], OffloadedState)
    state.end = True
    assert state.take(0, torch.device("cpu")).end
    state.put(0, StreamState())
    assert state.tiles == {}


def test_a_full_disk_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    message = r"cannot be kept in .*: No space left on device; name a folder with more space in .* TMPDIR"
    with pytest.raises(VidTokError, match=message):
        OffloadedState(StreamState({0: torch.zeros(1)}))
