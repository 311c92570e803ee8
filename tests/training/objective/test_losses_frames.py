"""LPIPS on a few frames of each clip in place of all: the same on average, all of them where nothing is drawn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from vidtok.errors import ConfigError
from vidtok.metrics.lpips import LPIPS
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.losses import Objective

pytestmark = pytest.mark.gradients


class Brightness(LPIPS):
    """Stands in for LPIPS: the difference in brightness, and a count of the frames that were looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[int] = []

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        self.frames.append(len(prediction))
        return (prediction - target).abs().mean((1, 2, 3))


def objective(frames: int | None) -> tuple[Objective, Brightness]:
    lpips = Brightness()
    config = ObjectiveConfig(
        pixel_loss="l2", perceptual_weight=0.5, perceptual_frames=frames, perceptual_batch=5, disc_weight=0.0
    )
    return Objective(config, lpips).train(), lpips


def step(made: Objective, target: Tensor, reconstruction: Tensor) -> tuple[Tensor, Tensor]:
    leaf = reconstruction.clone().requires_grad_()
    loss, log = made({}, target, leaf, 0, 0)
    loss.backward()
    assert leaf.grad is not None
    return log["train/p_loss"], leaf.grad


def test_each_clip_has_as_many_frames_looked_at_and_others_get_pixel_gradients_alone() -> None:
    made, lpips = objective(2)
    target, reconstruction = torch.zeros(3, 3, 7, 16, 16), torch.full((3, 3, 7, 16, 16), 0.5)
    _, gradient = step(made, target, reconstruction)
    assert sum(lpips.frames) == 3 * 2
    sizes = gradient[:, 0, :, 0, 0]
    plain, seen = sizes.min(), sizes > sizes.min() * 1.01
    assert seen.sum(1).tolist() == [2, 2, 2]
    torch.testing.assert_close(sizes[~seen], plain.expand(int((~seen).sum())))


def test_a_few_frames_are_all_on_average() -> None:
    torch.manual_seed(0)
    target = torch.zeros(2, 3, 5, 16, 16)
    reconstruction = torch.rand(2, 3, 5, 16, 16)
    every, gradient = step(objective(None)[0], target, reconstruction)
    made, _ = objective(2)
    drawn = [step(made, target, reconstruction) for _ in range(400)]
    torch.testing.assert_close(torch.stack([loss for loss, _ in drawn]).mean(), every, rtol=0.02, atol=0)
    mean = torch.stack([found for _, found in drawn]).mean(0)
    torch.testing.assert_close(mean.sum((1, 3, 4)), gradient.sum((1, 3, 4)), rtol=0.1, atol=1e-3)


def test_all_frames_count_in_validation_and_where_there_are_no_more() -> None:
    target, reconstruction = torch.zeros(1, 3, 3, 16, 16), torch.rand(1, 3, 3, 16, 16)
    every, gradient = step(objective(None)[0], target, reconstruction)
    for frames, mode in ((2, False), (3, True), (9, True)):
        made, lpips = objective(frames)
        loss, found = step(made.train(mode), target, reconstruction)
        torch.testing.assert_close(loss, every)
        torch.testing.assert_close(found, gradient)
        assert sum(lpips.frames) == 3


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2"])
def test_other_numbers_are_refused(value: object) -> None:
    with pytest.raises(ConfigError, match=r"perceptual_frames is .*; expected a whole number of at least 1, or null"):
        ObjectiveConfig(perceptual_frames=value)  # type: ignore[arg-type]
