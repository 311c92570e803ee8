"""Written files hold what was given, play with sound in step, and appear whole or not at all."""

import os
import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from tests.video.video_files import click_time, make_video, number_of, numbered, smooth

from vidtok.errors import VideoError
from vidtok.video import VideoReader, VideoWriter, probe, read_video


def write(path, count=20, fps=30, size=(32, 192), **options):
    with VideoWriter(path, fps, preset="fast", **options) as writer:
        for start in range(0, count, 7):
            writer.write(np.stack([numbered(i, size) for i in range(start, min(start + 7, count))]))
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "MP4"])
@pytest.mark.parametrize("fps", [30, Fraction(30000, 1001), 23.976, 12.5, Fraction(25, 3), 120])
def test_frames_order_and_rate_come_back(tmp_path, suffix, fps):
    path = write(tmp_path / f"video.{suffix}", 40, fps)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert [number_of(frame.pixels) for frame in frames] == list(range(40))
        exact = Fraction(24000, 1001) if fps == 23.976 else Fraction(fps)
        assert reader.fps == exact
        assert [frame.time for frame in frames] == pytest.approx([i / float(exact) for i in range(40)], abs=1e-3)
        assert reader.info.duration == pytest.approx(40 / float(exact), abs=2e-3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_short_videos(tmp_path, count):
    path = write(tmp_path / "video.mp4", count)
    assert [number_of(frame) for frame in read_video(path).numpy()] == list(range(count))
    assert not probe(path).is_picture


@pytest.mark.parametrize("size", [(33, 192), (32, 191), (1, 191), (1, 1)])
def test_odd_sizes_are_padded_with_their_edge(tmp_path, size):
    path = tmp_path / "odd.mp4"
    pixels = smooth(3, size)
    with VideoWriter(path, 30, crf=1) as writer:
        writer.write(pixels[None])
    (got,) = read_video(path).numpy()
    even = tuple(side + side % 2 for side in size)
    assert got.shape == (*even, 3)
    padded = np.pad(pixels, ((0, size[0] % 2), (0, size[1] % 2), (0, 0)), mode="edge")
    assert np.abs(got.astype(int) - padded).mean() < 3


def test_quality_follows_crf(tmp_path):
    frames = np.stack([smooth(i, (96, 160)) for i in range(10)])
    errors = []
    for crf in (5, 30):
        with VideoWriter(tmp_path / "video.mp4", 30, crf=crf) as writer:
            writer.write(frames)
        errors.append(np.abs(read_video(tmp_path / "video.mp4").numpy().astype(int) - frames).mean())
    assert errors[0] < 1 < errors[1] < 8


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be taken away")
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_bytes_are_the_same_again_and_on_fewer_cores(tmp_path, suffix):
    def written():
        with VideoWriter(tmp_path / f"a.{suffix}", 25) as writer:
            writer.write(np.stack([smooth(i, (128, 192)) for i in range(50)]))
        return (tmp_path / f"a.{suffix}").read_bytes()

    cores = os.sched_getaffinity(0)
    first = written()
    assert written() == first
    try:
        os.sched_setaffinity(0, {min(cores)})
        assert written() == first
    finally:
        os.sched_setaffinity(0, cores)


def test_mp4_can_be_played_while_it_loads(tmp_path):
    data = write(tmp_path / "video.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_a_picture_is_exact(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 47, 3), np.uint8)
    with VideoWriter(tmp_path / "picture.png", 30) as writer:
        writer.write(pixels[None])
    np.testing.assert_array_equal(read_video(tmp_path / "picture.png").numpy()[0], pixels)
    assert os.listdir(tmp_path) == ["picture.png"]


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize(
    ("container", "codec", "kept"),
    [
        ("mp4", "aac", True),
        ("mp4", "libmp3lame", True),
        ("mkv", "libopus", True),
        ("mkv", "pcm_s16le", False),
        ("ts", "mp2", False),
        ("ts", "aac", True),
    ],
)
def test_sound_stays_in_step(tmp_path, container, codec, kept, suffix):
    source = make_video(
        tmp_path / f"source.{container}", [numbered(i) for i in range(40)], sound=True, sound_codec=codec
    )
    assert probe(source).has_audio
    path = write(tmp_path / f"copy.{suffix}", 40, audio_from=source)
    assert click_time(source) == pytest.approx(0.5, abs=0.03)
    assert click_time(path) == pytest.approx(click_time(source), abs=0.012)
    with VideoReader(path) as reader:
        frames = list(reader)
        assert [number_of(frame.pixels) for frame in frames] == list(range(40))
        assert frames[30].time == pytest.approx(1.0, abs=1e-3)
    with av.open(str(path)) as written, av.open(str(source)) as original:
        audio = written.streams.audio[0]
        name = original.streams.audio[0].codec_context.name
        if kept and not (suffix == "mov" and "opus" in name):
            assert audio.codec_context.name == name
        elif suffix == "mp4":
            assert audio.codec_context.name == "aac"
        assert float(audio.duration * audio.time_base if audio.duration else written.duration / 1e6) == pytest.approx(
            4 / 3, abs=0.08
        )


def test_sound_follows_a_video_that_starts_late(tmp_path):
    """In the source the first frame is shown at 0.4 s, so the click at 0.5 s comes 0.1 s after it."""
    source = make_video(
        tmp_path / "late.mkv", [numbered(i) for i in range(40)], ticks=[120 + 10 * i for i in range(40)], sound=True
    )
    path = write(tmp_path / "copy.mp4", 40, audio_from=source)
    assert click_time(source) == pytest.approx(0.1, abs=0.03)
    assert click_time(path) == pytest.approx(0.1, abs=0.03)


def test_a_source_with_no_sound_gives_none(tmp_path):
    source = write(tmp_path / "silent.mp4")
    path = write(tmp_path / "copy.mp4", audio_from=source)
    assert not probe(path).has_audio
    assert probe(path).frame_count == 20


class Stop(BaseException):
    """No ordinary exception, as KeyboardInterrupt."""


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, ValueError])
@pytest.mark.parametrize("suffix", ["mp4", "png"])
@pytest.mark.parametrize("count", [0, 1])
def test_an_exception_leaves_nothing_and_what_was_there(tmp_path, error, suffix, count):
    path = tmp_path / f"video.{suffix}"
    path.write_bytes(b"old")
    writer = VideoWriter(path, 30)

    def work():
        with writer:
            writer.write(np.zeros((count, 32, 32, 3), np.uint8))
            assert path.read_bytes() == b"old"
            raise error

    with pytest.raises(error):
        work()
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == b"old"
    with pytest.raises(VideoError, match="is closed; open another writer"):
        writer.write(np.zeros((1, 32, 32, 3), np.uint8))


