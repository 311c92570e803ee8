"""The discriminators: PatchGAN (Isola et al., arXiv 1611.07004) on frames, or its 3D form on clips."""

from __future__ import annotations

from torch import Tensor, nn

from vidtok.errors import VidTokError
from vidtok.metrics.image import as_frames
from vidtok.training.objective.config import DiscriminatorType


class PatchDiscriminator(nn.Module):
    """One logit, real or not, for each patch: `layers` + 2 convolutions with BatchNorm and LeakyReLU between them.

    The first `layers` of them halve height and width, and in the 3D form the first two halve time. The width doubles
    from `width` to at most 8 x `width`. Parameters are named `main.*` as in the published checkpoints; convolutions are
    drawn from N(0, 0.02), the gains of the norms from N(1, 0.02).
    """

    def __init__(self, kind: DiscriminatorType = "2d", in_channels: int = 3, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.kind = kind
        convolution: type[nn.Module] = nn.Conv2d if kind == "2d" else nn.Conv3d
        norm: type[nn.Module] = nn.BatchNorm2d if kind == "2d" else nn.BatchNorm3d
        kernel = 4 if kind == "2d" else 3
        self.smallest_side = 3 * 2**layers if kind == "2d" else 1
        modules: list[nn.Module] = [
            convolution(in_channels, width, kernel, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        ]
        channels = width
        for layer in range(1, layers + 1):
            before, channels = channels, width * min(2**layer, 8)
            modules += [
                convolution(before, channels, kernel, stride=self._stride(layer, layers), padding=1, bias=False),
                norm(channels),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        modules.append(convolution(channels, 1, kernel, padding=1))
        self.main = nn.Sequential(*modules)
        self.apply(_initialise)

    def forward(self, video: Tensor) -> Tensor:
        """The logits of `video` (B, C, T, H, W), float, -1..1: (B T, patches) for 2d, (B, patches) for 3d.

        Raises `VidTokError` if the frames are too small to leave one patch.
        """
        height, width = video.shape[-2:]
        if min(height, width) < self.smallest_side:
            raise VidTokError(
                f"frames are {height} x {width} pixels; the 2d discriminator expects at least {self.smallest_side} a "
                "side: train on larger ones, or with fewer disc_num_layers or disc_type: 3d"
            )
        inputs = as_frames(video) if self.kind == "2d" else video
        logits: Tensor = self.main(inputs)
        return logits.flatten(1)

    def _stride(self, layer: int, layers: int) -> int | tuple[int, int, int]:
        if layer == layers:
            return 1
        return 2 if self.kind == "2d" or layer == 1 else (1, 2, 2)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)
