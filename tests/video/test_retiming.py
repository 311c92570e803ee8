from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from tests.video.video_files import click_time, make_video, number_of, numbered

from vidtok import VideoError
from vidtok.video import VideoReader, VideoWriter
from vidtok.video.retiming import retime


@pytest.fixture
def video(tmp_path: Path) -> Path:
    sounding = make_video(tmp_path / "sound.mp4", [numbered(i) for i in range(30)], fps=24, sound=True)
    with VideoWriter(tmp_path / "in.mp4", Fraction(24000, 1001), audio_from=sounding) as writer:
        writer.write(np.stack([numbered(i) for i in range(30)]))
    return tmp_path / "in.mp4"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("step", [Fraction(1, 1000), Fraction(1, 15360), Fraction(1001, 30000)])
def test_frames_are_shown_when_they_are_to_be(video: Path, suffix: str, step: Fraction) -> None:
    ticks = np.cumsum([0, *(1 + i % 7 for i in range(29))]) * max(1, round(Fraction(1, 50) / step))
    times = [float(int(tick) * step) for tick in ticks]
    output = video.with_name(f"out{suffix}")
    retime(video, output, Fraction(24000, 1001), times)
    with VideoReader(output) as reader:
        frames = list(reader)
    assert [number_of(frame.pixels) for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=5.01e-4 if suffix == ".mkv" else 1e-9)
    assert click_time(output) == pytest.approx(0.5, abs=0.03)


def test_times_with_no_common_clock(video: Path) -> None:
    times = [i**1.5 / 24 for i in range(30)]
    retime(video, video.with_name("out.mp4"), Fraction(24000, 1001), times)
    with VideoReader(video.with_name("out.mp4")) as reader:
        np.testing.assert_allclose([frame.time for frame in reader], times, atol=1e-6)


def test_times_that_cannot_be(video: Path, tmp_path: Path) -> None:
    rate = Fraction(24000, 1001)
    for count in (29, 31):
        with pytest.raises(VideoError, match=f"{count} times were given for the 30 frames of .*out.mp4"):
            retime(video, tmp_path / "out.mp4", rate, [i / 10 for i in range(count)])
    with pytest.raises(VideoError, match="cannot be written: No such file"):
        retime(video, tmp_path / "none" / "out.mp4", rate, [i / 10 for i in range(30)])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_times_that_stand_still_or_fall_are_moved_up_by_a_tick(video: Path, suffix: str) -> None:
    times = [i / 25 for i in range(30)]
    times[5], times[6], times[20] = times[4], times[4], times[18]
    output = video.with_name(f"out{suffix}")
    retime(video, output, Fraction(24000, 1001), times)
    with VideoReader(output) as reader:
        frames = list(reader)
    assert [number_of(frame.pixels) for frame in frames] == list(range(30))
    shown = [frame.time for frame in frames]
    assert all(early < late for early, late in pairwise(shown))
    np.testing.assert_allclose(np.delete(shown, [5, 6, 20]), np.delete(times, [5, 6, 20]), atol=1e-9)
    np.testing.assert_allclose([shown[5], shown[6], shown[20]], [0.161, 0.162, 0.761], atol=1e-9)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_that_last_hours(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.04, 3600.123456, 90_000.0, 250_000.5]
    with VideoWriter(tmp_path / f"in{suffix}", Fraction(1, 50_000)) as writer:
        writer.write(np.stack([numbered(i) for i in range(5)]))
    retime(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", Fraction(1, 50_000), times)
    with VideoReader(tmp_path / f"out{suffix}") as reader:
        frames = list(reader)
    assert [number_of(frame.pixels) for frame in frames] == list(range(5))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1e-3)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_frames_closer_than_the_clock_of_the_file(tmp_path: Path, suffix: str) -> None:
    times = [i**1.01 / 10_000 for i in range(40)]
    with VideoWriter(tmp_path / f"in{suffix}", 10_000) as writer:
        writer.write(np.stack([numbered(i) for i in range(40)]))
    retime(tmp_path / f"in{suffix}", tmp_path / f"out{suffix}", Fraction(10_000), times)
    with VideoReader(tmp_path / f"out{suffix}") as reader:
        frames = list(reader)
    assert [number_of(frame.pixels) for frame in frames] == list(range(40))
    np.testing.assert_allclose([frame.time for frame in frames], times, atol=1.01e-3 if suffix == ".mkv" else 1e-6)
