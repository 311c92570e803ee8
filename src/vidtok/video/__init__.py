"""Video in and out: lazy reading with exact frame selection, resize and crop; writing of H.264 files and pictures.

Importing this package does not import PyAV; reading and writing do.
"""

from vidtok.errors import DamagedVideoError
from vidtok.video.clip import Clip, read_clip
from vidtok.video.container import MediaSlice, VideoInfo
from vidtok.video.frames import Fit, Frame, Pixels, as_rate, resize_and_crop, to_float, to_uint8
from vidtok.video.library import PICTURE_SUFFIXES
from vidtok.video.media import FOLDER_FPS
from vidtok.video.reader import VideoReader, read_video
from vidtok.video.source import probe
from vidtok.video.writer import VideoWriter

__all__ = [
    "FOLDER_FPS",
    "PICTURE_SUFFIXES",
    "Clip",
    "DamagedVideoError",
    "Fit",
    "Frame",
    "MediaSlice",
    "Pixels",
    "VideoInfo",
    "VideoReader",
    "VideoWriter",
    "as_rate",
    "probe",
    "read_clip",
    "read_video",
    "resize_and_crop",
    "to_float",
    "to_uint8",
]
