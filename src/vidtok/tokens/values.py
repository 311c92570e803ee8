"""Values of a chunk as bytes, in each of the codings that a header can name (docs/token-file.md)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import TokenFileError
from vidtok.tokens import entropy
from vidtok.tokens.header import LatentLayout
from vidtok.tokens.packing import bits_of, pack, packed_size, unpack

STORED = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "int8": torch.float32}
"""The dtype of a continuous latent when it is read, by its coding."""
_INT8_LARGEST = 127
_SCALE_BYTES = 4
_SCALE_BITS_DROPPED = 8


class ValuesError(ValueError):
    """Bytes of a chunk do not hold values of its layout."""


def encode_values(values: Tensor, layout: LatentLayout) -> tuple[bytes, bool]:
    """Bytes of `values`, and True if they are tokens that were packed instead of entropy-coded as `layout` says.

    `values` are tokens (T', H', W'), whole numbers, or a latent (z, T', H', W'). Tokens are packed where entropy coding
    makes them no smaller. Raises `TokenFileError` if the layout's coding cannot hold the values.
    """
    values = values.detach().cpu()
    if layout.discrete:
        return _encode_tokens(values, layout)
    if not bool(values.isfinite().all()):
        raise TokenFileError(
            "the latent holds values that are not finite; compute in float32 or bfloat16, or check the checkpoint"
        )
    if layout.coding == "int8":
        return _encode_int8(values.float(), layout), False
    stored = values.to(STORED[layout.coding])
    if not bool(stored.isfinite().all()):
        raise TokenFileError(
            f"the latent reaches {float(values.abs().max()):.4g}, beyond {layout.coding}; store bfloat16 or float32"
        )
    return _bytes_of(stored), False


def stored_size(layout: LatentLayout, frames: int) -> int | None:
    """Number of bytes of `frames` latent frames; None for entropy coding, whose size depends on the values."""
    count = layout.values_per_frame * frames
    if layout.discrete:
        return packed_size(count, _bits(layout)) if layout.coding == "packed" else None
    if layout.coding == "int8":
        return _scale_count(layout) * _SCALE_BYTES + count
    return count * STORED[layout.coding].itemsize


def largest_size(layout: LatentLayout, frames: int) -> int:
    """Largest number of bytes of `frames` latent frames: entropy coding is used only where packing takes more."""
    size = stored_size(layout, frames)
    return packed_size(layout.values_per_frame * frames, _bits(layout)) if size is None else size


def decode_values(content: bytes, layout: LatentLayout, frames: int, *, packed: bool) -> Tensor:
    """The values in `content`; undoes `encode_values`.

    Returns tokens (1, T', H', W') int32, or a latent (1, z, T', H', W') in the coding's dtype of `STORED`. Raises
    `ValuesError` if `content` does not hold them.
    """
    expected = largest_size(layout, frames) if packed else stored_size(layout, frames)
    if expected is not None and len(content) != expected:
        raise ValuesError(f"it has {len(content)} bytes of values; expected {expected}")
    if layout.discrete:
        return _decode_tokens(content, layout, frames, packed=packed or layout.coding == "packed")
    shape = (1, layout.channels, frames, layout.height, layout.width)
    if layout.coding == "int8":
        return _decode_int8(content, layout).view(shape)
    values = torch.frombuffer(bytearray(content), dtype=STORED[layout.coding]).view(shape)
    if not bool(values.isfinite().all()):
        raise ValuesError("it holds values that are not finite")
    return values


def int8_error(values: Tensor, layout: LatentLayout) -> tuple[float, float]:
    """Sums of squares: of `values` (z, T', H', W'), and of the errors that storing them as int8 makes."""
    values = values.detach().float().cpu()
    back = _decode_int8(_encode_int8(values, layout), layout).view(values.shape)
    return float(values.double().square().sum()), float((values - back).double().square().sum())


def _encode_tokens(values: Tensor, layout: LatentLayout) -> tuple[bytes, bool]:
    assert layout.levels is not None
    assert layout.codebook_size is not None
    lowest, highest = (int(i) for i in torch.aminmax(values))
    if lowest < 0 or highest >= layout.codebook_size:
        raise TokenFileError(f"tokens run from {lowest} to {highest}; the codebook has 0 to {layout.codebook_size - 1}")
    tokens = values.to(torch.int32).contiguous().numpy()
    if layout.coding != "packed":
        coded = entropy.encode(tokens, layout.levels, adaptive=layout.coding == "adaptive")
        if len(coded) < packed_size(tokens.size, _bits(layout)):
            return coded, False
    return pack(tokens.reshape(-1), _bits(layout)), layout.coding != "packed"


def _decode_tokens(content: bytes, layout: LatentLayout, frames: int, *, packed: bool) -> Tensor:
    assert layout.levels is not None
    assert layout.codebook_size is not None
    shape = (frames, layout.height, layout.width)
    if packed:
        tokens = unpack(content, layout.values_per_frame * frames, _bits(layout)).reshape(shape)
    else:
        try:
            tokens = entropy.decode(content, shape, layout.levels, adaptive=layout.coding == "adaptive")
        except entropy.EntropyError as error:
            raise ValuesError(f"its tokens cannot be decoded: {error}") from error
    if tokens.min() < 0 or tokens.max() >= layout.codebook_size:
        raise ValuesError(f"it holds tokens beyond the codebook of {layout.codebook_size}")
    return torch.from_numpy(tokens).unsqueeze(0)


def _encode_int8(values: Tensor, layout: LatentLayout) -> bytes:
    """Bytes of a float32 scale for each channel, then of the values over their scales, rounded to -127..127."""
    flat = values.flatten(1)
    by_stream = torch.split(flat.abs().amax(1), [channels * count for channels, count in layout.scaled])
    largest = [part.view(channels, -1).amax(1) for part, (channels, _) in zip(by_stream, layout.scaled, strict=True)]
    scales = _scales(torch.cat(largest))
    divisors = _by_value(scales, layout).clamp(min=torch.finfo(torch.float32).tiny)
    steps = torch.round(flat / divisors.unsqueeze(1))
    return _bytes_of(scales) + _bytes_of(steps.clamp(-_INT8_LARGEST, _INT8_LARGEST).to(torch.int8))


def _scales(largest: Tensor) -> Tensor:
    """`largest` / 127, rounded up to 16 significant bits.

    Each multiple of a scale up to 127 is then exact in float32, so that values that were read are stored as the same
    bytes again.
    """
    exact = (largest / _INT8_LARGEST).contiguous().numpy()
    unit = np.uint32(1 << _SCALE_BITS_DROPPED)
    bits = (exact.view(np.uint32) + (unit - 1)) // unit * unit
    return torch.from_numpy(bits.astype(np.uint32).view(np.float32))


def _scale_count(layout: LatentLayout) -> int:
    return sum(channels for channels, _ in layout.scaled)


def _by_value(scales: Tensor, layout: LatentLayout) -> Tensor:
    """The scale of each of the z values: in a latent of several parts, the values of a channel share one."""
    counts = [count for channels, count in layout.scaled for _ in range(channels)]
    return scales.repeat_interleave(torch.tensor(counts))


def _decode_int8(content: bytes, layout: LatentLayout) -> Tensor:
    scale_bytes = _scale_count(layout) * _SCALE_BYTES
    scales = torch.frombuffer(bytearray(content[:scale_bytes]), dtype=torch.float32)
    if not bool((scales.isfinite() & (scales >= 0)).all()):
        raise ValuesError("it has scales that are negative or not finite")
    steps = torch.frombuffer(bytearray(content[scale_bytes:]), dtype=torch.int8)
    values = steps.view(layout.channels, -1).float() * _by_value(scales, layout).unsqueeze(1)
    if not bool(values.isfinite().all()):
        raise ValuesError("it holds values that are not finite")
    return values


def _bytes_of(values: Tensor) -> bytes:
    return values.contiguous().view(torch.uint8).numpy().tobytes() if values.dim() else b""


def _bits(layout: LatentLayout) -> int:
    assert layout.codebook_size is not None
    return bits_of(layout.codebook_size)
