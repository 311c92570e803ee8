"""Files that are damaged, cut off or no video at all: what is said, and what is used if asked for."""

import os
import struct

import av
import numpy as np
import pytest
from av.stream import Disposition
from tests.video.video_files import make_video, number_of, numbered, smooth, sound_packets

from vidtok.errors import VideoError, VidTokError
from vidtok.video import DamagedVideoError, VideoReader, probe, read_video

COUNT = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("videos")


@pytest.fixture(scope="module", params=["mkv", "mp4", "webm"])
def whole(folder, request):
    path = folder / f"whole.{request.param}"
    codec = "libvpx-vp9" if request.param == "webm" else "libx264"
    options = {"movflags": "+faststart"} if request.param == "mp4" else {}
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=30)
        stream.height, stream.width, stream.pix_fmt = 96, 192, "yuv420p"
        stream.options = {"preset": "ultrafast"} if codec == "libx264" else {"deadline": "realtime", "cpu-used": "8"}
        rng = np.random.default_rng(0)
        for index in range(COUNT):
            pixels = np.clip(numbered(index, (96, 192)) + rng.integers(-30, 30, (96, 192, 3)), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def cut(path, share, to):
    data = path.read_bytes()
    to.write_bytes(data[: int(len(data) * share)])
    return to


@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_video_that_breaks_off_is_told_and_used_only_if_asked(whole, share, tmp_path):
    path = cut(whole, share, tmp_path / f"cut{whole.suffix}")
    seen = []
    frames = iter(VideoReader(path))
    with pytest.raises(DamagedVideoError) as caught:
        seen.extend(number_of(frame.pixels) for frame in frames)
    message = str(caught.value)
    assert message.startswith(f"{path} is cut off or damaged: ")
    assert f"{len(seen)} " in message
    assert "--allow-truncated" in message
    assert caught.value.frames == len(seen)
    assert 0 < len(seen) < COUNT
    with VideoReader(path, allow_truncated=True) as reader:
        assert [number_of(frame.pixels) for frame in reader] == seen == list(range(len(seen)))
        assert reader.truncated
    with VideoReader(whole, allow_truncated=True) as reader:
        assert [number_of(frame.pixels) for frame in reader] == list(range(COUNT))
        assert not reader.truncated
    # Frames before the damage can be had without asking.
    assert len(read_video(path, max_frames=5)) == 5


@pytest.mark.parametrize("share", [0.3, 0.7, 0.9])
def test_an_avi_that_breaks_off_is_told(tmp_path, share):
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 32, 64, 3), np.uint8)
    path = make_video(tmp_path / "whole.avi", noise, codec="mpeg4")
    with pytest.raises(DamagedVideoError, match=r"cut\.avi is "):
        read_video(cut(path, share, tmp_path / "cut.avi"))


