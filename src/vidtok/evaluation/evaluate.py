"""A whole evaluation: models first, then baselines at the models' bit rates, results and report in one folder."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import torch

from vidtok.errors import VideoError, VidTokError
from vidtok.evaluation.codecs import CODECS, Codec, RateSearch, check_codec
from vidtok.evaluation.comparison import SAME_RATE
from vidtok.evaluation.linear import BlockShape
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.results import Result, assemble
from vidtok.evaluation.runner import WORKERS, Progress, Runner, Shown
from vidtok.evaluation.storage import PartStore
from vidtok.evaluation.subjects import BitTarget, CodecSubject, LatentSubject, Subject, TransformSubject
from vidtok.evaluation.videos import find_videos
from vidtok.metrics.networks import Networks

TRANSFORM = "pca"
BASELINES = (*CODECS, TRANSFORM)
_RATES_ALONE = (0.03, 0.06, 0.12, 0.25, 0.5)
"""Bits per pixel at which codecs are measured where there is no model to match."""
_WIDEST_STEP = 2.5
_MARGIN = 2.0
_LARGEST_RATE = 2.0

Announce = Callable[[str, int], AbstractContextManager[Progress]]
"""Called with the name of the next subject and the number of videos; the context gives a `Progress`."""
ModelMaker = Callable[[], LatentSubject]
"""Function that makes a `ModelSubject`, or an `AutoencoderSubject` of anyone's autoencoder."""


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation, and its files."""

    results: list[Result]
    report: Path | None
    files: list[Path] = field(default_factory=list)
    """The results as JSON."""


def evaluate(
    data: str | Path,
    models: Sequence[ModelMaker],
    out: str | Path,
    *,
    baselines: Sequence[str] = (),
    options: EvaluationOptions | None = None,
    meta: str | Path | None = None,
    lpips: str | Path | None = None,
    i3d: str | Path | None = None,
    device: torch.device | None = None,
    workers: int = WORKERS,
    report: bool = True,
    announce: Announce | None = None,
) -> Evaluation:
    """Measure models and baselines side by side on the same frames.

    Figures are kept in `out` video by video: the same call goes on where an earlier one was stopped, and measures only
    what is new. Each subject's result is written to `out/NAME.json`, and all of them to `out/report.html`.

    Args:
        data: a folder with videos below it, one video, or a list of videos (`.txt`, `.csv`).
        models: each makes one model, so that only one is in memory at a time: once to check it, before any frame is
            computed, and again when its turn comes.
        out: a folder; made if it does not exist.
        baselines: names of `BASELINES`. Codecs are measured at the bits per pixel of every model, video by video, and
            at rates around them; `pca` with the block and the number of values of every model.
        options: frames to measure on; None: videos whole, at 256 x 256.
        meta: a CSV file with a column `videos`, of paths below `data`.
        lpips, i3d: files of weights; None: the usual places, where they may be missing; see `docs/metrics.md`.
        device: the device of LPIPS and I3D; None: the CPU.
        workers: videos read ahead, and measured behind, at a time.
        report: write `report.html`.
        announce: called before each subject, to show progress; a codec's name comes with the number of its rates.

    Raises:
        VideoError: there are no videos, or none of them can be read.
        VidTokError: there is nothing to measure, a baseline is unknown or cannot be had, `lpips` or `i3d` is given and
            cannot be used, a model gives values that are not finite, or `out` cannot be written.
    """
    options = EvaluationOptions() if options is None else options
    codecs = [check_codec(name, options.frame_size) for name in baselines if name != TRANSFORM]
    if not models and not baselines:
        raise VidTokError("there is nothing to measure; give at least one model or baseline (--model, --baseline)")
    place = torch.device("cpu") if device is None else device
    folder = Path(out)
    with PartStore(folder) as store, torch.no_grad():
        videos = find_videos(data, meta)
        runner = Runner(videos, options, Networks.load(place, lpips, i3d), store=store, workers=workers)
        run = _Run(runner, str(data), folder, place, announce or (lambda title, videos: nullcontext(lambda done: None)))
        shapes = run.models(models)
        if TRANSFORM in baselines:
            run.transforms(shapes)
        run.codecs(codecs)
    written = None
    if report:
        from vidtok.evaluation.report import write_report

        written = write_report(folder / "report.html", run.results, run.highlights)
    return Evaluation(run.results, written, run.files)


class _Run:
    """The subjects of one evaluation, measured one after the other, and their results so far."""

    def __init__(self, runner: Runner, data: str, folder: Path, device: torch.device, announce: Announce) -> None:
        self._runner, self._data, self._folder = runner, data, folder
        self._device, self._announce = device, announce
        self.results: list[Result] = []
        self.files: list[Path] = []
        self.highlights: dict[str, Shown] = {}

    def models(self, makers: Sequence[ModelMaker]) -> dict[BlockShape, list[str]]:
        """Measure the models; returns the linear transforms that match them, each with the models' names."""
        shapes: dict[BlockShape, list[str]] = {}
        checked = self._checked(makers)
        for make in makers:
            subject = checked.pop() if checked else make()
            taken = {file_name(result.name) for result in self.results}
            if file_name(subject.name) in taken:
                subject.name = next(name for n in count(2) if file_name(name := f"{subject.name} #{n}") not in taken)
            self._measure(subject)
            shape = subject.block_shape()
            if shape is not None:
                shapes.setdefault(shape, []).append(subject.name)
            del subject  # before the next one takes its memory
        return shapes

    def _checked(self, makers: Sequence[ModelMaker]) -> list[LatentSubject]:
        """Make each model once and check that it takes the frames to be measured; returns the first, still loaded."""
        found: list[LatentSubject] = []
        for make in reversed(makers):
            found.clear()
            found.append(make())
            found[0].check(self._runner.options)
        return found

    def transforms(self, shapes: dict[BlockShape, list[str]]) -> None:
        """Measure these transforms, each with the models that it matches; if none, 4 x 8 x 8 blocks in 16 numbers."""
        for shape, matches in (shapes or {BlockShape(4, 8, 16): []}).items():
            self._measure(TransformSubject(shape, tuple(matches)))

    def codecs(self, codecs: Sequence[Codec]) -> None:
        """Measure each codec at the rates that `bit_targets` gives for the models."""
        targets = list(bit_targets([result for result in self.results if result.kind == "model"]))
        for codec in codecs:
            searches: dict[str, RateSearch] = {}
            for number, target in enumerate(targets, 1):
                self._measure(CodecSubject(codec, target, searches), f", rate {number} of {len(targets)}")

    def _measure(self, subject: Subject, note: str = "") -> None:
        with self._announce(f"{subject.name}{note}", len(self._runner.videos)) as progress:
            outcome = self._runner.measure(subject, progress)
        if not outcome.measured:
            reasons = "\n".join(f"  {each.reason}" for each in outcome.unreadable[:10])
            videos = len(self._runner.videos)
            none = f"none of the {videos} videos of {self._data} can"
            alone = f"the only video of {self._data} cannot"
            raise VideoError(f"{none if videos > 1 else alone} be read:\n{reasons}")
        result = assemble(subject, self._runner.options, self._data, outcome, self._device)
        path = self._folder / f"{file_name(subject.name)}.json"
        result.write(path)
        self.results.append(result)
        self.highlights[subject.name] = outcome.highlights()
        self.files.append(path)


