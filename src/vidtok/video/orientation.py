"""Orientation of stored frames, from the display matrix of a video or the EXIF tag of a photograph."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from vidtok.video.frames import Pixels

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

_EXIF_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Orientation:
    """The change from a stored frame to the shown one: transposed first, then mirrored."""

    transpose: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    @property
    def rotation(self) -> int:
        """Degrees of the clockwise turn, 0, 90, 180 or 270; a mirror image is mirrored left to right, then turned."""
        if self.transpose:
            return 90 if self.mirror_columns else 270
        return 180 if self.mirror_rows else 0

    def __call__(self, pixels: Pixels) -> Pixels:
        """`pixels`, (H, W, 3), turned and mirrored."""
        if self.transpose:
            pixels = pixels.transpose(1, 0, 2)
        if self.mirror_columns:
            pixels = pixels[:, ::-1]
        if self.mirror_rows:
            pixels = pixels[::-1]
        return np.ascontiguousarray(pixels)


UPRIGHT = Orientation()
_OF_ROTATION = {
    0: UPRIGHT,
    90: Orientation(True, mirror_columns=True),
    180: Orientation(False, True, True),
    270: Orientation(True, mirror_rows=True),
}
# The EXIF standard (CIPA DC-008), 4.6.4: places of the stored row 0 and column 0 on the shown picture.
_OF_EXIF = {
    1: UPRIGHT,
    2: Orientation(False, mirror_columns=True),
    3: Orientation(False, True, True),
    4: Orientation(False, mirror_rows=True),
    5: Orientation(True),
    6: Orientation(True, mirror_columns=True),
    7: Orientation(True, True, True),
    8: Orientation(True, mirror_rows=True),
}


def frame_orientation(frame: VideoFrame) -> Orientation:
    """Orientation in the display matrix of a decoded frame; anything but quarter turns and mirroring is ignored.

    The matrix moves the pixel at column p and row q to column a p + c q and row b p + d q.
    """
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:
        # PyAV gives no side data at all if it does not know the type of one item, but has another way to the angle.
        return _OF_ROTATION.get(-frame.rotation % 360, UPRIGHT)
    if data is None:
        return UPRIGHT
    matrix = np.frombuffer(bytes(cast(Any, data)), dtype=np.int32)
    a, b, c, d = (int(np.rint(matrix[i] / 65536)) for i in (0, 1, 3, 4))
    if a == d == 0 and abs(b) == abs(c) == 1:
        return Orientation(True, mirror_columns=c < 0, mirror_rows=b < 0)
    if b == c == 0 and abs(a) == abs(d) == 1:
        return Orientation(False, mirror_columns=a < 0, mirror_rows=d < 0)
    return UPRIGHT


def exif_orientation(data: bytes) -> Orientation | None:
    """Orientation in the EXIF block of a JPEG that begins with `data`; None if it has none."""
    at = data.find(b"Exif\0\0")
    if not data.startswith(b"\xff\xd8") or at < 0:
        return None
    tiff = data[at + 6 :]
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None:
        return None
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _EXIF_ORIENTATION_TAG:
                return _OF_EXIF.get(value)
    except struct.error:
        return None
    return None
