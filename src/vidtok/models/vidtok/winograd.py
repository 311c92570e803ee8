"""3x3 and 3x3x3 convolutions on the CPU with fewer multiplications, after Winograd (Lavin and Gray, arXiv 1509.09308).

A short convolution is computed as outputs = a ((g taps) * (b inputs)), with small fixed matrices a, g and b: the rows
of g and b number the products, fewer than outputs times taps. In two dimensions the matrices are Kronecker products,
and over many channels each product becomes a matrix product. The transforms cost memory traffic, which would use up the
gain, so a frame is computed in slabs of rows that stay in the caches.

==========================  ==================  ========  ===================================
along one axis              inputs -> outputs   products  products for each output, 3x3 plain
==========================  ==================  ========  ===================================
3 taps                      6 -> 4              6         2.25 instead of 9
nearest x2, then 3 taps     6 -> 8              10        1.56 instead of 9
==========================  ==================  ========  ===================================

Over time, a pair of frames takes 4 products instead of 6 where upsampling makes pairs, and 3 where it doubles every
frame. Elsewhere every frame is computed by itself: a pair rounds differently from two frames, and the output must not
depend on the cuts of a stream.

With the points 0, 1, -1, 1/2, -2, the error in float32 is as small as the plain convolution's (Barabasz et al., arXiv
1803.10986), since in both the sums over channels dominate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import prod
from threading import local
from typing import NamedTuple

import torch
from torch import Tensor

from vidtok.models.plain import in_eager_inference

Matrix = tuple[tuple[float, ...], ...]

SMALLEST_CHANNELS = 128
"""Channels below which the transforms cost more than they save."""
SMALLEST_FRAME = 32
"""Rows and columns of a frame below which too few tiles share the transformed weights."""
_SLAB_BYTES = 1 << 21
_SLAB_TILES = 96
"""Tiles in a slab at least, for matrix products to run at full rate."""


@dataclass(frozen=True)
class Scheme:
    """The scheme of a convolution along one axis: outputs = a ((g taps) * (b inputs))."""

    b: Matrix
    """(products, inputs)."""
    g: Matrix
    """(products, taps)."""
    a: Matrix
    """(outputs, products)."""
    step: int
    """Number of inputs from the start of a tile to the start of the next."""

    @property
    def products(self) -> int:
        return len(self.b)

    @property
    def inputs(self) -> int:
        return len(self.b[0])

    @property
    def outputs(self) -> int:
        return len(self.a)


def _matrix(rows: Sequence[Sequence[Fraction | int]]) -> Matrix:
    return tuple(tuple(float(value) for value in row) for row in rows)


def _polynomial(roots: Sequence[Fraction]) -> list[Fraction]:
    """Coefficients, lowest first, of the product of (x - root)."""
    coefficients = [Fraction(1)]
    for root in roots:
        raised = [Fraction(0), *coefficients]
        coefficients = [high - root * low for high, low in zip(raised, [*coefficients, Fraction(0)], strict=True)]
    return coefficients


def toom_cook(outputs: int, taps: int, points: Sequence[Fraction | int]) -> Scheme:
    """The scheme for `outputs` neighbouring outputs of a convolution of `taps` taps, from outputs + taps - 1 products.

    `points` are one fewer than the products; the last point is at infinity. Raises `ValueError` for another number of
    points, or equal ones.
    """
    at = [Fraction(point) for point in points]
    count = outputs + taps - 1
    if len(set(at)) != count - 1 or len(at) != count - 1:
        raise ValueError(f"{outputs} outputs of {taps} taps need {count - 1} distinct points, not {list(points)}")
    end = [Fraction(0)] * (count - 1)
    a = [[point**i for point in at] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    g, b = [], []
    for i, point in enumerate(at):
        others = at[:i] + at[i + 1 :]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        g.append([point**k / scale for k in range(taps)])
        b.append([*_polynomial(others), Fraction(0)])
    g.append([*end[: taps - 1], Fraction(1)])
    b.append(_polynomial(at))
    return Scheme(_matrix(b), _matrix(g), _matrix(a), outputs)


@lru_cache(maxsize=1)
def three_taps() -> Scheme:
    """Three taps, four outputs at a time."""
    return toom_cook(4, 3, [0, 1, -1, Fraction(1, 2), -2])


@lru_cache(maxsize=1)
def upsampled() -> Scheme:
    """Every input twice, then three taps, two of which always meet equal inputs: in effect two taps per output.

    Eight outputs at a time, from six inputs.
    """
    pair = toom_cook(4, 2, _FOUR_POINTS)
    b = [_spread(row, range(5), 6) for row in pair.b] + [_spread(row, range(1, 6), 6) for row in pair.b]
    g = [(first, second, second) for first, second in pair.g] + [(first, first, second) for first, second in pair.g]
    nothing = (0.0,) * pair.products
    a = [full for row in pair.a for full in ((*row, *nothing), (*nothing, *row))]
    return Scheme(tuple(b), tuple(g), tuple(a), 4)


_FOUR_POINTS = (0, 1, -1, Fraction(1, 2))


def _spread(row: Sequence[float], places: Sequence[int], length: int) -> tuple[float, ...]:
    spread = [0.0] * length
    for place, value in zip(places, row, strict=True):
        spread[place] = value
    return tuple(spread)


FRAME = Scheme(((1.0,),), ((1.0,),), ((1.0,),), 1)
"""Over time: every frame by itself."""
PAIR_OF_FRAMES = toom_cook(2, 3, [0, 1, -1])
"""Over time: three taps, two frames at a time."""
DOUBLED_FRAMES = Scheme(
    b=((1.0, 0.0), (0.0, 1.0), (1.0, -1.0)),
    g=((1.0, 0.0, 0.0), (0.0, 1.0, 1.0), (0.0, 1.0, 0.0)),
    a=((1.0, 1.0, 1.0), (1.0, 1.0, 0.0)),
    step=1,
)
"""Over time: two neighbours x and y, each twice, then three taps at x x y and x y y."""


def single_frames(stride: int = 1) -> Scheme:
    """Over time: three taps, one frame at a time."""
    one = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))
    return Scheme(one, one, ((1.0, 1.0, 1.0),), stride)


def pays(x: Tensor, weight: Tensor) -> bool:
    """True if `convolve` can take `x` (…, H, W, C) and `weight` (out, in, …), and saves time on them.

    The answer depends on the frame size and not on the number of frames, so that each frame is computed in the same
    way however a clip is cut.
    """
    return (
        type(x) is Tensor
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and in_eager_inference()
        and not torch.is_autocast_enabled("cpu")
        and large_enough(x, weight)
    )


def large_enough(x: Tensor, weight: Tensor) -> bool:
    """True if frames `x` (…, H, W, C) and `weight` (out, in, …) are large enough for fewer products to save time."""
    return min(weight.shape[:2]) >= SMALLEST_CHANNELS and min(x.shape[-3:-1]) >= SMALLEST_FRAME


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor, space: Scheme, time: Scheme = FRAME, *, activate: bool = False,
    out: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The convolution that `space` and `time` describe, of `x` with a row and column of zeros around every frame.

    Args:
        x: (T, H, W, in), float32, T = time.inputs + n time.step; it is not changed.
        weight: (out, in, 3, 3), or (out, in, 3, 3, 3) with `time` of three taps.
        bias: (out,).
        activate: convolve SiLU(x); only with `FRAME` over time.
        out: tensor for the result; None: a new one.

    Returns:
        (time.outputs (n + 1), H', W', out), contiguous; H' and W' are H and W times space.outputs / space.step.
    """
    return _Convolution(x, weight, space, time).run(bias, activate=activate, out=out)