def test_success_replaces_what_was_there_at_the_end(tmp_path):
    path = tmp_path / "video.mp4"
    path.write_bytes(b"old")
    with VideoWriter(path, 30) as writer:
        writer.write(np.stack([numbered(i) for i in range(3)]))
        assert path.read_bytes() == b"old"
        assert len(os.listdir(tmp_path)) == 2
    assert os.listdir(tmp_path) == ["video.mp4"]
    assert probe(path).frame_count == 3
    assert writer.frame_count == 3
    assert path.stat().st_mode & 0o777 == 0o666 & ~_umask()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_a_writer_that_is_dropped_leaves_nothing(tmp_path):
    code = (
        "import sys, numpy as np\n"
        "from vidtok.video import VideoWriter\n"
        "writer = VideoWriter(sys.argv[1], 30)\n"
        "writer.write(np.zeros((3, 32, 32, 3), np.uint8))\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "video.mp4")], check=True)
    assert os.listdir(tmp_path) == []


def test_no_frames_are_no_video(tmp_path):
    writer = VideoWriter(tmp_path / "video.mp4", 30)
    with pytest.raises(VideoError, match=r"no frames were written to .*video\.mp4; expected at least one"):
        writer.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("video.webm", {}, r"video\.webm ends in '\.webm'; expected one of \.mp4, \.mov, \.mkv, \.png"),
        ("video", {}, r"video ends in no suffix; expected one of \.mp4"),
        ("none/video.mp4", {}, r"video\.mp4 cannot be written: .*none is no such folder; make the folder first"),
        ("file/video.mp4", {}, r"video\.mp4 cannot be written: .*file is not a folder"),
        ("folder.mp4", {}, r"folder\.mp4 is a folder; give the path of a file in it, such as .*output\.mp4"),
        ("video.mp4", {"crf": 52}, r"crf is 52; expected 0 \(best\) to 51"),
        ("video.mp4", {"threads": 0}, "threads is 0; expected 1 to 128"),
        ("video.mp4", {"preset": "quick"}, "preset is 'quick'; expected one of ultrafast, "),
        ("video.mp4", {"fps": 0}, "frame rate is 0; expected a positive number"),
        ("video.mp4", {"audio_from": "none.mp4"}, r"none\.mp4: no such file; check the path"),
    ],
)
def test_what_cannot_be_written_is_told_at_once(tmp_path, name, options, message):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(VideoError, match=message):
        VideoWriter(tmp_path / name, **{"fps": 30, **options})
    assert sorted(os.listdir(tmp_path)) == ["file", "folder.mp4"]


