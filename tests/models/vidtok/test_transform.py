"""Patches and the linear transform beside the network: what they give, and that every property of the family holds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import vidtok
from support import make_clip, small_config, small_model
from tiny import FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL
from vidtok import AutoencoderConfig, ConfigError, Tiling, Tokenizer
from vidtok.config.vidtok import fits_autoencoder
from vidtok.models.state import StreamState
from vidtok.models.vidtok.autoencoder import VideoAutoencoder
from vidtok.models.vidtok.receptive import first_exact_frame, unsettled_latents
from vidtok.models.vidtok.transform import BlockTransform, from_patches, to_patches
from vidtok.runtime.memory import footprints
from vidtok.tokens import config_hash

YAML = """\
base: vidtok_kl_causal_488_4chn_v1_1
model:
  params:
    encoder_config:
      params: {ch: 8, ch_mult: [1, 1, 1], num_res_blocks: 1, patch_size: 2, block_transform: true}
"""
CAUSAL = [KL_1_0, KL_1_1, FSQ_1_1]
VARIANTS = [*CAUSAL, KL_NONCAUSAL]


def patched(name: str, dtype: torch.dtype = torch.float64, **values: object) -> Tokenizer:
    """A tiny model of the variant `name` with both values, and stand-in weights throughout."""
    levels = 4 if "_888_" in name else 3
    given = {"ch": 8, "ch_mult": (1,) * levels, "num_res_blocks": 1, "patch_size": 2, "block_transform": True}
    if levels == 3:
        given |= dict.fromkeys(("spatial_ds", "spatial_us", "tempo_ds", "tempo_us"))
    return small_model(name, dtype=dtype, **{**given, **values})


def untrained(**values: object) -> Tokenizer:
    given = {"z_channels": 4, "ch": 8, "ch_mult": (1, 1, 1), "num_res_blocks": 1, "patch_size": 2}
    return Tokenizer(AutoencoderConfig.from_dict({**given, "block_transform": True, **values})).eval()


def test_patches_are_pixel_shuffles_channels() -> None:
    x = make_clip(2, 3, 4, 6, 8)
    frames = to_patches(x.permute(0, 2, 3, 4, 1).contiguous(), 2)
    expected = torch.nn.functional.pixel_unshuffle(x.transpose(1, 2), 2)
    assert torch.equal(frames.permute(0, 1, 4, 2, 3), expected)
    assert torch.equal(from_patches(frames, 2), x.permute(0, 2, 3, 4, 1))


@pytest.mark.parametrize("name", VARIANTS)
def test_both_values_are_off_without_a_trace(name: str) -> None:
    config = small_config(name)
    assert {"patch_size", "block_transform"}.isdisjoint(config.to_dict())
    assert config.to_dict() == small_config(name, patch_size=1, block_transform=False).to_dict()


def test_a_config_with_both_comes_back_from_plain_values() -> None:
    config = patched(KL_1_1).config
    values = json.loads(json.dumps(config.to_dict()))
    assert (values["patch_size"], values["block_transform"]) == (2, True)
    assert AutoencoderConfig.from_dict(values) == config


@pytest.mark.parametrize("name", VARIANTS)
def test_a_patch_widens_the_spatial_factor_and_the_two_ends(name: str) -> None:
    plain, model = patched(name, patch_size=1, block_transform=False), patched(name, patch_size=4)
    assert model.config.spatial_factor == 4 * plain.config.spatial_factor
    changed = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    shapes = {key: tuple(value.shape) for key, value in plain.state_dict().items()}
    assert changed.keys() == shapes.keys()
    differing = {key for key in shapes if shapes[key] != changed[key]}
    assert {key.split(".conv.")[0].removesuffix(".weight").removesuffix(".bias") for key in differing} == {
        "encoder.conv_in",
        "decoder.conv_out",
    }


@pytest.mark.parametrize("name", CAUSAL)
@pytest.mark.parametrize("cuts", [(1, 3, 4, 9), (5, 12), (2, 2, 2, 11)])
def test_a_stream_gives_what_the_whole_gives(name: str, cuts: tuple[int, ...]) -> None:
    model = patched(name)
    video = make_clip(1, 3, 17, 30, 35).double()
    with torch.no_grad():
        whole, expected, _ = model(video, sample=False)
        with model.encode_stream(sample=False) as stream:
            z = torch.cat([*(stream.push(part) for part in video.split(cuts, 2)), stream.flush()], 2)
        torch.testing.assert_close(z, whole, atol=1e-9, rtol=0)
        with model.decode_stream() as stream:
            parts = [stream.push(z[:, :, :1]), stream.push(z[:, :, 1:]), stream.flush()]
        torch.testing.assert_close(torch.cat(parts, 2)[:, :, :17, :30, :35], expected, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [(1, 1, 1), (2, 9, 31), (18, 16, 33)])
def test_clips_of_any_size_come_back_in_that_size(name: str, size: tuple[int, int, int]) -> None:
    model = patched(name, torch.float32)
    video = make_clip(2, 3, *size)
    z, reconstruction, _ = model(video, sample=False)
    assert z.shape[3:] == tuple(-(-side // model.config.spatial_factor) for side in size[1:])
    assert reconstruction.shape == video.shape
    assert reconstruction.isfinite().all()


def test_an_untrained_model_is_the_transform() -> None:
    model = untrained(z_channels=16)
    video = 0.8 * make_clip(1, 3, 9, 16, 24)
    z = model.encode(video, sample=False)
    kept = model.decode(z, size=(9, 16, 24))
    again = model.encode(kept, sample=False)
    torch.testing.assert_close(again[:, :, 1:], z[:, :, 1:], atol=1e-5, rtol=0)  # a projection: twice is once
    transform = BlockTransform(model.config)
    np.testing.assert_allclose(transform._synthesis @ transform._analysis, np.eye(16), atol=1e-9)


@pytest.mark.parametrize("colour", [(-0.7, -0.7, -0.7), (0.9, -0.9, -0.9), (-0.5, 0.8, 0.1)])
def test_flat_colours_pass_an_untrained_model(colour: tuple[float, float, float]) -> None:
    model = untrained(z_channels=16)
    video = torch.tensor(colour).view(1, 3, 1, 1, 1).expand(1, 3, 5, 16, 16)
    torch.testing.assert_close(model(video, sample=False)[1], video, atol=1e-5, rtol=0)


def test_codes_stand_for_values_within_their_interval() -> None:
    levels = (8, 7, 6, 5)
    model = untrained(bottleneck={"kind": "fsq", "levels": levels})
    values = torch.linspace(-3.0, 3.0, 61).view(1, 1, 61, 1, 1).expand(1, 4, 61, 1, 1)
    codes, _ = model.regularization(values)
    back = BlockTransform(model.config)._dequantized(codes.permute(0, 2, 3, 4, 1)).permute(0, 4, 1, 2, 3)
    assert torch.equal(model.regularization(back)[0], codes)  # what a code stands for has that code


@pytest.mark.parametrize("name", CAUSAL)
def test_frames_are_exact_where_the_receptive_field_says(name: str) -> None:
    model = patched(name, torch.float32)
    expected = first_exact_frame(model.decoder, 1)
    z = make_clip(1, model.config.z_channels, expected // model.config.temporal_factor + 3, 1, 1)
    z[:, :, :1] = float("nan")
    clean = model.decode(z).isfinite().flatten(3).all(-1).all(1)[0]
    assert clean[expected:].all()
    assert not clean[:expected].any()


@pytest.mark.parametrize("name", CAUSAL)
def test_an_encoder_that_starts_inside_settles_as_derived(name: str) -> None:
    model = patched(name)
    factor, unsettled = model.config.temporal_factor, unsettled_latents(model.encoder)
    video = make_clip(1, 3, 1 + factor * (unsettled + 3), 16, 16).double()
    with torch.no_grad():
        whole = model.encoder(video)
        inside = model.encoder(video[:, :, 1:], StreamState(started=True, end=True))
    torch.testing.assert_close(inside[:, :, unsettled:], whole[:, :, 1 + unsettled :], atol=1e-9, rtol=0)


def test_tiles_are_exact_away_from_seams() -> None:
    model = untrained(z_channels=16)
    video = make_clip(1, 3, 5, 64, 136)
    whole = model.decode(model.encode(video, sample=False))
    model = model.with_tiling(Tiling(64, 16))
    with model.encode_stream(sample=False) as stream:
        z = torch.cat([stream.push(video), stream.flush()], 2)
    with model.decode_stream() as stream:
        tiled = torch.cat([stream.push(z), stream.flush()], 2)
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)  # a transform of blocks has no seams


def test_memory_is_foreseen_for_a_patched_model() -> None:
    model = patched(KL_1_1, torch.float32)
    small, large = (footprints(model, 8, side, side) for side in (64, 128))
    assert 0 < small.encode.states < large.encode.states
    assert 0 < small.decode.states < large.decode.states
    assert 3 < large.decode.working / small.decode.working < 5


def test_a_yaml_file_gives_both_values_and_a_folder_gives_them_back(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(YAML)
    model = Tokenizer.from_config(tmp_path / "mine.yaml").eval()
    assert (model.config.patch_size, model.config.block_transform, model.config.spatial_factor) == (2, True, 8)
    model.save_pretrained(tmp_path / "saved")
    again = vidtok.load(tmp_path / "saved")
    video = make_clip(1, 3, 5, 16, 16)
    assert again.config == model.config
    assert torch.equal(again(video, sample=False)[1], model(video, sample=False)[1])
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert fits_autoencoder(model.config, shapes)
    assert not fits_autoencoder(dataclasses.replace(model.config, patch_size=1), shapes)


def test_hashes_tell_these_values_apart() -> None:
    config = patched(KL_1_1).config
    others = [dataclasses.replace(config, patch_size=4), dataclasses.replace(config, block_transform=False)]
    assert len({config_hash(other) for other in [config, *others]}) == 3


def test_rescaling_leaves_the_output() -> None:
    model = patched(KL_1_1)
    video = make_clip(1, 3, 5, 16, 16).double()
    before = model(video, sample=False)[1]
    model.rescale(video)
    torch.testing.assert_close(model(video, sample=False)[1], before, atol=1e-3, rtol=0)


@pytest.mark.gradients
def test_gradients_reach_both_ends_of_an_untrained_model() -> None:
    model = VideoAutoencoder(untrained().config).train()
    video = make_clip(1, 3, 5, 16, 16)
    ((model(video)[1] - video) ** 2).mean().backward()
    for part in (model.encoder, model.decoder):
        for parameter in part.conv_out.parameters():
            assert parameter.grad is not None
            assert parameter.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"patch_size": 0}, "patch_size is 0; expected a whole number of at least 1"),
        ({"patch_size": 1.5}, "patch_size is 1.5; expected a whole number of at least 1"),
        ({"block_transform": 1}, "block_transform is 1; expected true or false"),
        ({"z_channels": 800}, "z_channels is 800; expected at most 768, the values of a block"),
        ({"out_ch": 1}, "block_transform is True; expected false unless video has 3 colours"),
    ],
)
def test_values_out_of_range_are_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        untrained(**values)
