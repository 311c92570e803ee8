"""LPIPS and I3D with their published weights, where this machine has them; skipped elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.metrics.fvd import ClipFeatures, FeatureStatistics, fvd
from vidtok.metrics.i3d import I3D
from vidtok.metrics.i3d_weights import I3DWeightsError
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.metrics.unavailable import Unavailable
from vidtok.synthetic import SyntheticConfig, synthetic_batch

pytestmark = pytest.mark.networks


USER_CACHE = os.environ.get("VIDTOK_CACHE")


@pytest.fixture(scope="module", autouse=True)
def _cache_of_the_user() -> Iterator[None]:
    """Other tests have an empty cache of their own; the weights that the user has installed count here."""
    with pytest.MonkeyPatch.context() as patch:
        if USER_CACHE is None:
            patch.delenv("VIDTOK_CACHE", raising=False)
        else:
            patch.setenv("VIDTOK_CACHE", USER_CACHE)
        yield


@pytest.fixture(scope="module")
def lpips(_cache_of_the_user: None) -> LPIPS:
    try:
        return LPIPS.from_weights()
    except LPIPSWeightsError as error:
        pytest.skip(f"needs LPIPS's weights: {error}")


@pytest.fixture(scope="module")
def i3d(_cache_of_the_user: None) -> I3D:
    try:
        return I3D.from_weights()
    except I3DWeightsError as error:
        pytest.skip(f"needs I3D's weights: {error}")


def pictures(count: int = 2, side: int = 96) -> Tensor:
    """Frames (N, 3, H, W) of procedural clips."""
    clips = synthetic_batch(SyntheticConfig(frames=1, height=side, width=side), 3, range(count))
    return clips[:, :, 0]


def blurred(frames: Tensor) -> Tensor:
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    weight = torch.outer(kernel, kernel).expand(3, 1, 5, 5)
    return F.conv2d(F.pad(frames, (2, 2, 2, 2), mode="replicate"), weight, groups=3)


def noisy(frames: Tensor, deviation: float = 0.1) -> Tensor:
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0))
    return (frames + deviation * noise).clamp(-1, 1)


class Features(nn.Module):
    """Ours in the place of torchmetrics' VGG16, which needs torchvision."""

    net: LPIPS

    def __init__(self, **_: Any) -> None:
        super().__init__()

    def forward(self, scaled: Tensor) -> list[Tensor]:
        found = []
        for stage, _ in self.net._stages():
            scaled = stage(scaled)
            found.append(scaled)
        return found


def test_distances_are_those_of_torchmetrics_given_the_same_features(
    lpips: LPIPS, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = pytest.importorskip("torchmetrics.functional.image.lpips")
    monkeypatch.setattr(Features, "net", lpips, raising=False)
    monkeypatch.setattr(theirs, "Vgg16", Features)
    x = pictures()
    network = theirs._LPIPS(net="vgg")
    for y in (blurred(x), noisy(x), (x * 0.8 + 0.1)):
        torch.testing.assert_close(lpips(y, x), network(y, x).flatten(), atol=1e-5, rtol=0)


def test_three_distortions_have_the_figures_of_the_published_network(lpips: LPIPS) -> None:
    x = torch.linspace(-1, 1, 64).view(1, 1, 1, 64) * torch.linspace(1, -1, 64).view(1, 1, 64, 1)
    x = torch.cat([x, x.flip(3), (40 * x).sin()], 1)
    distances = [float(lpips(y, x)) for y in (blurred(x), noisy(x), 0.7 * x)]
    np.testing.assert_allclose(distances, [0.04451, 0.10714, 0.01081], atol=2e-4)


def test_the_network_meets_the_statistics_that_it_was_trained_with(i3d: I3D) -> None:
    """Batch normalisation keeps the mean of each channel in training: a kernel that lies wrong would miss it."""
    agreement: dict[str, float] = {}

    def compare(name: str, layer: nn.BatchNorm3d) -> Any:
        def note(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            met = inputs[0].mean((0, 2, 3, 4))
            assert layer.running_mean is not None
            agreement[name] = float(torch.corrcoef(torch.stack([met, layer.running_mean]))[0, 1])

        return note

    hooks = [
        layer.register_forward_pre_hook(compare(name, layer))
        for name, layer in i3d.named_modules()
        if isinstance(layer, nn.BatchNorm3d)
    ]
    try:
        i3d(synthetic_batch(SyntheticConfig(frames=9, height=224, width=224), 5, range(2)))
    finally:
        for hook in hooks:
            hook.remove()
    assert len(agreement) == 57
    assert np.mean(list(agreement.values())) > 0.6, agreement


def statistics(i3d: I3D, clips: list[Tensor]) -> FeatureStatistics:
    found = FeatureStatistics()
    for video in clips:
        features = ClipFeatures(i3d, 9)
        found.update(features.update(video))
    return found


def test_fvd_of_a_set_with_itself_is_nothing_and_grows_with_what_is_done_to_it(i3d: I3D) -> None:
    config = SyntheticConfig(frames=9, height=96, width=96)
    clips = [synthetic_batch(config, 7, [index]) for index in range(4)]
    reference = statistics(i3d, clips)

    def changed(change: Any) -> float:
        frames = [change(clip[0].movedim(1, 0)).movedim(0, 1).unsqueeze(0) for clip in clips]
        figure = fvd(reference, statistics(i3d, frames))
        assert not isinstance(figure, Unavailable)
        return figure.distance

    same = fvd(reference, reference)
    assert not isinstance(same, Unavailable)
    assert same.distance == pytest.approx(0, abs=1e-6)
    assert (
        0.01 < changed(lambda x: noisy(x, 0.02)) < changed(lambda x: noisy(x, 0.1)) < changed(lambda x: noisy(x, 0.4))
    )
    assert 0.01 < changed(blurred) < changed(lambda x: blurred(blurred(blurred(x))))
