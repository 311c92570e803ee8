"""Order of tokens in a sequence, markers between them, and the digits that a token consists of.

A sequence has the tokens of the first latent frame row by row, each row from left to right, then those of the second
frame, and so on: place ((t H' + y) W' + x) has the token of frame t, row y, column x. So a prefix of a sequence is a
prefix of the video. Markers are numbers beyond the codebook of K entries: K begins a video, K + 1 begins each frame
after the first. With both, a video of two frames of 1 x 2 tokens is `K a b K+1 c d`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


def vocabulary_size(codebook_size: int) -> int:
    """Number of different values in sequences: the codebook and the two markers."""
    return codebook_size + 2


def begin_token(codebook_size: int) -> int:
    """The marker at the start of a video."""
    return codebook_size


def frame_token(codebook_size: int) -> int:
    """The marker in front of every latent frame but the first."""
    return codebook_size + 1


def flatten(indices: Tensor, *, codebook_size: int | None = None, begin: bool = False, frames: bool = False) -> Tensor:
    """Tokens as sequences.

    Args:
        indices: (B, T', H', W'), whole numbers, as `log["indices"]` of an encoding and token files have them.
        codebook_size: K, `model.codebook_size`; needed for markers.
        begin: put `begin_token` at the start.
        frames: put `frame_token` in front of every latent frame but the first.

    Returns:
        (B, N) int64. N = T' H' W', one more with `begin`, and T' - 1 more with `frames`.

    Raises:
        ValueError: `indices` has another shape or is not of whole numbers, or a marker is wanted without the size.
    """
    _check_whole(indices, "indices", 4, "(B, T', H', W')")
    batch, count = indices.shape[:2]
    rows = indices.long().flatten(2)
    first = rows[:, :1].flatten(1)
    if not (begin or frames):
        return rows.flatten(1)
    size = _size(codebook_size)
    if frames:
        marks = rows.new_full((batch, max(0, count - 1), 1), frame_token(size))
        rest = torch.cat([marks, rows[:, 1:]], 2).flatten(1)
    else:
        rest = rows[:, 1:].flatten(1)
    start = [rows.new_full((batch, 1), begin_token(size))] if begin else []
    return torch.cat([*start, first, rest], 1)


def unflatten(
    sequence: Tensor,
    size: tuple[int, int],
    *,
    codebook_size: int | None = None,
    begin: bool = False,
    frames: bool = False,
) -> Tensor:
    """The tokens (B, T', H', W') int64 of a `sequence` (B, N) that `flatten` makes with the same markers.

    `size` is (H', W'). Raises `ValueError` if N is not of whole latent frames, a marker is missing, or one stands
    between the tokens, as a model may have sampled it.
    """
    _check_whole(sequence, "the sequence", 2, "(B, N)")
    batch, length = sequence.shape
    height, width = size
    each = height * width
    count, rest = divmod(length - begin + frames, each + frames)
    if rest or count < 1:
        raise ValueError(
            f"the sequence has {length} values; expected whole latent frames of {height} x {width}"
            f"{' and a marker at the start' if begin else ''}{' and one between frames' if frames else ''}"
        )
    values = sequence.long()[:, int(begin) :]
    if frames:  # a marker in front of every frame, also of the first
        values = torch.cat([values.new_full((batch, 1), frame_token(_size(codebook_size))), values], 1)
        values = values.view(batch, count, each + 1)
        _check_marks(values[..., 0], frame_token(_size(codebook_size)), "frame")
        values = values[..., 1:]
    if begin:
        _check_marks(sequence[:, 0], begin_token(_size(codebook_size)), "begin")
    values = values.reshape(batch, count, height, width)
    if codebook_size is not None and values.numel():
        low, high = int(values.min()), int(values.max())
        if low < 0 or high >= codebook_size:
            raise ValueError(
                f"tokens run from {low} to {high}; expected 0 to {codebook_size - 1}, with no marker between"
            )
    return values


def digits(tokens: Tensor, levels: Sequence[int]) -> Tensor:
    """Digits (..., C) int64 of `tokens` (...), one a channel, the first channel's first.

    `levels` are the channels' numbers of values, `model.config.bottleneck.levels`. A codebook of 32,768 codes is five
    digits of 8 values, which a small model learns sooner. Raises `ValueError` for numbers outside of the codebook.
    """
    _check_whole(tokens, "tokens", None, "whole numbers")
    size = prod(levels)
    if tokens.numel() and (int(tokens.min()) < 0 or int(tokens.max()) >= size):
        raise ValueError(
            f"tokens run from {int(tokens.min())} to {int(tokens.max())}; expected 0 to {size - 1} of the levels "
            f"{list(levels)}"
        )
    places = tokens.long().unsqueeze(-1) // _places(levels, tokens.device)
    return places % torch.tensor(list(levels), device=tokens.device)


def from_digits(values: Tensor, levels: Sequence[int]) -> Tensor:
    """The tokens (...) int64 of digits (..., C); undoes `digits`. Raises `ValueError` for another number of digits."""
    _check_whole(values, "digits", None, "whole numbers")
    if not values.dim() or values.shape[-1] != len(levels):
        raise ValueError(f"digits have shape {tuple(values.shape)}; expected {len(levels)} in the last dimension")
    return (values.long() * _places(levels, values.device)).sum(-1)


def _places(levels: Sequence[int], device: torch.device) -> Tensor:
    """The value of a one in each digit."""
    return torch.tensor([prod(levels[:channel]) for channel in range(len(levels))], device=device)


def _size(codebook_size: int | None) -> int:
    if codebook_size is None or codebook_size < 1:
        raise ValueError(f"codebook_size is {codebook_size}; markers need the model's (`model.codebook_size`)")
    return codebook_size


def _check_whole(values: Tensor, name: str, dims: int | None, shape: str) -> None:
    if values.is_floating_point() or values.dtype == torch.bool or (dims is not None and values.dim() != dims):
        raise ValueError(f"{name}: {values.dtype} of shape {tuple(values.shape)}; expected {shape}, whole numbers")


def _check_marks(found: Tensor, wanted: int, name: str) -> None:
    if not bool((found == wanted).all()):
        raise ValueError(f"the sequence lacks a {name} marker ({wanted}) where one belongs; sample it, or leave it out")
