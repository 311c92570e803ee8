"""PSNR and SSIM against golden figures and against what can be said by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from golden.weights import clip, draw
from vidtok.errors import VidTokError
from vidtok.metrics.image import as_frames, psnr, ssim

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = load_file(FOLDER / "losses.safetensors")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_scores_agree_with_golden_figures() -> None:
    scores = psnr(GOLDEN["prediction"], GOLDEN["target"])
    assert scores.shape == (2, 5)
    torch.testing.assert_close(scores.mean(), GOLDEN["psnr"], rtol=1e-4, atol=0)
    scores = ssim(GOLDEN["prediction"], GOLDEN["target"])
    assert scores.shape == (2, 5)
    torch.testing.assert_close(scores.mean(), GOLDEN["ssim"], rtol=1e-4, atol=0)


def test_large_frames_are_averaged_down_before_ssim() -> None:
    shape = (1, 3, 1, 512, 544)
    target = torch.from_numpy(clip("big", shape))
    error = torch.from_numpy(draw("bigerr", shape))
    score = ssim((target + 0.1 * error).clamp(-1, 1), target)
    torch.testing.assert_close(score.mean(), GOLDEN["ssim_512x544"], rtol=1e-4, atol=0)


def test_psnr_of_known_errors() -> None:
    target = torch.zeros(2, 3, 4, 16, 16)
    prediction = target.clone()
    prediction[1, :, 2] = 0.2  # 0.1 in 0..1: 20 dB
    scores = psnr(prediction, target)
    expected = torch.full((2, 4), 80.0)
    expected[1, 2] = 20.0
    torch.testing.assert_close(scores, expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("metric", [psnr, ssim])
def test_video_scores_are_those_of_its_frames(metric) -> None:
    prediction, target = noise(2, 3, 3, 20, 24), noise(2, 3, 3, 20, 24, seed=1)
    scores = metric(prediction, target)
    torch.testing.assert_close(metric(as_frames(prediction), as_frames(target)), scores.flatten())
    torch.testing.assert_close(metric(prediction[1, :, 2][None], target[1, :, 2][None])[0], scores[1, 2])


def test_ssim_is_one_for_equal_frames_and_falls_with_the_error() -> None:
    target = noise(1, 3, 32, 32)
    scores = torch.cat([ssim(target + scale * noise(1, 3, 32, 32, seed=1), target) for scale in (0, 0.2, 1)])
    assert scores[0] == pytest.approx(1, abs=1e-5)
    assert 1 > scores[1] > scores[2]


def test_half_precision_is_scored_in_float32() -> None:
    prediction, target = noise(1, 3, 32, 32).bfloat16(), noise(1, 3, 32, 32, seed=1).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for metric in (psnr, ssim):
            score = metric(prediction, target)
            assert score.dtype == torch.float32
            torch.testing.assert_close(score, metric(prediction.float(), target.float()))


def test_errors_name_the_shapes() -> None:
    with pytest.raises(
        VidTokError, match=r"\(1, 3, 16, 16\) and target \(1, 3, 16, 15\); PSNR expects two of one shape"
    ):
        psnr(torch.zeros(1, 3, 16, 16), torch.zeros(1, 3, 16, 15))
    with pytest.raises(VidTokError, match=r"SSIM expects two of one shape, \(N, C, H, W\) or \(B, C, T, H, W\)"):
        ssim(torch.zeros(3, 16, 16), torch.zeros(3, 16, 16))
    with pytest.raises(
        VidTokError, match="frames are 10 x 64 pixels; SSIM expects at least 11 a side: give larger ones"
    ):
        ssim(torch.zeros(1, 3, 10, 64), torch.zeros(1, 3, 10, 64))
