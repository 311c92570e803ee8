"""Streaming is exact: chunks of any lengths give what the whole clip gives, and nothing looks ahead."""

from __future__ import annotations

import copy
import pickle
import threading
from functools import cache, partial
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import ALL_MODELS, CAUSAL_SAMPLE, make_clip, small_model
from tiny import tiny_model
from vidtok import Tokenizer
from vidtok.models.state import StreamState
from vidtok.models.tiles import Tiling
from vidtok.models.vidtok.temporal import Taps

V1_1 = "vidtok_fsq_causal_888_32768_v1_1"
TOLERANCE = 1e-5
EXACT = 1e-9


def cut(tensor: torch.Tensor, sizes: list[int]) -> list[torch.Tensor]:
    """`tensor` cut along time into pieces of `sizes` and a rest."""
    points = [0]
    for size in sizes:
        points.append(min(points[-1] + size, tensor.shape[2]))
    points.append(tensor.shape[2])
    return [tensor[:, :, a:b] for a, b in pairwise(points) if b > a]


def stream_encode(model: Tokenizer, chunks: list[torch.Tensor]) -> torch.Tensor:
    with model.encode_stream(sample=False) as stream:
        return torch.cat([*map(stream.push, chunks), stream.flush()], 2)


def stream_decode(model: Tokenizer, chunks: list[torch.Tensor]) -> torch.Tensor:
    with model.decode_stream() as stream:
        return torch.cat([*map(stream.push, chunks), stream.flush()], 2)


