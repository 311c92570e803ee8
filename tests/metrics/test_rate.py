"""Bits per pixel of tokens, latents and token files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tokens.token_files import make_header, write_file
from vidtok.metrics.rate import bits_per_pixel, compression, nominal_bits
from vidtok.tokens import read


def test_a_published_model_at_its_published_rate() -> None:
    """FSQ of 32,768 entries at 4 x 8 x 8: 15 bits for 256 pixels, but for the first frame."""
    bits = nominal_bits(5 * 32 * 32, 5, 32_768)
    assert bits == 15 * 5 * 32 * 32
    assert bits_per_pixel(bits, 17 * 256 * 256) == pytest.approx(15 / 64 * 5 / 17)


def test_values_of_a_latent_count_sixteen_bits() -> None:
    assert bits_per_pixel(nominal_bits(4 * 8 * 8, 4, None), 16 * 64 * 64) == pytest.approx(16 * 4 / 256)


def test_uncompressed_video_is_not_smaller() -> None:
    assert compression(bits_per_pixel(8 * 3 * 1000, 1000)) == 1
    assert compression(0.5) == 48


@pytest.mark.parametrize("coding", ["packed", "float16"])
def test_a_token_file_costs_its_bytes_and_nominally_its_values(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "a.vtok"
    write_file(path, make_header(coding))
    with read(path) as file:
        latent, pixels = file.header.latent, math.prod(file.size)
        stored = bits_per_pixel(8 * file.bytes, pixels)
        positions = file.latent_frames * latent.height * latent.width
        nominal = bits_per_pixel(nominal_bits(positions, latent.channels, latent.codebook_size), pixels)
    assert pixels == 41 * 21 * 39
    assert stored == 8 * path.stat().st_size / pixels
    bits = 11 * 15 * math.log2(8 * 5 * 3) if coding == "packed" else 16 * 4 * 11 * 15
    assert nominal == pytest.approx(bits / pixels)
