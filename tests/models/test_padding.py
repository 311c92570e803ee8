"""Clips of any length in version 1.1, padded in front as published."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from models.test_golden import differing_indices, read
from support import TESTS, fill, make_clip
from tiny import FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, tiny_model
from vidtok import Tiling, Tokenizer, VidTokError
from vidtok.config.read import read_config
from vidtok.models.padding import crop

FILES = sorted((TESTS / "golden" / "padding").glob("*.safetensors"))
LENGTHS = (16, 18, 23)

close = torch.testing.assert_close


def test_four_models_have_golden_files() -> None:
    assert len(FILES) == 4


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_agrees_with_golden_file(path: Path) -> None:
    metadata, golden = read(path)
    assert json.loads(metadata["lengths"]) == list(LENGTHS)
    config = dataclasses.replace(read_config(path.stem).model, ch=int(metadata["width"]))
    seed = int(metadata["seed"])
    model = Tokenizer(config).eval().with_padding("front")
    fill(model, seed)
    for frames in LENGTHS:
        video = make_clip(1, 3, frames, 32, 32, seed=seed)
        z, log = model.encode(video, True, sample=False)
        close(z, golden[f"z/{frames}"], atol=1e-4, rtol=0)
        decoded = model.decode(golden[f"z/{frames}"])
        close(decoded, golden[f"decoded/{frames}"], atol=1e-4, rtol=0)
        close(model(video, sample=False)[1], decoded[:, :, -frames:], atol=1e-4, rtol=0)
        if f"indices/{frames}" in golden:
            indices = golden[f"indices/{frames}"]
            assert differing_indices(model, model.moments(video), log["indices"], indices) == 0
            close(model.decode(indices, True), golden[f"decoded/{frames}"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_1])
@pytest.mark.parametrize("frames", [1, 9, 17])
def test_clips_of_whole_groups_and_one_have_the_same_latent_either_way(name: str, frames: int) -> None:
    end = tiny_model(name)
    front = end.with_padding("front")
    video = make_clip(1, 3, frames, 16, 16)
    z = end.encode(video, sample=False)
    assert torch.equal(front.encode(video, sample=False), z)
    decoded = front.decode(z)
    assert decoded.shape[2] == z.shape[2] * end.temporal_factor
    assert torch.equal(decoded[:, :, -frames:], end.decode(z))
    assert torch.equal(front(video, sample=False)[1], end(video, sample=False)[1])


@pytest.mark.parametrize("frames", [16, 30, 33, 35])
def test_front_padding_in_chunks_and_in_tiles_that_are_the_frame_changes_nothing(frames: int) -> None:
    model = tiny_model(KL_1_1).with_padding("front")
    video = make_clip(1, 3, frames, 16, 16)
    with torch.no_grad():
        z = model.encode(video, sample=False)
        decoded = model.decode(z)
        tiled = model.with_tiling(Tiling(size=128))
        close(tiled.encode(video, sample=False), z, atol=1e-5, rtol=0)
        model.use_tiling, model.t_chunk_enc, model.t_chunk_dec = True, 8, 2  # type: ignore[assignment]
        close(model.encode(video, sample=False), z, atol=1e-5, rtol=0)
        close(model.decode(z), decoded, atol=1e-5, rtol=0)


def test_front_padding_has_gradients_as_without() -> None:
    model = tiny_model(KL_1_1).with_padding("front")
    video = make_clip(1, 3, 6, 16, 16)
    with torch.enable_grad():
        model(video, sample=False)[1].square().mean().backward()
    assert all(weight.grad is not None for weight in model.encoder.parameters())


def test_models_whose_clips_are_not_padded_in_front_say_so() -> None:
    for name in (KL_1_0, KL_NONCAUSAL):
        model = tiny_model(name)
        assert model.published_padding == "end"
        assert model.with_padding("end") is model
        with pytest.raises(VidTokError, match=r"not of version 1\.1.*leave padding out"):
            model.with_padding("front")
    with pytest.raises(VidTokError, match="padding is 'back'; expected end or front"):
        tiny_model(KL_1_1).with_padding("back")  # type: ignore[arg-type]


def test_streams_say_that_they_pad_at_the_end() -> None:
    model = tiny_model(KL_1_1).with_padding("front")
    for stream in (model.encode_stream, model.decode_stream):
        with pytest.raises(ValueError, match=r'a stream does not know; take a stream of with_padding\("end"\)'):
            stream()


def test_crop_takes_the_last_frames_of_a_clip_that_was_padded_in_front() -> None:
    video = make_clip(1, 3, 8, 4, 4)
    assert torch.equal(crop(video, (5, 3, 2), "front"), video[:, :, 3:, :3, :2])
