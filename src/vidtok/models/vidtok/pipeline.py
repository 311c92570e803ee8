"""Stages that a clip passes in small pieces, so that activations stay small and memory does not grow with length.

A stage is a part of an encoder or decoder with its layers' slots in the stream's state. Stages are chained as
generators: each asks the one before for as many frames as it works best on, so only a few frames of every stage are
alive at a time. As every layer carries on from the piece before, the result equals the whole clip's.

A piece is handed on in a list of one, and its receiver takes it out of the list: a waiting generator would otherwise
keep the piece alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from vidtok.models.plain import in_eager_inference
from vidtok.models.state import StreamState
from vidtok.models.vidtok.winograd import Workspace

PIECE_BYTES = {"cpu": 1 << 24, "cuda": 1 << 28}
"""Activation size that a stage aims at: fits the caches of a CPU; fills a GPU."""


Piece = list[Tensor]
"""Frames (B, T, H, W, C) on their way from one stage to the next, until they are taken out."""


@dataclass(frozen=True)
class Stage:
    """One step of the chain: a function of (x, state), the channels it works on and its granularity in frames."""

    run: Callable[[Tensor, StreamState], Tensor]
    channels: int
    group: int = 1
    """Frames must come in multiples of this."""
    lead: int = 0
    """Frames that come ahead of the groups at the start of a stream."""


def run_stages(stages: Iterable[Stage], x: Tensor, state: StreamState, *, in_pieces: bool) -> Tensor:
    """`x` (B, T, H, W, C) through all `stages`, in pieces if `in_pieces` and no gradient is wanted.

    Where no frame comes out (a stream's end at which no layer held one back), the result is some tensor with T = 0.
    """
    if not in_eager_inference():
        return _whole(stages, x, state)
    with Workspace():
        if not in_pieces or x.device.type not in PIECE_BYTES:
            return _whole(stages, x, state)
        end = state.end
        pieces: Iterator[Piece] = iter([[x]])
        for stage in stages:
            pieces = _run_stage(stage, pieces, state, end)
        outputs = [piece.pop() for piece in pieces]
    filled = [out for out in outputs if out.shape[1]]
    return torch.cat(filled, 1) if len(filled) > 1 else (filled or outputs)[0]


def _whole(stages: Iterable[Stage], x: Tensor, state: StreamState) -> Tensor:
    for stage in stages:
        x = stage.run(x, state)
    return x


def _run_stage(stage: Stage, pieces: Iterator[Piece], state: StreamState, end: bool) -> Iterator[Piece]:
    for piece, last in _mark_last(_regroup(stage, pieces, state)):
        state.end = end and last
        out = [stage.run(piece.pop(), state)]
        state.end = end
        yield out


def _regroup(stage: Stage, pieces: Iterator[Piece], state: StreamState) -> Iterator[Piece]:
    """The frames of `pieces`, in pieces of the size that suits `stage`."""
    lead = 0 if state.started else stage.lead
    held: Tensor | None = None
    for piece in pieces:
        held = _joined(held, piece.pop())
        per_frame = held.shape[0] * prod(held.shape[2:4]) * stage.channels * held.element_size()
        wanted = max(1, PIECE_BYTES[held.device.type] // (per_frame * stage.group)) * stage.group
        # keeps at least one frame for the end, which the last piece must have unless no frame came
        while held.shape[1] > lead + wanted:
            ready = [held[:, : lead + wanted]]
            held, lead = held[:, lead + wanted :], 0
            yield ready
    if held is not None:
        ready = [held]
        del held
        yield ready


def _joined(held: Tensor | None, piece: Tensor) -> Tensor:
    """The frames of `held`, if any, and then of `piece`."""
    if held is None or not held.shape[1]:
        return piece
    return torch.cat([held, piece], 1) if piece.shape[1] else held


def _mark_last(items: Iterator[Piece]) -> Iterator[tuple[Piece, bool]]:
    """Each item, with True if it is the last."""
    before: Piece | None = None
    for item in items:
        if before is not None:
            yield before, False
        before = item
    if before is not None:
        yield before, True
