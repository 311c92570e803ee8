"""Bits per pixel of tokens, latents and token files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tokens.token_files import make_header, write_file
from vidtok.metrics.rate import Rate, token_bits
from vidtok.tokens import read


def test_a_published_model_at_its_published_rate() -> None:
    """FSQ of 32,768 entries at 4 x 8 x 8: 15 bits for 256 pixels, but for the first frame."""
    rate = Rate()
    rate.update(17 * 256 * 256, tokens=5 * 32 * 32, codebook_size=32_768)
    figures = rate.result()
    assert token_bits(5 * 32 * 32, 32_768) == 15 * 5 * 32 * 32
    assert figures.nominal == pytest.approx(15 / 64 * 5 / 17)
    assert figures.stored is None


def test_values_of_a_latent_count_sixteen_bits() -> None:
    rate = Rate()
    rate.update(16 * 64 * 64, values=4 * 4 * 8 * 8, stored_bytes=512)
    assert rate.result().nominal == pytest.approx(16 * 4 / 256)
    assert rate.result().stored == pytest.approx(8 * 512 / (16 * 64 * 64))


def test_a_codec_has_no_nominal_rate() -> None:
    rate = Rate()
    rate.update(1000, stored_bytes=25)
    assert (rate.result().nominal, rate.result().stored) == (None, 0.2)


@pytest.mark.parametrize("coding", ["packed", "float16"])
def test_a_token_file_counts_its_bytes_and_its_values(tmp_path: Path, coding: str) -> None:
    path = tmp_path / "a.vtok"
    header = make_header(coding)
    write_file(path, header)
    rate = Rate()
    with read(path) as file:
        rate.update_file(file)
        pixels = file.frames * header.video.height * header.video.width
    figures = rate.result()
    bits = token_bits(11 * 15, 8 * 5 * 3) if coding == "packed" else 16 * 4 * 11 * 15
    assert figures.pixels == pixels == 41 * 21 * 39
    assert figures.nominal == pytest.approx(bits / pixels)
    assert figures.stored == 8 * path.stat().st_size / pixels


def test_parts_merge_to_the_whole() -> None:
    whole, together = Rate(), Rate()
    for number in range(1, 4):
        part = Rate()
        for rate in (whole, part):
            rate.update(1000 * number, tokens=10 * number, codebook_size=4096, stored_bytes=number)
        together.merge(Rate.from_state(json.loads(json.dumps(part.state()))))
    assert together == whole
    assert together.result().nominal == pytest.approx(60 * 12 / 6000)


def test_nothing_has_no_rate() -> None:
    with pytest.raises(ValueError, match="no pixels were counted"):
        Rate().result()
