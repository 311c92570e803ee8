"""Finite scalar quantization (Mentzer et al., arXiv 2309.15505), with VidTok's entropy loss (arXiv 2412.13061).

Each of the C channels of a latent is rounded to one of `levels[c]` values, so the codebook is the product of the
channels' levels and is never stored. All functions take latents with channels last, of any dtype, and compute in
float32, also under autocast.

The entropy loss is of p = softmax over the codebook of t <z, code>. As the logits are sums over the channels, p is a
product of one distribution per channel; `entropies` uses that, so that the tokens x codebook matrix never exists.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import erf, exp, log, pi, prod, sqrt

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Levels = Sequence[int]

_MARGIN = 1e-3
"""Relative excess of the bound over the outermost level, so that this level can be reached."""
_FLOOR = 1e-5
"""Smallest probability inside the entropy's logarithm; smaller ones count as this."""
_NEAR = 0.5
"""Unit of distance between two values in `crowding_loss`, in widths of a level."""
_CHUNK_ELEMENTS = 2**22
"""Elements of the largest tensor that `crowding_loss`, or `entropies` apart from the codebook's mean, makes for a chunk
of tokens."""


def bound(z: Tensor, levels: Levels) -> Tensor:
    """`z` (..., C) squashed so that rounding gives the levels' integers, -(L // 2) .. (L - 1) // 2; float32."""
    with _float32(z):
        scale, offset = _scale_and_offset(levels, z.device)
        return _squashed(z, scale, offset) * scale - offset


def quantize(z: Tensor, levels: Levels) -> tuple[Tensor, Tensor]:
    """The nearest codes of `z` (..., C), and their indices.

    Returns codes (..., C), float32 in -1..1 with the straight-through gradient of the bound, and indices (...), int32
    in 0..prod(levels) - 1, or -1 where a value is NaN.
    """
    bounded = bound(z, levels)
    rounded = bounded.detach().round()
    # The difference is exactly zero, so codes are exact; it carries the gradient past the rounding.
    straight_through = rounded + (bounded - bounded.detach())
    codes = straight_through / _half_widths(levels, z.device)
    return codes, _join(rounded.to(torch.int32), levels).masked_fill(rounded.isnan().any(-1), -1)


def indices_to_codes(indices: Tensor, levels: Levels) -> Tensor:
    """Codes (..., C), float32 in -1..1, of `indices` (...), integers in 0..prod(levels) - 1."""
    sizes = torch.tensor(list(levels), device=indices.device)
    basis = torch.tensor(_basis(levels), device=indices.device)
    digits = indices.long().unsqueeze(-1) // basis % sizes - sizes // 2
    return digits.float() / _half_widths(levels, indices.device)


def entropy_weight(step: int, weight: float, annealing_steps: int, annealing_factor: float) -> float:
    """The entropy loss's weight: from `annealing_factor` x `weight` at step 0, linearly to `weight`."""
    remaining = max(0.0, 1 - step / annealing_steps) if annealing_steps > 0 else 0.0
    return weight * (1 + (annealing_factor - 1) * remaining)


def auxiliary_loss(
    z: Tensor,
    codes: Tensor,
    levels: Levels,
    step: int,
    *,
    entropy_loss_weight: float = 0.1,
    entropy_loss_annealing_steps: int = 2000,
    entropy_loss_annealing_factor: float = 3.0,
    commitment_loss_weight: float = 0.25,
    across_ranks: bool = True,
) -> Tensor:
    """FSQ's auxiliary loss, a float32 scalar: weighted entropies, plus the squared distance from `z` to its code.

    `z` (..., C) is the latent before bounding, `codes` (..., C) its codes; `step` is the number of optimizer steps of
    the model so far. With `across_ranks`, the codebook's mean probabilities are averaged over the ranks of
    torch.distributed where that is initialised; every rank must then call this.
    """
    with _float32(z):
        z = z.float()
        loss = commitment_loss_weight * torch.mean((z - codes.detach().float()) ** 2)
        weight = entropy_weight(step, entropy_loss_weight, entropy_loss_annealing_steps, entropy_loss_annealing_factor)
        if weight:
            per_token, of_mean = entropies(z, levels, across_ranks=across_ranks)
            loss = loss + weight * (per_token - of_mean)
        return loss


