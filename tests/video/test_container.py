"""What is opened: which stream of a file, no list of other files, no pipe; any exception names the file."""

from __future__ import annotations

import os
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from tests.video.video_files import make_video, number_of, numbered

from vidtok.errors import VideoError
from vidtok.video import VideoReader, media, probe, read_clip

SIZES = {"small": (32, 96), "large": (64, 192)}


def streams(path: Path, sizes: list[tuple[int, int]], default: int | None = None) -> Path:
    """One video stream of each of `sizes`; frame i of stream n shows 100 * n + i."""
    with av.open(str(path), "w") as output:
        made = []
        for number, (height, width) in enumerate(sizes):
            stream = output.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.disposition = Disposition.default if number == default else 0
            made.append(stream)
        for index in range(10):
            for number, stream in enumerate(made):
                pixels = numbered(100 * number + index, (stream.height, stream.width))
                output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in made:
            output.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("sizes", "default", "chosen"),
    [
        (["small", "large"], 1, 1),
        (["large", "small"], 1, 1),
        (["small", "large"], None, 1),
        (["large", "small"], None, 0),
        (["small", "small"], None, 0),
    ],
)
def test_the_stream_that_ffmpeg_takes(tmp_path: Path, sizes: list[str], default: int | None, chosen: int) -> None:
    path = streams(tmp_path / "v.mkv", [SIZES[size] for size in sizes], default)
    with VideoReader(path) as reader:
        assert [number_of(frame.pixels) for frame in reader] == [100 * chosen + i for i in range(10)]
        assert (reader.info.stream, reader.info.stream_count) == (chosen, 2)
        assert reader.info.other_streams == f"video stream {chosen} of 2 (0 to 1); another one: --stream N (stream=N)"
    assert number_of(read_clip(path, 1, start_frame=4).pixels[0]) == 100 * chosen + 4
    for number in (0, 1):
        with VideoReader(path, stream=number, start=0.2, max_frames=2) as reader:
            assert [number_of(frame.pixels) for frame in reader] == [100 * number + 5, 100 * number + 6]


def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    path = streams(tmp_path / "v.mkv", [SIZES["small"]] * 2)
    with pytest.raises(VideoError, match=r"v\.mkv has no video stream 2; expected 0 to 1, or leave --stream .* out"):
        VideoReader(path, stream=2)
    single = make_video(tmp_path / "one.mp4", [numbered(1)])
    assert probe(single).other_streams == ""
    with pytest.raises(VideoError, match=r"one\.mp4 has no video stream 1; expected 0, or leave"):
        VideoReader(single, stream=1)
    with pytest.raises(VideoError, match="is a folder of pictures, which has no stream 1; leave --stream out"):
        VideoReader(tmp_path, stream=1)


LISTS = {
    "ffconcat version 1.0\nfile 'secret.ts'\n": "an ffconcat script",
    "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.ts\n#EXT-X-ENDLIST\n": "an M3U playlist",
    "[playlist]\nFile1=secret.ts\n": "a PLS playlist",
    '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>secret.ts</BaseURL></MPD>': (
        "a DASH manifest"
    ),
    '\ufeff<asx version="3.0"><entry><ref href="secret.ts"/></entry></asx>': "an ASX playlist",
}


@pytest.mark.parametrize("suffix", ["mp4", "ffconcat", "m3u8"])
@pytest.mark.parametrize(("text", "kind"), LISTS.items(), ids=LISTS.values())
def test_a_list_of_files_is_told_and_not_followed(tmp_path: Path, suffix: str, text: str, kind: str) -> None:
    make_video(tmp_path / "secret.ts", [numbered(i) for i in range(5)])
    (tmp_path / f"list.{suffix}").write_text(text)
    with pytest.raises(VideoError, match=rf"list\.{suffix} is {kind}, a list of other files, not a video; give the"):
        VideoReader(tmp_path / f"list.{suffix}")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names")
def test_a_pipe_is_told_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match=r"pipe\.mp4 is a pipe, which can be read only once and in order; write the"):
        VideoReader(tmp_path / "pipe.mp4")
    with pytest.raises(VideoError, match=r"/dev/zero is a device or socket, which"):
        VideoReader("/dev/zero")


def test_titles_in_another_encoding_are_no_obstacle(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", [numbered(i) for i in range(5)])
    with av.open(str(path)) as source, av.open(str(tmp_path / "t.mkv"), "w") as output:
        output.metadata["title"] = "Zuzuzuzu"
        stream = output.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                output.mux(packet)
    latin = (tmp_path / "t.mkv").read_bytes().replace(b"Zuzuzuzu", b"Z\xfc\xfc\xff\xfe\xfc\xfcz")
    (tmp_path / "t.mkv").write_bytes(latin)
    assert probe(tmp_path / "t.mkv").frame_count == 5


@pytest.mark.parametrize("error", [IndexError("tuple index out of range"), MemoryError(), RuntimeError("no\nreason")])
@pytest.mark.parametrize("at", ["read_packets", "lay_out", "first_frame"])
def test_any_exception_in_reading_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, at: str
) -> None:
    path = make_video(tmp_path / "v.mp4", [numbered(i) for i in range(5)])

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(media, at, fail)
    with pytest.raises(VideoError) as caught:
        read_clip(path, 2, start_frame=1)
    text = " ".join(str(error).split()) or type(error).__name__
    assert str(caught.value) == (
        f"{path} cannot be read ({type(error).__name__}: {text}); get an undamaged copy, or convert it"
    )


def test_any_exception_in_decoding_and_converting_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_video(tmp_path / "v.mp4", [numbered(i) for i in range(5)])
    reader = VideoReader(path)

    def fail(*_: object, **__: object) -> np.ndarray:
        raise IndexError("out of range")

    monkeypatch.setattr(media.RGBConverter, "__call__", fail)
    with pytest.raises(VideoError, match=r"v\.mp4 cannot be read \(IndexError: out of range\)"):
        list(reader)
    monkeypatch.setattr(media.FrameClock, "time", fail)
    with pytest.raises(VideoError, match=r"v\.mp4 cannot be read \(IndexError: out of range\)"):
        list(reader)
