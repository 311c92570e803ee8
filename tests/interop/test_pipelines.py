"""`VidTokVAE` in diffusers' own pipelines, with tiny transformers of random weights, from an embedding to frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support import small_model
from vidtok import Tokenizer

diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'vidtok[diffusers]'")
pytest.importorskip("accelerate")
pytest.importorskip("transformers")

from vidtok.interop.vae import VidTokVAE  # noqa: E402

KL = "vidtok_kl_causal_488_16chn_v1_1"
FSQ = "vidtok_fsq_causal_488_32768_v1_1"
FRAMES, HEIGHT, WIDTH = 9, 32, 64
WORDS = 16
"""Width of the embeddings."""


def model(name: str) -> Tokenizer:
    return small_model(name, ch=8, ch_mult=(1, 1, 1, 1), num_res_blocks=1)


def vae_of(name: str = KL, **statistics: Any) -> VidTokVAE:
    found = model(name)
    known = {"latents_mean": [0.1] * found.z_channels, "latents_std": [1.5] * found.z_channels}
    return VidTokVAE.from_tokenizer(found, **{**known, **statistics})


def wan_transformer(channels: int, inputs: int | None = None) -> Any:
    torch.manual_seed(0)
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=inputs or channels,
        out_channels=channels, text_dim=WORDS, freq_dim=32, ffn_dim=24, num_layers=1, rope_max_seq_len=32,
    ).eval()  # fmt: skip


def wan(vae: Any, transformer: Any, kind: str = "WanPipeline") -> Any:
    parts: dict[str, Any] = {"tokenizer": None, "text_encoder": None, "vae": vae, "transformer": transformer}
    parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    pipe = getattr(diffusers, kind)(**parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def run(pipe: Any, **inputs: Any) -> np.ndarray:
    """The frames (T, H, W, 3) in 0..1 of two steps."""
    found = pipe(
        height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=2,
        generator=torch.Generator().manual_seed(0), output_type="np", **inputs,
    )  # fmt: skip
    frames = np.asarray(found.frames[0])
    assert frames.shape == (FRAMES, HEIGHT, WIDTH, 3)
    assert np.isfinite(frames).all()
    return frames


def embedding(seed: int = 0) -> torch.Tensor:
    return torch.randn(1, 8, WORDS, generator=torch.Generator().manual_seed(seed))


def test_wan_from_an_embedding_to_frames() -> None:
    vae = vae_of()
    pipe = wan(vae, wan_transformer(16))
    assert (pipe.vae_scale_factor_temporal, pipe.vae_scale_factor_spatial) == (4, 8)
    embeddings = {"prompt_embeds": embedding(), "negative_prompt_embeds": embedding(1)}
    frames = run(pipe, **embeddings)
    latents = pipe(
        height=HEIGHT, width=WIDTH, num_frames=FRAMES, num_inference_steps=2,
        generator=torch.Generator().manual_seed(0), output_type="latent", **embeddings,
    ).frames  # fmt: skip
    assert latents.shape == (1, 16, 3, 4, 8)
    own = vae.tokenizer.decode(latents * 1.5 + 0.1)  # the pipeline undoes the statistics
    expected = (own[0].permute(1, 2, 3, 0) / 2 + 0.5).clamp(0, 1).numpy()
    assert np.abs(frames - expected).max() < 1e-5


def test_wan_from_an_image_and_with_tokens() -> None:
    picture = torch.rand(1, 3, HEIGHT, WIDTH)
    for name, channels in ((KL, 16), (FSQ, 5)):
        # The transformer sees noise, the encoded picture, and a mask with a channel for each frame of a latent frame.
        pipe = wan(vae_of(name), wan_transformer(channels, 2 * channels + 4), "WanImageToVideoPipeline")
        run(pipe, image=picture, prompt_embeds=embedding(), negative_prompt_embeds=embedding(1))


def test_a_pipeline_is_saved_and_loaded_whole(tmp_path: Path) -> None:
    pipe = wan(vae_of(), wan_transformer(16))
    pipe.save_pretrained(tmp_path)
    again = diffusers.WanPipeline.from_pretrained(tmp_path, tokenizer=None, text_encoder=None)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.vae, VidTokVAE)
    inputs = {"prompt_embeds": embedding(), "negative_prompt_embeds": embedding(1)}
    # Weights lie elsewhere in memory, and PyTorch's kernels round by it.
    assert np.abs(run(pipe, **inputs) - run(again, **inputs)).max() < 1e-5


def cogvideox(vae: Any, kind: str, inputs: int, *, rotary: bool = False) -> Any:
    torch.manual_seed(0)
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=inputs, out_channels=16, time_embed_dim=8,
        text_embed_dim=WORDS, num_layers=1, sample_width=WIDTH // 8, sample_height=HEIGHT // 8, sample_frames=FRAMES,
        patch_size=2, temporal_compression_ratio=4, max_text_seq_length=8, use_rotary_positional_embeddings=rotary,
    ).eval()  # fmt: skip
    pipe = getattr(diffusers, kind)(None, None, vae, transformer, diffusers.CogVideoXDDIMScheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_cogvideox_from_an_embedding_and_from_an_image() -> None:
    vae = vae_of(scaling="whole")
    assert vae.config.scaling_factor == pytest.approx(1 / 1.5)
    inputs = {"prompt_embeds": embedding(), "negative_prompt_embeds": embedding(1)}
    pipe = cogvideox(vae, "CogVideoXPipeline", 16)
    assert (pipe.vae_scale_factor_temporal, pipe.vae_scale_factor_spatial) == (4, 8)
    run(pipe, **inputs)
    pipe = cogvideox(vae, "CogVideoXImageToVideoPipeline", 32)
    run(pipe, image=torch.rand(1, 3, HEIGHT, WIDTH), **inputs)


def ltx(vae: Any, kind: str) -> Any:
    torch.manual_seed(0)
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=16, out_channels=16, num_attention_heads=2, attention_head_dim=16, cross_attention_dim=32,
        num_layers=1, caption_channels=WORDS,
    ).eval()  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    pipe = getattr(diffusers, kind)(scheduler, vae, None, None, transformer)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_ltx_from_an_embedding_and_from_an_image() -> None:
    mask = torch.ones(1, 8, dtype=torch.bool)
    inputs = {
        "prompt_embeds": embedding(), "negative_prompt_embeds": embedding(1), "prompt_attention_mask": mask,
        "negative_prompt_attention_mask": mask,
    }  # fmt: skip
    vae = vae_of()
    pipe = ltx(vae, "LTXPipeline")
    assert (pipe.vae_temporal_compression_ratio, pipe.vae_spatial_compression_ratio) == (4, 8)
    run(pipe, **inputs)
    run(ltx(vae, "LTXImageToVideoPipeline"), image=torch.rand(1, 3, HEIGHT, WIDTH), **inputs)


def test_cosmos_reads_the_ratios() -> None:
    vae = vae_of()
    assert 2 ** sum(vae.temperal_downsample) == 4
    assert 2 ** len(vae.temperal_downsample) == 8