def bit_targets(models: Sequence[Result]) -> Iterator[BitTarget]:
    """The rates to measure codecs at, from low to high.

    Models are matched video by video. Rates below and above theirs, and between two that lie far apart, complete the
    curve.
    """
    matched: list[BitTarget] = []
    for result in sorted(models, key=lambda result: result.bits_per_pixel):
        bits = {video["name"]: float(video["bits"]) for video in result.videos}
        if matched and result.bits_per_pixel <= matched[-1].bits_per_pixel * SAME_RATE:
            last = matched[-1]
            matched[-1] = BitTarget(last.bits_per_pixel, last.bits, (*last.matches, result.name))
        else:
            matched.append(BitTarget(result.bits_per_pixel, bits, (result.name,)))
    if not matched:
        yield from map(BitTarget, _RATES_ALONE)
        return
    yield BitTarget(matched[0].bits_per_pixel / _MARGIN)
    for before, target in zip([None, *matched], matched, strict=False):
        if before is not None:
            ratio = target.bits_per_pixel / before.bits_per_pixel
            steps = max(1, round(math.log(ratio) / math.log(_WIDEST_STEP)))
            for step in range(1, steps):
                yield BitTarget(before.bits_per_pixel * ratio ** (step / steps))
        yield target
    if matched[-1].bits_per_pixel * _MARGIN <= _LARGEST_RATE:
        yield BitTarget(matched[-1].bits_per_pixel * _MARGIN)


def file_name(name: str) -> str:
    """`name` as the name of a file, without its suffix."""
    return re.sub(r"[^\w.@+-]+", "_", name).strip("._") or "result"
