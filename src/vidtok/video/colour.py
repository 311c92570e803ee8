"""Colours of frames: decoded ones to RGB, RGB to what encoders take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidtok.video.frames import Pixels
from vidtok.video.orientation import Orientation, frame_orientation

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

# AVColorSpace (what a stream is tagged with) to swscale's numbers; both 601 variants share one matrix.
_MATRIX_OF_TAG = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT601, _BT709 = 5, 1
_LIMITED, _FULL = 1, 2
_BILINEAR, _BICUBIC, _FULL_CHROMA, _FULL_CHROMA_INPUT, _ACCURATE_ROUNDING = 0x2, 0x4, 0x2000, 0x4000, 0x40000


class RGBConverter:
    """Decoded frames as RGB, upright. Keeps the converter of one stream ready between frames.

    The stream's tags say which matrix and range its colours use. Without tags, players' assumptions hold: BT.709
    from 1280 columns or 577 rows on, BT.601 below, limited range. Grey counts as full range and alpha is left out, as
    FFmpeg does both. There is no tone mapping of high dynamic range, and no deinterlacing.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter: VideoReformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, orientation: Orientation | None = None) -> Pixels:
        """(H, W, 3) uint8, turned and mirrored as `orientation`, or else the frame itself, asks for."""
        flags = _BILINEAR | _FULL_CHROMA | _ACCURATE_ROUNDING
        if frame.format.is_rgb or "pal8" in frame.format.name:
            rgb = self._reformatter.reformat(frame, format="rgb24", interpolation=flags)
        else:
            hd = frame.width >= 1280 or frame.height > 576
            limited = frame.color_range != _FULL and not frame.format.name.startswith("yuvj")
            rgb = self._reformatter.reformat(
                frame,
                format="rgb24",
                interpolation=flags,
                src_colorspace=_MATRIX_OF_TAG.get(frame.colorspace, _BT709 if hd else _BT601),
                src_color_range=_LIMITED if limited else _FULL,
                dst_color_range=_FULL,
            )
        return (orientation or frame_orientation(frame))(rgb.to_ndarray().astype(np.uint8, copy=False))


class YUVConverter:
    """RGB frames of one size as YUV frames for an encoder: BT.709, limited range, sides made even.

    Chroma of half the resolution wants even sides; the last row or column is repeated for that.
    """

    def __init__(self, height: int, width: int, pixel_format: str) -> None:
        from av.video.reformatter import VideoReformatter

        self._size = height + height % 2, width + width % 2
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._pixel_format = pixel_format
        self._reformatter: VideoReformatter = VideoReformatter()

    def set_up(self, context: Any) -> None:
        """Tell the codec context of an encoder the frames' size, format and colours."""
        context.height, context.width = self._size
        context.pix_fmt = self._pixel_format
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED

    def __call__(self, pixels: Pixels) -> VideoFrame:
        """The frame of (H, W, 3) uint8 RGB, with no time yet."""
        from av.video.frame import VideoFrame

        padded = np.pad(pixels, self._padding, mode="edge") if any(after for _, after in self._padding) else pixels
        rgb: Any = VideoFrame.from_ndarray(np.ascontiguousarray(padded), format="rgb24")
        return self._reformatter.reformat(
            rgb,
            format=self._pixel_format,
            interpolation=_BICUBIC | _FULL_CHROMA_INPUT | _ACCURATE_ROUNDING,
            dst_colorspace=_BT709,
            src_color_range=_FULL,
            dst_color_range=_LIMITED,
        )
