"""Large frames in overlapping tiles, so that the memory of a coder depends on the tile and not on the frame.

In space, tiles are an approximation: convolutions look a bounded number of pixels around them, but the attention at the
deepest level sees the whole frame. In time they are exact, as every tile is a stream of its own. Encoding blends the
encoder's output (the moments for KL, the unbounded values for FSQ, so that every position still becomes one token),
decoding blends pixels. In an overlap, the weights of the tiles sum to one and fall smoothly to zero at a tile's edge,
where the tile does not see its surroundings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.models.offloading import OffloadedState
from vidtok.models.state import Coder, StreamState

DEFAULT_OVERLAP = 64
SMALLEST_TILE = 64
"""Pixels a side below which a tile shows a model too little of the frame."""

OnTile = Callable[[int, int, int, bool], None]
"""Function called with the number of a finished tile from 1 on, the number of tiles, the frames that each has, and True
if they are being encoded, False if decoded."""
_on_tile: ContextVar[OnTile | None] = ContextVar("on tile", default=None)


@contextmanager
def reporting_tiles(on_tile: OnTile) -> Iterator[None]:
    """Call `on_tile` after each tile that is computed inside the block: large frames take long."""
    token = _on_tile.set(on_tile)
    try:
        yield
    finally:
        _on_tile.reset(token)


@dataclass(frozen=True)
class Tiling:
    """Tiles that frames are cut into.

    A frame is covered by the fewest tiles of at most `size` pixels a side that overlap by at least `overlap`; they are
    then made equally large, and no larger than that needs. A frame of at most `size` is left whole.

    Raises `VidTokError` if the tiles are too small, or overlap by more than half.
    """

    size: int = 256
    """Pixels of a tile's side at most; rounded down to a multiple of the model's spatial factor."""
    overlap: int = DEFAULT_OVERLAP
    """Pixels by which neighbouring tiles overlap at least; rounded up to such a multiple."""
    offload: bool = False
    """Keep the stream states of tiles elsewhere while other tiles are computed: for a model on a GPU in the machine's
    memory, else in temporary files (below `tempfile.gettempdir()`, which the variable TMPDIR sets)."""

    def __post_init__(self) -> None:
        if self.size < SMALLEST_TILE:
            raise VidTokError(f"a tile has {self.size} pixels a side; expected at least {SMALLEST_TILE}")
        if not 0 <= self.overlap <= self.size // 2:
            raise VidTokError(
                f"tiles of {self.size} pixels overlap by {self.overlap}; expected 0 to {self.size // 2}, half a tile"
            )

    def spans(self, length: int, factor: int) -> tuple[Span, ...]:
        """The spans of tiles along `length` pixels, in units of `factor` pixels, the model's spatial factor."""
        units, overlap = -(-length // factor), -(-self.overlap // factor)
        size = max(self.size // factor, overlap + 1)
        count = max(1, -(-(units - overlap) // (size - overlap)))
        size = min(units, -(-(units + (count - 1) * overlap) // count))
        starts = [round(i * (units - size) / (count - 1)) for i in range(count)] if count > 1 else [0]
        return tuple(Span(start, start + size) for start in starts)

    def grid(self, size: tuple[int, int], factor: int) -> dict[str, int] | None:
        """Size, overlap and numbers of the tiles of frames of `size` (height, width); None if they are left whole."""
        rows, columns = (len(self.spans(side, factor)) for side in size)
        if rows * columns == 1:
            return None
        return {"size": self.size, "overlap": self.overlap, "rows": rows, "columns": columns}


@dataclass(frozen=True)
class Span:
    """A range along one axis, in latent positions."""

    start: int
    stop: int

    def scaled(self, scale: int) -> slice:
        return slice(self.start * scale, self.stop * scale)


class _Window(NamedTuple):
    """The place of a tile in a frame."""

    rows: slice
    columns: slice


def blending_weights(spans: tuple[Span, ...], scale: int) -> list[Tensor]:
    """The weight of each of `spans` at each of its positions, (length x scale,) float32.

    Weights sum to one at every position, and rise from an edge inside the frame as a raised cosine.
    """
    length = spans[-1].stop * scale
    total = torch.zeros(length, dtype=torch.float64)
    ramps = []
    shared = [(before.stop - after.start) * scale for before, after in pairwise(spans)]
    for i, span in enumerate(spans):
        ramp = torch.ones((span.stop - span.start) * scale, dtype=torch.float64)
        if i:
            ramp[: shared[i - 1]] *= _rise(shared[i - 1])
        if i < len(shared):
            ramp[len(ramp) - shared[i] :] *= _rise(shared[i]).flip(0)
        total[span.scaled(scale)] += ramp
        ramps.append(ramp)
    return [(ramp / total[span.scaled(scale)]).float() for span, ramp in zip(spans, ramps, strict=True)]


def _rise(length: int) -> Tensor:
    """A raised cosine (length,) from near 0 to near 1; it sums to 1 with its reverse."""
    return torch.sin((torch.arange(length, dtype=torch.float64) + 0.5) / length * (math.pi / 2)) ** 2


@dataclass
class TiledState(StreamState):
    """The state of one stream through a tiled coder: a state of its own for every tile, in reading order."""

    offload: bool = False
    tiles: dict[int, StreamState | OffloadedState] = field(default_factory=dict)

    def copy(self) -> TiledState:
        tiles = {i: tile.copy() if isinstance(tile, StreamState) else tile for i, tile in self.tiles.items()}
        return TiledState(started=self.started, end=self.end, offload=self.offload, tiles=tiles)

    def take(self, index: int, device: torch.device) -> StreamState:
        """Take out the state of a tile, on `device`; `put` gives it back."""
        tile = self.tiles.pop(index, None)
        state = tile.load(device) if isinstance(tile, OffloadedState) else tile or StreamState(started=self.started)
        state.end = self.end
        return state

    def put(self, index: int, state: StreamState) -> None:
        """Give back the state of a tile, unless the stream ends here."""
        if not self.end:
            self.tiles[index] = OffloadedState(state) if self.offload else state


class TiledCoder:
    """An encoder or decoder that takes frames tile by tile.

    Args:
        coder: the encoder or decoder, called for every tile with a stream state of its own.
        tiling: the tiles that frames are cut into.
        factor: the model's spatial factor.
        encodes: True if `coder` turns pixels into latents, False if it turns latents into pixels.
    """

    def __init__(self, coder: Coder, tiling: Tiling, factor: int, *, encodes: bool) -> None:
        self._coder = coder
        self._tiling = tiling
        self._factor = factor
        self._encodes = encodes
        self._scale_in, self._scale_out = (factor, 1) if encodes else (1, factor)

    def new_state(self) -> TiledState:
        """The state at the start of a stream."""
        return TiledState(offload=self._tiling.offload)

    def __call__(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """(B, C, T, H, W) -> (B, C', T', H', W') as by the coder; H and W are multiples of the factor for an encoder.

        `state` is one that `new_state` returned, and is advanced; None for a clip in one piece.
        """
        if state is None:
            state = self.new_state()
            state.end = True
        assert isinstance(state, TiledState)
        axes = [self._tiling.spans(size // self._scale_in * self._factor, self._factor) for size in x.shape[3:]]
        out: Tensor | None = None
        for index, (tile, window, weight) in enumerate(self._tiles(axes)):
            own = state.take(index, x.device)
            piece = self._coder(x[..., tile.rows, tile.columns], own)
            state.put(index, own)
            del own
            if (on_tile := _on_tile.get()) is not None:
                frames = (x if self._encodes else piece).shape[2]
                on_tile(index + 1, len(axes[0]) * len(axes[1]), frames, self._encodes)
            if len(axes[0]) * len(axes[1]) == 1:
                out = piece
                break
            if out is None:
                height, width = (spans[-1].stop * self._scale_out for spans in axes)
                dtype = torch.promote_types(piece.dtype, torch.float32)
                out = piece.new_zeros(*piece.shape[:3], height, width, dtype=dtype)
            out[..., window.rows, window.columns].addcmul_(piece.to(out.dtype), weight.to(out.device, out.dtype))
        assert out is not None
        state.started = True
        return out.to(piece.dtype)

    def _tiles(self, axes: list[tuple[Span, ...]]) -> Iterator[tuple[_Window, _Window, Tensor]]:
        """The place of every tile in the input and in the output, and its weights (H, W) in the output."""
        rows, columns = (
            list(zip(spans, blending_weights(spans, self._scale_out), strict=True)) for spans in axes
        )  # fmt: skip
        for row, row_weights in rows:
            for column, column_weights in columns:
                tile = _Window(row.scaled(self._scale_in), column.scaled(self._scale_in))
                window = _Window(row.scaled(self._scale_out), column.scaled(self._scale_out))
                yield tile, window, row_weights[:, None] * column_weights
