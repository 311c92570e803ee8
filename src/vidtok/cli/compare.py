"""`vidtok compare`: the difference between two results, and the probability that it is chance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_exists
from vidtok.text import counted

if TYPE_CHECKING:
    from vidtok.evaluation.comparison import Comparison, Difference


def compare(
    a: Annotated[Path, typer.Argument(help="A .json file of results that `vidtok evaluate` wrote.")],
    b: Annotated[Path, typer.Argument(help="The results to compare it with.")],
) -> None:
    """Compare two results, metric by metric, and say which differences are significant.

    Videos are paired by name. The interval of a difference comes from the bootstrap over videos, p from the sign-flip
    permutation test; both are two-sided and give every frame the same weight.
    """
    for path in (a, b):
        check_exists(path, "results that `vidtok evaluate` wrote, a .json file")

    from vidtok.evaluation.comparison import compare as compared
    from vidtok.evaluation.results import Result

    typer.echo(_table(compared(Result.read(a), Result.read(b))))


def _table(comparison: Comparison) -> str:
    from vidtok.evaluation.comparison import FEWEST_VIDEOS

    a, b = comparison.a, comparison.b
    lines = [
        f"A  {a.name}, {a.bits_per_pixel:.4f} bits per pixel",
        f"B  {b.name}, {b.bits_per_pixel:.4f} bits per pixel",
        f"{counted(len(comparison.videos), 'video')} in both",
    ]
    if comparison.other_frames:
        lines.append(
            f"not the same frames in {len(comparison.other_frames)} of them, such as {comparison.other_frames[0]}: "
            "other settings, or other files"
        )
    if comparison.rates_differ:
        lines.append("not at the same rate: the bits alone may make the difference")
    rows: list[tuple[str, ...]] = [("", "A", "B", "B - A", "95% interval", "p", "")]
    rows += [_row(each) for each in comparison.differences]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines.append("")
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:6], widths[1:6], strict=True))]
        lines.append("  ".join([*cells, row[6]]).rstrip())
    if len(comparison.videos) == 1:
        lines += ["", "One video says nothing about significance: measure more."]
    elif len(comparison.videos) < FEWEST_VIDEOS:
        lines += ["", f"With fewer than {FEWEST_VIDEOS} videos no difference can be significant: measure more."]
    return "\n".join(lines)


def _row(difference: Difference) -> tuple[str, ...]:
    metric = difference.metric
    interval, p = difference.interval, difference.p_value
    verdict = "not significant"
    if difference.p_value is None:
        verdict = ""
    elif difference.significant:
        verdict = f"{difference.better} is better"
    return (
        metric.title,
        metric.text(difference.a),
        metric.text(difference.b),
        metric.text(difference.mean, "+"),
        "" if interval is None else f"{metric.text(interval.low, '+')} to {metric.text(interval.high, '+')}",
        "" if p is None else ("< 0.001" if p < 0.001 else f"{p:.3f}"),
        verdict,
    )
