"""LeCAM regularisation of a discriminator (Tseng et al., arXiv 2104.03310): its logits stay near their own averages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LeCAM(nn.Module):
    """Holds moving averages of the discriminator's logits, and pulls its logits towards them.

    The averages start at 0. They are part of the state dict, so that training resumes exactly; a state dict without
    them, as the published ones are, loads all the same.
    """

    real_average: Tensor
    fake_average: Tensor

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("real_average", torch.zeros(()))
        self.register_buffer("fake_average", torch.zeros(()))

    @torch.no_grad()
    def update(self, real_mean: Tensor, fake_mean: Tensor) -> None:
        """Move the averages towards the means of this step's logits, scalars."""
        self.real_average.lerp_(real_mean.float(), 1 - self.decay)
        self.fake_average.lerp_(fake_mean.float(), 1 - self.decay)

    def forward(self, real: Tensor, fake: Tensor) -> Tensor:
        """The regularisation loss of the logits `real` and `fake`, of any shape: a float32 scalar."""
        above = F.relu(real.float() - self.fake_average)
        below = F.relu(self.real_average - fake.float())
        return torch.mean(above**2) + torch.mean(below**2)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        own = {prefix + name: value for name, value in self.state_dict().items()}
        super()._load_from_state_dict({**own, **state_dict}, prefix, *args)
