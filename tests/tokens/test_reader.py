"""Reading token files whose gaps, headers and junk say more than they hold: bounded work, one line for each gap."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.tokens.token_files import draw_values, make_header, resealed, write_file

from vidtok.cli import main
from vidtok.jobs import Decoding
from vidtok.tokens import ChunkEntry, DamagedTokenFileError, TokenFile, TokenFileError, export_file, reader
from vidtok.tokens.container import chunk, preamble
from vidtok.tokens.values import encode_values

HEADER = make_header(chunk=4)
VALUES = draw_values(HEADER, 4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "video.vtok"


def write_chunks(path: Path, places: Sequence[int], *, between: bytes = b"") -> None:
    """A file without an index that has the same chunk of four latent frames at each of `places`."""
    content = preamble(HEADER)
    payload, _ = encode_values(VALUES[0], HEADER.latent)
    for first in places:
        frames = HEADER.latent.frames_before(first + 4) - HEADER.latent.frames_before(first)
        content += chunk(ChunkEntry(0, first, 4, frames), payload, 0) + between
    path.write_bytes(content)


def test_a_gap_is_one_line_and_is_bridged_piece_by_piece(path: Path) -> None:
    write_chunks(path, [0, 12, 16, 40])
    with TokenFile(path) as file:
        assert file.damages()[:2] == [
            "chunks 1 to 2 (frames 13 to 44) are missing",
            "chunks 5 to 9 (frames 77 to 156) are missing",
        ]
        assert len(file.damages()) == 3  # and the end is missing
        with pytest.raises(DamagedTokenFileError, match=r"chunks 1 to 2 \(frames 13 to 44\) are missing; decode the"):
            file.read()
        pieces = list(file.chunks(2, 42, skip_damaged=True))
        assert [piece.first_latent for piece in pieces] == [2, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40]
        assert [piece.latents for piece in pieces] == [2, *[4] * 9, 2]
        assert [bool(piece.damage) for piece in pieces] == [False, True, True, False, False, *[True] * 5, False]
        rest = file.read(skip_damaged=True)
        assert torch.equal(rest[:, 4:12], VALUES[:, 3:].expand(-1, 8, -1, -1))
        assert torch.equal(rest[:, 12:16], VALUES)
        times = file.times(skip_damaged=True)
        np.testing.assert_allclose(times, np.arange(file.frames) / 25)
        assert file.times(20, 30, skip_damaged=True).tolist() == times[20:30].tolist()


def test_a_hundred_large_gaps_cost_a_line_each(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_chunks(path, [65_536 * i for i in range(100)])
    with TokenFile(path) as file:
        assert len(file.damages()) == 100
        expected = r"nothing between the latent frames 4 and 65536 and in 98 other places, more than the 65,536 latent"
        for skip in (False, True):
            with pytest.raises(TokenFileError, match=expected):
                next(file.chunks(skip_damaged=skip))
        with pytest.raises(TokenFileError, match="has the times of more than 16,777,216 frames; ask for fewer at once"):
            file.times(skip_damaged=True)
        assert torch.equal(file.read(65_536, 65_540), VALUES)
        assert file.read(65_500, 65_540, skip_damaged=True).shape[1] == 40
    assert main(["info", str(path), "--check"]) == 2
    assert capsys.readouterr().err.count("\n") < 30
    assert main(["info", str(path), "--check", "--json"]) == 2
    assert capsys.readouterr().out.count("are missing") == 99


def test_damaged_chunks_count_as_gaps_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "MAX_BRIDGED", 6)
    write_chunks(path, range(0, 40, 4))
    content = bytearray(path.read_bytes())
    with TokenFile(path) as file:
        for entry in file.entries[2:5]:
            content[entry.offset + 40] ^= 1
    path.write_bytes(content)
    with TokenFile(path) as file:
        assert file.read(0, 14, skip_damaged=True).shape[1] == 14
        with pytest.raises(TokenFileError, match=r"is damaged beyond use: chunk 3 \(frames 45 to 60\) is damaged: it "):
            file.read(skip_damaged=True)


def test_what_bridges_a_gap_is_said_once(path: Path) -> None:
    write_chunks(path, [0, 12])

    class Noted(Decoding):
        def __init__(self, file: TokenFile) -> None:
            self.latents, self.damages = 0, []
            for piece in file.chunks(skip_damaged=True):
                self._note(piece)

    with TokenFile(path) as file:
        noted = Noted(file)
    assert (noted.latents, noted.damages) == (16, ["chunks 1 to 2 (frames 13 to 44) are missing"])


def test_many_chunks_between_junk_are_found_one_after_another(path: Path) -> None:
    write_chunks(path, range(0, 8000, 4), between=b"?")
    with TokenFile(path) as file:
        assert [entry.first_latent for entry in file.entries] == list(range(0, 8000, 4))


def test_junk_that_looks_like_chunks(path: Path) -> None:
    write_chunks(path, [0])
    path.write_bytes(path.read_bytes() + b"CHNKINDX" * 2000 + b"CHN")
    with TokenFile(path) as file:
        assert (file.complete, file.latent_frames) == (False, 4)


def with_encoding(path: Path, text: str) -> Path:
    """A sound file whose header has `text` as its `encoding`."""
    write_file(path, HEADER)
    content = path.read_bytes()
    length = int.from_bytes(content[12:16], "little")
    header = content[24 : 24 + length].replace(b'"encoding": {}', b'"encoding": ' + text.encode())
    fixed = content[:12] + len(header).to_bytes(4, "little") + zlib.crc32(header).to_bytes(4, "little")
    path.write_bytes(resealed(fixed + bytes(4) + header + content[24 + length :]))
    return path


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"x": 1e999}', "the header is not valid JSON (1e999 is beyond all numbers that can be computed with)"),
        ('{"x": [NaN]}', "the header is not valid JSON (NaN is not a number that JSON has)"),
        ('{"x": 1' + "0" * 30 + "}", "the header's encoding is 1" + "0" * 30 + "; expected numbers below 2^63"),
        ('{"x": ' + "[" * 32 + "]" * 32 + "}", "the header's encoding has mappings and lists more than 32 deep"),
        ('{"x": ' + "[" * 400 + "]" * 400 + "}", "the header's encoding has mappings and lists more than 32 deep"),
        ("3", "the header's encoding is 3; expected a mapping"),
    ],
)
def test_headers_that_say_too_much_are_one_error_everywhere(
    path: Path, tmp_path: Path, text: str, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with_encoding(path, text)
    for command in (["info"], ["info", "--json"], ["decode", "-o", str(tmp_path / "out.mp4")]):
        assert main([*command, str(path)]) == 2
        captured = capsys.readouterr()
        assert (captured.out, captured.err.count("\n")) == ("", 1)
        assert captured.err.startswith(f"error: {path}: {expected}")
    with pytest.raises(TokenFileError, match="the header"):
        export_file(path, tmp_path / "out.safetensors")


def test_depth_up_to_the_limit_is_read(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", str(with_encoding(path, '{"x": ' + "[" * 31 + "]" * 31 + "}"))]) == 0
    assert capsys.readouterr().out.count("[") >= 31