@cache
def exact_model(name: str) -> Tokenizer:
    """A small model in float64, where rounding cannot hide a difference nor make one."""
    return small_model(name, dtype=torch.float64)


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
@settings(deadline=None, max_examples=8)
@given(data=st.data())
def test_streamed_equals_whole(name: str, data: st.DataObject) -> None:
    model = exact_model(name)
    with torch.no_grad():
        frames = data.draw(st.integers(1, 26), label="frames")
        video = make_clip(1, 3, frames, 16, 16)
        whole = model.encode(video, sample=False)
        sizes = data.draw(st.lists(st.integers(1, 9), max_size=8), label="chunks")
        torch.testing.assert_close(stream_encode(model, cut(video, sizes)), whole, atol=EXACT, rtol=0)
        sizes = data.draw(st.lists(st.integers(1, 3), max_size=8), label="latent chunks")
        decoded = stream_decode(model, cut(whole, sizes))
        torch.testing.assert_close(decoded, model.decode(whole), atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_streamed_equals_whole_in_float32(name: str) -> None:
    model = small_model(name, ch=32)
    video = make_clip(1, 3, 18, 16, 24)
    whole = model.encode(video, sample=False)
    back = model.decode(whole)
    for sizes in ([1] * 17, [3, 1, 5, 2], [7, 1]):
        torch.testing.assert_close(stream_encode(model, cut(video, sizes)), whole, atol=TOLERANCE, rtol=0)
        torch.testing.assert_close(stream_decode(model, cut(whole, sizes)), back, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_what_comes_later_changes_nothing_before(name: str) -> None:
    model = exact_model(name)
    factor, delay = model.config.temporal_factor, model.decoder.delay
    video = make_clip(1, 3, 1 + 3 * factor, 16, 16)
    changed = video.clone()
    changed[:, :, 1 + 2 * factor :] = make_clip(1, 3, factor, 16, 16, name="other")
    before, after = model.moments(video), model.moments(changed)
    torch.testing.assert_close(before[:, :, :3], after[:, :, :3], atol=EXACT, rtol=0)
    assert (before[:, :, 3] - after[:, :, 3]).abs().max() > 1e-3
    z = make_clip(1, model.config.z_channels, 4, 2, 2)
    other = torch.cat([z[:, :, :3], -z[:, :, 3:]], 2)
    first, second = model.decode(z), model.decode(other)
    settled = 1 + 2 * factor - delay
    torch.testing.assert_close(first[:, :, :settled], second[:, :, :settled], atol=EXACT, rtol=0)
    assert (first[:, :, settled] - second[:, :, settled]).abs().max() > 1e-3


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_frames_come_as_soon_as_they_can(name: str) -> None:
    model = exact_model(name)
    factor = model.config.temporal_factor
    stream = model.encode_stream(sample=False)
    video = make_clip(1, 3, 2 * factor + 2, 16, 16)
    counts = [stream.push(frame).shape[2] for frame in video.split(1, 2)]
    assert counts == [1, *([0] * (factor - 1) + [1]) * 2, 0]
    assert stream.flush().shape[2] == 1
    decoder = model.decode_stream()
    z = model.encode(video, sample=False)
    emitted = [decoder.push(frame).shape[2] for frame in z.split(1, 2)]
    assert emitted == [1, factor - decoder.delay, factor, factor]
    assert decoder.flush().shape[2] == decoder.delay
    assert decoder.delay == (factor - 1 if name.endswith("v1_1") else 0)


def test_first_frame_is_computed_once_in_v1_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """17 frames pass every layer as 17, 9 and 5, not as the 20, 10 and 5 of the padded clip."""
    seen: set[int] = set()
    forward = Taps.forward

    def counted(self: Taps, x: torch.Tensor) -> torch.Tensor:
        out = forward(self, x)
        seen.add(out.shape[1])
        return out

    monkeypatch.setattr(Taps, "forward", counted)
    model = small_model("vidtok_kl_causal_488_4chn_v1_1")
    z = model.encode(make_clip(1, 3, 17, 16, 16))
    assert seen == {17, 9, 5}
    seen.clear()
    model.decode(z)
    assert seen == {17, 9, 5}


def test_no_frame_is_computed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streamed one by one, every temporal convolution puts out as many frames in all as for the whole clip."""
    counts: dict[int, int] = {}
    forward = Taps.forward

    def counted(self: Taps, x: torch.Tensor) -> torch.Tensor:
        out = forward(self, x)
        counts[id(self)] = counts.get(id(self), 0) + out.shape[1]
        return out

    monkeypatch.setattr(Taps, "forward", counted)
    model = small_model(V1_1)
    video = make_clip(1, 3, 25, 16, 16)
    z = model.encode(video)
    model.decode(z)
    whole = dict(counts)
    counts.clear()
    stream_encode(model, list(video.split(1, 2)))
    stream_decode(model, list(z.split(1, 2)))
    assert counts == whole


@pytest.mark.parametrize("piece_bytes", [1, 5_000, 20_000, 100_000])
def test_small_pieces_inside_a_call_change_nothing(monkeypatch: pytest.MonkeyPatch, piece_bytes: int) -> None:
    for name in ("vidtok_kl_causal_488_4chn", V1_1):
        model = exact_model(name)
        video = make_clip(2, 3, 25, 16, 24)
        z, whole, _ = model(video, sample=False)
        monkeypatch.setattr("vidtok.models.vidtok.pipeline.PIECE_BYTES", {"cpu": piece_bytes})
        by_piece, reconstruction, _ = model(video, sample=False)
        streamed = stream_encode(model, cut(video, [2, 9, 1, 8])), stream_decode(model, cut(z, [1, 2]))
        monkeypatch.undo()
        torch.testing.assert_close(streamed[0], z, atol=EXACT, rtol=0)
        torch.testing.assert_close(streamed[1], whole, atol=EXACT, rtol=0)
        torch.testing.assert_close(by_piece, z, atol=EXACT, rtol=0)
        torch.testing.assert_close(reconstruction, whole, atol=EXACT, rtol=0)


def test_two_streams_on_one_model_do_not_mix() -> None:
    model = small_model(V1_1)
    videos = [make_clip(1, 3, 20, 16, 16, name=name) for name in ("clip", "other")]
    alone = [stream_encode(model, list(video.split(3, 2))) for video in videos]
    streams = [model.encode_stream(sample=False) for _ in videos]
    outputs: list[list[torch.Tensor]] = [[], []]
    for chunks in zip(*(video.split(3, 2) for video in videos), strict=True):
        for stream, chunk, output in zip(streams, chunks, outputs, strict=True):
            output.append(stream.push(chunk))
    for stream, output, expected in zip(streams, outputs, alone, strict=True):
        assert torch.equal(torch.cat([*output, stream.flush()], 2), expected)


def test_two_threads_share_one_model() -> None:
    model = small_model(V1_1)
    videos = [make_clip(1, 3, 25, 16, 16, name=name) for name in ("clip", "other")]
    expected = [stream_encode(model, list(video.split(2, 2))) for video in videos]
    got: dict[int, torch.Tensor] = {}

    def work(i: int) -> None:
        got[i] = stream_encode(model, list(videos[i].split(2, 2)))

    for _ in range(3):
        threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(torch.equal(got[i], expected[i]) for i in range(2))


@pytest.mark.parametrize("copier", [copy.copy, copy.deepcopy, lambda stream: stream.copy()])
def test_a_stream_copied_midway_goes_on_alike(copier: object) -> None:
    model = small_model("vidtok_kl_causal_488_4chn_v1_1")
    video = make_clip(1, 3, 20, 16, 16)
    generator = torch.Generator().manual_seed(3)
    stream = model.encode_stream(sample=True, generator=generator)
    stream.push(video[:, :, :7])
    twin = copier(stream)  # type: ignore[operator]
    assert twin.model is model
    rest = [torch.cat([s.push(video[:, :, 7:]), s.flush()], 2) for s in (stream, twin)]
    assert torch.equal(*rest)
    z = model.encode(video, sample=False)
    decoder = model.decode_stream()
    decoder.push(z[:, :, :2])
    twins = [decoder, copier(decoder)]  # type: ignore[operator]
    assert torch.equal(*[torch.cat([s.push(z[:, :, 2:]), s.flush()], 2) for s in twins])


def test_state_can_be_pickled() -> None:
    model = small_model(V1_1)
    video = make_clip(1, 3, 17, 16, 16)
    state = StreamState()
    model.encoder(video[:, :, :9], state)
    revived = pickle.loads(pickle.dumps(state))
    assert torch.equal(model.encoder(video[:, :, 9:], state), model.encoder(video[:, :, 9:], revived))


def test_models_keep_nothing_of_a_stream() -> None:
    model = small_model(V1_1)
    names = {id(module): set(module.__dict__) for module in model.modules()}
    stream_encode(model, list(make_clip(1, 3, 9, 16, 16).split(2, 2)))
    assert names == {id(module): set(module.__dict__) for module in model.modules()}
    pickle.loads(pickle.dumps(model))


def test_sampling_draws_the_same_streamed_and_whole() -> None:
    model = exact_model("vidtok_kl_causal_488_4chn_v1_1")
    video = make_clip(1, 3, 18, 16, 16)
    whole = model.encode(video, generator=torch.Generator().manual_seed(5))
    stream = model.encode_stream(generator=torch.Generator().manual_seed(5))
    streamed = torch.cat([*map(stream.push, video.split(3, 2)), stream.flush()], 2)
    torch.testing.assert_close(streamed, whole, atol=EXACT, rtol=0)


def test_log_of_a_stream_adds_up() -> None:
    model = exact_model(V1_1)
    video = make_clip(1, 3, 20, 16, 16)
    expected = model.encode(video, return_reg_log=True)[1]["indices"]
    stream = model.encode_stream()
    parts = []
    for chunk in video.split(4, 2):
        stream.push(chunk)
        parts.append(stream.log["indices"])
    stream.flush()
    parts.append(stream.log["indices"])
    assert torch.equal(torch.cat(parts, 1), expected)
    decoder = model.decode_stream(decode_from_indices=True, size=(20, 15, 16))
    frames = torch.cat([*map(decoder.push, expected.split(2, 1)), decoder.flush()], 2)
    whole = model.decode(expected, decode_from_indices=True, size=(20, 15, 16))
    assert frames.shape == (1, 3, 20, 15, 16)
    torch.testing.assert_close(frames, whole, atol=EXACT, rtol=0)


@pytest.mark.parametrize("name", ["vidtok_kl_causal_488_4chn", V1_1])
@pytest.mark.parametrize("overlap", [True, False])
def test_chunked_processing_equals_whole(name: str, overlap: bool) -> None:
    model = small_model(name, dtype=torch.float64)
    video = make_clip(1, 3, 43, 16, 16)
    z, whole, _ = model(video, sample=False)
    model.use_tiling, model.use_overlap = True, overlap
    model.t_chunk_enc = 16
    model.t_chunk_dec = model.t_chunk_enc // model.encoder.time_downsample_factor
    chunked, reconstruction, _ = model(video, sample=False)
    torch.testing.assert_close(chunked, z, atol=EXACT, rtol=0)
    torch.testing.assert_close(reconstruction, whole, atol=EXACT, rtol=0)


def test_streams_refuse_what_they_cannot_do() -> None:
    noncausal = small_model(next(name for name in ALL_MODELS if "noncausal" in name))
    with pytest.raises(ValueError, match="cannot stream"):
        noncausal.encode_stream()
    model = small_model(V1_1)
    stream = model.encode_stream()
    with pytest.raises(ValueError, match="nothing was pushed"):
        stream.flush()
    stream.push(make_clip(1, 3, 2, 16, 16))
    with pytest.raises(ValueError, match="only T may differ"):
        stream.push(make_clip(1, 3, 2, 16, 24))
    stream.flush()
    with pytest.raises(ValueError, match="has ended"):
        stream.push(make_clip(1, 3, 2, 16, 16))
    decoder = model.decode_stream()
    with pytest.raises(ValueError, match="nothing was pushed"):
        decoder.flush()
    with pytest.raises(ValueError, match="cannot start with no latent frames"):
        decoder.push(torch.zeros(1, 5, 0, 2, 2))
    decoder.push(torch.zeros(1, 5, 1, 2, 2))
    with pytest.raises(ValueError, match="only T' may differ"):
        decoder.push(torch.zeros(1, 5, 1, 2, 3))


class AllocationError(RuntimeError):
    """Stands in for what an allocator raises."""


def break_once(model: Tokenizer, layer: str) -> None:
    """Make `layer` raise at its next call, in the middle of a pass."""

    def broken(*_: object) -> None:
        handle.remove()
        raise AllocationError

    handle = model.get_submodule(layer).register_forward_hook(broken)


@pytest.mark.parametrize("tiled", [False, True])
@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("encodes", [True, False])
def test_a_stream_that_failed_inside_says_so_and_a_copy_goes_on(encodes: bool, ends: bool, tiled: bool) -> None:
    model: Tokenizer = tiny_model("vidtok_kl_causal_488_4chn_v1_1")
    side = 10 if tiled else 2
    if tiled:
        model = model.with_tiling(Tiling(64, 16))
    shape = (1, 3, 14, 8 * side, 16) if encodes else (1, 4, 4, side, 2)
    pieces = make_clip(*shape).split(5 if encodes else 2, 2)

    def open_stream() -> Any:
        if encodes:
            return model.encode_stream(sample=True, generator=torch.Generator().manual_seed(3))
        return model.decode_stream()

    stream = open_stream()
    expected = torch.cat([*map(stream.push, pieces), stream.flush()], 2)
    stream = open_stream()
    sure = [stream.push(piece) for piece in (pieces if ends else pieces[:1])]
    spare = stream.copy()
    break_once(model, "encoder.mid.block_2.conv1" if encodes else "decoder.conv_out")
    failing = stream.flush if ends else partial(stream.push, pieces[1])
    with pytest.raises(AllocationError):
        failing()
    for again in (partial(stream.push, pieces[1]), stream.flush):
        with pytest.raises(ValueError, match="broke off in an error"):
            again()
    rest = [] if ends else [spare.push(piece) for piece in pieces[1:]]
    torch.testing.assert_close(torch.cat([*sure, *rest, spare.flush()], 2), expected, atol=0, rtol=0)


def test_a_push_that_is_refused_changes_nothing() -> None:
    model = tiny_model(V1_1)
    video = make_clip(1, 3, 9, 16, 16)
    stream = model.encode_stream()
    parts = [stream.push(video[:, :, :4])]
    for wrong in (make_clip(1, 3, 2, 16, 24), torch.zeros(1, 3, 2, 16, 16, dtype=torch.uint8), [0.5]):
        with pytest.raises(ValueError, match=r"only T may differ|uint8|is a list"):
            stream.push(wrong)  # type: ignore[arg-type]
    parts += [stream.push(video[:, :, 4:]), stream.flush()]
    torch.testing.assert_close(torch.cat(parts, 2), model.encode(video), atol=TOLERANCE, rtol=0)
