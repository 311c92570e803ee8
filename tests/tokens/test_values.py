"""Latents in every coding: what comes back, how exactly, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.tokens.token_files import draw_values, make_header

from vidtok.tokens import LATENT_CODINGS, TOKEN_CODINGS, TokenFileError
from vidtok.tokens.values import STORED, ValuesError, decode_values, encode_values, int8_error, stored_size


@pytest.mark.parametrize("coding", LATENT_CODINGS)
def test_latents_come_back_as_exactly_as_their_coding_allows(coding: str) -> None:
    latent = make_header(coding).latent
    values = draw_values(make_header(coding), 4) * torch.tensor([0.01, 1, 30, 2000]).view(1, 4, 1, 1, 1)
    content, packed = encode_values(values[0], latent)
    assert not packed
    assert len(content) == stored_size(latent, 4)
    back = decode_values(content, latent, 4, packed=False)
    assert back.dtype == STORED[coding]
    if coding == "int8":
        largest = values.abs().amax((0, 2, 3, 4))
        assert ((back - values).abs().amax((0, 2, 3, 4)) <= largest / 127 * 0.501).all()
    else:
        assert torch.equal(back, values.to(back.dtype))


def test_int8_stored_again_is_the_same() -> None:
    latent = make_header("int8").latent
    for seed in range(20):
        values = draw_values(make_header("int8"), 4, seed) * 10.0 ** (seed - 10)
        values[0, 3] = 0
        content, _ = encode_values(values[0], latent)
        back = decode_values(content, latent, 4, packed=False)
        assert encode_values(back[0], latent)[0] == content
        assert (back[0, 3] == 0).all()


def test_what_int8_costs() -> None:
    header = make_header("int8")
    values = draw_values(header, 200)[0]
    signal, noise = int8_error(values, header.latent)
    assert signal == pytest.approx(values.numel(), rel=0.05)
    # Steps of 1/127 of the largest, about 4 sigma of 3,000 values, with an even error of 1/12 of a step squared.
    step = values.abs().flatten(1).amax(1).mean() / 127
    assert noise / values.numel() == pytest.approx(float(step**2) / 12, rel=0.1)


@settings(deadline=None, max_examples=40)
@given(
    coding=st.sampled_from(TOKEN_CODINGS + LATENT_CODINGS), frames=st.integers(1, 9),
    grid=st.tuples(*[st.integers(1, 6)] * 2),
    levels=st.lists(st.integers(2, 9), min_size=1, max_size=6), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_sizes_and_levels_of_all_kinds(
    coding: str, frames: int, grid: tuple[int, int], levels: list[int], seed: int
) -> None:
    header = make_header(coding, levels=tuple(levels), grid=grid, chunk=9)
    values = draw_values(header, frames, seed)
    content, packed = encode_values(values[0], header.latent)
    back = decode_values(content, header.latent, frames, packed=packed)
    if coding == "int8":
        assert (back - values).abs().max() <= values.abs().max() / 127
    else:
        assert torch.equal(back, values.to(back.dtype))


def test_tokens_that_no_coding_makes_smaller_are_packed() -> None:
    latent = make_header("static").latent
    values = draw_values(make_header("static"), 4)[0]
    content, packed = encode_values(values, latent)
    assert packed
    assert len(content) == stored_size(dataclasses.replace(latent, coding="packed"), 4)
    content, packed = encode_values(torch.zeros(400, 3, 5, dtype=torch.int32), latent)
    assert not packed
    assert len(content) < 100


@pytest.mark.parametrize(
    ("coding", "values", "message"),
    [
        ("packed", torch.tensor([[[0, 120]]]), r"tokens run from 0 to 120; the codebook has 0 to 119"),
        ("adaptive", torch.tensor([[[-1, 3]]]), r"tokens run from -1 to 3"),
        ("float16", torch.full((4, 1, 3, 5), 1e5), r"the latent reaches 1e\+05, beyond float16; store bfloat16"),
        ("float32", torch.full((4, 1, 3, 5), float("nan")), r"values that are not finite; compute in float32"),
        ("int8", torch.full((4, 1, 3, 5), float("inf")), r"values that are not finite"),
    ],
)
def test_values_that_cannot_be_stored(coding: str, values: torch.Tensor, message: str) -> None:
    with pytest.raises(TokenFileError, match=message):
        encode_values(values, make_header(coding).latent)


def test_bytes_that_are_no_values() -> None:
    floats = make_header("float32").latent
    with pytest.raises(ValuesError, match="it has 7 bytes of values; expected 240"):
        decode_values(bytes(7), floats, 1, packed=False)
    with pytest.raises(ValuesError, match="not finite"):
        decode_values(np.full(60, np.nan, "<f4").tobytes(), floats, 1, packed=False)
    int8 = make_header("int8").latent
    with pytest.raises(ValuesError, match="scales that are negative or not finite"):
        decode_values(np.full(4, -1, "<f4").tobytes() + bytes(60), int8, 1, packed=False)
    with pytest.raises(ValuesError, match="not finite"):
        decode_values(np.full(4, 3e38, "<f4").tobytes() + bytes([127] * 60), int8, 1, packed=False)
    with pytest.raises(ValuesError, match="tokens beyond the codebook of 120"):
        decode_values(bytes([255] * 14), make_header("packed").latent, 1, packed=False)
    with pytest.raises(ValuesError, match="its tokens cannot be decoded: it is too short"):
        decode_values(b"", make_header("static").latent, 1, packed=False)
