"""Tiles and frames to compute at a time, given by hand or chosen so that memory stays below a budget."""

from __future__ import annotations

import logging
import shutil
import tempfile
from bisect import bisect_left
from dataclasses import dataclass

from vidtok.errors import VidTokError
from vidtok.fields import memory_bytes
from vidtok.models.base import VideoModel
from vidtok.models.tiles import Tiling
from vidtok.runtime.limits import CLIP_FRAMES, frames_at_a_time
from vidtok.runtime.memory import Direction, Footprints, footprints, resting_bytes, with_unseen
from vidtok.runtime.options import ComputeOptions

log = logging.getLogger(__name__)

_SMALLEST_CHOSEN = 128
"""Pixels a side below which no tile is chosen for a budget: it would see too little, and overlap too much."""
_PIXEL_BYTES = 60
"""Bytes outside of the model for each pixel of the frames computed at a time: as uint8 and as float32, before and
after."""
_CODEC_BYTES = 200
"""Bytes that video decoding and encoding hold for each pixel of one frame, mostly frames for look-ahead."""
_GPU_PIXEL_BYTES = 36
"""Bytes on a GPU outside of the model for each pixel of the frames computed at a time."""
_SCATTERED = 0.4
"""Memory lost to fragmentation, measured, as a share of the states that are kept while other tiles are computed."""
_SHARE_OF_FRAMES = 5
"""Frames outside of the model may take one part in this many of the budget."""


@dataclass(frozen=True)
class Plan:
    """Tiles and frames that are computed at a time."""

    tiling: Tiling | None
    """Tiles that frames are cut into; None: frames are left whole."""
    frames: int
    """Number of video frames at a time."""
    memory: int | None
    """Bytes predicted at the peak; None if no budget was given."""


def plan(
    model: VideoModel, size: tuple[int, int], options: ComputeOptions, direction: Direction, length: int | None = None
) -> Plan:
    """Tiles and frames at a time for `model` and a video of `length` frames (None: unknown) of `size` (height, width).

    Without options, tiles are the model's own (`model.tiling`). With a budget, they are the largest that stay within
    it; the stream states of tiles that are not being computed are offloaded if they do not fit.

    Raises `VidTokError` if no tiles stay within the budget, or an option does not fit the model.
    """
    chosen = _plan(model, size, options, direction, length)
    tiles = None if chosen.tiling is None else chosen.tiling.grid(size, model.spatial_factor)
    log.info(
        "frames of %d x %d pixels, %d at a time, %s%s",
        size[1],
        size[0],
        chosen.frames,
        "whole" if tiles is None else "in {rows} x {columns} tiles".format(**tiles),
        "" if chosen.memory is None else f", about {chosen.memory / 1e9:.1f} GB",
    )
    return chosen


def _plan(
    model: VideoModel, size: tuple[int, int], options: ComputeOptions, direction: Direction, length: int | None
) -> Plan:
    if options.tile is None and options.max_memory is None:
        return Plan(model.tiling, frames_at_a_time(model.config, size, options.chunk_frames), None)
    model.check_tiles()
    if options.max_memory is None:
        assert options.tile is not None
        tiling = _needed(options.tiling(options.tile), model, size)
        return Plan(tiling, _frames(model, size, options, None if tiling is None else CLIP_FRAMES), None)
    return _Search(model, size, options, direction, length).plan()


