"""Options of all file-to-file jobs: the part of a video to read, and the frames and tiles to compute at a time."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vidtok.errors import VidTokError
from vidtok.fields import memory_bytes
from vidtok.models.tiles import DEFAULT_OVERLAP, Tiling
from vidtok.runtime.limits import frame_size

if TYPE_CHECKING:
    from vidtok.models.base import VideoModel
    from vidtok.video import VideoReader


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Frames and tiles to compute at a time. Raises `VidTokError` for a value that cannot be used."""

    chunk_frames: int | None = None
    """Frames to compute at a time. For a causal model it only trades speed for memory (None: 16, or fewer if they are
    large); for a non-causal one it is the length of a clip (None: 16)."""
    tile: int | None = None
    """Cut frames into tiles of at most this many pixels a side, see `vidtok.Tiling`; None: the model's own tiles, if it
    has any, or with `max_memory` the largest that fit."""
    tile_overlap: int | None = None
    """Pixels by which neighbouring tiles overlap at least; None: 64, or half a tile if that is less."""
    max_memory: int | str | None = None
    """Choose tiles (if none are given) and frames at a time so that the process, or for a model on a GPU the GPU,
    needs no more memory than this: bytes, or text such as "6GB"."""

    def __post_init__(self) -> None:
        if self.chunk_frames is not None and self.chunk_frames < 1:
            raise VidTokError(f"chunk_frames is {self.chunk_frames}; expected at least 1")
        if self.max_memory is not None:
            memory_bytes(self.max_memory)
        if self.tile is not None:
            self.tiling(self.tile)
        elif self.tile_overlap is not None:
            if self.max_memory is None:
                raise VidTokError(
                    f"tile_overlap is {self.tile_overlap}, but there are no tiles; give --tile or --max-memory (tile, "
                    "max_memory) too"
                )
            if self.tile_overlap < 0:
                raise VidTokError(f"tile_overlap is {self.tile_overlap}; expected at least 0")

    @property
    def overlap(self) -> int:
        """Pixels by which tiles overlap if they are large enough."""
        return DEFAULT_OVERLAP if self.tile_overlap is None else self.tile_overlap

    def tiling(self, size: int, *, offload: bool = False) -> Tiling:
        """Tiles of `size` pixels a side with the overlap of these options. Raises `VidTokError` if they do not fit."""
        overlap = self.overlap if self.tile_overlap is not None else min(self.overlap, size // 2)
        return Tiling(size, overlap, offload)


@dataclass(frozen=True, kw_only=True)
class ReadOptions(ComputeOptions):
    """The part of a video to read, its frame size and rate, and the frames to compute at a time."""

    height: int | None = None
    """Rows after resize and crop, see `VideoReader`; as `width` if only that is given, as stored if neither is."""
    width: int | None = None
    """Columns, likewise."""
    default_size: int | None = None
    """Rows and columns if neither is given and the model takes any size; None: as stored."""
    fps: float | None = None
    """Frames per second to sample; None: every frame."""
    start: float = 0.0
    """Seconds into the video to start at."""
    max_frames: int | None = None
    """Stop after this many frames; None: read to the end."""
    allow_truncated: bool = False
    """Let a damaged video end where the damage begins, instead of raising."""
    stream: int | None = None
    """Number of the video stream in the file, from 0 on; None: the one that FFmpeg takes by default."""

    @property
    def to_the_end(self) -> bool:
        """True if the video is read from its start to its end."""
        return self.start == 0 and self.max_frames is None

    def open(self, input: str | os.PathLike[str]) -> VideoReader:
        """A reader of `input`, set up before the model is known. Raises `VideoError` if it cannot be read."""
        from vidtok.video import VideoReader

        return VideoReader(
            input,
            sample_fps=self.fps,
            height=self.default_size if self.height is None and self.width is None else self.height,
            width=self.width,
            max_frames=self.max_frames,
            start=self.start,
            allow_truncated=self.allow_truncated,
            stream=self.stream,
        )

    def fit(self, reader: VideoReader, model: VideoModel) -> None:
        """Let `reader` give frames of the size that `model` takes.

        Raises `VidTokError` if the model does not take the size that the options give.
        """
        reader.fit(*frame_size(model, self.height, self.width, self.default_size))
