"""A model's encoder or decoder as graphs of one step of a stream each, with the stream's state as named tensors.

A causal model's step takes the next frames and the state that the step before returned:

::

    encode   first: 1 frame -> 1 latent frame, state      next: F frames, state -> F / f latent frames, state
    decode   first: latent frames -> video, state         next: F / f latent frames, state -> F frames, state

Where the decoder looks ahead (`delay` > 0), its first step takes two latent frames, `end` returns the frames that are
held back, and `single` decodes a latent of one frame alone. A non-causal model has one graph, `clip`, without a state.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from vidtok.errors import VidTokError
from vidtok.models.base import VideoModel
from vidtok.models.state import StreamState
from vidtok.models.vidtok.temporal import TimeLayer

Part = Literal["encode", "decode"]
_EXAMPLE = (4, 6)
"""Latent height and width of the example where a graph takes any size."""


@dataclass(frozen=True)
class Names:
    """Names of a graph's inputs or outputs in order: values first, then the state."""

    values: tuple[str, ...]
    state: tuple[str, ...]


class Step(nn.Module):
    """One step of a model's stream, as a function of tensors alone.

    Args:
        model: the model; its encoder or decoder is copied.
        part: "encode" or "decode".
        phase: "first", "next", "end", "single" or "clip".
        slots: numbers of the layers' places in the state that comes in.
    """

    def __init__(self, model: VideoModel, part: Part, phase: str, slots: Sequence[int] = ()) -> None:
        super().__init__()
        self.coder: nn.Module = (
            copy.deepcopy(model.encoder if part == "encode" else model.decoder).eval().requires_grad_(False)
        )
        for layer in self.coder.modules():
            if hasattr(layer, "by_frames"):
                cast(Any, layer).by_frames = True
        self.bottleneck = copy.deepcopy(model.regularization).eval()
        self.part, self.phase = part, phase
        self.slots = tuple(slots)
        self.kept: tuple[int, ...] = ()
        """Numbers of the places in the state that the last call returned."""

    @property
    def inputs(self) -> Names:
        value = "video" if self.part == "encode" else "indices" if self.bottleneck.discrete else "latent"
        return Names(() if self.phase == "end" else (value,), tuple(f"past.{self._layer(slot)}" for slot in self.slots))

    @property
    def outputs(self) -> Names:
        values: tuple[str, ...] = ("video",)
        if self.part == "encode":
            values = ("indices", "latent") if self.bottleneck.discrete else ("latent", "std")
        return Names(values, tuple(f"next.{self._layer(slot)}" for slot in self.kept))

    def _layer(self, slot: int) -> str:
        """The name of the layer whose place in the state has the number `slot`."""
        names: dict[int, str] = {
            layer.slot: name for name, layer in self.coder.named_modules() if isinstance(layer, TimeLayer)
        }
        return names.get(slot, str(slot))

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        """Values and state in; values and state out, in the order of `inputs` and `outputs`."""
        x, past = (None, given) if self.phase == "end" else (given[0], given[1:])
        last = self.phase in ("end", "single", "clip")
        state = StreamState(dict(zip(self.slots, past, strict=True)), self.phase in ("next", "end"), last)
        values = self._encoded(x, state) if self.part == "encode" else (self._decoded(x, past, state),)
        self.kept = () if last else tuple(sorted(state.past))
        return (*values, *(state.past[slot] for slot in self.kept))

    def _encoded(self, video: Tensor | None, state: StreamState) -> tuple[Tensor, ...]:
        moments = self.coder(video, state)
        z, log = self.bottleneck(moments, sample=False)
        if self.bottleneck.discrete:
            return log["indices"], z
        variance = self.bottleneck.variance(moments)
        return (z,) if variance is None else (z, variance.sqrt().to(z.dtype))

    def _decoded(self, z: Tensor | None, past: tuple[Tensor, ...], state: StreamState) -> Tensor:
        dtype = next(self.coder.parameters()).dtype
        if z is None:  # no latent frames, of the size that the first layer has seen: its input
            like = past[self.slots.index(cast(Any, self.coder).conv_in.slot)]
            z = like.permute(0, 4, 1, 2, 3)[:, :, :0]
        elif self.bottleneck.discrete:
            z = self.bottleneck.decode_indices(z).to(dtype)
        video: Tensor = self.coder(z, state)
        return video


