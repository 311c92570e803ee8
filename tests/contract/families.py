"""Families and a bottleneck that exist here alone: nothing under `src/` knows their names.

`triples` is causal, of three frames to a latent frame; `pairs` is not, of two; `signs` quantizes to a bit a channel.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.config.dialect import TARGETS
from vidtok.config.families import FAMILIES, Family, register_family
from vidtok.fields import Within, build, check, plain
from vidtok.models.base import VideoModel
from vidtok.models.bottleneck import Bottleneck, RegLog, make_bottleneck
from vidtok.models.config import (
    BOTTLENECKS,
    BottleneckConfig,
    KLConfig,
    LatentPart,
    bottleneck_from_dict,
    register_bottleneck,
)
from vidtok.models.state import StreamState

PATCH = 4


@dataclass(frozen=True, kw_only=True)
class SignsConfig(BottleneckConfig):
    """One bit a channel: the sign of each value, 2^bits codes."""

    losses: ClassVar[tuple[str, ...]] = ("sign_entropy",)

    kind: Literal["signs"] = "signs"
    bits: int = 6
    spread: float = 1.0
    """Factor of the values that the decoder is given for a sign."""

    @property
    def token_levels(self) -> tuple[int, ...]:
        return (2,) * self.bits


class Signs(Bottleneck, config=SignsConfig):
    """Signs with a straight-through gradient, and a loss that wants each of them as often as the other."""

    discrete = True

    def __init__(self, config: SignsConfig) -> None:
        super().__init__()
        self.bits, self.spread = config.bits, config.spread
        self._wanted = True

    def want(self, losses: Collection[str]) -> None:
        self._wanted = "sign_entropy" in losses

    def forward(
        self, moments: Tensor, *, sample: bool | None = None, generator: torch.Generator | None = None, step: int = 0
    ) -> tuple[Tensor, RegLog]:
        above = moments >= 0
        codes = torch.where(above, self.spread, -self.spread).to(moments.dtype)
        digits = torch.arange(self.bits, device=moments.device).view(1, -1, 1, 1, 1)
        log: RegLog = {"indices": (above.long() << digits).sum(1).int()}
        if self.training and self._wanted:
            share = torch.sigmoid(moments.float()).mean((0, 2, 3, 4))
            log["sign_entropy"] = (share - 0.5).square().mean()
        return moments + (codes - moments).detach(), log

    def decode_indices(self, indices: Tensor) -> Tensor:
        digits = torch.arange(self.bits, device=indices.device).view(1, -1, 1, 1, 1)
        return (indices.long().unsqueeze(1) >> digits & 1).float() * 2 * self.spread - self.spread


@dataclass(frozen=True, kw_only=True)
class _PatchConfig:
    """Shared by both families: patches of 4 x 4 pixels."""

    training_only: ClassVar[tuple[str, ...]] = ()

    z_channels: Annotated[int, Within(1, 64)] = 6
    width: Annotated[int, Within(1, 64)] = 8
    bottleneck: BottleneckConfig = field(default_factory=KLConfig)

    def __post_init__(self) -> None:
        check(self)
        self.bottleneck.check_channels(self.z_channels)

    @property
    def in_channels(self) -> int:
        return 3

    @property
    def spatial_factor(self) -> int:
        return PATCH

    @property
    def frame_size(self) -> None:
        return None

    @property
    def parts(self) -> tuple[LatentPart, ...]:
        return ()

    def to_dict(self) -> dict[str, Any]:
        return {key: plain(value) for key, value in dataclasses.asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Any:
        bottleneck = bottleneck_from_dict(values.get("bottleneck", {"kind": "kl"}))
        return build(cls, {**values, "bottleneck": bottleneck})


@dataclass(frozen=True, kw_only=True)
class TriplesConfig(_PatchConfig):
    family: ClassVar[str] = "triples"

    @property
    def is_causal(self) -> bool:
        return True

    @property
    def temporal_factor(self) -> int:
        return 3


@dataclass(frozen=True, kw_only=True)
class PairsConfig(_PatchConfig):
    family: ClassVar[str] = "pairs"

    @property
    def is_causal(self) -> bool:
        return False

    @property
    def temporal_factor(self) -> int:
        return 2


class _Memory(nn.Module):
    """A linear layer of each latent frame and the one before it, which a stream remembers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """(B, C, T, H, W) -> the same."""
        if not x.shape[2]:
            return x
        before = state.past.get(0, torch.zeros_like(x[:, :, :1]))
        state.keep(0, x[:, :, -1:].clone())
        both = torch.cat([torch.cat([before, x[:, :, :-1]], 2), x], 1)
        return torch.tanh(self.linear(both.movedim(1, -1)).movedim(-1, 1))