def spread_loss(z: Tensor, levels: Levels, *, across_ranks: bool = True) -> Tensor:
    """Distance of the latent `z` (..., C) from using all codes alike; a float32 scalar, 0 at best.

    It is a sliced Wasserstein distance (Rabin et al. 2011; Bonneel et al. 2015) between the bounded values, scaled to
    -1..1, and the uniform distribution on that cube: squared, averaged over the C axes and the C (C - 1) diagonals of
    two channels, and scaled to be 1 if all values are in the middle. The diagonals show channels that repeat each
    other, and channels that are large together. The entropy of `auxiliary_loss` is largest where values are huge and
    only the outer levels are used; this loss is smallest where all levels are used. With `across_ranks`, the tokens of
    all ranks of torch.distributed count where that is initialised; every rank must then call this.
    """
    with _float32(z):
        values = _squashed(z, *_scale_and_offset(levels, z.device)).reshape(-1, len(levels))
        if across_ranks:
            values = _joined_over_ranks(values)
        first, second = torch.triu_indices(len(levels), len(levels), 1, device=z.device)
        diagonals = torch.cat([values[:, first] + values[:, second], values[:, first] - values[:, second]], 1) / sqrt(2)
        number = torch.arange(len(values), device=z.device, dtype=torch.float32)
        share = (number + 0.5)[:, None] / len(values)
        # Quantiles of a uniform value, and of the sum or difference of two over the root of 2, which is triangular.
        uniform = 2 * share - 1
        triangular = torch.where(share < 0.5, (4 * share).sqrt() - sqrt(2), sqrt(2) - (4 * (1 - share)).sqrt())
        axes = (values.sort(dim=0).values - uniform).square().mean(0)
        across = (diagonals.sort(dim=0).values - triangular).square().mean(0)
        return 3 * torch.cat([axes, across]).mean()


