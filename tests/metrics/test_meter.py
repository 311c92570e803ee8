"""All metrics of a video at once: the same as each for itself, however the video is cut."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidtok.errors import VidTokError
from vidtok.metrics.accumulate import Scores
from vidtok.metrics.consistency import flicker
from vidtok.metrics.fvd import ClipFeatures
from vidtok.metrics.i3d import I3D
from vidtok.metrics.image import psnr, ssim
from vidtok.metrics.lpips import LPIPS
from vidtok.metrics.meter import VideoMeter
from vidtok.metrics.networks import Networks
from vidtok.metrics.table import METRICS, FrameMetric
from vidtok.metrics.unavailable import Unavailable

MISSING = Unavailable("no weights here")
CPU = torch.device("cpu")
NONE = Networks(MISSING, MISSING, CPU)


@pytest.fixture(scope="module")
def networks() -> Networks:
    """LPIPS with random weights; no I3D."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Networks(LPIPS(), MISSING, CPU)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("lengths", [[20], [1, 18, 1], [7, 0, 13]])
def test_any_cut_gives_the_figures_of_the_whole(networks: Networks, lengths: list[int]) -> None:
    x, y = noise(1, 3, 20, 16, 24), noise(1, 3, 20, 16, 24, seed=1)
    result = VideoMeter(networks)
    for prediction, target in zip(y.split(lengths, 2), x.split(lengths, 2), strict=True):
        result.update(prediction, target)
    assert isinstance(networks.lpips, LPIPS)
    expected = {"psnr": psnr(y, x), "ssim": ssim(y, x), "lpips": networks.lpips(y, x), "flicker": flicker(y, x)}
    of_frames = {name for name, metric in METRICS.items() if isinstance(metric, FrameMetric)}
    assert set(result.scores.result()) == set(expected) == of_frames
    for name, values in expected.items():
        figure = result.scores.result()[name]
        assert figure.mean == pytest.approx(values.mean().item(), rel=1e-5)
        assert figure.count == values.numel()
        curve = result.scores.curve(name)
        assert curve.frames == list(range(20 - values.numel(), 20))
        assert curve.values == pytest.approx(values[0].tolist(), rel=1e-4)
    assert result.frames == 20
    assert result.unavailable == {"fvd": MISSING}
    assert result.versions == {name: METRICS[name].version for name in of_frames}


def test_what_cannot_be_measured_costs_its_column_alone(networks: Networks) -> None:
    x, y = noise(1, 3, 3, 12, 12), noise(1, 3, 3, 12, 12, seed=1)
    without = VideoMeter(NONE)
    without.update(y, x)
    assert list(without.scores.result()) == ["psnr", "ssim", "flicker"]
    assert without.unavailable == {"lpips": MISSING, "fvd": MISSING}
    assert list(without.versions) == ["psnr", "ssim", "flicker"]
    small = VideoMeter(networks)
    small.update(y, x)
    assert str(small.unavailable["lpips"]) == "LPIPS expects frames of at least 16 pixels a side, and a side has 12"
    smaller = VideoMeter(networks)
    smaller.update(y[..., :10], x[..., :10])
    assert list(smaller.scores.result()) == ["psnr", "flicker"]
    assert str(smaller.unavailable["ssim"]) == "SSIM expects frames of at least 11 pixels a side, and a side has 10"


def test_a_picture_has_no_flicker_and_counts_all_the_same() -> None:
    picture = VideoMeter(NONE)
    picture.update(noise(1, 3, 1, 12, 12), noise(1, 3, 1, 12, 12, seed=1))
    scores = Scores()
    scores.update("picture.png", picture.scores)
    assert list(scores.result()) == ["psnr", "ssim"]


def test_half_precision_and_autocast_change_nothing() -> None:
    x, y = noise(1, 3, 4, 16, 16).bfloat16(), noise(1, 3, 4, 16, 16, seed=1).bfloat16()
    half, full = VideoMeter(NONE), VideoMeter(NONE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half.update(y, x)
    full.update(y.float(), x.float())
    assert half.scores.result() == full.scores.result()


def test_features_of_clips_are_kept_with_the_source_first() -> None:
    network = I3D().eval()
    x, y = noise(1, 3, 17, 12, 12), noise(1, 3, 17, 12, 12, seed=1)
    meter = VideoMeter(Networks(MISSING, network, CPU), ["fvd"])
    for prediction, target in zip(y.split([9, 8], 2), x.split([9, 8], 2), strict=True):
        meter.update(prediction, target)
    ((name, (source, reconstruction)),) = meter.features().items()
    assert name == "fvd"
    np.testing.assert_array_equal(source, ClipFeatures(network).update(x))
    np.testing.assert_array_equal(reconstruction, ClipFeatures(network).update(y))
    assert meter.scores.result() == {}


def test_only_the_metrics_that_are_asked_for_are_measured(networks: Networks) -> None:
    meter = VideoMeter(networks, ["flicker", "fvd"])
    meter.update(noise(1, 3, 3, 16, 16), noise(1, 3, 3, 16, 16, seed=1))
    assert list(meter.scores.result()) == ["flicker"]
    assert meter.unavailable == {"fvd": MISSING}


def test_frames_that_cannot_be_measured() -> None:
    with pytest.raises(VidTokError, match="frames have 1 channels; the evaluation expects 3"):
        VideoMeter(NONE).update(torch.zeros(1, 1, 2, 16, 16), torch.zeros(1, 1, 2, 16, 16))
    broken = torch.zeros(1, 3, 2, 16, 16)
    broken[:, :, 1] = float("nan")
    with pytest.raises(VidTokError, match="psnr of frame 1 is nan"):
        VideoMeter(NONE).update(broken, torch.zeros(1, 3, 2, 16, 16))
