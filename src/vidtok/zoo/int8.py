"""Weights in 8 bits: a quarter of float32's bytes on disk and over the network, at a small cost in accuracy.

A weight W (out, in, …) is stored as whole numbers q of -127..127 and one factor s for each output channel, W ≈ s q,
with s = max|W| / 127 of that channel. Tensors of fewer than two dimensions (biases, norms) stay as they are. On
loading, weights become floats again; nothing else knows of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vidtok.errors import CheckpointError
from vidtok.text import one_line, shortened

_SCALE = ".scale"
_LARGEST = 127


def quantized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with every float weight of two or more dimensions in int8 and its factors as `NAME.scale`, float32."""
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if value.dim() < 2 or not value.is_floating_point():
            found[name] = value
            continue
        weight = value.float()
        largest = weight.flatten(1).abs().amax(1).clamp(min=torch.finfo(torch.float32).tiny * _LARGEST)
        scale = largest / _LARGEST
        found[name] = (weight / _along_rows(scale, weight)).round().to(torch.int8)
        found[name + _SCALE] = scale
    return found


def restored(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """`state`, read from `source`, with weights that `quantized` stored in int8 as float32 again.

    Raises `CheckpointError` if factors are missing or do not fit.
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(_SCALE) and state.get(name.removesuffix(_SCALE), value).dtype == torch.int8:
            continue
        if value.dtype != torch.int8:
            found[name] = value
            continue
        scale = state.get(name + _SCALE)
        if scale is None or value.dim() < 2 or scale.shape != value.shape[:1] or not scale.is_floating_point():
            channels, label = value.shape[0] if value.dim() else 0, shortened(one_line(name))
            raise CheckpointError(
                f"{source} holds {label} in int8, and no factor for each of its {channels} channels as "
                f"{label}{_SCALE}; expected weights that `save_pretrained` or `vidtok export` wrote"
            )
        found[name] = value.float() * _along_rows(scale.float(), value)
    return found


def _along_rows(scale: Tensor, weight: Tensor) -> Tensor:
    return scale.view(-1, *[1] * (weight.dim() - 1))
