"""The losses of a decoder against its teacher: the teacher's video, and its features stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidtok.metrics.lpips import LPIPS
from vidtok.training.distillation.config import DistillConfig
from vidtok.training.objective.config import ObjectiveConfig
from vidtok.training.objective.losses import Objective

_LEAST_ERROR = 2e-4
"""Added to a clip's error before its logarithm, as in the objective."""
Shape = tuple[int, ...]
"""Of features: (B, T, H, W, C)."""


class DistillObjective(Objective):
    """The objective against the source, with the learned maps of features to the teacher's beside it."""

    def __init__(
        self, config: ObjectiveConfig, distill: DistillConfig, own: Sequence[Shape], teacher: Sequence[Shape],
        perceptual_loss: LPIPS | None = None,
    ) -> None:  # fmt: skip
        """`own` and `teacher` are the shapes of the features of both for one latent."""
        super().__init__(config, perceptual_loss)
        self.distill = distill
        chosen = [_nearest(shape, teacher) for shape in own] if distill.feature_weight and teacher else []
        self.matches = chosen
        """For each of the decoder's stages, the number of the teacher's that it learns from."""
        self.maps = nn.ModuleList(
            nn.Linear(shape[-1], teacher[match][-1]) for shape, match in zip(own, chosen, strict=False)
        )

    def generator_parameters(self) -> list[nn.Parameter]:
        return [*super().generator_parameters(), *self.maps.parameters()]

    def against_teacher(
        self, video: Tensor, teacher: Tensor, features: Sequence[Tensor], wanted: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """The losses, weighted, by name; `video` and `teacher` are (B, 3, T, H, W)."""
        values = video[0, :, 0].numel()
        found: dict[str, Tensor] = {}
        if self.distill.teacher_weight:
            errors = (video.float() - teacher.float()).square().flatten(1).mean(1)
            found["teacher_loss"] = self.distill.teacher_weight * values * (errors + _LEAST_ERROR).log().mean()
        if self.maps:
            shares = [
                _misfit(layer(feature), wanted[match])
                for layer, feature, match in zip(self.maps, features, self.matches, strict=False)
            ]
            found["feature_loss"] = self.distill.feature_weight * values * torch.stack(shares).mean()
        return found


def _nearest(shape: Shape, others: Sequence[Shape]) -> int:
    """The number of the grid (T, H, W) in `others` that is nearest to that of `shape`; the last of equal ones."""

    def distance(other: Shape) -> float:
        return sum(abs(math.log(a / b)) for a, b in zip(shape[1:4], other[1:4], strict=True))

    return min(range(len(others)), key=lambda i: (round(distance(others[i]), 6), -i))


def _misfit(own: Tensor, wanted: Tensor) -> Tensor:
    """The squared error of features `own` as a share of the square of `wanted`, which is brought to their grid."""
    wanted = wanted.float()
    if own.shape[1:4] != wanted.shape[1:4]:
        grid = list(own.shape[1:4])
        wanted = F.interpolate(wanted.movedim(-1, 1), grid, mode="trilinear", align_corners=True).movedim(1, -1)
    return (own.float() - wanted).square().mean() / (wanted.square().mean() + 1e-6)
