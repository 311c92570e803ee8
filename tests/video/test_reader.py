"""Frames that are read, their order and times; lazily."""

import gc
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.video.video_files import SIZE, make_video, number_of, numbered

from vidtok.errors import VideoError
from vidtok.video import VideoReader, probe, read_video, resize_and_crop

FORMATS = {
    "mp4": ("libx264", "yuv420p"),
    "mov": ("mjpeg", "yuvj420p"),
    "mkv": ("libx264", "yuv420p"),
    "webm": ("libvpx-vp9", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "ts": ("libx264", "yuv420p"),
    "mpg": ("mpeg2video", "yuv420p"),
    "flv": ("flv", "yuv420p"),
    "gif": ("gif", "rgb8"),
}
FAST = {"libx264": {"preset": "ultrafast", "bf": "2"}, "libvpx-vp9": {"cpu-used": "8", "deadline": "realtime"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("videos")


def video(folder: Path, kind: str, count: int = 45, fps: Fraction | int = 30) -> Path:
    path = folder / f"{count}_{str(fps).replace('/', '_')}.{kind}"
    if not path.exists():
        codec, pix_fmt = FORMATS[kind]
        frames = [numbered(i) for i in range(count)]
        make_video(path, frames, codec=codec, pix_fmt=pix_fmt, fps=fps, options=FAST.get(codec, {}))
    return path


def numbers(reader: VideoReader) -> list[int]:
    return [number_of(frame.pixels) for frame in reader]


@pytest.mark.parametrize("kind", FORMATS)
def test_every_step_th_frame_of_every_container(folder, kind):
    path = video(folder, kind)
    with VideoReader(path) as reader:
        assert numbers(reader) == list(range(45))
        assert reader.fps == 30
        assert reader.info.frame_count == reader.frame_estimate == 45
        assert reader.info.duration == pytest.approx(1.5, abs=0.02)
        times = [frame.time for frame in reader]
        np.testing.assert_allclose(times, np.arange(45) / 30, atol=0.006)
    with VideoReader(path, sample_fps=8) as reader:
        assert numbers(reader) == list(range(0, 45, 4))
        assert reader.fps == Fraction(30, 4)
        assert reader.frame_estimate == 12
    with VideoReader(path, start=0.5, sample_fps=10, max_frames=4) as reader:
        assert numbers(reader) == [15, 18, 21, 24]
        assert reader.frame_estimate == 4


@pytest.mark.parametrize(
    ("fps", "sample_fps", "step"),
    [
        (30, 30, 1),
        (30, 60, 1),
        (30, 21, 1),
        (30, 20, 2),
        (30, 12, 2),
        (25, 3, 8),
        (Fraction(30000, 1001), 10, 3),
        (24, 29.97, 1),
    ],
)
def test_step_is_the_rounded_ratio_and_at_least_one(folder, fps, sample_fps, step):
    with VideoReader(video(folder, "mp4", 30, fps), sample_fps=sample_fps) as reader:
        assert numbers(reader) == list(range(0, 30, step))
        assert reader.fps == Fraction(fps) / step
        assert reader.frame_estimate == len(range(0, 30, step))


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
def test_ntsc_rates_come_out_exact(folder, kind):
    assert probe(video(folder, kind, 30, Fraction(30000, 1001))).fps == Fraction(30000, 1001)


def varying(folder: Path, kind: str, ticks: list[int]) -> Path:
    path = folder / f"varying_{hash(tuple(ticks))}.{kind}"
    make_video(path, [numbered(i) for i in range(len(ticks))], ticks=ticks, options=FAST["libx264"])
    return path


# In units of 1/300 s: 30 frames per second, then 10, then a long pause.
TICKS = [*range(0, 100, 10), *range(100, 280, 30), 480, 490, 500]


@pytest.mark.parametrize("kind", ["mp4", "mkv"])
@pytest.mark.parametrize("sample_fps", [5, 7.5, 30, 60])
@pytest.mark.parametrize("start", [0.0, 0.4])
def test_variable_rates_go_by_timestamps(folder, kind, sample_fps, start):
    path = varying(folder, kind, TICKS)
    with VideoReader(path, sample_fps=sample_fps, start=start) as reader:
        assert reader.fps == Fraction(sample_fps)
        got = numbers(reader)
        first = max(i for i, tick in enumerate(TICKS) if tick / 300 <= start + 1e-6)
        targets = start + np.arange(1000) / sample_fps
        shown = [max(i for i, tick in enumerate(TICKS) if tick / 300 <= t + 1e-3) for t in targets]
        expected = [i for i, t in zip(shown, targets, strict=True) if t < 500 / 300]
        assert got[: len(expected)] == expected
        assert got[0] == first
        # The rest is the last frame's duration according to the container.
        assert set(got[len(expected) :]) <= {len(TICKS) - 1}
        assert abs(len(got) - reader.frame_estimate) <= 1


def test_variable_rate_with_no_sampling_gives_every_frame_once(folder):
    with VideoReader(varying(folder, "mkv", TICKS)) as reader:
        assert numbers(reader) == list(range(len(TICKS)))
        assert float(reader.fps) == pytest.approx(19 / (500 / 300), rel=0.1)
        assert [frame.time for frame in reader] == pytest.approx([tick / 300 for tick in TICKS], abs=0.001)


def test_jitter_of_a_few_milliseconds_counts_as_constant(folder):
    ticks = [10 * i + (i * 7919) % 2 for i in range(30)]
    with VideoReader(varying(folder, "mkv", ticks), sample_fps=10) as reader:
        assert numbers(reader) == list(range(0, 30, 3))


def test_one_dropped_frame_makes_the_rate_variable(folder):
    ticks = [10 * i for i in range(60) if i != 20]
    with VideoReader(varying(folder, "mp4", ticks), sample_fps=10) as reader:
        assert numbers(reader) == [i if i < 20 else i - 1 for i in range(0, 60, 3)]


def test_frames_stored_out_of_order_come_in_order(folder):
    path = folder / "unordered.mkv"
    order = [0, 3, 1, 2, 7, 6, 5, 4, 8, 9, 11, 10]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=30)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuvj420p"
        packets = []
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(numbered(order[index]), format="rgb24")
            frame.pts = index
            packets += stream.encode(frame)
        for index, packet in enumerate([*packets, *stream.encode()]):
            packet.dts, packet.pts = index - 4, order[index]
            container.mux(packet)
    with VideoReader(path) as reader:
        assert numbers(reader) == list(range(12))
        times = [frame.time for frame in reader]
        assert times == sorted(times)


def test_hidden_frames_of_vp8_do_not_count(folder):
    path = folder / "hidden.webm"
    options = {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "4", "arnr-maxframes": "5"}
    rng = np.random.default_rng(0)
    frames = [np.clip(numbered(i) + rng.integers(0, 40, (*SIZE, 3)), 0, 255).astype(np.uint8) for i in range(90)]
    make_video(path, frames, codec="libvpx", options=options)
    with VideoReader(path, sample_fps=10) as reader:
        assert reader.info.frame_count == 90
        assert reader.fps == 10
        assert numbers(reader) == list(range(0, 90, 3))


@pytest.fixture(scope="module")
def long_video(folder) -> Path:
    path = folder / "long.mp4"
    frames = [numbered(i) for i in range(300)]
    return make_video(path, frames, options={"preset": "ultrafast", "g": "40", "bf": "3"})


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    start=st.floats(0, 9.9),
    sample_fps=st.one_of(st.none(), st.floats(0.5, 60)),
    max_frames=st.one_of(st.none(), st.integers(1, 40)),
)
def test_any_start_step_and_length(long_video, start, sample_fps, max_frames):
    with VideoReader(long_video, start=start, sample_fps=sample_fps, max_frames=max_frames) as reader:
        step = max(1, round(30 / sample_fps)) if sample_fps else 1
        expected = list(range(int((start + 1.001 / 15360) * 30), 300, step))[:max_frames]
        assert numbers(reader) == expected
        assert reader.frame_estimate == len(expected)
        assert reader.info.frame_count == 300
        assert reader.info.duration == pytest.approx(10)


def test_start_inside_open_groups_of_pictures(folder):
    path = folder / "open.mkv"
    options = {"preset": "medium", "x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=3:scenecut=0:b-adapt=0"}
    make_video(path, [numbered(i) for i in range(100)], options=options)
    for start in (0, 19, 20, 21, 50, 59, 60, 61):
        with VideoReader(path, start=start / 30, max_frames=3) as reader:
            assert numbers(reader) == [start, start + 1, start + 2]


def test_a_reader_starts_afresh_every_time_and_serves_two_at_once(long_video):
    with VideoReader(long_video, sample_fps=3) as reader:
        first, second = iter(reader), iter(reader)
        pairs = [(number_of(next(first).pixels), number_of(next(second).pixels)) for _ in range(5)]
        assert pairs == [(10 * i, 10 * i) for i in range(5)]
        assert numbers(reader) == list(range(0, 300, 10))


def test_closing_ends_iterations(long_video):
    with VideoReader(long_video) as reader:
        frames = iter(reader)
        next(frames)
    assert list(frames) == []


def test_chunks_and_whole_are_the_same_frames(long_video):
    whole = read_video(long_video, sample_fps=15, max_frames=40, height=24, width=48)
    assert whole.shape == (40, 24, 48, 3)
    with VideoReader(long_video, sample_fps=15, max_frames=40, height=24, width=48) as reader:
        chunks = list(reader.chunks(17))
        assert reader.size == (24, 48)
    assert [len(chunk) for chunk in chunks] == [17, 17, 6]
    np.testing.assert_array_equal(np.concatenate(chunks), whole.numpy())
    stored = read_video(long_video, sample_fps=15, max_frames=40).numpy()
    np.testing.assert_array_equal(resize_and_crop(stored, 24, 48), whole.numpy())


def test_memory_does_not_grow_with_the_length(folder):
    path = folder / "lasting.mp4"
    size = (240, 320)
    base = np.full((*size, 3), 90, np.uint8)
    make_video(path, [base] * 2000, options={"preset": "ultrafast"})

    def resident() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with VideoReader(path) as reader:
        for index, _ in enumerate(reader):
            if index == 200:
                early = resident()
        assert index == 1999
        # Kept frames would be 1,800 x 230 kB = 415 MB, and 207 MB before conversion.
        assert resident() - early < 30e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sample_fps": 0}, "frame rate is 0"),
        ({"max_frames": 0}, "max_frames is 0; expected at least 1"),
        ({"start": -1.0}, "start is -1.0; expected seconds"),
        ({"start": float("nan")}, "start is nan; expected seconds"),
        ({"start": 10.5}, r"start is 10.5 s, but .*long.mp4 ends after 10.00 s; expected an earlier start"),
        ({"start": 10.5, "max_frames": 2}, r"start is 10.5 s, but .*long.mp4 ends after 10.00 s"),
        ({"height": 0}, "height is 0; expected at least 1 pixel"),
    ],
)
def test_arguments_that_cannot_be(long_video, arguments, message):
    with pytest.raises(VideoError, match=message):
        VideoReader(long_video, **arguments)


def test_chunks_of_no_frames_are_refused(long_video):
    with pytest.raises(VideoError, match="a chunk of 0 frames was asked for; expected at least 1"):
        next(VideoReader(long_video).chunks(0))
