"""A light decoder for latents that exist, after TAEHV: convolutions within frames that see one frame back.

::

    latent (B, z, T', H', W') --------------------------------------+
      |                                                             |
    conv_in 3x3                                                linear projection
      |                                                        to blocks of pixels
    level n-1 … 0: blocks (`FrameBlock`), then                      |
      a pointwise map to twice the rows and columns, and frames     |
      |                                                             |
    ReLU, conv_out 3x3, patches ----------------------------------> + -> video (B, 3, T, H, W)

There is no attention and no norm. Frames come in at the finest steps up that suffice to double them, and the rest of
the temporal factor at the deepest. `conv_out` begins at zero, so that a decoder whose projection is fitted begins as a
preview (`preview.py`), and the network learns the remainder.
"""

from __future__ import annotations

from functools import partial
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.models.config import ModelConfig
from vidtok.models.decoders.base import OwnDecoder
from vidtok.models.decoders.config import DecoderConfig, FastConfig
from vidtok.models.decoders.layers import Expand, FrameBlock
from vidtok.models.decoders.preview import projection
from vidtok.models.state import StreamState
from vidtok.models.vidtok.pipeline import Stage, run_stages
from vidtok.models.vidtok.spatial import Conv2d
from vidtok.models.vidtok.temporal import number_slots
from vidtok.models.vidtok.transform import from_patches


class FastDecoder(OwnDecoder, config=FastConfig):
    """Latent to video, with few operations for each pixel."""

    config: FastConfig

    def __init__(self, config: DecoderConfig, latent: ModelConfig) -> None:
        super().__init__(config, latent)
        assert isinstance(config, FastConfig)
        widths, counts = config.widths[::-1], config.counts[::-1]  # from the deepest
        frames = _frames_of_steps(latent.temporal_factor, len(widths) - 1)
        self.conv_in = Conv2d(latent.z_channels, widths[0], 3)
        self.levels = nn.ModuleList(
            nn.ModuleList(FrameBlock(width, blocks=config.blocks, past=config.past) for _ in range(count))
            for width, count in zip(widths, counts, strict=True)
        )
        steps = [*zip(widths, widths[1:], frames, strict=False)] or [(widths[0], widths[0], frames[0])]
        side = 2 if len(widths) > 1 else 1
        self.steps = nn.ModuleList(
            Expand(before, after, frames=count, side=side, lead=latent.is_causal) for before, after, count in steps
        )
        self.conv_out = Conv2d(widths[-1], 3 * config.patch_size**2, 3)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)
        self.linear = projection(latent, config.patch_size)
        self.look_back = self._unsettled(latent)
        number_slots(self)

    @property
    def last_layer(self) -> nn.Parameter:
        return self.conv_out.weight

    def forward(self, z: Tensor, state: StreamState | None = None) -> Tensor:
        state = StreamState.whole() if state is None else state
        if not z.shape[2]:
            return self.nothing(z)
        x = z.permute(0, 2, 3, 4, 1).contiguous()
        patches = run_stages(self._stages(), x, state, in_pieces=True)
        return self._video(patches, x, state)

    def stages(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        state, found = StreamState.whole(), []
        x = h = z.permute(0, 2, 3, 4, 1).contiguous()
        for stage in self._stages():
            h = stage.run(h, state)
            found.append(h)
        return self._video(h, x, state), found[1:-1]

    def _video(self, patches: Tensor, x: Tensor, state: StreamState) -> Tensor:
        video = from_patches(patches + self.linear(x, state), self.config.patch_size)
        state.started = True
        return video.permute(0, 4, 1, 2, 3)

    def _stages(self) -> list[Stage]:
        """The first convolution, then each level with the step up to it, then the last convolution."""
        widths = self.config.widths[::-1]
        stages = [Stage(lambda x, state: cast(Tensor, self.conv_in(x)), widths[0])]
        alone = len(widths) == 1
        for i, width in enumerate(widths):
            step = self.steps[0] if alone else self.steps[i - 1] if i else None
            stages.append(Stage(partial(self._level, cast(nn.ModuleList, self.levels[i]), step), 2 * width))
        stages.append(Stage(lambda x, state: cast(Tensor, self.conv_out(F.relu(x))), widths[-1]))
        return stages

    def _level(self, blocks: nn.ModuleList, step: nn.Module | None, x: Tensor, state: StreamState) -> Tensor:
        if step is not None:
            x = step(x, state)
        for block in blocks:
            x = block(x, state)
        return x

    def _unsettled(self, latent: ModelConfig) -> int:
        """`look_back`: each block spoils a frame more, and a step up spoils the frames that spoiled ones become."""
        spoiled = 0
        steps = [1, *(step.frames for step in cast("list[Expand]", list(self.steps)))][-len(self.levels) :]
        for blocks, frames in zip(self.levels, steps, strict=True):
            spoiled = 1 + (spoiled - 1) * frames if spoiled else 0
            spoiled += sum(bool(block.past) for block in cast("list[FrameBlock]", list(cast(nn.ModuleList, blocks))))
        return max(spoiled, int(latent.is_causal))


def _frames_of_steps(factor: int, steps: int) -> list[int]:
    """The factors of time of each step up, from the deepest: twos at the finest, the rest at the first."""
    found = [1] * max(1, steps)
    for i in reversed(range(1, steps)):
        if factor % 2 == 0:
            found[i], factor = 2, factor // 2
    found[0] = factor
    return found