@dataclass(frozen=True)
class Graph:
    """One phase: its step, and tensors to trace it with."""

    phase: str
    step: Step
    example: tuple[Tensor, ...]


def graphs(
    model: VideoModel, part: Part, *, frames: int | None = None, size: tuple[int, int] | None = None
) -> list[Graph]:
    """The steps of one `part` of `model`, with examples of a batch of 2.

    Args:
        model: a model whose latent is one tensor.
        part: "encode" or "decode".
        frames: frames of video in a later step, or in a clip of a non-causal model, a multiple of the temporal factor;
            None: one group of them, or 16.
        size: height and width of the video in pixels, multiples of the spatial factor; None: any.

    Raises:
        VidTokError: the model's latent has parts, or `frames` or `size` is not such a multiple.
    """
    factor, side = model.temporal_factor, model.spatial_factor
    if model.config.parts or not hasattr(model.decoder, "conv_in"):
        raise VidTokError(
            f"{model.name} has a latent of several parts and cannot be exported as a graph; give a VidTok"
        )
    frames = frames or (factor if model.is_causal else -(-16 // factor) * factor)
    if frames % factor or frames < 1:
        raise VidTokError(f"frames is {frames}; expected a multiple of the temporal factor {factor}")
    if size is not None and (size[0] % side or size[1] % side):
        raise VidTokError(f"size is {size[0]}x{size[1]}; expected multiples of the spatial factor {side}")
    height, width = _EXAMPLE if size is None else (size[0] // side, size[1] // side)

    def values(latents: int, first: bool) -> Tensor:
        if part == "encode":
            count = 1 + (latents - 1) * factor if first and model.is_causal else latents * factor
            return torch.randn(2, 3, count, height * side, width * side).to(model.dtype)
        if model.regularization.discrete:
            return torch.randint(0, model.codebook_size or 1, (2, latents, height, width), dtype=torch.int32)
        return torch.randn(2, model.z_channels, latents, height, width).to(model.dtype)

    latents = frames // factor
    if not model.is_causal:
        return [Graph("clip", Step(model, part, "clip"), (values(latents, True),))]
    ahead = part == "decode" and model.delay > 0
    first = Step(model, part, "first")
    given = (values(2 if ahead else 1, True),)
    found = [Graph("first", first, given)]
    with torch.no_grad():
        state = tuple(each.clone() for each in first(*given)[len(first.outputs.values) :])
    for phase in ("next", "end", "single") if ahead else ("next",):
        step = Step(model, part, phase, () if phase == "single" else first.kept)
        count = {"next": latents, "single": 1}.get(phase)
        x = () if count is None else (values(count, phase == "single"),)
        example = x if phase == "single" else (*x, *state)
        with torch.no_grad():
            step(*example)  # notes the state that comes out
        found.append(Graph(phase, step, example))
    return found


def program(graph: Graph, *, any_size: bool) -> torch.export.ExportedProgram:
    """The graph of `torch.export`, for any batch, and for any height and width if `any_size`."""
    batch, height, width = (torch.export.Dim(name, min=1) for name in ("batch", "height", "width"))
    names = graph.step.inputs

    def dims(x: Tensor, name: str) -> dict[int, Any]:
        found: dict[int, Any] = {0: batch}
        if any_size:
            # Rows and columns are the last axes of values, and come before the channels in the state of layers.
            at = x.dim() - 2 if name in names.values or name.endswith("transform") else 2
            for offset, (dim, example) in enumerate(zip((height, width), _EXAMPLE, strict=True)):
                times = x.shape[at + offset] // example
                found[at + offset] = times * dim if times > 1 else dim
        return found

    shapes = tuple(dims(x, name) for x, name in zip(graph.example, names.values + names.state, strict=True))
    with torch.no_grad():
        return torch.export.export(graph.step, graph.example, dynamic_shapes=(shapes,), strict=False)
