"""Colours come out as they went in, whatever the matrix, range, depth and format; pictures stand upright."""

import itertools
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from tests.video.video_files import make_video

from vidtok.video import VideoReader, VideoWriter, probe, read_video

PATCH = 16
COLOURS = np.array(list(itertools.product((0, 85, 170, 255), repeat=3)), np.uint8).reshape(4, 16, 3)
CHART = COLOURS.repeat(PATCH, 0).repeat(PATCH, 1)
LUMA = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593), "smpte240m": (0.212, 0.087)}
TAGS = {"bt601": 6, "bt709": 1, "bt2020": 9, "smpte240m": 7}


def patches(pixels: np.ndarray) -> np.ndarray:
    """The middle of every patch of the chart, (4, 16, 3)."""
    return pixels[PATCH // 2 :: PATCH, PATCH // 2 :: PATCH][:4, :16].astype(int)


def chart_in_yuv(matrix: str, full: bool, bits: int, chroma: str, size: tuple[int, int] | None = None) -> av.VideoFrame:
    """The chart by the formulas of ITU-T H.273, 8.3, with no help from FFmpeg."""
    red, blue = LUMA[matrix]
    rgb = CHART / 255.0
    y = red * rgb[..., 0] + (1 - red - blue) * rgb[..., 1] + blue * rgb[..., 2]
    u, v = (rgb[..., 2] - y) / (2 - 2 * blue), (rgb[..., 0] - y) / (2 - 2 * red)
    scale = 2 ** (bits - 8)
    top = 2**bits - 1
    levels = (top * y, top * u + 128 * scale, top * v + 128 * scale)
    if not full:
        levels = tuple(scale * level for level in (16 + 219 * y, 128 + 224 * u, 128 + 224 * v))
    planes = [np.clip(np.rint(level), 0, top).astype("u1" if bits == 8 else "<u2") for level in levels]
    if size is not None:
        padding = [(0, side - have) for side, have in zip(size, y.shape, strict=True)]
        planes = [np.pad(plane, padding, mode="edge") for plane in planes]
    if chroma == "420":
        planes[1:] = [plane[::2, ::2] for plane in planes[1:]]
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, f"yuv{chroma}p" + ("" if bits == 8 else f"{bits}le"))
    for plane, values in zip(frame.planes, planes, strict=True):
        raw = np.zeros((plane.height, plane.line_size), np.uint8)
        row = np.ascontiguousarray(values).view(np.uint8).reshape(plane.height, -1)
        raw[:, : row.shape[1]] = row
        plane.update(raw.tobytes())
    frame.colorspace, frame.color_range = TAGS[matrix], 2 if full else 1
    return frame


def lossless(path: Path, frame: av.VideoFrame, **tags: int) -> Path:
    options = {"qp": "0", "preset": "ultrafast"}
    return make_video(path, [frame], pix_fmt=frame.format.name, options=options, **tags)


@pytest.mark.parametrize("chroma", ["420", "444"])
@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", LUMA)
def test_a_tagged_chart_comes_back(tmp_path, matrix, full, bits, chroma):
    frame = chart_in_yuv(matrix, full, bits, chroma)
    path = lossless(tmp_path / "chart.mp4", frame, colorspace=TAGS[matrix], color_range=2 if full else 1)
    assert np.abs(patches(read_video(path).numpy()[0]) - COLOURS).max() <= 2


@pytest.mark.parametrize(
    ("size", "matrix"), [((64, 256), "bt601"), ((576, 720), "bt601"), ((578, 720), "bt709"), ((64, 1280), "bt709")]
)
def test_an_untagged_chart_is_read_by_its_size(tmp_path, size, matrix):
    frame = chart_in_yuv(matrix, False, 8, "420", size)
    frame.colorspace = 2
    path = lossless(tmp_path / "chart.mkv", frame)
    assert np.abs(patches(read_video(path).numpy()[0]) - COLOURS).max() <= 2


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("repeats", [1, 10], ids=["small", "large"])
def test_what_is_written_is_read_the_same(tmp_path, suffix, repeats):
    chart = np.tile(CHART, (repeats, 1, 1))
    path = tmp_path / f"chart.{suffix}"
    with VideoWriter(path, 25, crf=1, preset="fast") as writer:
        writer.write(np.stack([chart] * 3))
    for pixels in read_video(path).numpy():
        assert np.abs(patches(pixels) - COLOURS).max() <= 2
    with av.open(str(path)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert context.pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "allowed"),
    [
        ("ffv1", "mkv", "gray", 1), ("ffv1", "mkv", "gray10le", 1), ("ffv1", "mkv", "bgra", 0),
        ("ffv1", "mkv", "gbrp10le", 1), ("ffv1", "mkv", "yuva444p", 2), ("png", "png", "rgb24", 0),
        ("png", "png", "rgba", 0), ("png", "png", "rgb48be", 0), ("png", "png", "ya8", 1), ("bmp", "bmp", "bgr24", 0),
        ("tiff", "tiff", "rgb24", 0), ("mjpeg", "jpg", "yuvj444p", 4), ("libwebp", "webp", "yuv420p", 4),
    ],
)  # fmt: skip
def test_other_pixel_formats(tmp_path, codec, suffix, pix_fmt, allowed):
    grey = "gray" in pix_fmt or pix_fmt.startswith("ya")
    chart = np.repeat(CHART[..., :1], 3, -1) if grey else CHART
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(chart), format="rgb24").reformat(
        format=pix_fmt, dst_colorspace=5, dst_color_range=2 if grey or "j" in pix_fmt else 1
    )
    options = {"libwebp": {"lossless": "0", "quality": "100"}, "mjpeg": {"qmin": "1", "qmax": "1"}}.get(codec, {})
    path = make_video(tmp_path / f"chart.{suffix}", [frame], codec=codec, pix_fmt=pix_fmt, options=options)
    pixels = read_video(path).numpy()
    assert pixels.shape == (1, *CHART.shape)
    assert np.abs(patches(pixels[0]) - patches(chart)).max() <= allowed


