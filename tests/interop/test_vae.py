"""`VidTokVAE`, a model of this package with the interface of diffusers' autoencoders."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from support import make_clip, small_model
from vidtok import ConfigError, Tokenizer, VidTokError, load
from vidtok.models.streams import DecodeStream, EncodeStream

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'vidtok[diffusers]'")

from vidtok.interop.vae import VidTokVAE, describe  # noqa: E402

KL = "vidtok_kl_causal_488_16chn_v1_1"
FSQ = "vidtok_fsq_causal_488_32768_v1_1"
NONCAUSAL = "vidtok_kl_noncausal_488_4chn"


def model(name: str, **changes: Any) -> Tokenizer:
    return small_model(name, ch=8, ch_mult=(1, 1, 1, 1), num_res_blocks=1, **changes)


def test_it_gives_what_the_model_gives() -> None:
    ours = model(KL)
    vae = VidTokVAE.from_tokenizer(ours)
    video = make_clip(2, 3, 6, 30, 41)  # any size
    posterior = vae.encode(video).latent_dist
    moments = ours.moments(video)
    assert torch.equal(posterior.mode(), moments[:, :16])
    assert torch.equal(posterior.mean, posterior.mode())
    assert torch.equal(posterior.logvar, moments[:, 16:].clamp(-30, 20))
    _, log = ours.encode(video, True, sample=False)
    assert posterior.kl().shape == (2,)
    assert float(posterior.kl().mean()) == pytest.approx(float(log["kl_loss"]), rel=1e-5)
    assert float(posterior.kl(posterior).abs().max()) == pytest.approx(0.0, abs=1e-3)
    draw = [posterior.sample(torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draw[0], draw[1])
    assert not torch.equal(draw[0], draw[2])
    z = posterior.mode()
    decoded = vae.decode(z).sample
    assert torch.equal(decoded, ours.decode(z))
    for same in (vae.decode(z, return_dict=False), vae.decode(z, False), vae.decode(z, None, return_dict=False)):
        assert isinstance(same, tuple)
        assert torch.equal(same[0], decoded)
    assert torch.equal(vae(video).sample, decoded[:, :, :6, :30, :41])
    assert vae(video[:, :, 0]).sample.shape == (2, 3, 30, 41)
    assert vae.encode(video, return_dict=False)[0].mode().shape == z.shape


def test_tokens() -> None:
    ours = model(FSQ)
    vae = VidTokVAE.from_tokenizer(ours)
    video = make_clip(1, 3, 5, 32, 32)
    z, log = ours.encode(video, True)
    found = vae.encode(video)
    assert torch.equal(found.latents, z)
    assert torch.equal(found.indices, log["indices"])
    assert torch.equal(found.latent_dist.mode(), z)
    assert torch.equal(found.latent_dist.sample(torch.Generator()), z)
    latents, indices = vae.encode(video, return_dict=False)
    assert torch.equal(latents, z)
    video = vae.decode(indices, decode_from_indices=True).sample
    assert torch.equal(video, ours.decode(z))


@pytest.mark.parametrize("name", [KL, FSQ])
def test_long_videos_pass_as_a_stream(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    vae = VidTokVAE.from_tokenizer(model(name))
    video = make_clip(1, 3, 49, 16, 16)
    pushed: list[int] = []
    for stream in (EncodeStream, DecodeStream):
        push = stream.push

        def note(self: Any, frames: torch.Tensor, *rest: Any, push: Any = push, **named: Any) -> torch.Tensor:
            pushed.append(frames.shape[2])
            return push(self, frames, *rest, **named)

        monkeypatch.setattr(stream, "push", note)
    z = vae.encode(video).latent_dist.mode()
    assert pushed == [16, 16, 16, 1]
    assert (z - vae.tokenizer.encode(video, sample=False)).abs().max() < 1e-5
    pushed.clear()
    decoded = vae.decode(z).sample
    assert pushed == [4, 4, 4, 1]
    assert (decoded - vae.tokenizer.decode(z)).abs().max() < 1e-5


def test_tiles_and_slices() -> None:
    vae = VidTokVAE.from_tokenizer(model(KL))
    video = make_clip(2, 3, 5, 96, 128)
    z = vae.encode(video).latent_dist.mode()
    whole = vae.decode(z).sample
    vae.enable_slicing()
    assert (vae.decode(z).sample - whole).abs().max() < 1e-4
    vae.disable_slicing()
    vae.enable_tiling(tile_sample_min_height=64, tile_sample_min_width=64, tile_sample_stride_height=48)
    tiling = vae.tokenizer.tiling
    assert tiling is not None
    assert (tiling.size, tiling.overlap) == (64, 16)
    assert vae.use_tiling
    assert not torch.equal(vae.decode(z).sample, whole)
    assert vae.decode(z).sample.shape == whole.shape
    vae.disable_tiling()
    assert torch.equal(vae.decode(z).sample, whole)
    vae.enable_tiling()
    assert vae.tokenizer.tiling is not None
    assert vae.tokenizer.tiling.size == 256
    with pytest.raises(VidTokError, match="a tile has 32 pixels a side; expected at least 64"):
        vae.enable_tiling(32, 32)


@pytest.mark.gradients
def test_gradient_checkpointing_changes_no_gradient() -> None:
    vae = VidTokVAE.from_tokenizer(model(KL))
    video = make_clip(1, 3, 5, 16, 16)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            vae.enable_gradient_checkpointing()
            assert vae.is_gradient_checkpointing
            assert vae.encoder.config.use_checkpoint
        vae.zero_grad()
        vae(video).sample.square().mean().backward()
        gradients.append([parameter.grad.clone() for parameter in vae.parameters() if parameter.grad is not None])
    assert len(gradients[0]) > 50
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*gradients, strict=True))
    vae.disable_gradient_checkpointing()
    assert not vae.is_gradient_checkpointing


def test_dtype_device_and_copies() -> None:
    vae = VidTokVAE.from_tokenizer(model(KL), latents_mean=[0.5] * 16, latents_std=[2] * 16)
    assert vae.to(torch.bfloat16).dtype == vae.tokenizer.dtype == torch.bfloat16
    video = make_clip(1, 3, 5, 16, 16)
    assert vae.decode(vae.encode(video).latent_dist.mode()).sample.dtype == torch.bfloat16
    assert vae.to("meta").device.type == vae.latents_mean.device.type == "meta"
    twin = copy.deepcopy(VidTokVAE.from_tokenizer(model(KL)))
    assert twin.tokenizer.encoder is twin.encoder
    compiled = torch.nn.Sequential(twin.decoder)
    twin.decoder = compiled  # as users replace a part by a compiled one
    assert twin.tokenizer.decoder is compiled


def test_saved_and_loaded(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ours = model(KL)
    vae = VidTokVAE.from_tokenizer(ours, latents_mean=[0.5] * 16, latents_std=[2] * 16)
    vae.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "VidTokVAE"
    assert (config["z_dim"], config["scale_factor_temporal"], config["scale_factor_spatial"]) == (16, 4, 8)
    assert (config["latents_mean"], config["latents_std"]) == ([0.5] * 16, [2.0] * 16)
    again = VidTokVAE.from_pretrained(tmp_path)
    assert again.config["tokenizer"] == config["tokenizer"]
    assert not again.training
    assert torch.equal(again.latents_std, torch.full((16,), 2.0))
    weights = ours.named_weights()
    assert again.state_dict().keys() == weights.keys()
    assert all(torch.equal(weights[name], value) for name, value in again.state_dict().items())
    assert VidTokVAE.from_pretrained(tmp_path, torch_dtype=torch.bfloat16).dtype == torch.bfloat16
    back = load(tmp_path)
    assert back.config == ours.config
    assert back.name == KL
    assert "not expected" not in capfd.readouterr().err


def test_auto_model_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.utils.dynamic_modules_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(VidTokVAE, "_auto_class", None)
    VidTokVAE.register_for_auto_class("AutoModel")
    VidTokVAE.from_tokenizer(model(FSQ)).save_pretrained(tmp_path / "vae")
    assert json.loads((tmp_path / "vae" / "config.json").read_text())["auto_map"] == {"AutoModel": "vae.VidTokVAE"}
    with pytest.raises(ValueError, match="trust_remote_code"):
        diffusers.AutoModel.from_pretrained(str(tmp_path / "vae"), trust_remote_code=False)
    found = diffusers.AutoModel.from_pretrained(str(tmp_path / "vae"), trust_remote_code=True)
    assert isinstance(found, VidTokVAE)


def test_statistics() -> None:
    shipped = VidTokVAE.load("vidtok_kl_causal_488_16chn_tiny")
    known = shipped.tokenizer.latents_std
    assert known is not None
    assert shipped.config.latents_std == list(known)
    assert torch.equal(shipped.latents_std, torch.tensor(known))
    ours = model(KL)
    assert VidTokVAE.from_tokenizer(ours).config.latents_mean == [0.0] * 16
    whole = VidTokVAE.from_tokenizer(ours, latents_mean=[1.0, -1.0] * 8, latents_std=[2.0] * 16, scaling="whole")
    assert whole.config.scaling_factor == pytest.approx(5**-0.5)  # the variance is 4 in a channel, and 1 between them
    assert whole.config.latents_std == [1.0] * 16
    with pytest.raises(ConfigError, match=r"latents_std is .* expected 16 values, one a channel, all above 0"):
        VidTokVAE.from_tokenizer(ours, latents_std=[0.0] * 16)
    with pytest.raises(ConfigError, match="scaling is 'both'; expected 'channels' or 'whole'"):
        VidTokVAE.from_tokenizer(ours, scaling="both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "time", "space", "downsample", "widths"),
    [
        (KL, 4, 8, [False, True, True], 4),
        ("vidtok_kl_causal_288_8chn", 2, 8, [False, False, True], 4),
        ("vidtok_kl_causal_444_4chn", 4, 4, [True, True], 3),
        ("vidtok_kl_causal_41616_4chn", 4, 16, [False, False, True, True], 5),
    ],
)
def test_ratios_under_all_names(name: str, time: int, space: int, downsample: list[bool], widths: int) -> None:
    facts = describe(small_model(name).config)
    assert facts["temporal_compression_ratio"] == facts["scale_factor_temporal"] == time
    assert facts["spatial_compression_ratio"] == facts["scale_factor_spatial"] == space
    assert facts["temperal_downsample"] == downsample
    assert (2 ** sum(downsample), 2 ** len(downsample)) == (time, space)
    assert len(facts["block_out_channels"]) == widths
    assert 2 ** (widths - 1) == space


def test_a_model_that_is_not_causal() -> None:
    ours = model(NONCAUSAL)
    vae = VidTokVAE.from_tokenizer(ours)
    video = make_clip(1, 3, 16, 16, 16)
    z = vae.encode(video).latent_dist.mode()
    assert z.shape[2] == 4
    assert torch.equal(vae.decode(z).sample, ours.decode(z))


def test_a_latent_without_a_grid_is_refused() -> None:
    from twin import tiny_twin

    with pytest.raises(ConfigError, match="family vidtwin takes clips of one size and its latent has no grid"):
        VidTokVAE.from_tokenizer(tiny_twin())
