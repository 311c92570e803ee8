"""The networks that metrics need besides arithmetic: LPIPS's and I3D, each at hand or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from vidtok.errors import VidTokError
from vidtok.metrics.i3d import I3D
from vidtok.metrics.i3d_weights import I3DWeightsError
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.metrics.table import METRICS, Metric
from vidtok.metrics.unavailable import Unavailable


@dataclass(frozen=True)
class Networks:
    """The networks, each by the name that `Metric.needs` gives, or the reason why it is not at hand."""

    lpips: LPIPS | Unavailable
    i3d: I3D | Unavailable
    device: torch.device

    @classmethod
    def load(
        cls,
        device: torch.device,
        lpips: str | Path | Sequence[str | Path] | None = None,
        i3d: str | Path | None = None,
    ) -> Networks:
        """The networks from the given files, or else from the usual places; see `load_lpips`, `load_i3d`.

        Raises `VidTokError` if a given file cannot be used.
        """
        networks = cls(load_lpips(lpips, device), load_i3d(i3d, device), device)
        for given, network in ((lpips, networks.lpips), (i3d, networks.i3d)):
            if given is not None and isinstance(network, Unavailable):
                raise VidTokError(network.reason)
        return networks

    def of(self, metric: Metric) -> nn.Module | Unavailable | None:
        """The network that `metric` needs; None if it needs none."""
        if metric.needs is None:
            return None
        network: nn.Module | Unavailable = getattr(self, metric.needs)
        return network

    def unavailable(self) -> dict[str, Unavailable]:
        """The metrics that cannot be measured for want of a network, by name, and why."""
        networks = {name: self.of(metric) for name, metric in METRICS.items()}
        return {name: network for name, network in networks.items() if isinstance(network, Unavailable)}


def load_lpips(
    source: str | Path | Sequence[str | Path] | None = None, device: torch.device | str = "cpu"
) -> LPIPS | Unavailable:
    """LPIPS from `source` or the usual places, as `LPIPS.from_weights` finds it; if that fails, the reason."""
    try:
        return LPIPS.from_weights(source).to(device)
    except LPIPSWeightsError as error:
        return Unavailable(str(error))


def load_i3d(source: str | Path | None = None, device: torch.device | str = "cpu") -> I3D | Unavailable:
    """I3D from `source` or the usual places, as `I3D.from_weights` finds it; if that fails, the reason."""
    try:
        return I3D.from_weights(source).to(device)
    except I3DWeightsError as error:
        return Unavailable(str(error))
