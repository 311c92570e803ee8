from __future__ import annotations

import hashlib
import os
from fractions import Fraction

import av
import numpy as np
import pytest

from tiny import draw
from vidtok import VidTokError
from vidtok.evaluation import codecs
from vidtok.evaluation.codecs import CODECS, Coding, RateSearch, check_codec, coded_pairs
from vidtok.metrics.image import psnr
from vidtok.video import Pixels, to_float

FPS = Fraction(25)


def video(frames: int, height: int = 64, width: int = 64) -> Pixels:
    """Grey waves: chroma of half the resolution costs them nothing."""
    grey = draw(frames, height, width).mean(3, keepdims=True)
    return np.repeat(np.round(grey), 3, axis=3).astype(np.uint8)


def code(name: str, frames: Pixels, crf: float, **options: object) -> tuple[Pixels, float, int]:
    """What comes back, its PSNR, and the bits."""
    coding = Coding(CODECS[name], crf, (frames.shape[1], frames.shape[2]), FPS, **options)  # type: ignore[arg-type]
    pairs = list(coded_pairs(coding, np.array_split(frames, 3)))
    np.testing.assert_array_equal(np.concatenate([pair.source for pair in pairs]), frames)
    scores = [psnr(pair.reconstruction, to_float(pair.source)).mean().item() for pair in pairs]
    back = np.concatenate([pair.reconstruction.numpy()[0].transpose(1, 2, 3, 0) for pair in pairs])
    return back, float(np.mean(scores)), coding.bits


@pytest.mark.parametrize("name", CODECS)
def test_frames_come_back_in_order_and_more_bits_are_better(name: str) -> None:
    frames = video(20)
    good, good_score, good_bits = code(name, frames, 10)
    _, poor_score, poor_bits = code(name, frames, 45)
    assert good.shape == frames.shape
    assert good_score > 38
    assert good_score > poor_score + 5
    assert 0 < poor_bits < good_bits / 2


@pytest.mark.parametrize("name", ["h264", "h265", "av1"])
def test_odd_sizes(name: str) -> None:
    _, score, _ = code(name, video(3, 65, 71), 10)
    assert score > 35


def test_colours_survive() -> None:
    frames = np.full((4, 64, 64, 3), (200, 40, 90), np.uint8)
    for name in CODECS:
        back, _, _ = code(name, frames, 5)
        np.testing.assert_allclose((back + 1) * 127.5, frames, atol=3.1, err_msg=name)


def test_the_encoders_note_about_itself_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    packets: list[bytes] = []
    count = codecs._note_bytes

    def note(packet: bytes) -> int:
        packets.append(packet)
        return count(packet)

    monkeypatch.setattr(codecs, "_note_bytes", note)
    coding = Coding(CODECS["h264"], 30, (64, 64), FPS)
    back = [frame for source in video(6) for frame in coding.push(source)] + coding.flush()
    units = packets[0].split(b"\0\0\1")
    talk = next(unit for unit in units if b"x264 - core" in unit)
    without = packets[0].replace(b"\0\0\1" + talk, b"")
    assert coding.bits == 8 * (len(b"".join(packets)) - len(talk) - 3)
    decoder = av.CodecContext.create("h264", "r")
    decoded = [frame for packet in (without, *packets[1:]) for frame in decoder.decode(av.Packet(packet))]
    decoded += decoder.decode(None)
    assert len(decoded) == 6
    for frame, expected in zip(decoded, back, strict=True):
        np.testing.assert_array_equal(codecs.RGBConverter()(frame), expected)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away")
@pytest.mark.parametrize("name", ["h264", "h264-444"])
def test_the_bytes_are_the_same_again_and_on_fewer_cores(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, packets = draw(50, 192, 256), []
    count = codecs._note_bytes
    monkeypatch.setattr(codecs, "_note_bytes", lambda packet: packets.append(packet) or count(packet))

    def coded() -> str:
        packets.clear()
        code(name, frames, 23)
        return hashlib.sha256(b"".join(packets)).hexdigest()

    cores = os.sched_getaffinity(0)
    first = coded()
    assert coded() == first
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert coded() == first
    finally:
        os.sched_setaffinity(0, cores)


def test_key_frames_come_as_often_as_asked_for() -> None:
    frames = video(24)
    _, _, free = code("h264", frames, 30)
    _, _, often = code("h264", frames, 30, key_interval=4)
    assert often > 1.2 * free


def test_the_search_reaches_the_bits() -> None:
    def size(crf: float) -> int:
        tried.append(crf)
        return round(1e6 * 2 ** (-crf / 5) * (1 + 0.2 * np.sin(crf / 8)))

    search = RateSearch(CODECS["h264"])
    for bits in (200_000, 50_000, 5_000, 190_000):
        tried: list[float] = []
        crf = search.find(bits, size)
        assert size(crf) == pytest.approx(bits, rel=0.03)
        assert len(tried) <= 8
    # Nearest it can, where the range or whole steps end.
    assert RateSearch(CODECS["h264"]).find(1e9, size) == 1
    assert RateSearch(CODECS["h264"]).find(1, size) == 51
    assert RateSearch(CODECS["av1"]).find(60_000, size).is_integer()


def test_codecs_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(VidTokError, match="there is no baseline 'h262'; expected one of h264, h264-444, h265"):
        check_codec("h262")

    def none(name: str, mode: str) -> None:
        raise ValueError(name)

    monkeypatch.setattr(av.CodecContext, "create", none)
    with pytest.raises(VidTokError, match=r"baseline av1 cannot be measured: this FFmpeg has no encoder libsvtav1"):
        check_codec("av1")


def test_frames_that_a_codec_cannot_take() -> None:
    coding = Coding(CODECS["h265"], 20, (4, 4), FPS)
    with pytest.raises(VidTokError, match=r"baseline h265 cannot code frames of 4 x 4 pixels"):
        coding.push(video(1, 4, 4)[0])
