"""Headers: JSON and back, and every value checked."""

from __future__ import annotations

import dataclasses
import json
from fractions import Fraction
from typing import Any

import pytest
from tests.tokens.token_files import make_header

from vidtok.tokens import Source, TokenFileError, TokenHeader


def full_header() -> TokenHeader:
    header = make_header()
    source = Source(name="ä b.mp4", bytes=12345, height=1080, width=1920, resized=(256, 455), crop=(0, 100),
                    codec="h264", pixel_format="yuv420p", whole=False)  # fmt: skip
    video = dataclasses.replace(header.video, fps=Fraction(30000, 1001), start=0.1, sample_aspect_ratio=Fraction(4, 3))
    return dataclasses.replace(header, source=source, video=video, encoding={"settings": {"fps": None, "x": [1.5]}})


def test_json_and_back() -> None:
    for header in (full_header(), make_header("float16", causal=False)):
        assert TokenHeader.from_json(header.to_json()) == header


def test_what_a_later_version_may_add_is_ignored() -> None:
    raw = json.loads(full_header().to_json())
    raw["tiles"] = {"size": 256}
    raw["latent"]["order"] = "raster"
    assert TokenHeader.from_json(json.dumps(raw).encode()) == full_header()


def changed(path: str, value: Any) -> bytes:
    raw = json.loads(full_header().to_json())
    *sections, key = path.split(".")
    place = raw
    for section in sections:
        place = place[section]
    if value is ...:
        del place[key]
    else:
        place[key] = value
    return json.dumps(raw).encode()


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("model", ..., "model is None; expected a mapping"),
        ("model.name", 3, "model.name is 3; expected text"),
        ("model.name", "a\nb", "model.name is 'a.nb'; expected text"),
        ("model.signs", ..., "model.signs is missing; expected text"),
        ("latent.coding", "zip", "latent.coding is 'zip'; expected one of packed, static"),
        ("latent.height", 0, "latent.height is 0; expected 1 to 4096"),
        ("latent.height", True, "latent.height is True; expected a whole number"),
        ("latent.width", 4, "latent.width is 4; expected 5, for 39 pixels at a factor of 8"),
        ("latent.channels", 10**9, "latent.channels is 1000000000; expected 1 to 1024"),
        ("latent.temporal_factor", 0, "latent.temporal_factor is 0"),
        ("latent.chunk", 5000, "latent.chunk is 5000; expected 1 to 4096"),
        ("latent.causal", 1, "latent.causal is 1; expected true or false"),
        ("latent.levels", [8, 5], "latent.levels is .8, 5.; expected 3 numbers of at least 2"),
        ("latent.levels", [8, 5, 1], "latent.levels"),
        ("latent.levels", [2000, 2000, 2000], "latent.levels.*below 2.31"),
        ("latent.levels", None, "latent.levels is None; expected the levels of each channel for tokens"),
        ("latent.levels", [8, 5, "3"], "latent.levels is .* a list of whole numbers"),
        ("video.height", -1, "video.height is -1"),
        ("video.fps", [1, 0], "video.fps is .1, 0.; expected .numerator, denominator."),
        ("video.fps", [-1, 2], "video.fps is '-1/2'; expected a positive fraction"),
        ("video.fps", 30, "video.fps is 30; expected .numerator"),
        ("video.start", "0", "video.start is '0'; expected a number"),
        ("video.start", 10**400, "video.start is 1000.*; expected a number"),
        ("video.start", 1e13, "video.start is 1[0]*.0; expected a number of seconds"),
        ("encoding", {"a": [{"b": 2**63}]}, "encoding is 9223372036854775808; expected numbers below 2.63"),
        ("source.crop", [1, 2, 3], "source.crop is .1, 2, 3.; expected two whole numbers"),
        ("source", [], "source is ..; expected a mapping"),
        ("encoding", 3, "encoding is 3; expected a mapping"),
    ],
)
def test_values_that_cannot_be(path: str, value: Any, message: str) -> None:
    with pytest.raises(TokenFileError, match=f"the header's {message}"):
        TokenHeader.from_json(changed(path, value))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b'{"a": NaN}', b'{"a": -1e999}', b"1" * 5000]
)
def test_what_is_no_json(content: bytes) -> None:
    with pytest.raises(TokenFileError, match="the header is not valid JSON"):
        TokenHeader.from_json(content)
    with pytest.raises(TokenFileError, match=r"the header's header is \[\]; expected a mapping"):
        TokenHeader.from_json(b"[]")


def test_chunks_are_bounded() -> None:
    with pytest.raises(TokenFileError, match=r"latent.chunk is 4096; expected at most 585 latent frames of this size"):
        make_header(grid=(128, 112), chunk=4096)
    with pytest.raises(TokenFileError, match=r"latent.chunk is 200; expected at most 32"):
        make_header("adaptive", grid=(128, 2), chunk=200)


def test_a_header_that_is_too_large() -> None:
    header = dataclasses.replace(make_header(), encoding={"note": "x" * (1 << 20)})
    with pytest.raises(TokenFileError, match=r"the header takes \d+ bytes; expected at most 1048576"):
        header.to_json()


def test_latent_frames_and_video_frames() -> None:
    causal, clips = make_header().latent, make_header(causal=False).latent
    assert [causal.frames_before(i) for i in range(4)] == [0, 1, 5, 9]
    assert [clips.frames_before(i) for i in range(4)] == [0, 4, 8, 12]
    assert [causal.latent_of(i) for i in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]
    assert [clips.latent_of(i) for i in (0, 3, 4)] == [0, 0, 1]


def deep(depth: int) -> dict[str, Any]:
    return {"a": deep(depth - 1)} if depth > 1 else {}


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ({"x": float("nan")}, "encoding is nan; expected numbers that are finite"),
        ({"x": [float("inf")]}, "encoding is inf; expected numbers that are finite"),
        ({"x": {1: 2}}, "encoding is 1; expected text for every name"),
        ({"x": {"y": {3}}}, "encoding is .3.; expected values that JSON has"),
        (deep(33), "encoding has mappings and lists more than 32 deep; expected fewer"),
    ],
)
def test_settings_that_no_header_can_hold(encoding: dict[str, Any], message: str) -> None:
    with pytest.raises(TokenFileError, match=f"the header's {message}"):
        dataclasses.replace(make_header(), encoding=encoding)
    header = dataclasses.replace(make_header(), encoding=deep(32))
    assert TokenHeader.from_json(header.to_json()) == header


def test_a_chunk_stands_for_a_bounded_number_of_frames() -> None:
    assert make_header(grid=(1, 1), factor=1024, chunk=64).latent.largest_chunk == 64
    with pytest.raises(TokenFileError, match=r"latent.chunk is 65; expected at most 64 latent frames of this size"):
        make_header(grid=(1, 1), factor=1024, chunk=65)
