from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tiny import FSQ_1_0, FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, clip_pairs, draw, stream_pairs, tiny_model
from vidtok import Tokenizer
from vidtok.runtime.passes import Pair, _moments_after, continued_clip_pairs
from vidtok.video import Pixels, to_float


def joined(pairs: list[Pair]) -> tuple[Pixels, torch.Tensor]:
    return np.concatenate([p.source for p in pairs]), torch.cat([p.reconstruction for p in pairs], 2)


def whole(model: Tokenizer, frames: Pixels) -> torch.Tensor:
    video = to_float(frames)
    return model.decode(model.encode(video, sample=False), size=tuple(video.shape[2:])).clamp(-1, 1)


MODELS = {name: tiny_model(name) for name in (KL_1_0, KL_1_1, FSQ_1_0, FSQ_1_1)}


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=8, deadline=None, derandomize=True)  # a token at a rounding boundary may differ
@given(data=st.data())
def test_a_stream_cut_anywhere_is_the_whole_video(name: str, data: st.DataObject) -> None:
    model = MODELS[name]
    frames = draw(data.draw(st.integers(1, 20)), 17, 24)
    cuts = sorted(data.draw(st.lists(st.integers(1, max(1, len(frames) - 1)), max_size=4, unique=True)))
    with torch.no_grad():
        pairs = list(stream_pairs(model, [chunk for chunk in np.split(frames, cuts) if len(chunk)]))
        expected = whole(model, frames)
    source, reconstruction = joined(pairs)
    assert np.array_equal(source, frames)
    torch.testing.assert_close(reconstruction, expected, atol=1e-4, rtol=0)
    factor = model.config.temporal_factor
    assert pairs[-1].latent_frames == 1 + -(-(len(frames) - 1) // factor)
    assert all(len(pair.source) == pair.reconstruction.shape[2] > 0 for pair in pairs)


@pytest.mark.parametrize("name", [KL_1_0, FSQ_1_1])
def test_a_stream_holds_few_frames_at_a_time(name: str) -> None:
    model = MODELS[name]
    read = 0

    def chunks() -> Iterator[Pixels]:
        nonlocal read
        for chunk in np.split(draw(80, 8, 8), 20):
            read += len(chunk)
            yield chunk

    done, most = 0, 0
    at_a_time = max(4, model.temporal_factor)
    for pair in stream_pairs(model, chunks(), at_a_time):
        most = max(most, read - done)
        done += len(pair.source)
    assert done == 80
    assert most <= 4 + at_a_time + model.config.temporal_factor + model.delay


def test_no_frames_give_no_pairs() -> None:
    assert list(stream_pairs(MODELS[KL_1_1], [])) == []


def test_a_non_causal_model_takes_clips_however_the_video_comes() -> None:
    model, frames = tiny_model(KL_NONCAUSAL), draw(20, 8, 8)
    source, reconstruction = joined(list(stream_pairs(model, np.split(frames, [3, 11]), 8)))
    _, expected = joined(list(clip_pairs(model, np.split(frames, [8, 16]))))
    assert np.array_equal(source, frames)
    torch.testing.assert_close(reconstruction, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [KL_NONCAUSAL, KL_1_1])
def test_clips_are_independent(name: str) -> None:
    model = tiny_model(name)
    clips = [draw(8, 16, 16), draw(5, 16, 16)[::-1].copy()]
    pairs = list(clip_pairs(model, clips))
    for pair, clip in zip(pairs, clips, strict=True):
        assert np.array_equal(pair.source, clip)
        torch.testing.assert_close(pair.reconstruction, whole(model, clip), atol=1e-6, rtol=0)
    assert [pair.latent_frames for pair in pairs] == ([2, 4] if name == KL_NONCAUSAL else [3, 5])


def test_a_posterior_is_drawn_from_where_asked() -> None:
    model, clip = MODELS[KL_1_0], draw(5, 16, 16)
    mode = [joined(list(f(model, [clip])))[1] for f in (stream_pairs, clip_pairs)]
    torch.testing.assert_close(*mode, atol=1e-5, rtol=0)
    torch.manual_seed(0)
    drawn = joined(list(clip_pairs(model, [clip], sample=None)))[1]
    torch.manual_seed(0)
    again = joined(list(stream_pairs(model, [clip], sample=True)))[1]
    torch.testing.assert_close(drawn, again, atol=1e-5, rtol=0)
    assert (drawn - mode[0]).abs().max() > 1e-3


@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_1])
def test_copies_of_the_first_frame_in_front_change_nothing(name: str) -> None:
    model = MODELS[name]
    factor = model.config.temporal_factor
    video = to_float(draw(1 + 2 * factor, 12, 16))
    copies = video[:, :, :1].expand(-1, -1, factor - 1, -1, -1)
    torch.testing.assert_close(_moments_after(model, copies, video), model.moments(video), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_0, FSQ_1_1])
def test_generated_frames_stand_in_front_of_later_clips(name: str) -> None:
    model = MODELS[name]
    factor = model.config.temporal_factor
    frames = draw(2 + 4 * factor, 12, 16)
    clips = np.split(frames, 2)
    alone, continued = list(clip_pairs(model, clips)), list(continued_clip_pairs(model, clips))
    assert np.array_equal(joined(continued)[0], frames)
    torch.testing.assert_close(continued[0].reconstruction, alone[0].reconstruction, atol=1e-6, rtol=0)
    assert continued[1].latent_frames == alone[1].latent_frames == 6

    before = continued[0].reconstruction[:, :, 1 - factor :]
    z, _ = model.regularization(_moments_after(model, before, to_float(clips[1])), sample=False)
    expected = model.decode(z)[:, :, :, :12, :16].clamp(-1, 1)
    torch.testing.assert_close(continued[1].reconstruction, expected, atol=1e-6, rtol=0)
    assert (continued[1].reconstruction - alone[1].reconstruction).abs().max() > 1e-3


def test_continued_clips_want_a_causal_model_and_whole_groups() -> None:
    with pytest.raises(ValueError, match="non-causal model pads no frames in front"):
        list(continued_clip_pairs(tiny_model(KL_NONCAUSAL), [draw(8, 8, 8)]))
    with pytest.raises(ValueError, match=r"a clip has 7 frames; expected 1 \+ a multiple of 4"):
        list(continued_clip_pairs(MODELS[KL_1_0], [draw(7, 8, 8)]))
