"""Files whose clocks start again, stand still, leap or are coarse: frames in order, with the times of the whole."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.video.video_files import make_video, number_of, numbered

from vidtok.video import VideoReader, VideoWriter, probe, read_clip

SIZE = (32, 192)
X264 = {"preset": "veryfast", "g": "12", "bf": "2"}


def read(path: Path, start: float = 0.0, limit: int | None = None) -> list[tuple[int, float]]:
    with VideoReader(path, start=start, max_frames=limit) as reader:
        return [(number_of(frame.pixels), round(frame.time, 4)) for frame in reader]


def joined(folder: Path, suffix: str, pieces: list[range], **arguments: object) -> Path:
    """Recordings one after another in one file, each with a clock that starts at the same time."""
    whole = folder / f"joined.{suffix}"
    with whole.open("wb") as file:
        for piece in pieces:
            frames = [numbered(i, SIZE) for i in piece]
            made = {"fps": 25, "options": X264} | arguments
            file.write(make_video(folder / f"piece.{suffix}", frames, **made).read_bytes())
    return whole


@pytest.mark.parametrize(
    ("suffix", "codec", "options"),
    [
        ("ts", "libx264", X264),
        ("ts", "libx264", {"preset": "veryfast", "g": "250", "bf": "3"}),
        ("ts", "mpeg2video", {"g": "12", "bf": "2"}),
        ("m2ts", "mpeg4", {"g": "12"}),
        ("mpg", "mpeg2video", {"g": "12", "bf": "2"}),
        ("mkv", "libx264", X264),
    ],
)
def test_recordings_one_after_another(tmp_path: Path, suffix: str, codec: str, options: dict[str, str]) -> None:
    # FFmpeg's reader of Matroska ends after two.
    pieces = [range(30), range(100, 140), range(200, 206)][: 2 if suffix == "mkv" else 3]
    path = joined(tmp_path, suffix, pieces, codec=codec, options=options)
    numbers = [number for piece in pieces for number in piece]
    whole = read(path)
    assert [number for number, _ in whole] == numbers
    assert [time for _, time in whole] == pytest.approx([i / 25 for i in range(len(numbers))], abs=0.0021)
    info = probe(path)
    assert (info.fps, info.frame_count) == (25, len(numbers))
    assert info.duration == pytest.approx(len(numbers) / 25, abs=0.005)
    for index in (5, 29, 30, 31, 60, len(numbers) - 7, len(numbers) - 6, len(numbers) - 1):
        assert read(path, whole[index][1], 3) == whole[index : index + 3]
        clip = read_clip(path, 2, start_frame=index)
        assert number_of(clip.pixels[0]) == numbers[index]
    if suffix != "mkv":  # whose header tells the length of the first recording
        assert [number_of(pixels) for pixels in read_clip(path, 4, position=1.0).pixels] == numbers[-4:]


@pytest.mark.parametrize("leap", [60, 20_000])
def test_a_clock_that_leaps_ahead_between_recordings(tmp_path: Path, leap: int) -> None:
    ticks = [10 * i + (leap * 250 if i >= 20 else 0) for i in range(40)]
    path = make_video(tmp_path / "v.ts", [numbered(i, SIZE) for i in range(40)], fps=25, ticks=ticks, options=X264)
    whole = read(path)
    assert [number for number, _ in whole] == list(range(40))
    assert [time for _, time in whole] == pytest.approx([i / 25 for i in range(40)], abs=1e-3)
    assert probe(path).fps == 25


def test_a_pause_is_no_other_clock(tmp_path: Path) -> None:
    ticks = [10 * i + (5 * 250 if i >= 20 else 0) for i in range(40)]
    for suffix in ("ts", "mp4", "mkv"):
        path = make_video(tmp_path / f"v.{suffix}", [numbered(i, SIZE) for i in range(40)], fps=25, ticks=ticks)
        whole = read(path)
        assert [number for number, _ in whole] == list(range(40))
        assert [time for _, time in whole] == pytest.approx([tick / 250 for tick in ticks], abs=1e-3)


def packed(path: Path, ticks: list[int], *, codec: str, options: dict[str, str], pix_fmt: str = "yuv420p") -> Path:
    """Frames whose packets are stored with `ticks`, in ms and in the order of decoding, whatever the encoder says."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *SIZE, pix_fmt
        packets = []
        for index in range(len(ticks)):
            packets += stream.encode(av.VideoFrame.from_ndarray(numbered(index, SIZE), format="rgb24"))
        for index, packet in enumerate([*packets, *stream.encode()]):
            packet.pts = packet.dts = ticks[index]
            packet.time_base = Fraction(1, 1000)
            container.mux(packet)
    return path


def test_two_frames_at_one_time(tmp_path: Path) -> None:
    ticks = [40 * i for i in range(20)]
    ticks[5] = ticks[4]
    path = packed(tmp_path / "v.mkv", ticks, codec="ffv1", options={})
    assert read(path) == [(i, tick / 1000) for i, tick in enumerate(ticks)]
    with VideoReader(path) as reader:
        assert reader.rate_varies


def test_equal_times_of_frames_that_are_reordered(tmp_path: Path) -> None:
    """The decoder's order is right where the file's times tell none."""
    path = make_video(
        tmp_path / "v.mkv", [numbered(i, SIZE) for i in range(60)], fps=4000, options={"preset": "veryfast", "bf": "3"}
    )
    whole = read(path)
    assert [number for number, _ in whole] == list(range(60))
    assert [time for _, time in whole] == pytest.approx([i / 4000 for i in range(60)], abs=1.01e-3)
    assert probe(path).fps == 4000


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "mov"])
@pytest.mark.parametrize("fps", [10_000, 2000, Fraction(1, 7200), Fraction(1, 50_000)])
def test_odd_rates(tmp_path: Path, suffix: str, fps: Fraction | int) -> None:
    path = tmp_path / f"v.{suffix}"
    with VideoWriter(path, fps) as writer:
        writer.write(np.stack([numbered(i, SIZE) for i in range(12)]))
    whole = read(path)
    assert [number for number, _ in whole] == list(range(12))
    assert [time for _, time in whole] == pytest.approx([float(i / fps) for i in range(12)], abs=1.01e-3)
    info = probe(path)
    assert (info.fps, info.frame_count) == (fps, 12)
    assert info.duration == pytest.approx(float(12 / fps), abs=2e-3)
    if fps < 1:
        assert read(path, float(7 / fps), 2) == whole[7:9]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_frame_an_hour_with_jitter(tmp_path: Path, suffix: str) -> None:
    seconds = [0, 3600.7, 7198.9, 10800.3, 14400, 18000.9]
    ticks = [round(time * 10) for time in seconds]
    path = make_video(tmp_path / f"v.{suffix}", [numbered(i, SIZE) for i in range(6)], fps=1, ticks=ticks)
    assert read(path) == [(i, time) for i, time in enumerate(seconds)]
    assert float(probe(path).fps) == pytest.approx(1 / 3600, rel=0.2)
    assert read(path, 7200.0, 2) == [(2, 7198.9), (3, 10800.3)]
    with VideoReader(path, sample_fps=1 / 1800) as reader:
        assert len(list(reader)) == reader.frame_estimate


def test_three_frames_in_two_hours(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mp4", [numbered(i, SIZE) for i in range(3)], fps=1, ticks=[0, 10, 72_000])
    assert read(path) == [(0, 0.0), (1, 1.0), (2, 7200.0)]
    assert float(probe(path).fps) == pytest.approx(3 / 7201, rel=1e-3)
    assert number_of(read_clip(path, 1, position=0.99).pixels[0]) in (1, 2)
