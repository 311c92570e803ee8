"""Encoder and decoder of the VidTok autoencoder (Tang et al., arXiv 2412.13061).

::

    video (B, 3, T, H, W)                                       latent (B, z, T', H', W')
      |                                                           |
    conv_in 3x3x3                                               conv_in 3x3x3
      |                                                           |
    level 0 … n-1:                                              mid: 3D block, attention, 3D block
      num_res_blocks x (2D block, temporal block)                 |
      spatial downsample x2    at levels in spatial_ds          level n-1 … 0:
      temporal downsample x2   at levels in tempo_ds              (num_res_blocks + 1) x (2D block, temporal block)
      |                                                           spatial upsample x2    at levels in spatial_us
    mid: 3D block, attention, 3D block                            temporal upsample x2   at levels in tempo_us
      |                                                           |
    norm, SiLU, conv_out 3x3x3                                  norm, SiLU, conv_out 3x3x3
      |                                                           |
    moments -> bottleneck -> latent                             video

With `patch_size` p, both ends of the network see p x p pixels as the channels of one position. With `block_transform`,
a linear transform runs beside the network (`transform.py`).

Parameter names and shapes are as in the published checkpoints. Between the first layer and the last, activations
are channels-last, (B, T, H, W, C).
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vidtok.models.state import StreamState
from vidtok.models.vidtok.config import AutoencoderConfig
from vidtok.models.vidtok.pipeline import Stage, run_stages
from vidtok.models.vidtok.spatial import (
    Attention,
    Conv2d,
    GroupNorm,
    LayerNorm,
    NormScope,
    Pointwise,
    SpatialDownsample,
    SpatialUpsample,
    activated,
    add,
)
from vidtok.models.vidtok.temporal import (
    CausalConv,
    LinearTemporalUpsample,
    TemporalDownsample,
    TemporalUpsample,
    number_slots,
    time_conv,
    total_delay,
)
from vidtok.models.vidtok.transform import LOG_VARIANCE, BlockTransform, from_patches, to_patches


class ResidualBlock(nn.Module):
    """norm, SiLU, conv, norm, SiLU, dropout, conv, plus the input; the convolutions are in space, over time or both.

    Convolutions within a frame are called with activations alone, causal ones over time with the stream's state too.
    """

    def __init__(self, norm1: nn.Module, conv1: nn.Module, norm2: nn.Module, conv2: nn.Module, dropout: float) -> None:
        super().__init__()
        self.norm1 = norm1
        self.conv1 = conv1
        self.norm2 = norm2
        self.dropout = dropout
        self.conv2 = conv2
        self._remembers = isinstance(conv1, CausalConv)

    def forward(self, x: Tensor, state: StreamState) -> Tensor:
        """(B, T, H, W, in) -> (B, T, H, W, out)."""
        given = (state,) if self._remembers else ()
        h = activated(self.norm1, self.conv1, x, *given)
        if self.dropout and self.training:
            h = self.conv2(nn.functional.dropout(nn.functional.silu(self.norm2(h)), self.dropout), *given)
        else:
            h = activated(self.norm2, self.conv2, h, *given)
        shortcut = cast(nn.Module, self.nin_shortcut)(x) if hasattr(self, "nin_shortcut") else x
        return add(h, shortcut, self.conv2)


class _Coder(nn.Module):
    """The blocks of encoder and decoder, in the variant that the configuration describes."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config

    @property
    def time_downsample_factor(self) -> int:
        """Frames of video per latent frame, f, under its published name."""
        return self.config.temporal_factor

    @property
    def is_causal(self) -> bool:
        return self.config.is_causal

    def _norm(self, channels: int, *, scope: NormScope = "clip") -> nn.Module:
        """A norm; in the causal variants, groupnorm's statistics stay within one frame, whatever the `scope`."""
        if self.config.norm_type == "layernorm":
            return LayerNorm(channels)
        within_frame: dict[NormScope, NormScope] = {"clip": "frame", "time": "position"}
        return GroupNorm(channels, within_frame.get(scope, scope) if self.is_causal else scope)

    def _spatial_block(self, channels_in: int, channels: int) -> ResidualBlock:
        block = ResidualBlock(
            self._norm(channels_in, scope="frame"),
            Conv2d(channels_in, channels, 3),
            self._norm(channels, scope="frame"),
            Conv2d(channels, channels, 3),
            self.config.dropout,
        )
        if channels_in != channels:
            block.nin_shortcut = Pointwise(channels_in, channels, dims=2)
        return block

    def _temporal_block(self, channels: int) -> ResidualBlock:
        block = self._block_over_time(channels, spatial=False, scope="time")
        for parameter in block.conv2.parameters():
            nn.init.zeros_(parameter)
        return block

    def _block_over_time(self, channels: int, *, spatial: bool, scope: NormScope) -> ResidualBlock:
        convs = [self._time_conv(channels, channels, spatial=spatial) for _ in range(2)]
        norms = [self._norm(channels, scope=scope) for _ in range(2)]
        return ResidualBlock(norms[0], convs[0], norms[1], convs[1], self.config.dropout)

    def _time_conv(self, channels_in: int, channels: int, *, spatial: bool) -> nn.Module:
        return time_conv(channels_in, channels, spatial=spatial, padding=self.config.temporal_padding)

    def _beside(self) -> BlockTransform | None:
        """The linear transform beside the network, whose last layer is set to 0; None if the config has none."""
        if not self.config.block_transform:
            return None
        for parameter in cast(nn.Module, self.conv_out).parameters():
            nn.init.zeros_(parameter)
        return BlockTransform(self.config)

    def _mid(self, channels: int) -> nn.Module:
        mid = nn.Module()
        mid.block_1 = self._block_over_time(channels, spatial=True, scope="clip")
        mid.attn_1 = Attention(channels, self._norm(channels), wrapped=self.is_causal)
        mid.block_2 = self._block_over_time(channels, spatial=True, scope="clip")
        return mid

    def _run(self, module: nn.Module, x: Tensor, state: StreamState) -> Tensor:
        """`module` on `x`, recomputed in the backward pass if the config says so; `x` itself if it has no frames."""
        if not x.shape[1]:
            return x
        if not (self.config.use_checkpoint and torch.is_grad_enabled()):
            return cast(Tensor, module(x, state))
        # When the backward pass recomputes, the stream has moved on; it has to start from the state at this point.
        before, current = state.copy(), [state]

        def run(x: Tensor) -> Tensor:
            return cast(Tensor, module(x, current.pop() if current else before.copy()))

        return cast(Tensor, checkpoint(run, x, use_reentrant=False))

    def _run_level(self, level: nn.Module, temporal: nn.Module, x: Tensor, state: StreamState) -> Tensor:
        """The residual blocks of a level, by turns one within the frames and one over time."""
        for block, temporal_block in zip(
            cast(nn.ModuleList, level.block), cast(nn.ModuleList, temporal.block), strict=True
        ):
            x = self._run(block, x, state)
            x = self._run(temporal_block, x, state)
        return x

    def _run_mid(self, x: Tensor, state: StreamState) -> Tensor:
        mid = cast(Any, self.mid)
        x = self._run(mid.block_1, x, state)
        x = self._run(mid.attn_1, x, state)
        return self._run(mid.block_2, x, state)

    def _run_out(self, x: Tensor, state: StreamState) -> Tensor:
        if not x.shape[1]:
            return x
        return activated(cast(nn.Module, self.norm_out), cast(nn.Module, self.conv_out), x, state)


