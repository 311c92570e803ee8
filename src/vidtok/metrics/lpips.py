"""LPIPS v0.1 on VGG16 (Zhang et al., arXiv 1801.03924): a distance between pictures that follows what people see.

Both pictures pass through VGG16 (Simonyan and Zisserman, arXiv 1409.1556). After each of its five stages the features
are normalised to unit length over their channels; the squared differences, weighted by one learned non-negative number
a channel, are averaged over positions and summed over the stages.

    picture -> scale -> stage 1 -> stage 2 -> ... -> stage 5
                           |          |                 |
                         lin0       lin1              lin4    -> sum

It serves as training loss and as metric. Parameters carry the names that they have under `loss.perceptual_loss.` in the
published checkpoints.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from vidtok.metrics.image import as_frames, check_pair
from vidtok.metrics.lpips_weights import LPIPSWeightsError, find_weights

__all__ = ["LPIPS", "LPIPSWeightsError"]

_STAGES = (
    (0, (3, 64, 64)),
    (5, (64, 128, 128)),
    (10, (128, 256, 256, 256)),
    (17, (256, 512, 512, 512)),
    (24, (512, 512, 512, 512)),
)
"""For each stage of VGG16, its first convolution's place in torchvision's `features`, and the channels through it."""
SMALLEST_SIDE = 16
"""Pixels: four poolings must leave at least one position."""


class LPIPS(nn.Module):
    """The distance. No parameter asks for gradients. Made by `from_weights`, or bare for a state dict to fill."""

    def __init__(self) -> None:
        super().__init__()
        self.scaling_layer = _Scaling()
        self.net = nn.ModuleDict({f"slice{i}": _stage(*stage) for i, stage in enumerate(_STAGES, 1)})
        for i, (_, channels) in enumerate(_STAGES):
            self.add_module(f"lin{i}", _Linear(channels[-1]))
        self.requires_grad_(False)

    @classmethod
    def from_weights(cls, source: str | Path | Sequence[str | Path] | None = None) -> LPIPS:
        """LPIPS with trained weights.

        `source` is a file, a folder, or several of them, that together hold VGG16 (as torchvision names it) and the
        linear layers (as the LPIPS authors name them), or all of it as in a VidTok checkpoint's `loss.*` section;
        `.safetensors`, `.pth` or `.ckpt`. Without it, the usual places are searched (`usual_files` in
        `lpips_weights.py`); nothing is downloaded. Raises `LPIPSWeightsError` where a file cannot be used or something
        is missing.
        """
        lpips = cls()
        shapes = {name: tuple(value.shape) for name, value in lpips.state_dict().items()}
        state = find_weights(source, shapes)
        lpips.load_state_dict({**lpips.scaling_layer.state_dict(prefix="scaling_layer."), **state})
        return lpips

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The distance of each frame, 0 for equal ones; float32.

        Both are pictures (N, 3, H, W), giving (N,), or video (B, 3, T, H, W), giving (B, T); float, -1..1. Only
        `prediction` receives a gradient, and no graph is kept for `target`. Raises `VidTokError` if the shapes differ,
        there are not 3 channels, or a side is below 16 pixels.
        """
        check_pair(prediction, target, "LPIPS", channels=3, smallest_side=SMALLEST_SIDE)
        x, y = self.scaling_layer(as_frames(prediction)), self.scaling_layer(as_frames(target.detach()))
        total = torch.zeros(len(y), device=y.device)
        for stage, weight in self._stages():
            x = stage(x)
            with torch.no_grad():
                y = stage(y)
                unit_y = _unit(y)
            total = total + torch.mean(((_unit(x) - unit_y) ** 2 * weight).sum(dim=1), dim=(1, 2))
        return total.view(len(target), -1) if target.ndim == 5 else total

    def _stages(self) -> Iterator[tuple[nn.Module, Tensor]]:
        """Each stage with its linear layer's weights, (1, C, 1, 1) float32."""
        for i in range(len(_STAGES)):
            weight = self.get_parameter(f"lin{i}.model.1.weight")
            yield self.net[f"slice{i + 1}"], weight.float()


class _Scaling(nn.Module):
    """From -1..1 to the statistics of ImageNet that VGG16 was trained with."""

    shift: Tensor
    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        return (pictures - self.shift) / self.scale


class _Linear(nn.Module):
    """Holds one weight a channel under its published name, `model.1.weight`; a dropout was `model.0`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.ModuleDict({"1": nn.Conv2d(channels, 1, 1, bias=False)})


def _stage(first: int, channels: tuple[int, ...]) -> nn.Sequential:
    """A stage of VGG16: a pooling, except in the first stage, then 3x3 convolutions with ReLU."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if first:
        layers[str(first - 1)] = nn.MaxPool2d(2)
    for i, (before, after) in enumerate(pairwise(channels)):
        layers[str(first + 2 * i)] = nn.Conv2d(before, after, 3, padding=1)
        layers[str(first + 2 * i + 1)] = nn.ReLU(inplace=True)
    return nn.Sequential(layers)


def _unit(features: Tensor) -> Tensor:
    """`features` (N, C, H, W) at length 1 over the channels; float32."""
    features = features.float()
    length: Tensor = torch.linalg.vector_norm(features, dim=1, keepdim=True)
    return features / (length + 1e-10)
