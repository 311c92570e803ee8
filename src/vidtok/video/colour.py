"""Colour conversion of frames: from decoders to RGB, and from RGB to encoders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidtok.video.frames import Pixels
from vidtok.video.orientation import Orientation, frame_orientation

if TYPE_CHECKING:
    from av.video.frame import VideoFrame
    from av.video.reformatter import VideoReformatter

# AVColorSpace, a stream's tag, to swscale's numbers; both 601 variants share one matrix.
_MATRIX_OF_TAG = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}
_BT601, _BT709 = 5, 1
_LIMITED, _FULL = 1, 2
_BILINEAR, _BICUBIC, _FULL_CHROMA, _FULL_CHROMA_INPUT, _ACCURATE_ROUNDING = 0x2, 0x4, 0x2000, 0x4000, 0x40000


class RGBConverter:
    """Converts decoded frames of one stream to upright RGB; its tables are kept from frame to frame.

    Colour matrix and range come from the stream's tags. Without tags they are what players assume: limited range, and
    BT.709 from 1280 columns or 577 rows on, BT.601 below. Grey counts as full range and alpha is left out, both as in
    FFmpeg. High dynamic range is not tone-mapped, and interlaced frames are not deinterlaced.
    """

    def __init__(self) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter: VideoReformatter = VideoReformatter()

    def __call__(self, frame: VideoFrame, orientation: Orientation | None = None) -> Pixels:
        """The (H, W, 3) uint8 pixels of `frame`, turned and mirrored by `orientation`; None: by the frame's own."""
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
    """Converts RGB frames of one size to YUV frames for an encoder: BT.709, limited range, even sides.

    Chroma of half the resolution needs even sides, so an odd side repeats its last row or column.
    """

    def __init__(self, height: int, width: int, pixel_format: str) -> None:
        from av.video.reformatter import VideoReformatter

        self._size = height + height % 2, width + width % 2
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))
        self._pixel_format = pixel_format
        self._reformatter: VideoReformatter = VideoReformatter()

    def set_up(self, context: Any) -> None:
        """Set size, pixel format and colours of the frames in the codec context of an encoder."""
        context.height, context.width = self._size
        context.pix_fmt = self._pixel_format
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED

    def __call__(self, pixels: Pixels) -> VideoFrame:
        """The YUV frame, without a time, of `pixels` (H, W, 3) uint8 RGB."""
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
