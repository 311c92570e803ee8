"""Files of version 1 that were written once: they must be read for ever, with this content.

`python -m tests.tokens.test_contract` writes them anew, which is right only for a new version of the format, under a
new name.
"""

from __future__ import annotations

import dataclasses
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from tests.tokens.token_files import HASH, make_header

from vidtok.tokens import LATENT_CODINGS, TOKEN_CODINGS, Source, TokenFile, TokenHeader, TokenWriter

DATA = Path(__file__).parent / "data"
CODINGS = TOKEN_CODINGS + LATENT_CODINGS
LATENTS = 7
FRAMES = 23
TIMES = [i**2 / 64 for i in range(FRAMES)]


def sample_header(coding: str) -> TokenHeader:
    header = make_header(coding, levels=(8, 5, 3), grid=(6, 10), chunk=3, fps=Fraction(24000, 1001))
    source = Source(name="clip.mp4", bytes=4321, height=48, width=64, resized=(45, 79), crop=(0, 0), codec="h264",
                    pixel_format="yuv420p")  # fmt: skip
    return dataclasses.replace(header, source=source, encoding={"settings": {"coding": coding}})


def sample_values(coding: str) -> torch.Tensor:
    """Values that every coding but int8 holds exactly, and int8 to half a step."""
    if coding in TOKEN_CODINGS:
        places = torch.arange(LATENTS * 60)
        # The first chunk does not compress, the others do.
        tokens = torch.where(places < 180, (places * places * 7 + places * 3) % 120, (places // 7) % 5)
        return tokens.to(torch.int32).view(1, LATENTS, 6, 10)
    places = torch.arange(4 * LATENTS * 60)
    return ((places * 37 % 101 - 50) / 16).view(1, 4, LATENTS, 6, 10)


def write_sample(path: Path, coding: str) -> None:
    with TokenWriter(path, sample_header(coding)) as writer:
        writer.write(sample_values(coding), TIMES if coding == "static" else None)
        writer.finish(FRAMES)


@pytest.mark.parametrize("coding", CODINGS)
def test_a_file_of_version_1_is_read(coding: str) -> None:
    expected = sample_values(coding)
    with TokenFile(DATA / f"v1-{coding}.vtok") as file:
        assert file.header == sample_header(coding)
        assert file.header.model.weights == HASH
        assert (file.frames, file.latent_frames, file.complete, len(file.entries)) == (FRAMES, LATENTS, True, 3)
        assert file.damages() == []
        values = file.read()
        if coding == "int8":
            assert (values - expected).abs().max() <= 50 / 16 / 127 * 0.5001
        else:
            assert torch.equal(values, expected.to(values.dtype))
        if coding == "static":
            assert file.times().tolist() == TIMES
        else:
            assert file.times().tolist() == [i / (24000 / 1001) for i in range(FRAMES)]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_file_of_version_1_is_still_written_like_that(coding: str, tmp_path: Path) -> None:
    write_sample(tmp_path / "new.vtok", coding)
    assert (tmp_path / "new.vtok").read_bytes() == (DATA / f"v1-{coding}.vtok").read_bytes()


if __name__ == "__main__":
    for name in CODINGS:
        write_sample(DATA / f"v1-{name}.vtok", name)