def crowding_loss(z: Tensor, levels: Levels) -> Tensor:
    """Sharing of codes among the tokens of one clip, beyond chance, for `z` (B, T', H', W', C); a float32 scalar.

    The nearness of two tokens of a clip, at any places and times, is exp(-d^2 / 2), where d is the distance of their
    bounded values in units of half a level's width. The loss is the mean over tokens of log(1 + n / n0), where n is the
    mean nearness of the other tokens, and n0 the same for values drawn uniformly: log 2 at chance, 0 if no token is
    near another, and log(1 + 1 / n0) if all are equal. It is the uniformity loss of Wang and Isola (arXiv 2005.10242),
    for a cube and token by token. Equal tokens have no gradient on each other, so that a perfectly still clip is left
    as it is. `spread_loss` takes all tokens together; this loss asks a clip of little contrast, and one place over
    time, to use many codes as well.
    """
    with _float32(z):
        batch, frames, height, width, channels = z.shape
        values = bound(z, levels).reshape(batch, -1, channels) / _NEAR
        number = torch.arange(frames * height * width, device=z.device)
        rows = max(1, _CHUNK_ELEMENTS // (batch * len(number)))
        chunks = list(zip(torch.split(values, rows, 1), torch.split(number, rows), strict=True))
        pieces = len(chunks) > 1 and torch.is_grad_enabled()
        means = [
            checkpoint(_nearness, *chunk, values, number, use_reentrant=False, preserve_rng_state=False)
            if pieces
            else _nearness(*chunk, values, number)
            for chunk in chunks
        ]
        chance = prod(_chance_of_near((level - 1) / _NEAR) for level in levels)
        return torch.log1p(torch.cat(means, 1) / chance).mean()


def _nearness(tokens: Tensor, which: Tensor, others: Tensor, number: Tensor) -> Tensor:
    """Mean nearness (B, N) of `tokens` (B, N, C) to all `others` (B, M, C) except the token itself.

    `which` (N,) and `number` (M,) are the tokens' numbers in the clip.
    """
    squares = tokens.square().sum(-1)[:, :, None] + others.square().sum(-1)[:, None]
    near = torch.exp(-0.5 * (squares - 2 * tokens @ others.mT).clamp(min=0))
    other = (which[:, None] != number).to(near.dtype)
    return (near * other).sum(-1) / max(1, len(number) - 1)


def _chance_of_near(width: float) -> float:
    """The mean of exp(-d^2 / 2) for two values drawn uniformly from an interval of this width."""
    return 2 / width**2 * (width * sqrt(pi / 2) * erf(width / sqrt(2)) + exp(-(width**2) / 2) - 1)


def entropies(
    z: Tensor, levels: Levels, *, inverse_temperature: float = 200.0, across_ranks: bool = True
) -> tuple[Tensor, Tensor]:
    """The mean over tokens of H(p), and H of the mean over tokens (and ranks) of p, in nats; float32 scalars.

    p is the softmax over the codebook of `inverse_temperature` <z, code> for each token of `z` (..., C), and
    H(p) = -sum p log max(p, 1e-5). Both, and their gradients, equal the direct form's up to rounding. For N tokens and
    K codes, time and memory are of order N sqrt(K) and K, plus one product of matrices.
    """
    with _float32(z):
        tokens = z.float().reshape(-1, len(levels))
        split = _balanced_split(levels)
        widest = max(prod(levels[:split]), prod(levels[split:]))
        chunks = torch.split(tokens, max(1, _CHUNK_ELEMENTS // widest))
        total = tokens.new_zeros(())
        mean = tokens.new_zeros(prod(levels[split:]), prod(levels[:split]))
        for chunk in chunks:
            arguments = (chunk, tuple(levels), split, inverse_temperature)
            if len(chunks) > 1 and torch.is_grad_enabled():
                part, probabilities = checkpoint(
                    _chunk_statistics, *arguments, use_reentrant=False, preserve_rng_state=False
                )
            else:
                part, probabilities = _chunk_statistics(*arguments)
            total = total + part
            mean = mean + probabilities
        mean = mean / len(tokens)
        if across_ranks:
            mean = _mean_over_ranks(mean)
        return total / len(tokens), -torch.sum(mean * mean.clamp(min=_FLOOR).log())


def _chunk_statistics(
    tokens: Tensor, levels: tuple[int, ...], split: int, inverse_temperature: float
) -> tuple[Tensor, Tensor]:
    """Sums over `tokens` (N, C) of H(p), and of p as (codes of the last channels, codes of the first)."""
    first = _log_probabilities(tokens[:, :split], levels[:split], inverse_temperature)
    last = _log_probabilities(tokens[:, split:], levels[split:], inverse_temperature)
    return _floored_entropy(first, last).sum(), last.exp().T @ first.exp()


def _log_probabilities(z: Tensor, levels: tuple[int, ...], inverse_temperature: float) -> Tensor:
    """log p of `z` (N, C) over the product of `levels`: (N, prod(levels)), in the order of indices."""
    joint = z.new_zeros(len(z), 1)
    for channel, level in enumerate(levels):
        values = (torch.arange(level, device=z.device, dtype=torch.float32) - level // 2) / (level // 2)
        single = torch.log_softmax(inverse_temperature * z[:, channel, None] * values, dim=-1)
        joint = (single[:, :, None] + joint[:, None, :]).flatten(1)
    return joint


def _floored_entropy(log_a: Tensor, log_b: Tensor) -> Tensor:
    """-sum a_i b_k max(log a_i + log b_k, log floor) over i and k, for each row: (N, I) and (N, K) give (N,).

    For a given i, the codes above the floor are a prefix of b in falling order, so that the inner sum follows from
    running sums of b and of b log b. Where that prefix ends the summand is continuous, so the gradient is exact too.
    """
    falling = log_b.sort(dim=-1, descending=True).values
    above = torch.searchsorted(-falling.detach(), log_a.detach() - log(_FLOOR), right=True)
    b = falling.exp()
    mass = _running_sum(b).gather(-1, above)
    mass_log = _running_sum(b * falling).gather(-1, above)
    inner = log_a * mass + mass_log + log(_FLOOR) * (1 - mass)
    return -torch.sum(log_a.exp() * inner, dim=-1)


def _running_sum(values: Tensor) -> Tensor:
    """(N, K) to (N, K + 1): sums of the first 0 to K values."""
    return torch.nn.functional.pad(values.cumsum(dim=-1), (1, 0))


def _balanced_split(levels: Levels) -> int:
    """The index at which to cut `levels` in two so that the larger of the two products is smallest."""
    return min(range(len(levels) + 1), key=lambda i: max(prod(levels[:i]), prod(levels[i:])))


class _MeanOverRanks(torch.autograd.Function):
    """The mean over ranks, with the gradient of the sum of all ranks' losses. With gradients averaged over ranks, as in
    DDP, they equal the gradients of one process that holds all tokens."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, values: Tensor) -> Tensor:
        return _reduced_mean(values)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, *gradients: Tensor) -> Tensor:
        return _reduced_mean(gradients[0])


def _has_other_ranks() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def _mean_over_ranks(values: Tensor) -> Tensor:
    if not _has_other_ranks():
        return values
    averaged: Tensor = _MeanOverRanks.apply(values)  # type: ignore[no-untyped-call]
    return averaged


def _joined_over_ranks(values: Tensor) -> Tensor:
    """The rows of `values` (N, C) of all ranks, where N may differ by rank; gradients are as for `_MeanOverRanks`."""
    if not _has_other_ranks():
        return values
    world, rank = dist.get_world_size(), dist.get_rank()
    counts = [torch.zeros(1, dtype=torch.int64, device=values.device) for _ in range(world)]
    dist.all_gather(counts, torch.tensor([len(values)], device=values.device))
    longest = max(int(count) for count in counts)
    padded = torch.nn.functional.pad(values.detach(), (0, 0, 0, longest - len(values)))
    parts = [torch.empty_like(padded) for _ in range(world)]
    dist.all_gather(parts, padded)
    parts = [part[: int(count)] for part, count in zip(parts, counts, strict=True)]
    # The same values, with this rank's gradient times the number of ranks, over which gradients will be averaged.
    parts[rank] = values.detach() + world * (values - values.detach())
    return torch.cat(parts)


def _reduced_mean(values: Tensor) -> Tensor:
    result = values.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(result)
    return result / dist.get_world_size()


def _scale_and_offset(levels: Levels, device: torch.device) -> tuple[Tensor, Tensor]:
    """Half the width of each bounded channel (C,), and the offset (C,) that puts even numbers of levels on integers."""
    half = [(level - 1) * (1 + _MARGIN) / 2 for level in levels]
    offset = torch.tensor([(1 - level % 2) / 2 for level in levels], device=device, dtype=torch.float32)
    return torch.tensor(half, device=device, dtype=torch.float32), offset


def _squashed(z: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
    """`z` (..., C) squashed into -1..1 by a tanh, float32."""
    return torch.tanh(z.float() + torch.atanh(offset / scale))


def _half_widths(levels: Levels, device: torch.device) -> Tensor:
    return torch.tensor([level // 2 for level in levels], device=device, dtype=torch.float32)


def _basis(levels: Levels) -> list[int]:
    return [prod(levels[:i]) for i in range(len(levels))]


def _join(digits: Tensor, levels: Levels) -> Tensor:
    """Indices (...), int32, of digits (..., C) that are centred on zero."""
    shift = torch.tensor([level // 2 for level in levels], device=digits.device, dtype=torch.int32)
    basis = torch.tensor(_basis(levels), device=digits.device, dtype=torch.int32)
    return ((digits + shift) * basis).sum(dim=-1, dtype=torch.int32)


def _float32(z: Tensor) -> AbstractContextManager[object]:
    """A context without autocast on the device of `z`; some devices, such as meta, have no autocast at all."""
    kind = z.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