class TriplesEncoder(nn.Module):
    def __init__(self, config: TriplesConfig) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, config.width, (3, PATCH, PATCH), stride=(3, PATCH, PATCH))
        self.memory = _Memory(config.width)
        self.out = nn.Conv3d(config.width, config.bottleneck.moments_channels(config.z_channels), 1)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        state = StreamState.whole() if state is None else state
        if not state.started:  # the first frame is a group by itself
            x = torch.cat([x[:, :, :1].expand(-1, -1, 2, -1, -1), x], 2)
        state.started = True
        moments: Tensor = self.out(self.memory(self.patches(x), state))
        return moments


class TriplesDecoder(nn.Module):
    def __init__(self, config: TriplesConfig) -> None:
        super().__init__()
        self.first = nn.Conv3d(config.z_channels, config.width, 1)
        self.memory = _Memory(config.width)
        self.patches = nn.ConvTranspose3d(config.width, 3, (3, PATCH, PATCH), stride=(3, PATCH, PATCH))

    def forward(self, z: Tensor, state: StreamState | None = None) -> Tensor:
        state = StreamState.whole() if state is None else state
        if not z.shape[2]:
            return z.new_empty(z.shape[0], 3, 0, z.shape[3] * PATCH, z.shape[4] * PATCH)
        video: Tensor = self.patches(self.memory(self.first(z), state))
        video = video if state.started else video[:, :, 2:]
        state.started = True
        return video


class Triples(VideoModel):
    """A causal model of the smallest kind."""

    def __init__(self, config: TriplesConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = TriplesEncoder(config)
        self.decoder = TriplesDecoder(config)
        self.regularization = make_bottleneck(config.bottleneck)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.decoder.patches.weight  # type: ignore[union-attr, return-value]

    @property
    def encoder_look_back(self) -> int:
        return 1

    @property
    def decoder_look_back(self) -> int:
        return 1


class PairsEncoder(nn.Module):
    def __init__(self, config: PairsConfig) -> None:
        super().__init__()
        self.patches = nn.Conv3d(3, config.width, (2, PATCH, PATCH), stride=(2, PATCH, PATCH))
        self.out = nn.Conv3d(
            config.width, config.bottleneck.moments_channels(config.z_channels), (3, 1, 1), padding=(1, 0, 0)
        )

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        moments: Tensor = self.out(torch.tanh(self.patches(x)))
        return moments


class PairsDecoder(nn.Module):
    def __init__(self, config: PairsConfig) -> None:
        super().__init__()
        self.first = nn.Conv3d(config.z_channels, config.width, (3, 1, 1), padding=(1, 0, 0))
        self.patches = nn.ConvTranspose3d(config.width, 3, (2, PATCH, PATCH), stride=(2, PATCH, PATCH))

    def forward(self, z: Tensor, state: StreamState | None = None) -> Tensor:
        video: Tensor = self.patches(F.silu(self.first(z)))
        return video


class Pairs(VideoModel):
    """A non-causal model of the smallest kind: frames of a clip see each other in both directions."""

    def __init__(self, config: PairsConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = PairsEncoder(config)
        self.decoder = PairsDecoder(config)
        self.regularization = make_bottleneck(config.bottleneck)


@contextmanager
def registered() -> Iterator[None]:
    """Families and bottleneck are in the tables inside of the block, as an extension's import puts them there."""
    register_bottleneck(SignsConfig)
    register_family(Family("triples", TriplesConfig.from_dict, lambda: Triples))
    register_family(Family("pairs", PairsConfig.from_dict, lambda: Pairs))
    try:
        yield
    finally:
        del BOTTLENECKS["signs"]
        for name in ("triples", "pairs"):
            del FAMILIES[name], TARGETS[name]