def _tensor(matrix: Matrix) -> Tensor:
    return torch.tensor(matrix, dtype=torch.float32)


class Workspace:
    """Memory that the convolutions of one call share, since fresh memory costs more time than its use.

    Within `with Workspace():`, convolutions of this thread take their buffers from it, and each reuses the buffers of
    the one before.
    """

    _active = local()

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}
        self._before: Workspace | None = None

    def __enter__(self) -> Workspace:
        self._before = getattr(self._active, "workspace", None)
        self._active.workspace = self
        return self

    def __exit__(self, *_: object) -> None:
        self._active.workspace = self._before
        self._buffers.clear()

    @classmethod
    def current(cls) -> Workspace:
        """The active workspace of this thread, or a new one if there is none."""
        return getattr(cls._active, "workspace", None) or cls()

    def take(self, name: str, *shape: int) -> Tensor:
        """Uninitialised float32 memory of `shape`: the memory last taken under `name`, if that is large enough."""
        count = prod(shape)
        held = self._buffers.get(name)
        if held is None or held.numel() < count:
            self._buffers.pop(name, None)
            held = self._buffers[name] = torch.empty(count, dtype=torch.float32)
        return held[:count].view(shape)


class _Convolution:
    """One call of `convolve`: its transformed weights and the buffers that its slabs share."""

    def __init__(self, x: Tensor, weight: Tensor, space: Scheme, time: Scheme) -> None:
        self.x, self.space, self.time = x, space, time
        self._workspace = Workspace.current()
        frames, height, width, channels = x.shape
        self.channels, self.out_channels = channels, weight.shape[0]
        self.groups = 1 + (frames - time.inputs) // time.step
        self.size = tuple(side * space.outputs // space.step for side in (height, width))
        self.rows, self.columns = (-(-side // space.outputs) for side in self.size)
        self.b, self.a = (torch.kron(m, m) for m in (_tensor(space.b), _tensor(space.a)))
        self.weights = self._transformed(weight)
        points = space.products**2
        tiles = max(_SLAB_TILES, _SLAB_BYTES // (points * max(channels, self.out_channels) * x.element_size()))
        self.slab_rows = min(self.rows, max(1, tiles // self.columns))
        count = self.slab_rows * self.columns
        height, width = ((tiles - 1) * space.step + space.inputs for tiles in (self.slab_rows, self.columns))
        take = self._workspace.take
        self.window = take("window", height, width, channels).zero_()
        self.gathered = take("gathered", space.inputs**2 * count * channels)
        self.transformed = take("transformed", points * count * channels)
        self.products = take("products", points * count * self.out_channels)
        self.sums = take("sums", time.outputs, space.outputs**2 * count * self.out_channels)

    def _transformed(self, weight: Tensor) -> Tensor:
        """The transformed weights, (time.products, space.products**2, in, out)."""
        g = _tensor(self.space.g)
        matrix = torch.kron(_tensor(self.time.g), torch.kron(g, g))
        taps = weight.flatten(2).permute(2, 1, 0)
        ordered = self._workspace.take("taps", *taps.shape).copy_(taps)
        products = self._workspace.take("weights", len(matrix), *taps.shape[1:])
        torch.mm(matrix, ordered.flatten(1), out=products.flatten(1))
        return products.view(self.time.products, -1, *taps.shape[1:])

    def run(self, bias: Tensor, *, activate: bool, out: Tensor | None) -> Tensor:
        side, frames = self.space.outputs, self.groups * self.time.outputs
        if out is None:
            out = self.x.new_empty(frames, *self.size, self.out_channels)
        whole = (self.rows * side, self.columns * side)
        placed = out if whole == self.size else self.x.new_empty(frames, *whole, self.out_channels)
        for group in range(self.groups):
            for row in range(0, self.rows, self.slab_rows):
                self._slab(placed, bias, _Slab(group, row, min(self.slab_rows, self.rows - row)), activate)
        if placed is not out:
            height, width = self.size
            out.copy_(placed[:, :height, :width])
        return out

    def _slab(self, out: Tensor, bias: Tensor, slab: _Slab, activate: bool) -> None:
        """Write the outputs of `slab` into `out`."""
        side, count, time = self.space.outputs, slab.rows * self.columns, self.time
        sums = self.sums[:, : side**2 * count * self.out_channels].view(time.outputs, side**2, -1)
        started = [False] * time.outputs
        for product in range(time.products):
            self._fill_window(slab, time.b[product], activate)
            multiplied = self._multiplied(slab, self.weights[product])
            for i, line in enumerate(time.a):
                if line[product]:
                    torch.addmm(
                        sums[i], self.a, multiplied, beta=int(started[i]), alpha=line[product], out=sums[i]
                    )  # fmt: skip
                    started[i] = True
        for i in range(time.outputs):
            frame = out[slab.group * time.outputs + i]
            place = frame[slab.row * side : (slab.row + slab.rows) * side]
            tiles = sums[i].view(side, side, slab.rows, self.columns, -1).permute(2, 0, 3, 1, 4)
            torch.add(tiles, bias, out=place.view(slab.rows, side, self.columns, side, -1))

    def _fill_window(self, slab: _Slab, factors: Sequence[float], activate: bool) -> None:
        """Fill the window with the input rows of `slab`: its frames' sum weighted by `factors`, with zeros around."""
        step, (_, height, width, _) = self.space.step, self.x.shape
        first = slab.row * step - 1
        last = first + (slab.rows - 1) * step + self.space.inputs
        low, high = max(first, 0), min(last, height)
        window = self.window[: last - first]
        window[: low - first].zero_()
        window[high - first :].zero_()
        inside = window[low - first : high - first, 1 : 1 + width]
        started = False
        for place, factor in enumerate(factors):
            if not factor:
                continue
            frame = self.x[slab.group * self.time.step + place, low:high]
            if activate:
                torch.ops.aten.silu.out(frame, out=inside)
            elif started:
                inside.add_(frame, alpha=factor)
            else:
                torch.mul(frame, factor, out=inside)
            started = True

    def _multiplied(self, slab: _Slab, weights: Tensor) -> Tensor:
        """The window, cut into tiles, transformed and multiplied: (space.products**2, tiles x out)."""
        inputs, step, count = self.space.inputs, self.space.step, slab.rows * self.columns
        row, column, _ = self.window.stride()
        tiles = self.window.as_strided(
            (inputs, inputs, slab.rows, self.columns, self.channels), (row, column, step * row, step * column, 1)
        )
        gathered = self.gathered[: tiles.numel()]
        gathered.view(tiles.shape).copy_(tiles)
        points = self.b.shape[0]
        transformed = self.transformed[: points * count * self.channels]
        torch.mm(self.b, gathered.view(inputs**2, -1), out=transformed.view(points, -1))
        products = self.products[: points * count * self.out_channels]
        torch.bmm(transformed.view(points, count, -1), weights, out=products.view(points, count, -1))
        return products.view(points, -1)


class _Slab(NamedTuple):
    """Some rows of tiles in a group of frames; all frames of one size are cut alike, so that they round alike."""

    group: int
    row: int
    rows: int