def test_a_transparent_picture_keeps_the_colours_under_its_alpha(tmp_path):
    rgba = np.dstack([CHART, np.tile(np.arange(256, dtype=np.uint8), (64, 1))])
    frame = av.VideoFrame.from_ndarray(rgba, format="rgba")
    path = make_video(tmp_path / "clear.png", [frame], codec="png", pix_fmt="rgba")
    np.testing.assert_array_equal(read_video(path).numpy()[0], CHART)


# A picture of which every quarter differs, 24 x 40.
PICTURE = np.zeros((24, 40, 3), np.uint8)
PICTURE[:12, :20], PICTURE[:12, 20:], PICTURE[12:, :20] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("hflip", "vflip"), [(False, False), (True, False), (False, True)])
def test_videos_are_turned_and_mirrored_as_they_ask(tmp_path, degrees, hflip, vflip):
    # set_display_rotation turns counter-clockwise, then mirrors what is shown.
    shown = np.rot90(PICTURE, degrees // 90)
    shown = shown[:, ::-1] if hflip else shown
    shown = shown[::-1] if vflip else shown
    path = make_video(tmp_path / "turned.mp4", [PICTURE] * 2, options={"crf": "1"}, rotation=(degrees, hflip, vflip))
    info = probe(path)
    assert (info.height, info.width) == shown.shape[:2]
    with VideoReader(path) as reader:
        assert reader.size == shown.shape[:2]
        for frame in reader:
            assert np.abs(frame.pixels[6::12, 5::10].astype(int) - shown[6::12, 5::10]).max() < 40
    if not (hflip or vflip):
        assert info.rotation == -degrees % 360


def jpeg_with_orientation(path: Path, stored: np.ndarray, value: int, order: str) -> Path:
    """A JPEG with an EXIF block of nothing but the orientation."""
    context = av.CodecContext.create("mjpeg", "w")
    context.height, context.width = stored.shape[:2]
    context.pix_fmt, context.time_base = "yuvj444p", Fraction(1)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(stored), format="rgb24").reformat(format="yuvj444p")
    frame.pts = 0
    data = b"".join(bytes(packet) for packet in (*context.encode(frame), *context.encode(None)))
    directory = struct.pack(f"{order}IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)
    tiff = (b"II*\0" if order == "<" else b"MM\0*") + directory
    block = b"Exif\0\0" + tiff
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(1, 9))
def test_photographs_are_turned_as_their_exif_data_asks(tmp_path, value, order):
    # PICTURE as a camera in each of the eight positions stores it.
    stored = {
        1: PICTURE,
        2: PICTURE[:, ::-1],
        3: PICTURE[::-1, ::-1],
        4: PICTURE[::-1],
        5: PICTURE.transpose(1, 0, 2),
        6: np.rot90(PICTURE, 1),
        7: PICTURE.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(PICTURE, -1),
    }[value]
    path = jpeg_with_orientation(tmp_path / "photo.jpg", stored, value, order)
    info = probe(path)
    assert (info.height, info.width, info.is_picture) == (24, 40, True)
    pixels = read_video(path).numpy()[0]
    assert np.abs(pixels[6::12, 5::10].astype(int) - PICTURE[6::12, 5::10]).max() < 40


def test_pixels_that_are_not_square_are_told_and_left(tmp_path):
    path = make_video(tmp_path / "wide.mp4", [PICTURE] * 2, sample_aspect_ratio=Fraction(4, 3))
    assert probe(path).sample_aspect_ratio == Fraction(4, 3)
    assert read_video(path).shape == (2, 24, 40, 3)
    turned = make_video(
        tmp_path / "turned.mp4", [PICTURE] * 2, sample_aspect_ratio=Fraction(4, 3), rotation=(90, False, False)
    )
    assert probe(turned).sample_aspect_ratio == Fraction(3, 4)
    with VideoWriter(tmp_path / "kept.mp4", 25, sample_aspect_ratio=Fraction(4, 3)) as writer:
        writer.write(read_video(path).numpy())
    assert probe(tmp_path / "kept.mp4").sample_aspect_ratio == Fraction(4, 3)
