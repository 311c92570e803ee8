"""Charts as inline SVG that follow the page's colours: light, dark and on paper.

Colours are classes (`c0` to `c7`), which the page's style sheet defines; shapes tell series apart where colours cannot.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from html import escape

COLOURS = 8
_WIDTH, _HEIGHT = 460, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 14, 12, 42
_RADIUS = 4.0
_TICKS = 6


@dataclass(frozen=True)
class Point:
    """A place in a chart."""

    x: float
    y: float
    label: str = ""
    """Text that is shown when the pointer is on the point."""
    low: float | None = None
    high: float | None = None
    """The ends of a whisker through the point, on the y axis."""


@dataclass(frozen=True)
class Series:
    """Points of one kind."""

    name: str
    points: Sequence[Point]
    style: int
    """Number of its colour, shape and kind of line, from 0; colours repeat after `COLOURS`, with dashed lines."""
    line: bool = True
    """Join the points."""
    markers: bool = True
    """Mark each point."""


@dataclass(frozen=True)
class Axis:
    """The scale along one side of a chart."""

    title: str
    log: bool = False
    ticks: Sequence[float] = field(default=())
    low: float = 0.0
    high: float = 1.0

    def at(self, value: float) -> float:
        """The place of `value` along the axis, 0 to 1."""
        if self.log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def chart(series: Sequence[Series], x_title: str, y_title: str, *, log_x: bool = False, log_y: bool = False) -> str:
    """A chart of `series`, none of them empty, as an `<svg>` element. On an axis with `log`, values are above 0."""
    points = [point for each in series for point in each.points]
    ends = [value for point in points for value in (point.y, point.low, point.high) if value is not None]
    place = _Place(_tight(axis(x_title, [point.x for point in points], log_x), points), axis(y_title, ends, log_y))
    drawn = [_grid(place), *(_series(each, place) for each in series)]
    name = escape(f"{y_title} over {x_title}: {', '.join(each.name for each in series)}")
    return _svg(name, drawn)


def bars(values: Sequence[float], x_title: str, y_title: str, style: int = 0) -> str:
    """A chart of bars side by side, as an `<svg>` element."""
    y_axis = axis(y_title, [0.0, *values], False)
    place = _Place(Axis(x_title, low=0.0, high=float(len(values))), y_axis)
    drawn = [_grid(place)]
    for index, value in enumerate(values):
        left, right = place.x(index + 0.1), place.x(index + 0.9)
        top, bottom = place.y(value), place.y(0)
        drawn.append(
            f'<rect class="c{style % COLOURS} fill" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
            f'height="{bottom - top:.1f}"/>'
        )
    return _svg(escape(f"{y_title} over {x_title}"), drawn)


def swatch(style: int, *, line: bool = True, marker: bool = True) -> str:
    """The mark of a series, for a legend."""
    parts = [f'<line class="{_line(style)}" x1="1" y1="7" x2="25" y2="7"/>'] if line else []
    parts += [_marker(13, 7, style)] if marker else []
    return f'<svg class="swatch" viewBox="0 0 26 14" aria-hidden="true">{"".join(parts)}</svg>'


def axis(title: str, values: Sequence[float], log: bool) -> Axis:
    """An axis that holds all `values`, with round ticks."""
    low, high = min(values), max(values)
    if log:
        low, high = low / 1.25, high * 1.25
        return Axis(title, True, _log_ticks(low, high), low, high)
    if low == high:
        low, high = low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1)
    step = _round_step((high - low) / _TICKS)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return Axis(title, False, [index * step for index in range(first, last + 1)], first * step, last * step)


def _tight(x_axis: Axis, points: Sequence[Point]) -> Axis:
    """A linear axis that ends at the last of several values, so that curves fill the chart."""
    last = max(point.x for point in points)
    if x_axis.log or min(point.x for point in points) == last:
        return x_axis
    return replace(x_axis, high=last, ticks=[tick for tick in x_axis.ticks if tick <= last])


def _round_step(step: float) -> float:
    scale = 10.0 ** math.floor(math.log10(step))
    return scale * next(round_one for round_one in (1, 2, 2.5, 5, 10) if step <= round_one * scale * (1 + 1e-9))


def _log_ticks(low: float, high: float) -> list[float]:
    for within in ((1, 2, 5), (1, 3), (1,)):
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [digit * 10.0**decade for decade in decades for digit in within]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _TICKS + 2:
            break
    return ticks or [low, high]


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


class _Place:
    """The place of values in the drawing, in its units."""

    def __init__(self, x: Axis, y: Axis) -> None:
        self.x_axis, self.y_axis = x, y

    def x(self, value: float) -> float:
        return _LEFT + self.x_axis.at(value) * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - self.y_axis.at(value) * (_HEIGHT - _TOP - _BOTTOM)


def _grid(place: _Place) -> str:
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [f'<path class="axis" d="M{_LEFT} {_TOP}V{bottom}H{right}"/>']
    for tick in place.y_axis.ticks:
        y = place.y(tick)
        parts.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    for tick in place.x_axis.ticks:
        x = place.x(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{_number(tick)}</text>')
    middle_x, middle_y = (_LEFT + right) / 2, (_TOP + bottom) / 2
    parts.append(f'<text x="{middle_x}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(place.x_axis.title)}</text>')
    turned = f'transform="translate(12 {middle_y}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>{escape(place.y_axis.title)}</text>")
    return "".join(parts)


def _series(series: Series, place: _Place) -> str:
    parts = []
    colour = f"c{series.style % COLOURS}"
    at = [(place.x(point.x), place.y(point.y)) for point in series.points]
    if series.line and len(at) > 1:
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in at)
        parts.append(f'<path class="{_line(series.style)}" d="{path}"><title>{escape(series.name)}</title></path>')
    for point, (x, y) in zip(series.points, at, strict=True):
        if point.low is not None and point.high is not None:
            ends = place.y(point.low), place.y(point.high)
            parts.append(f'<path class="{colour} whisker" d="M{x:.1f} {ends[0]:.1f}V{ends[1]:.1f}"/>')
        if series.markers:
            parts.append(_marker(x, y, series.style, point.label or series.name))
    return "".join(parts)


def _line(style: int) -> str:
    """The classes of a line."""
    return f"c{style % COLOURS} stroke{' dash' if style // COLOURS % 2 else ''}"


def _marker(x: float, y: float, style: int, label: str = "") -> str:
    title = f"<title>{escape(label)}</title>" if label else ""
    draw = _SHAPES[style % len(_SHAPES)]
    return f'<path class="c{style % COLOURS} fill" d="{draw(x, y, _RADIUS)}">{title}</path>'


def _circle(x: float, y: float, r: float) -> str:
    return f"M{x - r:.1f} {y:.1f}a{r} {r} 0 1 0 {2 * r} 0a{r} {r} 0 1 0 {-2 * r} 0z"


def _square(x: float, y: float, r: float) -> str:
    return f"M{x - r:.1f} {y - r:.1f}h{2 * r}v{2 * r}h{-2 * r}z"


def _triangle(x: float, y: float, r: float) -> str:
    return f"M{x:.1f} {y - 1.2 * r:.1f}l{1.2 * r:.1f} {2.2 * r:.1f}h{-2.4 * r:.1f}z"


def _diamond(x: float, y: float, r: float) -> str:
    a = 1.4 * r
    return f"M{x:.1f} {y - a:.1f}l{a:.1f} {a:.1f}l{-a:.1f} {a:.1f}l{-a:.1f} {-a:.1f}z"


def _cross(x: float, y: float, r: float) -> str:
    a, b = 0.4 * r, 1.2 * r
    return (
        f"M{x - a:.1f} {y - b:.1f}h{2 * a:.1f}v{b - a:.1f}h{b - a:.1f}v{2 * a:.1f}h{a - b:.1f}v{b - a:.1f}"
        f"h{-2 * a:.1f}v{a - b:.1f}h{a - b:.1f}v{-2 * a:.1f}h{b - a:.1f}z"
    )


_SHAPES: tuple[Callable[[float, float, float], str], ...] = (_circle, _square, _triangle, _diamond, _cross)


def _svg(name: str, parts: Sequence[str]) -> str:
    return f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
