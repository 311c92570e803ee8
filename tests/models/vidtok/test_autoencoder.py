"""What every configuration owes: published names and shapes, clips of any size, precisions, training features."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support import ALL_MODELS, TESTS, make_clip, small_config, small_model
from vidtok import FSQConfig, Tokenizer
from vidtok.config.read import read_config

PUBLISHED = json.loads((TESTS / "golden" / "state_dict" / "vidtok.json").read_text())
VARIANTS = [
    "vidtok_kl_causal_488_4chn",
    "vidtok_kl_causal_488_4chn_v1_1",
    "vidtok_fsq_causal_888_32768_v1_1",
    "vidtok_fsq_noncausal_41616_262144",
]


def rms(x: torch.Tensor) -> torch.Tensor:
    return x.float().square().mean().sqrt()


@pytest.mark.parametrize("name", ALL_MODELS)
def test_parameters_are_named_and_shaped_as_published(name: str) -> None:
    with torch.device("meta"):
        model = Tokenizer(read_config(name).model)
    known = PUBLISHED["models"][name]
    expected = {**PUBLISHED["layouts"][known["layout"]], **known["shapes"]}
    assert {key: list(value.shape) for key, value in model.state_dict().items()} == expected


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(("frames", "height", "width"), [(1, 1, 1), (1, 37, 20), (2, 16, 33), (16, 8, 8), (18, 9, 31)])
def test_any_size_comes_back_in_that_size(name: str, frames: int, height: int, width: int) -> None:
    model = small_model(name)
    video = make_clip(2, 3, frames, height, width)
    z, reconstruction, _ = model(video, sample=False)
    factor, shrink = model.config.temporal_factor, model.config.spatial_factor
    latent_frames = 1 + -(-(frames - 1) // factor) if model.is_causal else -(-frames // factor)
    assert z.shape == (2, model.config.z_channels, latent_frames, -(-height // shrink), -(-width // shrink))
    assert reconstruction.shape == video.shape
    assert reconstruction.isfinite().all()


@pytest.mark.parametrize("name", VARIANTS)
def test_padding_repeats_the_last_frame_row_and_column(name: str) -> None:
    model = small_model(name)
    video = make_clip(1, 3, 6, 30, 27)
    frames = 9 if model.is_causal else 8
    by_hand = torch.cat([video, *[video[:, :, -1:]] * (frames - 6)], 2)
    by_hand = torch.cat([by_hand, *[by_hand[..., -1:, :]] * 2], 3)
    by_hand = torch.cat([by_hand, *[by_hand[..., -1:]] * 5], 4)
    torch.testing.assert_close(model.encode(video, sample=False), model.encode(by_hand, sample=False))


@pytest.mark.parametrize("name", VARIANTS)
def test_clips_of_a_batch_do_not_mix(name: str) -> None:
    model = small_model(name, dtype=torch.float64)
    video = torch.cat([make_clip(1, 3, 9, 32, 16), make_clip(1, 3, 9, 32, 16, name="other")])
    _, together, _ = model(video, sample=False)
    apart = torch.cat([model(clip, sample=False)[1] for clip in video.split(1)])
    torch.testing.assert_close(together, apart, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_stays_near_float32(name: str, dtype: torch.dtype) -> None:
    model = small_model(name)
    video = make_clip(1, 3, 9, 32, 32)
    z = model.encode(video, sample=False)
    exact = model.decode(z)
    low = model.to(dtype).decode(z)
    assert low.dtype == dtype
    assert rms(low - exact) < (0.06 if dtype == torch.bfloat16 else 0.005) * rms(exact)
    assert model.moments(video).dtype == dtype
    assert model.encode(video, sample=False).dtype == dtype


@pytest.mark.parametrize("name", VARIANTS)
def test_autocast_stays_near_float32(name: str) -> None:
    model = small_model(name)
    video = make_clip(1, 3, 9, 32, 32)
    z = model.encode(video, sample=False)
    exact = model.decode(z)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        close = model.decode(z)
        _, log = model.encode(video, return_reg_log=True)
    assert rms(close - exact) < 0.06 * rms(exact)
    if "indices" in log:
        assert int(log["indices"].max()) < model.regularization.codebook_size


def test_groupnorm_variants_run_on_any_size() -> None:
    for name in VARIANTS:
        model = small_model(name, ch=32, norm_type="groupnorm")
        video = make_clip(1, 3, 5, 17, 16)
        assert model(video, sample=False)[1].shape == video.shape


@pytest.mark.gradients
@pytest.mark.parametrize("name", VARIANTS)
def test_recomputing_activations_changes_no_gradient(name: str) -> None:
    model = small_model(name).train()
    video = make_clip(1, 3, 9, 16, 16)

    def gradients(**changes: Any) -> dict[str, torch.Tensor]:
        twin = Tokenizer(small_config(name, **changes)).train()
        twin.load_state_dict(model.state_dict())
        _, reconstruction, log = twin(video, sample=False)
        loss = reconstruction.square().mean() + sum(v for key, v in log.items() if key.endswith("_loss")) * 1e-3
        loss.backward()
        return {key: value.grad for key, value in twin.named_parameters() if value.grad is not None}

    plain, recomputed = gradients(), gradients(use_checkpoint=True)
    assert plain.keys() == recomputed.keys() == dict(model.named_parameters()).keys()
    for key, value in plain.items():
        torch.testing.assert_close(recomputed[key], value, msg=key)


@pytest.mark.gradients
@pytest.mark.parametrize("name", VARIANTS)
def test_result_with_gradients_equals_result_without(name: str) -> None:
    model = small_model(name, dtype=torch.float64)
    video = make_clip(1, 3, 9, 16, 16)
    _, with_gradients, _ = model(video, sample=False)
    with torch.no_grad():
        _, without, _ = model(video, sample=False)
    torch.testing.assert_close(with_gradients, without, atol=1e-9, rtol=0)


@pytest.mark.gradients
def test_dropout_acts_in_training_only() -> None:
    model = small_model("vidtok_kl_causal_488_4chn_v1_1", dropout=0.5)
    video = make_clip(1, 3, 5, 16, 16)
    torch.testing.assert_close(model.moments(video), model.moments(video), atol=0, rtol=0)
    model.train()
    assert not torch.equal(model.moments(video), model.moments(video))


def test_temporal_blocks_start_as_the_identity() -> None:
    model = Tokenizer(small_config("vidtok_kl_causal_488_4chn_v1_1"))
    block = model.encoder.down_temporal[0].block[0]
    assert not any(parameter.any() for parameter in block.conv2.parameters())
    assert block.conv1.conv.weight.any()


def test_kl_samples_or_takes_the_mode() -> None:
    model = small_model("vidtok_kl_causal_488_4chn")
    video = make_clip(1, 3, 5, 16, 16)
    mean = model.moments(video).chunk(2, 1)[0]
    torch.testing.assert_close(model.encode(video, sample=False), mean, atol=0, rtol=0)
    draws = [model.encode(video, generator=torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(model.encode(video), model.encode(video))
    model.regularization.sample = False
    torch.testing.assert_close(model.encode(video), mean, atol=0, rtol=0)


def test_kl_noise_has_the_posterior_spread() -> None:
    model = small_model("vidtok_kl_causal_488_4chn")
    moments = torch.cat([torch.full((1, 4, 3, 32, 32), 2.0), torch.full((1, 4, 3, 32, 32), -1.5)], 1)
    z, log = model.regularization(moments, generator=torch.Generator().manual_seed(0))
    assert abs(z.mean() - 2.0) < 0.02
    assert abs(z.std() - torch.exp(torch.tensor(-0.75))) < 0.02
    per_value = 0.5 * (4 + torch.exp(torch.tensor(-1.5)) - 1 + 1.5)
    torch.testing.assert_close(log["kl_loss"], per_value * 4 * 3 * 32 * 32, rtol=1e-5, atol=0)


def test_log_variance_is_clamped() -> None:
    model = small_model("vidtok_kl_causal_488_4chn")
    moments = torch.cat([torch.zeros(1, 4, 1, 2, 2), torch.full((1, 4, 1, 2, 2), 1e4)], 1)
    assert model.regularization(moments)[1]["kl_loss"].isfinite()


@settings(deadline=None, max_examples=20)
@given(levels=st.lists(st.integers(2, 9), min_size=1, max_size=7), seed=st.integers(0, 2**16))
def test_any_level_set_goes_both_ways(levels: list[int], seed: int) -> None:
    bottleneck = FSQConfig(levels=tuple(levels))
    model = Tokenizer(small_config("vidtok_fsq_causal_488_4096", z_channels=len(levels), bottleneck=bottleneck)).eval()
    indices = torch.randint(bottleneck.codebook_size, (2, 3, 2, 4), generator=torch.Generator().manual_seed(seed))
    z = model.latent(indices, decode_from_indices=True)
    assert z.shape == (2, len(levels), 3, 2, 4)
    assert z.abs().max() <= 1
    torch.testing.assert_close(
        model.decode(indices, decode_from_indices=True), model.decode(z), atol=0, rtol=0
    )  # fmt: skip


def test_every_code_of_the_largest_codebook_survives() -> None:
    model = small_model("vidtok_fsq_causal_488_262144")
    every = torch.arange(8**6).view(1, 64, 64, 64)
    codes = model.latent(every, decode_from_indices=True)
    # A bounded value is its code, so what bounds to it quantizes to the same index.
    half = 3.5 * (1 + 1e-3)
    values = torch.atanh((codes.double() * 4 + 0.5) / half) - torch.atanh(torch.tensor(0.5 / half, dtype=torch.float64))
    quantized, log = model.regularization(values.float())
    assert torch.equal(log["indices"].long(), every)
    assert torch.equal(quantized, codes)


@pytest.mark.parametrize(
    ("name", "video", "message"),
    [
        (VARIANTS[0], torch.zeros(3, 4, 8, 8), r"shape \(3, 4, 8, 8\); expected \(B, 3, T, H, W\)"),
        (VARIANTS[0], torch.zeros(1, 4, 1, 8, 8), r"expected \(B, 3, T, H, W\)"),
        (VARIANTS[0], torch.zeros(1, 3, 0, 8, 8), "no dimension empty"),
        (VARIANTS[0], torch.zeros(1, 3, 1, 8, 8, dtype=torch.uint8), "dtype torch.uint8"),
    ],
)
def test_unfit_video_is_refused(name: str, video: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(name).encode(video)


def test_what_is_no_tensor_and_a_size_beyond_the_latent_are_refused() -> None:
    model = small_model(VARIANTS[1])
    with pytest.raises(ValueError, match="the video is a ndarray; expected a tensor"):
        model.encode(make_clip(1, 3, 1, 8, 8).numpy())
    z = model.encode(make_clip(1, 3, 5, 8, 8), sample=False)
    with pytest.raises(ValueError, match=r"size is \(6, 8, 8\), more than the \(5, 8, 8\)"):
        model.decode(z, size=(6, 8, 8))


@pytest.mark.parametrize(
    ("name", "latent", "from_indices", "message"),
    [
        ("vidtok_kl_causal_488_4chn", torch.zeros(1, 5, 2, 2, 2), False, r"expected \(B, 4, T', H', W'\)"),
        ("vidtok_kl_causal_488_4chn", torch.zeros(1, 4, 2, 2, 2, dtype=torch.int32), False, "expected float"),
        ("vidtok_kl_causal_488_4chn", torch.zeros(1, 2, 2, 2, dtype=torch.int32), True, "no token indices"),
        ("vidtok_fsq_causal_488_4096", torch.zeros(1, 2, 2, 2), True, "expected whole numbers"),
        ("vidtok_fsq_causal_488_4096", torch.full((1, 1, 2, 2), 4096), True, "0 to 4095"),
        ("vidtok_fsq_causal_488_4096", torch.full((1, 1, 2, 2), -1), True, "0 to 4095"),
        ("vidtok_fsq_causal_488_4096", torch.zeros(1, 4, 1, 2, 2).int(), True, r"expected \(B, T', H', W'\)"),
    ],
)  # fmt: skip
def test_unfit_latent_is_refused(name: str, latent: torch.Tensor, from_indices: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        small_model(name).decode(latent, decode_from_indices=from_indices)
