"""Autoencoders of diffusers, of random weights, behind the protocol of the evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from support import small_model
from tiny import write_video
from vidtok import VidTokError
from vidtok.cli import main
from vidtok.evaluation.results import Result

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'vidtok[diffusers]'")

from vidtok.interop.autoencoders import DiffusersAutoencoder, load_autoencoder, split_source  # noqa: E402
from vidtok.interop.vae import VidTokVAE  # noqa: E402

_WAN = {
    "base_dim": 4, "z_dim": 4, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1, "latents_mean": [0.0] * 4,
    "latents_std": [1.0] * 4,
}  # fmt: skip
_BLOCKS = {"block_out_channels": (8, 8, 8, 8), "norm_num_groups": 2, "layers_per_block": 1, "latent_channels": 4}
_LTX = {
    "block_out_channels": (8, 8, 8, 8), "decoder_block_out_channels": (8, 8, 8, 8), "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5, "latent_channels": 8,
}  # fmt: skip
_PICTURE = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
CONFIGS: dict[str, dict[str, Any]] = {
    "AutoencoderKLWan": _WAN,
    "AutoencoderKLQwenImage": _WAN,
    "AutoencoderKLCosmos": {
        "encoder_block_out_channels": (8, 8, 8, 8), "decode_block_out_channels": (8, 8, 8, 8),
        "attention_resolutions": (8,), "resolution": 64, "num_layers": 1,
    },
    "AutoencoderKLCogVideoX": _BLOCKS,
    "AutoencoderKLHunyuanVideo": _BLOCKS,
    "AutoencoderKLHunyuanVideo15": {
        "block_out_channels": (8, 16, 16, 32, 32), "layers_per_block": 1, "latent_channels": 4
    },
    "AutoencoderKLLTXVideo": _LTX,
    "AutoencoderKLLTX2Video": {
        "block_out_channels": (8, 16, 32, 64), "decoder_block_out_channels": (8, 16, 32),
        "layers_per_block": (1,) * 5, "decoder_layers_per_block": (1,) * 4, "latent_channels": 8,
        "temporal_compression_ratio": 8,
    },
    "AutoencoderKLMochi": {
        "encoder_block_out_channels": (32,) * 4, "decoder_block_out_channels": (32,) * 4, "layers_per_block": (1,) * 5,
        "latent_channels": 4, "latents_mean": (0.0,) * 4, "latents_std": (1.0,) * 4,
        "add_attention_block": (False,) * 5,
    },
    "AutoencoderKLAllegro": {**_BLOCKS, "sample_size": 128},
    "AutoencoderKLMagvit": _BLOCKS,
    "AutoencoderKLKVAEVideo": {"ch": 32, "ch_mult": (1, 1, 1, 1), "num_res_blocks": 1, "z_channels": 4},
    "AutoencoderKLMiniMaxH3": {
        "latent_channels": 4, "block_out_channels": (8,) * 6, "layers_per_block": 1, "norm_num_groups": 2,
        "decoder_num_layers": 1, "decoder_num_attention_heads": 2, "decoder_attention_head_dim": 16,
        "latents_mean": (0.0,) * 4, "latents_std": (1.0,) * 4,
    },
    "AutoencoderVidTok": {"ch": 8, "ch_mult": [1, 1, 1, 1], "num_res_blocks": 1},
    "AutoencoderKL": {**_BLOCKS, **_PICTURE},
    "AutoencoderDC": {
        "encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8), "encoder_block_types": "ResBlock",
        "decoder_block_types": "ResBlock", "encoder_layers_per_block": (1, 1), "decoder_layers_per_block": (1, 1),
        "latent_channels": 4, "attention_head_dim": 4, "encoder_qkv_multiscales": ((), ()),
        "decoder_qkv_multiscales": ((), ()),
    },
    "AutoencoderTiny": {
        "encoder_block_out_channels": (8,) * 4, "decoder_block_out_channels": (8,) * 4,
        "num_encoder_blocks": (1,) * 4, "num_decoder_blocks": (1,) * 4,
    },
    "VQModel": {
        "block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 2, "num_vq_embeddings": 32,
        "latent_channels": 3,
    },
    "AutoencoderKLTemporalDecoder": {"block_out_channels": (32, 32), "down_block_types": ("DownEncoderBlock2D",) * 2},
    "AutoencoderKLFlux2": {**_BLOCKS, "latent_channels": 8},  # of no rule: found by its interface
}  # fmt: skip
SLOW = ("AutoencoderKLAllegro",)


def make(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    return getattr(diffusers, kind)(**{**CONFIGS[kind], **changes}).eval()


# Temporal and spatial factor, values, and the latent of 19 frames of 70 x 90 pixels.
FACTS: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "AutoencoderKLWan": (4, 8, 4, (1, 4, 6, 9, 12)),
    "AutoencoderKLQwenImage": (4, 8, 4, (1, 4, 6, 9, 12)),
    "AutoencoderKLCosmos": (8, 8, 16, (1, 16, 4, 9, 12)),
    "AutoencoderKLCogVideoX": (4, 8, 4, (1, 4, 7, 9, 12)),  # latent frames but the first in pairs
    "AutoencoderKLHunyuanVideo": (4, 8, 4, (1, 4, 6, 9, 12)),
    "AutoencoderKLHunyuanVideo15": (4, 16, 4, (1, 4, 6, 5, 6)),
    "AutoencoderKLLTXVideo": (8, 32, 8, (1, 8, 4, 3, 3)),
    "AutoencoderKLLTX2Video": (8, 32, 8, (1, 8, 4, 3, 3)),
    "AutoencoderKLMochi": (6, 8, 4, (1, 4, 4, 9, 12)),
    "AutoencoderKLAllegro": (4, 8, 4, (1, 4, 6, 16, 16)),  # its own tiles are the smallest clip
    "AutoencoderKLMagvit": (4, 8, 4, (1, 4, 6, 9, 12)),
    "AutoencoderKLKVAEVideo": (4, 8, 4, (1, 4, 9, 9, 12)),  # in segments of 16 frames
    "AutoencoderKLMiniMaxH3": (4, 16, 4, (1, 4, 7, 5, 6)),  # in clips of 17 that overlap by 5
    "AutoencoderVidTok": (4, 8, 4, (1, 4, 6, 9, 12)),
    "AutoencoderKL": (1, 8, 4, (1, 4, 19, 9, 12)),
    "AutoencoderDC": (1, 2, 4, (1, 4, 19, 35, 45)),
    "AutoencoderTiny": (1, 8, 4, (1, 4, 19, 9, 12)),
    "VQModel": (1, 2, 1, (1, 19, 35, 45)),
    "AutoencoderKLTemporalDecoder": (1, 2, 4, (1, 4, 19, 35, 45)),
    "AutoencoderKLFlux2": (1, 8, 8, (1, 8, 19, 9, 12)),
}


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow) if kind in SLOW else kind for kind in FACTS]
)
def test_every_class_codes_a_clip(kind: str) -> None:
    found = DiffusersAutoencoder(make(kind), kind)
    about = found.description
    time, space, values, latent = FACTS[kind]
    assert (about.temporal_factor, about.spatial_factor, about.values) == (time, space, values)
    assert about.codebook_size == (32 if kind == "VQModel" else None)
    size = [has + more for has, more in zip((19, 70, 90), about.padding(19, 70, 90), strict=True)]
    video = torch.rand(1, 3, *size) * 2 - 1
    code = found.encode(video)
    assert code.shape == latent
    decoded = found.decode(code)
    assert decoded.shape == video.shape
    assert decoded.isfinite().all()


@pytest.mark.parametrize("kind", ["AutoencoderKLWan", "AutoencoderKLLTXVideo"])
def test_the_adapter_gives_what_the_class_gives(kind: str) -> None:
    model = make(kind)
    video = torch.rand(1, 3, 9, 64, 64) * 2 - 1
    found = DiffusersAutoencoder(model, kind)
    code = found.encode(video)
    assert torch.equal(code, model.encode(video).latent_dist.mode())
    assert torch.equal(found.decode(code), model.decode(code, return_dict=False)[0])
    torch.manual_seed(1)
    drawn = found.encode(video, sample=True)
    torch.manual_seed(1)
    assert torch.equal(drawn, model.encode(video).latent_dist.sample())


def test_tokens_of_vidtok_and_a_timestep_for_ltx() -> None:
    tokens = make("AutoencoderVidTok", z_channels=5, double_z=False, regularizer="fsq", codebook_size=8**5)
    found = DiffusersAutoencoder(tokens, "tokens")
    assert (found.description.codebook_size, found.description.values) == (8**5, 5)
    code = found.encode(torch.rand(1, 3, 5, 32, 32))
    assert (code.shape, code.dtype) == ((1, 2, 4, 4), torch.int32)
    ours = DiffusersAutoencoder(VidTokVAE.from_tokenizer(small_model("vidtok_fsq_causal_488_32768_v1_1", ch=4)), "ours")
    assert ours.description.codebook_size == 8**5
    assert (
        DiffusersAutoencoder(make("AutoencoderKLLTXVideo", timestep_conditioning=True), "ltx").description.values == 8
    )


def test_large_frames_are_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make("AutoencoderKLWan")
    found = DiffusersAutoencoder(model, "wan")
    assert not model.use_tiling
    monkeypatch.setattr("vidtok.interop.autoencoders.LARGEST_WHOLE", 64 * 64)
    found.encode(torch.zeros(1, 3, 1, 64, 96))
    assert model.use_tiling
    found.encode(torch.zeros(1, 3, 1, 64, 64))
    assert not model.use_tiling


def test_sources(tmp_path: Path) -> None:
    assert split_source("diffusers:owner/name") == ("owner/name", None)
    assert split_source("diffusers:owner/name:vae") == ("owner/name", "vae")
    (tmp_path / "a:b").mkdir()
    assert split_source(f"diffusers:{tmp_path / 'a:b'}") == (str(tmp_path / "a:b"), None)
    make("AutoencoderTiny").save_pretrained(tmp_path / "pipe" / "vae")
    make("AutoencoderTiny").save_pretrained(tmp_path / "pipe" / "other")
    assert load_autoencoder(f"diffusers:{tmp_path / 'pipe'}").description.name == "pipe"
    found = load_autoencoder(f"diffusers:{tmp_path / 'pipe'}:other", dtype=torch.bfloat16)
    assert (found.description.name, found.description.dtype) == ("pipe:other", "bfloat16")
    with pytest.raises(VidTokError, match="diffusers: names no model"):
        split_source("diffusers:")


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VidTokError, match=r"none cannot be read: .*expected a folder or Hub repository of diffusers"):
        load_autoencoder(f"diffusers:{tmp_path / 'none'}")
    diffusers.WanTransformer3DModel(
        num_attention_heads=1, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=8, freq_dim=8, ffn_dim=8,
        num_layers=1,
    ).save_pretrained(tmp_path / "transformer")  # fmt: skip
    with pytest.raises(VidTokError, match="of the class 'WanTransformer3DModel'; expected an autoencoder of diffusers"):
        load_autoencoder(f"diffusers:{tmp_path / 'transformer'}")
    make("AutoencoderTiny").save_pretrained(tmp_path / "pickled", safe_serialization=False)
    with pytest.raises(VidTokError, match=r"the weights of .*pickled cannot be loaded"):
        load_autoencoder(f"diffusers:{tmp_path / 'pickled'}")
    torch.manual_seed(0)
    audio = diffusers.AutoencoderOobleck(
        encoder_hidden_size=4, decoder_channels=4, downsampling_ratios=[2], channel_multiples=[1]
    )
    with pytest.raises(VidTokError, match=r"AutoencoderOobleck \(this vidtok does not know the class\), does not code"):
        DiffusersAutoencoder(audio, "audio")


def test_evaluate_beside_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a.mp4", 9, 48, 64)
    small_model("vidtok_kl_causal_488_4chn_v1_1", ch=4, num_res_blocks=1).save_pretrained(tmp_path / "ours")
    make("AutoencoderKLWan").save_pretrained(tmp_path / "wan")
    make("VQModel").save_pretrained(tmp_path / "vq")
    arguments = [
        "evaluate", str(tmp_path / "videos"), "--size", "original", "--out", str(tmp_path / "out"),
        "--model", str(tmp_path / "ours"), "--model", f"diffusers:{tmp_path / 'wan'}",
        "--model", f"diffusers:{tmp_path / 'vq'}", "--baseline", "pca",
    ]  # fmt: skip
    assert main(arguments) == 0
    assert "wan" in capsys.readouterr().out
    wan, vq = (Result.read(tmp_path / "out" / f"{name}.json") for name in ("wan", "vq"))
    # 9 frames of 48 x 64 are 3 x 6 x 8 positions of 4 values in 16 bits, or 9 x 24 x 32 tokens of 5 bits.
    assert wan.content["rate"]["bits"] == 3 * 6 * 8 * 4 * 16
    assert vq.content["rate"]["bits"] == 9 * 24 * 32 * 5
    assert vq.content["codebook"]["size"] == 32
    assert wan.content["subject"]["class"] == "AutoencoderKLWan"
    assert wan.content["timing"]["this_run"]["videos"] == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert "AutoencoderKLWan of diffusers" in page
    assert page.count('class="group"') == 3  # two rates of models, and the transform
    assert main(arguments) == 0  # everything is kept
    assert Result.read(tmp_path / "out" / "wan.json").content["timing"]["this_run"]["videos"] == 0