class Encoder(_Coder):
    """Video to moments."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        widths = [config.ch * multiplier for multiplier in config.ch_mult]
        self.conv_in = self._time_conv(config.in_channels * config.patch_size**2, config.ch, spatial=True)
        self.down = nn.ModuleList()
        self.down_temporal = nn.ModuleList()
        for i, width in enumerate(widths):
            level, temporal = nn.Module(), nn.Module()
            inputs = [widths[i - 1] if i else config.ch] + [width] * (config.num_res_blocks - 1)
            level.block = nn.ModuleList(self._spatial_block(channels_in, width) for channels_in in inputs)
            temporal.block = nn.ModuleList(self._temporal_block(width) for _ in inputs)
            if i in (config.spatial_ds or ()):
                level.downsample = SpatialDownsample(width)
            if i in (config.tempo_ds or ()):
                temporal.downsample = TemporalDownsample(width, padding=config.temporal_padding)
            self.down.append(level)
            self.down_temporal.append(temporal)
        self.mid = self._mid(widths[-1])
        self.norm_out = self._norm(widths[-1])
        self.conv_out = self._time_conv(widths[-1], config.moments_channels, spatial=True)
        self.transform = self._beside()
        if self.transform is not None and config.moments_channels > config.z_channels:
            with torch.no_grad():
                bias = next(p for p in self.conv_out.parameters() if p.dim() == 1)
                bias[config.z_channels :] = LOG_VARIANCE
        number_slots(self)

    def forward(self, x: Tensor, state: StreamState | None = None) -> Tensor:
        """Moments of a video, or of the next chunk of one.

        Args:
            x: (B, 3, T, H, W) in -1..1; H and W multiples of the spatial factor. With f the temporal factor, T is
                1 + a multiple of f at the start of a causal stream, a multiple of f after that and if non-causal.
            state: the state of the stream, advanced by this call; None for a clip in one piece.

        Returns:
            (B, 2 z or z, T', H', W'): mean and log-variance for KL, unbounded values for FSQ.
        """
        state = StreamState.whole() if state is None else state
        h = x.permute(0, 2, 3, 4, 1).contiguous()
        if not state.started and self.config.temporal_padding == "zeros":
            h = torch.cat([h[:, :1].expand(-1, self.time_downsample_factor - 1, -1, -1, -1), h], 1)
        start, h = not state.started, to_patches(h, self.config.patch_size)
        h = run_stages(self._stages(), h, state, in_pieces=self.is_causal)
        state.started = True
        moments = h.permute(0, 4, 1, 2, 3)
        if self.transform is None:
            return moments
        z = self.config.z_channels
        mean = moments[:, :z] + self.transform.coefficients(x, start=start)
        return torch.cat([mean, moments[:, z:]], 1)

    def _stages(self) -> list[Stage]:
        config = self.config
        lead = 1 if config.temporal_padding == "first_frame" else 0
        stages = [Stage(partial(self._run, self.conv_in), config.ch)]
        for i, multiplier in enumerate(config.ch_mult):
            halves = i in (config.tempo_ds or ())
            stages.append(
                Stage(
                    partial(self._level, i),
                    config.ch * multiplier, group=2 if halves else 1, lead=lead if halves else 0,
                )
            )  # fmt: skip
        stages.append(Stage(self._run_mid, config.ch * config.ch_mult[-1]))
        stages.append(Stage(self._run_out, config.ch * config.ch_mult[-1]))
        return stages

    def _level(self, i: int, x: Tensor, state: StreamState) -> Tensor:
        level, temporal = self.down[i], self.down_temporal[i]
        x = self._run_level(level, temporal, x, state)
        if hasattr(level, "downsample"):
            x = self._run(cast(nn.Module, level.downsample), x, state)
        if hasattr(temporal, "downsample"):
            x = self._run(cast(nn.Module, temporal.downsample), x, state)
        return x


class Decoder(_Coder):
    """Latent to video."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__(config)
        widths = [config.ch * multiplier for multiplier in config.ch_mult]
        self.conv_in = self._time_conv(config.z_channels, widths[-1], spatial=True)
        self.mid = self._mid(widths[-1])
        levels: list[nn.Module] = []
        temporals: list[nn.Module] = []
        for i, width in enumerate(widths):
            level, temporal = nn.Module(), nn.Module()
            inputs = [widths[min(i + 1, len(widths) - 1)]] + [width] * config.num_res_blocks
            level.block = nn.ModuleList(self._spatial_block(channels_in, width) for channels_in in inputs)
            temporal.block = nn.ModuleList(self._temporal_block(width) for _ in inputs)
            if i in (config.spatial_us or ()):
                level.upsample = SpatialUpsample(width)
            if i in (config.tempo_us or ()):
                upsample = LinearTemporalUpsample if config.interpolation == "linear" else TemporalUpsample
                temporal.upsample = upsample(width, padding=config.temporal_padding)
            levels.append(level)
            temporals.append(temporal)
        self.up = nn.ModuleList(levels)
        self.up_temporal = nn.ModuleList(temporals)
        self.norm_out = self._norm(widths[0])
        self.conv_out = self._time_conv(widths[0], config.out_ch * config.patch_size**2, spatial=True)
        self.transform = self._beside()
        number_slots(self)

    @property
    def delay(self) -> int:
        """Frames of video that a stream holds back until the next latent frame, or the end, is known."""
        return total_delay([m for m in self.up_temporal.modules() if isinstance(m, TemporalUpsample)])

    def forward(self, z: Tensor, state: StreamState | None = None) -> Tensor:
        """Video of a latent, or the frames that are ready after the next chunk of one.

        Args:
            z: (B, z, T', H', W'). T' may be 0 at a stream's end (`state.end`).
            state: the state of the stream, advanced by this call; None for a latent in one piece.

        Returns:
            (B, 3, T, H, W), about -1..1. For a whole latent, T is 1 + (T' - 1) f if causal, else T' f.
        """
        state = StreamState.whole() if state is None else state
        h = run_stages(self._stages(), z.permute(0, 2, 3, 4, 1).contiguous(), state, in_pieces=self.is_causal)
        return self._video(z, h, state)

    def stages(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The video of a whole latent, and the features (B, T, H, W, C) after the mid and after each level."""
        state, found = StreamState.whole(), []
        h = z.permute(0, 2, 3, 4, 1).contiguous()
        for stage in self._stages():
            h = stage.run(h, state)
            found.append(h)
        return self._video(z, h, state), found[1:-1]

    def _video(self, z: Tensor, h: Tensor, state: StreamState) -> Tensor:
        """The next frames of a stream: the last layer's output `h` in pixels, with the transform beside it."""
        if not state.started and self.config.temporal_padding == "zeros":
            h = h[:, self.time_downsample_factor - 1 :]
        start, state.started = not state.started, True
        if not h.shape[1]:
            factor = self.config.spatial_factor
            h = z.new_empty(z.shape[0], 0, z.shape[3] * factor, z.shape[4] * factor, self.config.out_ch)
        else:
            h = from_patches(h, self.config.patch_size)
        video = h.permute(0, 4, 1, 2, 3)
        return video if self.transform is None else video + self.transform.video(z, state, h.shape[1], start=start)

    def _stages(self) -> list[Stage]:
        config = self.config
        deepest = config.ch * config.ch_mult[-1]
        stages = [Stage(partial(self._run, self.conv_in), deepest)]
        stages.append(Stage(self._run_mid, deepest))
        for i in reversed(range(len(config.ch_mult))):
            width = config.ch * config.ch_mult[i]
            level, temporal = cast(Any, self.up[i]), cast(Any, self.up_temporal[i])
            stages.append(Stage(partial(self._run_level, level, temporal), width))
            if hasattr(level, "upsample"):
                stages.append(Stage(partial(self._run, level.upsample), 4 * width))
            if hasattr(temporal, "upsample"):
                # runs on no frames too: at a stream's end it returns the frames that it held back
                stages.append(Stage(temporal.upsample, 2 * width))
        stages.append(Stage(self._run_out, config.ch * config.ch_mult[0]))
        return stages
