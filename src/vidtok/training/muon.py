"""Muon: momentum whose step is made orthogonal (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients of the quintic iteration that the authors chose: five steps bring singular values to 0.7 … 1.2."""
_STEPS = 5
_LEAST_CHANNELS = 16
_COLOURS = 3
_OPPONENT_COLOURS = F.normalize(torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]]))
"""Brightness, orange against blue, green against magenta, of red, green and blue: orthonormal rows."""


class Muon(torch.optim.Optimizer):
    """Muon for weights between wide layers; Adam for biases, norms, scalars and layers next to pixels or latents.

    A convolution's weight (out, in, k, …) is taken as the matrix (out, in k …). A step changes it by `lr` times
    sqrt(max(1, rows / columns)) in spectral norm, so that wide and narrow layers learn at one relative rate. Where
    fewer than 16 channels come in or go out, as colours do, Adam takes over: an orthogonal step is as large in
    directions whose gradient is only noise, and the output would shake with it. Adam in its turn takes each number by
    itself, and the three of a pixel rise and fall together: see `opponent_colours`.

    Args:
        params: parameters to train; none may be sharded, since a step needs the whole matrix.
        lr: learning rate of matrices, above 0; 0.02 is usual.
        momentum: momentum of matrices, from 0 to less than 1.
        adam_factor: Adam's learning rate as a factor of `lr`, above 0.
        betas: Adam's, for all other parameters.
        eps: Adam's.
        weight_decay: decoupled weight decay, of matrices alone.
        relative: `lr` is a share of the matrix's own Frobenius norm, so that every matrix turns at the same rate
            however large it is; without effect on a matrix that starts as zeros.
        keep_norm: with `relative`, a matrix keeps the norm that it starts with; `weight_decay` then has no effect.
        opponent_colours: Adam takes three channels, in or out, as brightness, orange against blue and green against
            magenta rather than as red, green and blue. In procedural clips green against magenta is a tenth of
            brightness, and hidden by it in each of red, green and blue.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        *,
        momentum: float = 0.95,
        adam_factor: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        relative: bool = False,
        keep_norm: bool = False,
        opponent_colours: bool = False,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "adam_factor": adam_factor,
            "betas": betas, "eps": eps, "weight_decay": weight_decay, "relative": relative, "keep_norm": keep_norm,
            "opponent_colours": opponent_colours,
        }  # fmt: skip
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore a state, also one from before an option was added: relative steps kept the norm then."""
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("relative", False)
            group.setdefault("keep_norm", group["relative"])
            group.setdefault("opponent_colours", False)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Take one step with the present gradients; returns the result of `closure`, if given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.dim() >= 2 and min(parameter.shape[:2]) >= _LEAST_CHANNELS:
                    self._orthogonal_step(parameter, group)
                else:
                    self._adam_step(parameter, group)
        return loss

    def _orthogonal_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
            state["norm"] = float(parameter.norm())
        state["momentum"].lerp_(gradient, 1 - group["momentum"])
        ahead = gradient.lerp(state["momentum"], group["momentum"])  # Nesterov's
        direction = orthogonalize(ahead.flatten(1))
        step = direction.view_as(parameter).to(parameter.dtype)
        if group["weight_decay"]:
            parameter.mul_(1 - group["lr"] * group["weight_decay"])
        if group["relative"] and state["norm"] > 0:
            parameter.add_(step * (parameter.norm() / step.norm().clamp(min=1e-12)), alpha=-group["lr"])
            if group["keep_norm"]:
                parameter.mul_(state["norm"] / parameter.norm())
        else:
            rows, columns = direction.shape
            parameter.add_(step, alpha=-group["lr"] * max(1.0, rows / columns) ** 0.5)

    def _adam_step(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        colours = _colour_axis(parameter) if group["opponent_colours"] else None
        if colours is not None:
            gradient = _turned(gradient, _OPPONENT_COLOURS, colours)
        if not state:
            state["step"] = torch.zeros(())
            state["mean"] = torch.zeros_like(parameter)
            state["square"] = torch.zeros_like(parameter)
        state["step"] += 1
        steps, (beta1, beta2) = float(state["step"]), group["betas"]
        state["mean"].lerp_(gradient, 1 - beta1)
        state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        spread = (state["square"] / (1 - beta2**steps)).sqrt_().add_(group["eps"])
        rate = group["lr"] * group["adam_factor"]
        step = state["mean"] / spread
        if colours is not None:
            step = _turned(step, _OPPONENT_COLOURS.T, colours)
        parameter.add_(step, alpha=-rate / (1 - beta1**steps))


@cache
def _has_bfloat16() -> bool:
    """True if this CPU multiplies bfloat16 numbers itself; emulated, a step takes some 14 times as long."""
    available: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return available and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _colour_axis(parameter: Tensor) -> int | None:
    """The axis of three channels, out or in; None if there is none."""
    return next((axis for axis, size in enumerate(parameter.shape[:2]) if size == _COLOURS), None)


def _turned(values: Tensor, basis: Tensor, axis: int) -> Tensor:
    """`values` in another basis along `axis`, whose unit vectors are the rows of `basis`."""
    turned = (values.movedim(axis, -1).unsqueeze(-2) * basis.to(values)).sum(-1)  # a product would be autocast
    return turned.movedim(-1, axis)


def orthogonalize(matrix: Tensor) -> Tensor:
    """An approximation of U Vᵀ, where U S Vᵀ is the singular value decomposition of `matrix` (rows, columns).

    Computed in bfloat16, or in float32 on a CPU whose products of bfloat16 are slower. Singular values that are not
    tiny come out within 0.6 … 1.3.
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrix.bfloat16() if matrix.device.type != "cpu" or _has_bfloat16() else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x.T if tall else x