def test_a_folder_that_may_not_be_written_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(VideoError, match=r"video\.mp4 cannot be written: no permission to write in .*; choose another"):
        VideoWriter(tmp_path / "video.mp4", 30)


def test_an_encoder_that_is_missing_is_told(tmp_path, monkeypatch):
    def codec(name, mode):
        raise av.codec.codec.UnknownCodecError(name)

    monkeypatch.setattr(av, "Codec", codec)
    with pytest.raises(VideoError, match=r"this FFmpeg has no encoder libx264; install the `av` package"):
        VideoWriter(tmp_path / "video.mp4", 30)


@pytest.mark.parametrize("suffix", ["mp4", "png"])
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, suffix, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    writer = VideoWriter(tmp_path / f"video.{suffix}", 30)
    writer.write(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(VideoError, match=rf"video\.{suffix} cannot be written: No space left on device; check"):
        writer.close()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (np.zeros((1, 32, 32, 3), np.float32), r"frames are float32 of shape \(1, 32, 32, 3\); expected uint8"),
        (np.zeros((32, 32, 3), np.uint8), r"frames are uint8 of shape \(32, 32, 3\); expected uint8 \(T, H, W, 3\)"),
        (np.zeros((1, 0, 32, 3), np.uint8), r"expected uint8 \(T, H, W, 3\)"),
        (np.zeros((1, 32, 34, 3), np.uint8), r"frames for .*\.mp4 change from 32 x 32 to 34 x 32; expected one size"),
    ],
)
def test_frames_that_do_not_fit_are_told(tmp_path, frames, message):
    writer = VideoWriter(tmp_path / "video.mp4", 30)
    writer.write(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(VideoError, match=message):
        writer.write(frames)
    writer.abort()
    assert os.listdir(tmp_path) == []


def test_a_picture_holds_one_frame(tmp_path):
    writer = VideoWriter(tmp_path / "picture.png", 30)
    with pytest.raises(VideoError, match=r"picture\.png is a picture, which holds one frame; give a path that ends in"):
        writer.write(np.zeros((2, 32, 32, 3), np.uint8))
    writer.write(np.zeros((1, 32, 32, 3), np.uint8))
    with pytest.raises(VideoError, match=r"picture\.png is a picture"):
        writer.write(np.zeros((1, 32, 32, 3), np.uint8))
    writer.close()
    assert os.listdir(tmp_path) == ["picture.png"]


def test_importing_the_package_does_not_import_pyav():
    code = "import vidtok.video, sys; assert 'av' not in sys.modules, 'av'"
    subprocess.run([sys.executable, "-c", code], check=True)
