"""The noise of a posterior follows from the generator's seed alone, and encoder and decoder may be apart."""

from __future__ import annotations

import pytest
import torch

from support import make_clip
from tiny import FSQ_1_1, KL_1_1, tiny_model


def test_a_seed_gives_one_latent_under_every_default_dtype_and_in_every_dtype() -> None:
    video = make_clip(1, 3, 9, 16, 16)
    models = {dtype: tiny_model(KL_1_1).to(dtype) for dtype in (torch.float32, torch.float64, torch.bfloat16)}

    def draw(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        model = models[dtype]
        drawn = model.encode(video, sample=True, generator=torch.Generator().manual_seed(7))
        return drawn, model.encode(video, sample=False)

    expected, mode = draw(torch.float32)
    assert (expected - mode).abs().max() > 0.1
    for default in (torch.float64, torch.bfloat16):
        torch.set_default_dtype(default)
        try:
            under_another, _ = draw(torch.float32)
        finally:
            torch.set_default_dtype(torch.float32)
        torch.testing.assert_close(under_another, expected, atol=1e-6, rtol=0)
    for dtype, tolerance in ((torch.float64, 1e-4), (torch.bfloat16, 0.1)):
        drawn, _ = draw(dtype)
        torch.testing.assert_close(drawn.float(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_1])
def test_encoder_and_decoder_may_have_dtypes_of_their_own(name: str) -> None:
    model = tiny_model(name)
    video = make_clip(1, 3, 9, 16, 16)
    z = model.encode(video, sample=False)
    expected = model.decode(z)
    model.decoder.to(torch.float64)
    torch.testing.assert_close(model.decode(z), expected.double(), atol=1e-4, rtol=0)
    stream = model.decode_stream()
    streamed = torch.cat([*map(stream.push, z.split(1, 2)), stream.flush()], 2)
    torch.testing.assert_close(streamed, expected.double(), atol=1e-4, rtol=0)
    model.decoder.float()
    model.encoder.to(torch.float64)
    _, reconstruction, _ = model(video, sample=False)
    assert reconstruction.dtype == torch.float32
    model.decoder.to("meta")
    assert model.decode(z).is_meta
