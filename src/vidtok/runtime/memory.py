"""Memory of a model, predicted before it computes by a dry run on tensors that have shapes but no values.

The dry run goes through the same code that computes, so that it follows the model's pieces, buffers and states without
a formula of its own; it takes about a second. Memory that it cannot see (buffers of the libraries, freed memory that
the allocator keeps) is added as measured on the CPU. `benchmarks/tiling.py memory` compares prediction and reality.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig
from vidtok.models.decoders.base import own_decoder, with_decoder
from vidtok.models.decoders.config import DecoderConfig
from vidtok.models.decoders.make import make_decoder
from vidtok.models.state import StreamState

Direction = Literal["encode", "decode", "both"]

_PROCESS_BYTES = 400 << 20
"""Bytes of a process on the CPU that has loaded this package but no weights, before it computes."""
_GPU_CONTEXT_BYTES = 600 << 20
_UNSEEN = {"cpu": (1.08, 0.42, 64 << 20), "cuda": (1.25, 0.42, 64 << 20)}
"""Memory beyond a dry run, by type of device: a factor on the dry run's peak, a share of the weights, which
convolutions copy into other layouts, and a number of bytes."""


@dataclass(frozen=True)
class Footprint:
    """Bytes that an encoder or decoder needs beside its weights and its input."""

    states: int
    """Bytes of the stream state between two chunks; 0 for a model that does not stream."""
    working: int
    """Bytes beside the state at the peak, including the output."""


@dataclass(frozen=True)
class Footprints:
    """The footprints of both directions."""

    encode: Footprint
    decode: Footprint

    def streaming(self, direction: Direction, tiles: int) -> int:
        """Bytes at the peak if the stream states of all `tiles` tiles are kept in memory."""
        used = self._used(direction)
        return tiles * sum(one.states for one in used) + max(one.working for one in used)

    def one_tile(self, direction: Direction) -> int:
        """Bytes at the peak if only the stream state of the tile that is being computed is in memory."""
        return max(one.states + one.working for one in self._used(direction))

    def states(self, direction: Direction) -> int:
        """Bytes of the stream states of one tile."""
        return sum(one.states for one in self._used(direction))

    def _used(self, direction: Direction) -> tuple[Footprint, ...]:
        return {"encode": (self.encode,), "decode": (self.decode,), "both": (self.encode, self.decode)}[direction]


def footprints(model: VideoModel, frames: int, height: int, width: int) -> Footprints:
    """Memory of encoding and decoding `frames` at a time with `model`, by a dry run of a copy without values.

    Args:
        model: the model, of which only class, configuration, dtype and type of device matter.
        frames: video frames of a chunk, or of a clip of a non-causal model; a multiple of the temporal factor.
        height, width: of a frame or tile in pixels, multiples of the spatial factor.
    """
    kind: Any = type(model)
    config: Any = model.config
    return dry_run(kind, config, model.dtype, model.device.type, frames, height, width, own_decoder(model))


@lru_cache(maxsize=64)
def dry_run(
    kind: Callable[[ModelConfig], VideoModel],
    config: ModelConfig,
    dtype: torch.dtype,
    device: str,
    frames: int,
    height: int,
    width: int,
    decoder: DecoderConfig | None = None,
) -> Footprints:
    """As `footprints`, of `kind(config)` in `dtype` on `device`, "cpu" or "cuda", which this machine need not have.

    With `decoder`, it has a decoder of that configuration in place of its own.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with torch.device("meta"):
        model = kind(config).eval()
        if decoder is not None:
            model = with_decoder(model, make_decoder(decoder, config))
        model.to(dtype)
    rows, columns = height // config.spatial_factor, width // config.spatial_factor
    with torch.no_grad(), FakeTensorMode():
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                empty = torch.empty(parameter.shape, dtype=dtype, device=device)
                setattr(module, name, nn.Parameter(empty, requires_grad=False))

        def video(count: int) -> Tensor:
            return torch.empty(1, config.in_channels, count, height, width, dtype=dtype, device=device)

        def latent(count: int) -> Tensor:
            return torch.empty(1, config.z_channels, count, rows, columns, dtype=dtype, device=device)

        factor = config.temporal_factor
        lead = 1 if config.is_causal else 0
        encode = _footprint(model.encoder, video, (lead + factor, frames), streams=config.is_causal)
        decode = _footprint(model.decoder, latent, (lead + 1, frames // factor), streams=config.is_causal)
    return Footprints(encode, decode)


def _footprint(
    coder: nn.Module, make: Callable[[int], Tensor], lengths: tuple[int, int], *, streams: bool
) -> Footprint:
    """Memory of `coder` over two chunks of a stream, of `lengths` frames, the second with the full state of the first.

    Without `streams`, it is for one clip of the second length.
    """
    state = StreamState(end=not streams)
    watch = _LiveBytes(coder)
    for length in lengths if streams else lengths[1:]:
        x = make(length)
        watch.ignore(x)
        with watch:
            coder(x, state)
    states = sum(past.untyped_storage().nbytes() for past in state.past.values())
    return Footprint(states, max(0, watch.peak - states))


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that are made while it is active and are still referenced."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = 0
        self.peak = 0
        self._known: set[int] = set()
        for parameter in module.parameters():
            self.ignore(parameter)

    def ignore(self, tensor: Tensor) -> None:
        """Leave the memory of `tensor` out of the count."""
        self._see(tensor, 0)

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: dict[str, Any] | None = None
    ) -> Any:
        result = function(*arguments, **(named or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self._see(value, value.untyped_storage().nbytes())
        return result

    def _see(self, tensor: Tensor, count: int) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.now += count
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, count).atexit = False

    def _forget(self, key: int, count: int) -> None:
        self._known.discard(key)
        self.now -= count


def resting_bytes(model: VideoModel) -> int:
    """Bytes in use before `model` computes: of the process if the model is on the CPU, else of its GPU."""
    if model.device.type == "cuda":
        return torch.cuda.memory_allocated(model.device) + _GPU_CONTEXT_BYTES
    return max(_PROCESS_BYTES + _weight_bytes(model), _resident_bytes())


def with_unseen(count: int, model: VideoModel) -> int:
    """Bytes on the device of `model`, as measured, where a dry run of it takes `count` bytes."""
    factor, share, beside = _UNSEEN.get(model.device.type, _UNSEEN["cuda"])
    return round(count * factor + _weight_bytes(model) * share) + beside


def _weight_bytes(model: VideoModel) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())


def _resident_bytes() -> int:
    """Bytes of this process in memory; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
