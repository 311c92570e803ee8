"""The state of a stream between two chunks; modules themselves remember nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass
class StreamState:
    """The state of one stream through one encoder or decoder; a fresh one starts a stream.

    Layers that look back are numbered within their encoder or decoder (`slot`), and each finds under its number the
    frames that it kept of the chunk before. Tensors in `past` are replaced, never written to, so a shallow copy is a
    second stream that goes on independently.

    Attributes:
        past: by slot, the last frames that the layer has seen, (B, T, H, W, C).
        started: True once a chunk has passed through. If it is set on a fresh state, the encoder takes groups of f
            frames from the start, with no first frame that stands for a group.
        end: True for the last chunk of the stream: no frames are kept, and a layer that looks ahead returns those that
            it held back.
    """

    past: dict[int, Tensor] = field(default_factory=dict)
    started: bool = False
    end: bool = False

    @classmethod
    def whole(cls) -> StreamState:
        """The state for a clip that comes in one piece."""
        return cls(end=True)

    def copy(self) -> StreamState:
        """A second stream at the same point."""
        return StreamState(dict(self.past), self.started, self.end)

    def keep(self, slot: int, frames: Tensor) -> None:
        """Remember `frames` for the layer at `slot`, unless the stream ends here."""
        if not self.end:
            self.past[slot] = frames


class Coder(Protocol):
    """An encoder or decoder of one stream or tile: it computes the next input and advances `state`."""

    def __call__(self, x: Tensor, state: StreamState) -> Tensor: ...
