"""How far a decoder looks back is derived from its layers, and is neither too little nor too much."""

from __future__ import annotations

import pytest
import torch

from support import CAUSAL_SAMPLE, make_clip, small_model
from vidtok import Tokenizer
from vidtok.models.vidtok.receptive import first_exact_frame


def narrow(name: str, dtype: torch.dtype = torch.float32) -> Tokenizer:
    """A model with all the layers of `name`, four channels wide."""
    levels = 5 if "_41616_" in name else 4
    return small_model(name, dtype=dtype, ch=4, ch_mult=(1,) * levels)


def decode_from(model: Tokenizer, z: torch.Tensor, latent: int) -> torch.Tensor:
    """What a stream that starts at `latent` makes of the rest of `z`."""
    with model.decode_stream() as stream:
        return torch.cat([stream.push(z[:, :, latent:]), stream.flush()], 2)


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_no_frame_before_it_is_free_of_what_came_before_and_all_after_it_are(name: str) -> None:
    model = narrow(name)
    for spoiled in (1, 3):
        expected = first_exact_frame(model.decoder, spoiled)
        z = make_clip(1, model.config.z_channels, expected // model.config.temporal_factor + 3, 1, 1)
        z[:, :, :spoiled] = float("nan")  # what depends on these in any way is not a number
        clean = model.decode(z).isfinite().flatten(3).all(-1).all(1)[0]
        assert clean[expected:].all()
        assert not clean[:expected].any()
        assert model.start_latent(expected) == spoiled
        assert model.start_latent(expected - 1) == spoiled - 1


@pytest.mark.parametrize("name", CAUSAL_SAMPLE)
def test_a_stream_that_starts_there_is_exact(name: str) -> None:
    model = narrow(name, torch.float64)
    factor = model.config.temporal_factor
    first = first_exact_frame(model.decoder, 2)
    z = make_clip(1, model.config.z_channels, first // factor + 3, 1, 2)
    whole, part = model.decode(z), decode_from(model, z, 2)
    assert part.shape[2] == whole.shape[2] - 2 * factor
    torch.testing.assert_close(part[:, :, first - 2 * factor :], whole[:, :, first:], atol=1e-9, rtol=0)


def test_a_latent_frame_less_is_not_enough() -> None:
    model = small_model("vidtok_kl_causal_288_8chn", dtype=torch.float64, ch_mult=(1, 1), num_res_blocks=1,
                        spatial_ds=None, spatial_us=None, tempo_ds=None, tempo_us=None)  # fmt: skip
    first = first_exact_frame(model.decoder, 1)
    z = make_clip(1, 8, first // 2 + 3, 4, 4)
    enough, late = decode_from(model, z, 1), decode_from(model, z, 2)
    whole = model.decode(z)[:, :, first:]
    torch.testing.assert_close(enough[:, :, first - 2 :], whole, atol=1e-9, rtol=0)
    assert (late[:, :, first - 4 :] - whole).abs().max() > 1e-7


def test_the_start_needs_no_warm_up_and_clips_have_none() -> None:
    model = narrow("vidtok_kl_causal_488_4chn")
    assert first_exact_frame(model.decoder, 0) == 0
    assert model.start_latent(0) == 0
    with pytest.raises(ValueError, match="sees whole clips"):
        first_exact_frame(small_model("vidtok_kl_noncausal_488_4chn").decoder, 1)
