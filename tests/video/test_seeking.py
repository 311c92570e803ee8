"""Every frame of every container and codec that PyAV writes, by seek and in the whole."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
from tests.video.video_files import make_video, number_of, numbered

from vidtok.video import VideoReader, read_clip

COUNT = 30
X264 = {"preset": "veryfast", "g": "9", "bf": "3"}
X264_OPEN = {"preset": "veryfast", "x264-params": "open-gop=1:keyint=9:min-keyint=9:bframes=3:scenecut=0:b-adapt=0"}
X265 = {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=0:keyint=9:min-keyint=9:bframes=3:b-adapt=0"}
X265_OPEN = {"preset": "ultrafast", "x265-params": X265["x265-params"].replace("open-gop=0", "open-gop=1")}
REALTIME = {"g": "9", "deadline": "realtime", "cpu-used": "8"}
CODECS = {
    "h264": ("libx264", "yuv420p", X264),
    "h264 open": ("libx264", "yuv420p", X264_OPEN),
    "h265": ("libx265", "yuv420p", X265),
    "h265 open": ("libx265", "yuv420p", X265_OPEN),
    "mpeg1": ("mpeg1video", "yuv420p", {"g": "9", "bf": "2"}),
    "mpeg2": ("mpeg2video", "yuv420p", {"g": "9", "bf": "2"}),
    "mpeg4": ("mpeg4", "yuv420p", {"g": "9", "bf": "2"}),
    "mpeg4 p": ("mpeg4", "yuv420p", {"g": "9"}),
    "msmpeg4": ("msmpeg4", "yuv420p", {"g": "9"}),
    "wmv2": ("wmv2", "yuv420p", {"g": "9"}),
    "flv1": ("flv", "yuv420p", {"g": "9"}),
    "vp8": ("libvpx", "yuv420p", REALTIME),
    "vp9": ("libvpx-vp9", "yuv420p", REALTIME),
    "av1": ("libsvtav1", "yuv420p", {"preset": "12", "g": "9", "crf": "20"}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "ffv1": ("ffv1", "yuv420p", {"g": "5"}),
    "prores": ("prores_ks", "yuv422p10le", {}),
    "huffyuv": ("ffvhuff", "yuv420p", {}),
    "raw": ("rawvideo", "yuv420p", {}),
    "png": ("png", "rgb24", {}),
    "gif": ("gif", "rgb8", {}),
}
IN_ISO = ("h264", "h264 open", "h265", "h265 open", "mpeg1", "mpeg2", "mpeg4", "mpeg4 p", "mjpeg")
IN_OLD = ("h264", "h264 open", "mpeg1", "mpeg2", "mpeg4", "mpeg4 p", "msmpeg4", "wmv2", "flv1", "vp8", "vp9", "mjpeg")
IN_ANY = (*IN_OLD, "h265", "h265 open", "ffv1", "png")
IN_TRANSPORT = ("h264", "h264 open", "h265", "h265 open", "mpeg1", "mpeg2", "mpeg4", "mpeg4 p")
PAIRS = {
    "mp4": (*IN_ISO, "vp9", "av1", "ffv1", "png"),
    "mov": (*IN_ISO, "msmpeg4", "prores", "gif", "png"),
    "mkv": (*IN_ISO, "msmpeg4", "vp8", "vp9", "av1", "ffv1", "prores", "raw"),
    "webm": ("vp8", "vp9", "av1"),
    "avi": (*IN_OLD, "av1", "ffv1", "huffyuv", "png", "raw"),
    "ts": IN_TRANSPORT,
    "m2ts": IN_TRANSPORT,
    "mpg": IN_TRANSPORT,
    "vob": IN_TRANSPORT,
    "flv": ("h264", "h264 open", "h265", "h265 open", "flv1", "vp9", "av1"),
    "wmv": (*IN_OLD, "ffv1", "huffyuv", "png", "raw"),
    "nut": (*IN_ANY, "huffyuv", "gif", "raw"),
    "mxf": ("h264", "h264 open", "mpeg2", "ffv1", "prores"),
    "3gp": ("h264", "h264 open", "mpeg4", "mpeg4 p"),
    "ivf": ("vp8", "vp9", "av1"),
    "wtv": ("h264", "h264 open", "mpeg1", "mpeg2", "mpeg4", "mpeg4 p", "flv1", "vp8", "vp9"),
    "h264": ("h264", "h264 open"),
    "hevc": ("h265", "h265 open"),
    "m4v": ("mpeg4", "mpeg4 p"),
    "m2v": ("mpeg2",),
    "m1v": ("mpeg1",),
    "gif": ("gif",),
    "y4m": ("raw",),
}
QUICK = {
    ("mp4", "h264"), ("mp4", "h264 open"), ("mp4", "h265 open"), ("mov", "mjpeg"), ("mkv", "h264 open"),
    ("mkv", "mpeg2"), ("webm", "vp9"), ("avi", "h264"), ("avi", "h264 open"), ("avi", "mpeg1"), ("avi", "mpeg4"),
    ("ts", "h264 open"), ("ts", "mpeg2"), ("mpg", "h264"), ("mpg", "h265 open"), ("mpg", "mpeg2"), ("vob", "mpeg4 p"),
    ("flv", "h264 open"), ("wmv", "h264"), ("wmv", "mpeg1"), ("wmv", "mpeg4"), ("nut", "mpeg4 p"), ("mxf", "mpeg2"),
    ("wtv", "mpeg4"), ("h264", "h264 open"), ("m1v", "mpeg1"), ("m2v", "mpeg2"), ("gif", "gif"),
}  # fmt: skip
"""Those that take part in every run of the tests: each way into a file, and each kind of file that once went wrong."""


def pair(container: str, codec: str) -> object:
    marks = [] if (container, codec) in QUICK else [pytest.mark.slow]
    return pytest.param(container, codec, id=f"{container}-{codec.replace(' ', '-')}", marks=marks)


@pytest.mark.parametrize(
    ("container", "codec"), [pair(container, codec) for container, codecs in PAIRS.items() for codec in codecs]
)
def test_every_frame_is_found_again(tmp_path: Path, container: str, codec: str) -> None:
    encoder, pixel_format, options = CODECS[codec]
    frames = [numbered(i + 1, (48, 192)) for i in range(COUNT)]
    path = make_video(tmp_path / f"v.{container}", frames, codec=encoder, pix_fmt=pixel_format, fps=25, options=options)

    def read(count: int | None = None, start: float = 0.0, limit: int | None = None) -> list[tuple[int, float]]:
        with VideoReader(path, start=start, max_frames=limit, threads=1) as reader:
            return [(number_of(frame.pixels), round(frame.time, 6)) for frame in islice(reader, count)]

    with VideoReader(path, threads=1) as reader:
        assert (reader.fps, reader.rate_varies, reader.info.frame_count) == (25, False, COUNT)
    whole = read()
    assert [number for number, _ in whole] == list(range(1, COUNT + 1))
    assert [time for _, time in whole] == pytest.approx([i / 25 for i in range(COUNT)], abs=0.006)
    # Of all frames from there on, and of so many, which looks through no more of the file than that takes.
    step = 1 if (container, codec) not in QUICK else 4
    for index in sorted({*range(0, COUNT, step), 8, 9, 10, COUNT - 2, COUNT - 1}):
        assert read(2, whole[index][1]) == whole[index : index + 2]
        assert read(start=whole[index][1], limit=2) == whole[index : index + 2]
        clip = read_clip(path, 2, start_frame=index, threads=1)
        assert [number_of(pixels) for pixels in clip.pixels][: 2 - clip.repeated] == [
            number for number, _ in whole[index : index + 2]
        ]