class _Search:
    """The search for the largest tiles that stay below a budget."""

    def __init__(
        self,
        model: VideoModel,
        size: tuple[int, int],
        options: ComputeOptions,
        direction: Direction,
        length: int | None,
    ) -> None:
        assert options.max_memory is not None
        self._model = model
        self._size = size
        self._options = options
        self._direction = direction
        self._limit = memory_bytes(options.max_memory)
        self._resting = resting_bytes(model)
        self._frames = self._frames_below(self._limit // _SHARE_OF_FRAMES)
        streams = model.is_causal and (length is None or length > 1 + self._frames)
        self._streams = streams
        """True if tiles have states between chunks; a clip in one piece has none."""

    def plan(self) -> Plan:
        tilings = self._tilings()
        first = bisect_left(range(len(tilings)), True, key=lambda i: self._least(tilings[i]) <= self._limit)
        for tiling in tilings[first:]:
            for offload in (False, True) if tiling is not None and self._streams else (False,):
                needed = self._bytes(tiling, offload=offload)
                if needed <= self._limit and not (offload and self._disk(tiling) > self._free_disk()):
                    chosen = Tiling(tiling.size, tiling.overlap, offload) if tiling is not None else None
                    return Plan(chosen, self._frames, needed)
        raise self._too_little(tilings)

    def _tilings(self) -> list[Tiling | None]:
        """Candidates: None for whole frames, then tilings from large tiles to small ones; only the given one if any."""
        options, factor = self._options, self._model.spatial_factor
        if options.tile is not None:
            return [_needed(options.tiling(options.tile), self._model, self._size)]
        side = -(-max(self._size) // factor) * factor
        found: list[Tiling | None] = [None]
        while True:
            count = len(found) + 1
            tile = -(-(side + (count - 1) * options.overlap) // (count * factor)) * factor
            if tile < max(2 * options.overlap, _SMALLEST_CHOSEN):
                return found
            found.append(options.tiling(tile))

    def _least(self, tiling: Tiling | None) -> int:
        """Bytes at the peak with these tiles if their states are offloaded."""
        return self._bytes(tiling, offload=tiling is not None)

    def _bytes(self, tiling: Tiling | None, *, offload: bool) -> int:
        """Bytes at the peak."""
        tiles, used = self._grid(tiling)
        if offload or not self._streams:
            inside = used.one_tile(self._direction)
        else:
            inside = used.streaming(self._direction, tiles)
            inside += round(_SCATTERED * (tiles - 1) * used.states(self._direction))
        return self._resting + with_unseen(inside, self._model) + self._outside(self._frames)

    def _disk(self, tiling: Tiling | None) -> int:
        """Bytes of all offloaded stream states."""
        tiles, used = self._grid(tiling)
        return tiles * used.states(self._direction)

    def _free_disk(self) -> int:
        """Bytes that offloaded stream states may take: 90% of the free disk, or for a GPU's states without limit."""
        if self._model.device.type != "cpu":
            return 1 << 60
        return shutil.disk_usage(tempfile.gettempdir()).free * 9 // 10

    def _grid(self, tiling: Tiling | None) -> tuple[int, Footprints]:
        """Number of tiles, and the memory of one."""
        tiles, height, width = _grid(tiling, self._size, self._model.spatial_factor)
        return tiles, footprints(self._model, self._frames, height, width)

    def _frames_below(self, limit: int) -> int:
        """Frames at a time that take at most `limit` bytes outside of the model; more if one group of frames does."""
        wanted = CLIP_FRAMES
        while wanted > self._model.temporal_factor and self._outside(wanted) > limit:
            wanted //= 2
        return _frames(self._model, self._size, self._options, wanted)

    def _outside(self, frames: int) -> int:
        """Bytes of `frames` at a time outside of the model, in the memory that it computes in."""
        pixels = self._size[0] * self._size[1]
        if self._model.device.type != "cpu":
            return _GPU_PIXEL_BYTES * (frames + 1) * pixels
        return (_PIXEL_BYTES * (frames + 1) + _CODEC_BYTES) * pixels

    def _too_little(self, tilings: list[Tiling | None]) -> VidTokError:
        size, model, limit = f"{self._size[1]} x {self._size[0]}", self._model.name, self._options.max_memory
        smallest = tilings[-1]
        needed = self._least(smallest)
        if needed > self._limit:
            tiles, height, width = _grid(smallest, self._size, self._model.spatial_factor)
            how = f"in tiles of {width} x {height}" if tiles > 1 else "in one piece"
            return VidTokError(
                f"max_memory is {limit}, but {model} needs about {needed / 1e9:.1f} GB for frames of {size} pixels "
                f"{how}; allow more, or choose smaller frames (--size), fewer at a time (--chunk-frames) or bfloat16 "
                "(--dtype)"
            )
        fitting = next(tiling for tiling in tilings if self._least(tiling) <= self._limit)
        return VidTokError(
            f"max_memory is {limit}, for which {model} has to keep {self._disk(fitting) / 1e9:.1f} GB for frames of "
            f"{size} pixels in temporary files, more than {tempfile.gettempdir()} has room for; name a folder with "
            "more space in the environment variable TMPDIR, allow more memory, or choose smaller frames (--size)"
        )


def _grid(tiling: Tiling | None, size: tuple[int, int], factor: int) -> tuple[int, int, int]:
    """Number of tiles, and height and width of one in pixels."""
    if tiling is None:
        height, width = (-(-side // factor) * factor for side in size)
        return 1, height, width
    rows, columns = (tiling.spans(side, factor) for side in size)
    height, width = ((spans[0].stop - spans[0].start) * factor for spans in (rows, columns))
    return len(rows) * len(columns), height, width


def _needed(tiling: Tiling, model: VideoModel, size: tuple[int, int]) -> Tiling | None:
    """`tiling` if it cuts frames of `size` into several tiles, else None."""
    return tiling if _grid(tiling, size, model.spatial_factor)[0] > 1 else None


def _frames(model: VideoModel, size: tuple[int, int], options: ComputeOptions, wanted: int | None) -> int:
    """Frames at a time: from the options, else `wanted` for a causal model (None: a number that suits the size)."""
    given = options.chunk_frames
    if given is None and model.is_causal:
        given = wanted
    return frames_at_a_time(model.config, size, given)