def test_damage_in_the_middle_is_told(tmp_path):
    """A stretch of some frames' length: H.264 has no checksums, so a single bit may make another valid stream."""
    rng = np.random.default_rng(1)
    noise = rng.integers(-9, 9, (40, 96, 160, 3))
    frames = [np.clip(smooth(i, (96, 160)) + noise[i], 0, 255).astype(np.uint8) for i in range(40)]
    whole = make_video(tmp_path / "whole.mkv", frames).read_bytes()
    damaged = tmp_path / "damaged.mkv"
    for position in rng.integers(len(whole) * 2 // 5, len(whole) * 3 // 5, 10):
        data = bytearray(whole)
        data[position : position + len(data) // 10] = b"\xff" * (len(data) // 10)
        damaged.write_bytes(data)
        with pytest.raises(DamagedVideoError, match=r"is cut off or damaged: .* could be decoded"):
            read_video(damaged)
        used = read_video(damaged, allow_truncated=True)
        assert 0 < len(used) < 40


def test_a_video_cut_off_before_its_index_is_told(folder, tmp_path):
    path = make_video(tmp_path / "late.mp4", [numbered(i) for i in range(20)])
    with pytest.raises(VideoError, match=r"cut\.mp4 is neither a video nor a picture, or is cut off before the index"):
        VideoReader(cut(path, 0.5, tmp_path / "cut.mp4"))


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_pictures_that_break_off_are_told(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    codec, pix_fmt = {"png": ("png", "rgb24"), "jpg": ("mjpeg", "yuvj420p")}[suffix]
    path = make_video(tmp_path / f"whole.{suffix}", [noise], codec=codec, pix_fmt=pix_fmt)
    assert read_video(path).shape == (1, 64, 64, 3)
    with pytest.raises(DamagedVideoError, match=r"cut\..* is damaged, or of a kind that this FFmpeg cannot decode"):
        read_video(cut(path, 0.6, tmp_path / f"cut.{suffix}"), allow_truncated=True)


@pytest.mark.parametrize("name", ["text.txt", "text.mp4", "text.nfo", "random.mp4", "empty.mp4", "fake.png"])
def test_what_is_no_video_is_told(tmp_path, name):
    path = tmp_path / name
    content = {"random": os.urandom(4000), "empty": b"", "fake": b"\x89PNG\r\n\x1a\n" + bytes(50)}
    path.write_bytes(content.get(path.stem, b"These are words.\n" * 100))
    with pytest.raises(
        VideoError,
        match=f"{name} is (neither a video nor|text, not|damaged, or of a kind|empty; get an undamaged copy)",
    ):
        probe(path)


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(VidTokError, match=r"none\.mp4: no such file; check the path"):
        VideoReader(tmp_path / "none.mp4")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_told(tmp_path):
    path = make_video(tmp_path / "locked.mp4", [numbered(1)])
    path.chmod(0)
    with pytest.raises(VideoError, match=r"locked\.mp4 may not be read: permission denied"):
        VideoReader(path)


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_video_even_with_a_cover_picture(tmp_path, cover):
    path = tmp_path / "sound.mp3"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=48000)
        if cover:
            art = container.add_stream("png", rate=1)
            art.height, art.width, art.pix_fmt = 32, 192, "rgb24"
            art.disposition = Disposition.attached_pic
            container.mux(art.encode(av.VideoFrame.from_ndarray(numbered(3), format="rgb24")))
        for packet in sound_packets(stream, 1.0):
            container.mux(packet)
    with av.open(str(path)) as container:
        assert len(container.streams.video) == cover
    with pytest.raises(VideoError, match=r"sound\.mp3 has no video in it, only audio; expected a video or a picture"):
        VideoReader(path)


def test_a_header_with_nothing_behind_it_is_told(tmp_path):
    path = tmp_path / "header.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError, match=r"header\.mp4 has no video in it, only a header; expected a video"):
        VideoReader(path)


def test_a_codec_that_is_missing_is_told(tmp_path):
    path = make_video(tmp_path / "odd.mp4", [numbered(i) for i in range(3)])
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz").replace(b"avcC", b"zzzC"))
    with pytest.raises(
        VideoError, match=r"odd\.mp4 is coded in a format for which this FFmpeg has no decoder; convert it"
    ):
        VideoReader(path)


def test_a_video_with_no_frames_is_told(tmp_path):
    path = tmp_path / "none.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.height, stream.width, stream.pix_fmt = 32, 64, "yuv420p"
        for packet in sound_packets(container.add_stream("aac", rate=48000), 1.0):
            container.mux(packet)
    with pytest.raises(VideoError, match=r"none\.mkv has no frames; expected a video or a picture with at least one"):
        VideoReader(path)


def test_a_change_of_size_is_told_unless_a_size_is_given(tmp_path):
    small, large = (make_video(tmp_path / f"{h}.ts", [numbered(i, (h, 192)) for i in range(5)]) for h in (32, 64))
    path = tmp_path / "both.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoError, match=r"changes its size from 192 x 32 to 192 x 64 at .* s; give a height"):
        read_video(path)
    frames = read_video(path, height=32, width=192).numpy()
    assert frames.shape == (10, 32, 192, 3)


def test_a_playlist_reaches_no_other_file(tmp_path):
    make_video(tmp_path / "secret.ts", [numbered(i) for i in range(5)])
    lists = {
        "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n#EXT-X-ENDLIST\n",
        "list.ffconcat": f"ffconcat version 1.0\nfile '{tmp_path / 'secret.ts'}'\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(VideoError):
            VideoReader(tmp_path / name)


def test_a_count_that_the_header_gets_wrong_is_no_damage(tmp_path):
    """AVI headers of some cameras state a frame or so too many, in agreement with nothing else."""
    path = make_video(tmp_path / "camera.avi", [numbered(i) for i in range(10)], codec="mjpeg", pix_fmt="yuvj420p")
    data = bytearray(path.read_bytes())
    at = data.index(b"avih") + 8 + 16
    assert struct.unpack_from("<I", data, at) == (10,)
    struct.pack_into("<I", data, at, 11)
    path.write_bytes(data)
    assert len(read_video(path)) == 10
