"""Records: the latent or the tokens of one input or clip, as values and as bytes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import CollectionError

LATENT_DTYPES = ("float16", "bfloat16", "float32")
_SMALL = 1 << 16


@dataclass(frozen=True)
class Record:
    """One record of a collection."""

    head: dict[str, Any]
    """Its line in the manifest, but for its place."""
    payload: bytes
    """Its values in C order, little-endian; empty where the sink has written them already."""


def record_id(input: str, first: int | None) -> str:
    """The id of a record: that of its input, or for a clip one of its own, by its first frame."""
    return input if first is None else hashlib.sha256(f"{input}:{first}".encode()).hexdigest()[: len(input)]


def token_dtype(codebook_size: int) -> str:
    """The smallest dtype that holds all tokens."""
    return "uint16" if codebook_size <= _SMALL else "uint32"


def to_bytes(values: Tensor, dtype: str) -> bytes:
    """`values` as `dtype`, in C order."""
    values = values.detach().cpu().contiguous()
    if dtype == "bfloat16":
        return values.to(torch.bfloat16).view(torch.int16).numpy().tobytes()
    if dtype in LATENT_DTYPES:
        return values.to(getattr(torch, dtype)).numpy().tobytes()
    return values.numpy().astype(f"<{np.dtype(dtype).str[1:]}").tobytes()


def from_bytes(payload: bytes | memoryview | np.ndarray[Any, Any], shape: tuple[int, ...], dtype: str) -> Tensor:
    """The values of `to_bytes`: a latent in its dtype, or tokens as int32 (int64 beyond its range).

    Raises `CollectionError` if the bytes are too few or too many.
    """
    size = np.dtype("int16" if dtype == "bfloat16" else dtype).itemsize
    if len(payload) != size * int(np.prod(shape)):
        raise CollectionError(
            f"a record has {len(payload)} bytes; expected {size * int(np.prod(shape))} for {shape} of {dtype}: get an "
            "undamaged copy"
        )
    if dtype == "bfloat16":
        return torch.from_numpy(np.frombuffer(payload, "<i2").reshape(shape).copy()).view(torch.bfloat16)
    values = np.frombuffer(payload, f"<{np.dtype(dtype).str[1:]}").reshape(shape)
    return torch.from_numpy(values.astype(np.int32) if dtype.startswith("uint") else values.copy())
