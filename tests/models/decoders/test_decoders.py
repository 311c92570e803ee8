"""Decoders of their own: exact streams for any family, tiles, memory, what they refuse."""

from __future__ import annotations

import dataclasses
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from golden.weights import stand_in
from support import small_config
from tiny import FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, tiny_model
from vidtok import Tiling, Tokenizer
from vidtok.config.read import read_config
from vidtok.config.registry import entry
from vidtok.errors import ConfigError, VidTokError
from vidtok.models.decoders.base import OwnDecoder, own_decoder, with_decoder, without_parts
from vidtok.models.decoders.config import DecoderConfig, FastConfig, PreviewConfig, decoder_from_dict
from vidtok.models.decoders.make import FastDecoder, make_decoder
from vidtok.runtime.memory import footprints

TOLERANCE = 1e-5
CONFIGS: dict[str, DecoderConfig] = {
    "dense": FastConfig(ch=8, ch_mult=(1, 2), num_res_blocks=1),
    "patch-2": FastConfig(ch=8, ch_mult=(1, 1, 2), num_res_blocks=(0, 1, 1), patch_size=2, past=1.0),
    "depthwise": FastConfig(ch=8, ch_mult=(1, 2), num_res_blocks=2, blocks="depthwise"),
    "one-level": FastConfig(ch=8, ch_mult=(1,), num_res_blocks=2, patch_size=8),
    "no-past": FastConfig(ch=8, ch_mult=(1, 2), num_res_blocks=1, past=0.0),
    "preview": PreviewConfig(),
}
CAUSAL = (KL_1_0, KL_1_1, FSQ_1_1)


