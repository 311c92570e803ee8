"""Networks that metrics need: at hand, or the reason why not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from vidtok.errors import VidTokError
from vidtok.metrics import networks
from vidtok.metrics.i3d import I3D
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.metrics.networks import Networks, load_lpips
from vidtok.metrics.table import METRICS
from vidtok.metrics.unavailable import Unavailable


def test_missing_weights_are_a_reason_and_not_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(source: object) -> LPIPS:
        raise LPIPSWeightsError("LPIPS lacks VGG16")

    lpips = LPIPS()
    monkeypatch.setattr(networks.LPIPS, "from_weights", missing)
    assert load_lpips() == Unavailable("LPIPS lacks VGG16")
    monkeypatch.setattr(networks.LPIPS, "from_weights", lambda source: lpips)
    assert load_lpips() is lpips


def test_metrics_without_their_network_are_named() -> None:
    missing = Unavailable("no LPIPS here")
    network = I3D()
    found = Networks(missing, network, torch.device("cpu"))
    assert found.unavailable() == {"lpips": missing}
    assert found.of(METRICS["fvd"]) is network
    assert found.of(METRICS["psnr"]) is None


def test_files_that_are_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networks.LPIPS, "from_weights", lambda source: LPIPS())
    with pytest.raises(VidTokError, match=r"none\.pt"):
        Networks.load(torch.device("cpu"), i3d=tmp_path / "none.pt")
