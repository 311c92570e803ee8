"""One page about an evaluation: tables, charts, pictures and clips in one file that needs nothing else."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidtok.evaluation.codecs import CODECS
from vidtok.evaluation.comparison import SAME_RATE
from vidtok.evaluation.highlights import ERROR_GAIN, PICTURES, RANKED_BY, Highlight
from vidtok.evaluation.plots import Point, Series, bars, chart, swatch
from vidtok.evaluation.results import Result
from vidtok.evaluation.runner import Shown
from vidtok.files import write_whole
from vidtok.metrics.rate import LATENT_BITS
from vidtok.metrics.table import METRICS, Metric

_TEMPLATE = "report.html.j2"
_MOST_VIDEOS = 40
"""Videos that get a chart of their own."""
_SHORT_HASH = 12
_NONE = "-"
_KINDS = {"model": "model", "codec": "codec", "transform": "linear transform"}


def write_report(path: Path, results: Sequence[Result], highlights: Mapping[str, Shown]) -> Path:
    """Write the page about `results`, at least one, with the highlights by the subject's name.

    Raises `VidTokError` if it cannot be written.
    """
    write_whole(path, render(results, highlights))
    return path


def render(results: Sequence[Result], highlights: Mapping[str, Shown]) -> str:
    """The page as HTML, without scripts and without addresses on a network."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup, escape

    environment = Environment(
        loader=PackageLoader("vidtok.evaluation"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    page = _Page(results, highlights)
    environment.filters["markup"] = Markup
    environment.filters["breakable"] = lambda name: escape(name).replace("_", Markup("_<wbr>"))
    return environment.get_template(_TEMPLATE).render(
        page=page,
        first=results[0].content,
        error_gain=ERROR_GAIN,
        latent_bits=LATENT_BITS,
        ranked_by=METRICS[RANKED_BY],
        short=lambda text: text[:_SHORT_HASH],
    )


class _Page:
    """The page's content, as the template asks for it."""

    def __init__(self, results: Sequence[Result], highlights: Mapping[str, Shown]) -> None:
        self.results = list(results)
        self._highlights = highlights
        self.shown = [result for result in results if not _on_curve_only(result)] or self.results
        self.rates = rate_groups([result for result in self.shown if result.kind == "model"])
        self._styles = {result.name: index for index, result in enumerate(self.shown)}

    @property
    def columns(self) -> Sequence[Metric]:
        """The metrics that were measured; the page lists the others with the reason."""
        return [metric for name, metric in METRICS.items() if any(r.mean(name) is not None for r in self.results)]

    @property
    def missing(self) -> dict[str, str]:
        """The labels of metrics that were not measured, and why."""
        return self.results[0].unavailable()

    def kind(self, result: Result) -> str:
        return _KINDS[result.kind]

    def figure(self, result: Result, metric: Metric) -> str:
        mean = result.mean(metric.name)
        return _NONE if mean is None else metric.text(mean)

    def interval(self, result: Result, metric: Metric) -> str:
        found = result.overall(metric.name)
        return f"{metric.text(found['low'])} to {metric.text(found['high'])}" if "low" in found else ""

    @property
    def sections(self) -> list[tuple[str, list[Result]]]:
        """The rows of the table under their headings: models rate by rate, then everything else."""
        several = len(self.rates) > 1
        found = [(f"models at {_rate(group)}" if several else "", group) for group in self.rates]
        others = [result for result in self.shown if result.kind != "model"]
        return [*found, *([("codecs and transforms" if several else "", others)] if others else [])]

    @property
    def beside_codecs(self) -> bool:
        """True if a codec stands beside a model."""
        return bool(self.rates) and any(result.kind == "codec" for result in self.results)

    def is_best(self, result: Result, metric: Metric) -> bool:
        """True for a model that no other of its rate beats, in the digits shown, if there are at least two."""
        group = next((group for group in self.rates if any(r is result for r in group)), [])
        known = [mean for mean in (r.mean(metric.name) for r in group) if mean is not None]
        if len(known) < 2:
            return False
        best = max(known) if metric.higher_is_better else min(known)
        mean = result.mean(metric.name)
        return mean is not None and metric.text(mean) == metric.text(best)  # those that show the same are equal

    def memory(self, result: Result) -> str:
        """Peak memory in GiB; empty if it is not known."""
        found = result.content.get("memory", {})
        where = " on the GPU" if found.get("kind") == "device" else ""
        return "" if found.get("peak_bytes") is None else f"{found['peak_bytes'] / 2**30:.2f} GiB{where}"

    def is_earlier(self, result: Result) -> bool:
        """True if some or all videos were measured in an earlier run, so that speed and memory are not of this one."""
        found = result.content["timing"]["this_run"].get("videos")
        return found is None or found < result.content["data"]["videos"]

    def speed_charts(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Each metric over the seconds that a frame takes: label, chart, legend. Codecs are left out.

        A codec's time goes into the search for its rate.
        """
        timed = [result for result in self.shown if result.kind != "codec" and not self.is_earlier(result)]
        charts = []
        for metric in METRICS.values():
            series = []
            for result in timed:
                mean, speed = result.mean(metric.name), result.content["timing"]["frames_per_second"]
                if mean is not None:
                    label = f"{result.name}: {metric.text(mean)}, {speed:.3g} frames a second"
                    points = [Point(1 / speed, mean, label)]
                    series.append(Series(result.name, points, self._styles[result.name], line=False))
            if series:
                legend = [(swatch(each.style, line=False), each.name) for each in series]
                drawn = chart(series, "seconds a frame, encoding and decoding", metric.title, log_x=True)
                charts.append((f"{metric.label}, {metric.better}", drawn, legend))
        return charts

    def rate_charts(self) -> list[tuple[str, str, list[tuple[str, str]]]]:
        """Each metric that was measured, over the rate: its label, the chart, and the legend."""
        charts = []
        for metric in METRICS.values():
            series = self._rate_series(metric)
            if series:
                legend = [(swatch(each.style, line=each.line), each.name) for each in series]
                drawn = chart(series, "bits per pixel", metric.title, log_x=True)
                charts.append((f"{metric.label}, {metric.better}", drawn, legend))
        return charts

    def _rate_series(self, metric: Metric) -> list[Series]:
        groups: dict[str, list[Result]] = {}
        for result in self.results:
            if result.mean(metric.name) is not None and result.bits_per_pixel > 0:
                codec = CODECS.get(result.content["subject"].get("codec", ""))
                groups.setdefault(codec.label if codec is not None else result.name, []).append(result)
        series = []
        for style, (name, group) in enumerate(groups.items()):
            ordered = sorted(group, key=lambda result: result.bits_per_pixel)
            curve = ordered[0].kind == "codec"
            points = [_rate_point(result, metric, whisker=not curve) for result in ordered]
            series.append(Series(name, points, style, line=curve))
        return series

    @property
    def positions(self) -> list[tuple[str, str, Metric, Mapping[str, Any]]]:
        """PSNR and LPIPS of each model by place: its name, "latent group" or "clip", the metric and the figures."""
        kinds = {"group": "latent group", "clip": "clip"}
        return [
            (result.name, kinds[kind], METRICS[name], figures[name])
            for result in self.shown
            for kind, figures in result.content.get("positions", {}).items()
            for name in ("psnr", "lpips")
            if name in figures
        ]

    def time_chart(self) -> tuple[str, list[tuple[str, str]]]:
        """PSNR by frame number, mean over videos."""
        return self._over_time(lambda result: result.content["curves"]["psnr"])

    def video_charts(self) -> list[tuple[str, str]]:
        """PSNR by frame number of each video."""
        names = [video["name"] for video in self.results[0].videos][:_MOST_VIDEOS]
        charts = []
        for name in names:

            def curve(result: Result, name: str = name) -> Mapping[str, Any] | None:
                return next((video["psnr"] for video in result.videos if video["name"] == name), None)

            charts.append((name, self._over_time(curve)[0]))
        return charts

    def _over_time(self, curve: Callable[[Result], Mapping[str, Any] | None]) -> tuple[str, list[tuple[str, str]]]:
        series = []
        for result in self.shown:
            found = curve(result)
            if found is not None and found["frames"]:
                points = [Point(x, y) for x, y in zip(found["frames"], found["values"], strict=True)]
                series.append(Series(result.name, points, self._styles[result.name], markers=len(points) == 1))
        legend = [(swatch(each.style, marker=False), each.name) for each in series]
        return chart(series, "frame", METRICS["psnr"].title), legend

    def codebooks(self) -> list[tuple[Result, Mapping[str, Any], str]]:
        """Each model with tokens, its codebook use, and a histogram."""
        found = []
        for result in self.shown:
            use = result.content["codebook"]
            if use is not None:
                title = f"codes 0 to {use['size'] - 1:,}, in {len(use['histogram'])} ranges"
                found.append((result, use, bars(use["histogram"], title, "tokens", self._styles[result.name])))
        return found

    def ranks(self) -> tuple[str, list[tuple[str, str]]]:
        """A chart of the number of tokens by the rank of their code, and its legend."""
        series = [
            Series(
                result.name,
                [Point(rank, count) for rank, count in zip(use["ranks"], use["counts"], strict=True)],
                self._styles[result.name],
                markers=len(use["ranks"]) == 1,
            )
            for result, use, _ in self.codebooks()
        ]
        legend = [(swatch(each.style, marker=False), each.name) for each in series]
        return chart(series, "rank of the code", "tokens", log_x=True, log_y=True), legend

    def highlights(self) -> list[tuple[Result, list[tuple[str, str, Highlight]]]]:
        """Each subject with its highlights: `worst` or `best`, the video's name, and the frame."""
        found: list[tuple[Result, list[tuple[str, str, Highlight]]]] = []
        for result in self.shown:
            shown = self._highlights.get(result.name, {})
            if shown:
                found.append((result, [(kind, *shown[kind]) for kind in ("worst", "best") if kind in shown]))
        return found

    def pictures(self, highlight: Highlight) -> list[tuple[str, str]]:
        """Each picture's name, and its content as a `data:` address."""
        return [(name, _data("image/webp", highlight.files[name])) for name in PICTURES]

    def clip(self, highlight: Highlight) -> str | None:
        return _data("video/mp4", highlight.files["clip"]) if "clip" in highlight.files else None

    def video_rows(self) -> list[tuple[Mapping[str, Any], list[str]]]:
        """Each video, and the PSNR of every subject that is shown."""
        by_name = [{video["name"]: video for video in result.videos} for result in self.shown]
        rows: list[tuple[Mapping[str, Any], list[str]]] = []
        for video in self.results[0].videos:
            cells = []
            for videos in by_name:
                other = videos.get(video["name"])
                cells.append(_NONE if other is None else METRICS["psnr"].text(other["figures"]["psnr"]["mean"]))
            rows.append((video, cells))
        return rows


def rate_groups(results: Sequence[Result]) -> list[list[Result]]:
    """`results` by rate, from low to high: in a group, none has more than 5% more bits a pixel than the first."""
    groups: list[list[Result]] = []
    for result in sorted(results, key=lambda result: result.bits_per_pixel):
        if groups and result.bits_per_pixel <= SAME_RATE * groups[-1][0].bits_per_pixel:
            groups[-1].append(result)
        else:
            groups.append([result])
    return groups


def _rate(group: Sequence[Result]) -> str:
    """The rate of a group, for its heading."""
    ends = sorted({f"{result.bits_per_pixel:.4f}" for result in group})
    return f"{' to '.join(dict.fromkeys((ends[0], ends[-1])))} bits per pixel"


def _rate_point(result: Result, metric: Metric, *, whisker: bool) -> Point:
    mean = result.mean(metric.name)
    assert mean is not None
    found = result.overall(metric.name)
    label = f"{result.name}: {metric.text(mean)} at {result.bits_per_pixel:.4f} bits per pixel"
    low, high = (found.get("low"), found.get("high")) if whisker else (None, None)
    return Point(result.bits_per_pixel, mean, label, low, high)


def _on_curve_only(result: Result) -> bool:
    """True for a codec at a rate between or around the models' rates."""
    return result.kind == "codec" and not result.content["subject"]["matches"]


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