def decoder(config: DecoderConfig, model: Tokenizer) -> OwnDecoder:
    """A decoder for the latents of `model`, with stand-in weights."""
    made = make_decoder(config, model.config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(torch.from_numpy(stand_in(name, tuple(parameter.shape), 0)))
    return made


@cache
def model_with(name: str, kind: str) -> Tokenizer:
    model = tiny_model(name)
    return with_decoder(model, decoder(CONFIGS[kind], model))


def latent(model: Tokenizer, frames: int, rows: int = 4, columns: int = 5, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(frames)
    return torch.randn(batch, model.z_channels, frames, rows, columns, generator=generator)


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("kind", CONFIGS)
@settings(deadline=None, max_examples=4)
@given(data=st.data())
def test_streamed_equals_whole_however_it_is_cut(name: str, kind: str, data: st.DataObject) -> None:
    model = model_with(name, kind)
    frames = data.draw(st.integers(1, 9), label="latent frames")
    points = sorted({0, frames, *data.draw(st.lists(st.integers(0, frames), max_size=4), label="cuts")})
    batch = data.draw(st.integers(1, 2), label="batch")
    z = latent(model, frames, batch=batch)
    with torch.no_grad():
        whole = model.decode(z)
        stream = model.decode_stream()
        pieces = [stream.push(z[:, :, a:b]) for a, b in pairwise(points)]
        streamed = torch.cat([*pieces, stream.flush()], 2)
    factor = model.temporal_factor
    assert whole.shape == (batch, 3, 1 + (frames - 1) * factor, 4 * model.spatial_factor, 5 * model.spatial_factor)
    assert stream.delay == 0
    assert (streamed - whole).abs().max() <= TOLERANCE * max(1, float(whole.abs().max()))
    assert sum(piece.shape[2] for piece in pieces) == whole.shape[2]  # nothing is held back


@pytest.mark.gradients
@pytest.mark.parametrize("kind", CONFIGS)
def test_gradients_change_nothing_and_reach_every_weight(kind: str) -> None:
    model = model_with(KL_1_1, kind)
    z = latent(model, 3)
    video, features = model.decoder_stages(z)
    with torch.no_grad():
        assert torch.allclose(model.decode(z), video, atol=1e-5)
    assert len(features) == (0 if kind == "preview" else len(CONFIGS[kind].ch_mult))  # type: ignore[attr-defined]
    video.square().mean().backward()
    missing = [name for name, weight in model.decoder.named_parameters() if weight.grad is None]
    assert missing == []


@pytest.mark.parametrize("kind", CONFIGS)
def test_later_latent_frames_change_no_earlier_video(kind: str) -> None:
    model = model_with(KL_1_1, kind)
    z = latent(model, 6)
    other = z.clone()
    other[:, :, 4:] += 1
    with torch.no_grad():
        assert torch.equal(model.decode(z)[:, :, :13], model.decode(other)[:, :, :13])


@pytest.mark.parametrize("kind", CONFIGS)
def test_decoding_starts_as_many_latent_frames_earlier_as_the_blocks_look_back(kind: str) -> None:
    model = model_with(KL_1_1, kind)
    z = latent(model, 9)
    with torch.no_grad():
        whole, part = model.decode(z), model.decode(z[:, :, 3:])
    wrong = (part - whole[:, :, 12:]).abs().amax((0, 1, 3, 4)) > TOLERANCE * float(whole.abs().max())
    last_wrong = int(wrong.nonzero().max()) + 1 if wrong.any() else 0
    assert last_wrong <= (model.decoder_look_back or 0) <= last_wrong + 8
    assert model.start_latent(4 * 8) <= 8


@torch.no_grad()
def test_a_new_decoder_is_its_projection() -> None:
    model = tiny_model(KL_1_1)
    own = make_decoder(CONFIGS["dense"], model.config)
    assert isinstance(own, FastDecoder)
    z = latent(model, 2)
    preview = make_decoder(PreviewConfig(), model.config)
    assert own(z).shape == preview(z).shape
    own.linear.map.weight.zero_()
    own.linear.map.bias.zero_()
    assert float(own(z)[:, :, 1:].abs().max()) == 0
    assert float(own.conv_out.weight.abs().max()) == 0


@pytest.mark.parametrize("kind", ["dense", "preview"])
def test_tiles_clips_and_memory(kind: str) -> None:
    model = model_with(KL_1_1, kind)
    z = latent(model, 2, 16, 16)
    with torch.no_grad():
        tiled = model.with_tiling(Tiling(size=96, overlap=32)).decode(z)
        whole = model.decode(z)
    assert tiled.shape == whole.shape
    assert (tiled - whole).abs().mean() < 0.05 * whole.abs().mean()
    own, full = (footprints(m, 16, 256, 256).decode for m in (model, tiny_model(KL_1_1)))
    assert 0 < own.working < full.working
    clips = with_decoder(tiny_model(KL_NONCAUSAL), decoder(CONFIGS["dense"], tiny_model(KL_NONCAUSAL)))
    with torch.no_grad():
        assert clips.decode(latent(clips, 4)).shape == (1, 3, 16, 32, 40)


def test_the_model_keeps_its_own_decoder_and_shares_the_rest() -> None:
    model = tiny_model(KL_1_1)
    own = decoder(CONFIGS["dense"], model)
    fast = with_decoder(model, own)
    assert type(fast).__name__ == type(model).__name__
    assert isinstance(fast, type(model))
    assert fast.encoder is model.encoder
    assert fast.decoder is own
    assert (own_decoder(fast), own_decoder(model)) == (CONFIGS["dense"], None)
    assert model.delay == 3
    assert model.decoder is not own
    assert fast.last_layer is own.last_layer
    assert with_decoder(fast, decoder(PreviewConfig(), model)).delay == 0
    with pytest.raises(VidTokError, match="needs no rescaling"):
        fast.rescale(torch.zeros(1, 3, 5, 16, 16))


def test_a_part_that_is_not_there_says_so() -> None:
    model = without_parts(tiny_model(KL_1_1), ("encoder",), "load it")
    with torch.no_grad():
        model.decode(latent(model, 2))
        with pytest.raises(VidTokError, match=r"the model's encoder was not loaded; load it"):
            model.encode(torch.zeros(1, 3, 5, 16, 16))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ch": 0}, r"decoder.ch is 0; expected a whole number of at least 1"),
        ({"ch_mult": []}, r"decoder.ch_mult is \[\]; expected a multiplier for each level"),
        ({"num_res_blocks": [1, 2, 3]}, r"num_res_blocks is \[1, 2, 3\]; expected a number, or 2: one a level"),
        ({"past": 1.5}, r"decoder.past is 1.5; expected a share from 0 to 1"),
        ({"blocks": "3d"}, r"decoder.blocks is '3d'"),
        ({"chanels": 3}, r"decoder.chanels is not known"),
        ({"kind": "slow"}, r"decoder is .* expected a mapping with kind: fast or kind: preview"),
    ],
)
def test_configurations_that_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        decoder_from_dict({"kind": "fast", **values})


def test_latents_that_a_decoder_cannot_decode() -> None:
    config = small_config(KL_1_1)
    with pytest.raises(ConfigError, match="make a spatial factor of 16; expected 8, the latent's"):
        make_decoder(FastConfig(ch=8, ch_mult=(1, 1, 1)), config)
    twin = read_config(entry("vidtwin_structure_7_7_8_dynamics_7_8").name).model
    with pytest.raises(ConfigError, match="a vidtwin has a latent of 3 parts; a decoder of its own takes"):
        make_decoder(PreviewConfig(), twin)
    wide = dataclasses.replace(config, z_channels=16384, spatial_ds=(0, 1, 2, 3), spatial_us=(0, 1, 2, 3))
    with pytest.raises(ConfigError, match="for a linear projection"):
        make_decoder(PreviewConfig(), wide)
