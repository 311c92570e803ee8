"""The values that a video becomes, batch by batch, from its start or from where an interrupted run had come to."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from vidtok.models.vidtok.receptive import unsettled_latents
from vidtok.runtime.streams import EncodeStream
from vidtok.video import Frame, Pixels, to_float

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer, VidTok

Batch = tuple[list[Frame], Tensor]
"""Frames, and the values that are complete with them: (1, T', H', W') or (1, z, T', H', W'), T' >= 0."""


def batches(frames: Iterator[Frame], at_a_time: int, *, causal: bool) -> Iterator[list[Frame]]:
    """`frames`, `at_a_time` together; in front of a causal model's first batch stands one more, which is alone."""
    wanted = at_a_time + 1 if causal else at_a_time
    batch: list[Frame] = []
    for frame in frames:
        batch.append(frame)
        if len(batch) == wanted:
            yield batch
            batch, wanted = [], at_a_time
    if batch:
        yield batch


def encoded(model: Tokenizer, frames: Iterator[list[Frame]], at_a_time: int, known: int = 0) -> Iterator[Batch]:
    """Every batch of `frames`, as `batches` gives them, with the values that are complete with it.

    The first `known` latent frames are there already and are left out. What follows them is, to the last bit, what it
    is where nothing is known: a stream is started early enough before, and its batches are cut in the same way.
    """
    pieces = _streamed(model, frames, at_a_time, known) if model.is_causal else _clips(model, frames, at_a_time, known)
    at = 0
    for batch, values, latents in pieces:
        yield batch, values[..., max(0, known - at) :, :, :]
        at += latents


def _clips(model: Tokenizer, frames: Iterator[list[Frame]], at_a_time: int, known: int) -> Iterator[_Piece]:
    latents = at_a_time // model.config.temporal_factor
    for number, batch in enumerate(frames):
        if (number + 1) * latents <= known:
            yield batch, _nothing(), latents
        else:
            values = model.encode_packed(_video(batch))
            yield batch, values, values.shape[-3]


def _streamed(model: Tokenizer, frames: Iterator[list[Frame]], at_a_time: int, known: int) -> Iterator[_Piece]:
    first = next(frames)
    second = next(frames, None)
    if second is None:
        # One piece: what `encode` of all of it gives, to the last bit.
        values = model.encode_packed(_video(first))
        yield first, values, values.shape[-3]
        return
    discrete = model.regularization.discrete
    each = at_a_time // model.config.temporal_factor
    passed_over = max(0, (known - 1 - unsettled_latents(model.encoder)) // each)
    with EncodeStream(cast("VidTok", model), sample=False, tiling=model.tiling, midway=passed_over > 0) as stream:
        for number, batch in enumerate(chain((first, second), frames)):
            if number < passed_over:
                yield batch, _nothing(), each if number else 1 + each
                continue
            z = stream.push(_video(batch))
            yield batch, stream.log["indices"] if discrete else z, z.shape[2]
        z = stream.flush()
        yield [], stream.log["indices"] if discrete else z, z.shape[2]


_Piece = tuple[list[Frame], Tensor, int]
"""Frames, values, and how many latent frames these would be if they had been computed."""


def _nothing() -> Tensor:
    return torch.empty(1, 0, 1, 1)


def _video(frames: list[Frame]) -> Tensor:
    pixels: Pixels = np.stack([frame.pixels for frame in frames])
    return to_float(pixels)
