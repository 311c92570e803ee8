"""Measures subjects on videos: frames are read ahead, figures computed behind, and finished videos kept."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from vidtok.errors import VideoError
from vidtok.evaluation.highlights import Highlight
from vidtok.evaluation.measuring import Measured, Measuring, Tally
from vidtok.evaluation.memory import PeakMemory
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.storage import PartStore
from vidtok.evaluation.subjects import Frames, Subject
from vidtok.evaluation.videos import FrameStream, Video
from vidtok.metrics.networks import Networks
from vidtok.metrics.table import METRICS
from vidtok.runtime.threads import Ahead, Behind
from vidtok.video import Pixels

WORKERS = 2
Shown = dict[str, tuple[str, Highlight]]
"""By `best` and `worst`: the video's name and the frame."""
Progress = Callable[[float], None]
"""Called with the number of videos done, including the done part of the one under way."""


@dataclass(frozen=True)
class Unreadable:
    """A video that is left out."""

    name: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """The figures of one subject on all videos, in the videos' order."""

    measured: list[Measured]
    unreadable: list[Unreadable]
    unavailable: dict[str, str]
    """The metrics that some video has no figure for, by name, and why."""
    seconds: float
    """Time from the start to the end."""
    subject_seconds: float
    """Time in the subject alone. Neither counts videos whose figures were kept from before."""
    new_videos: int = 0
    """Number of videos that went through the subject in this run."""

    def highlights(self) -> Shown:
        """The best and the worst frame of all videos, by `best` and `worst`, if the subject is shown."""
        shown: Shown = {}
        for kind, sign in (("best", 1), ("worst", -1)):
            found = [(video.name, video.highlights[kind]) for video in self.measured if kind in video.highlights]
            if found:
                shown[kind] = max(found, key=lambda each: sign * each[1].value)
        return shown


class Runner:
    """Measures any number of subjects on the same videos, in the same way.

    Args:
        videos: the videos to measure on.
        options: the frames of each.
        networks: the networks that some metrics need.
        store: keeps finished videos; None: nothing is kept.
        workers: videos that are opened ahead, and videos whose figures may be computed behind the subject, each by a
            thread of its own.

    Attributes:
        metrics: names of the metrics that are measured: all of `METRICS` whose network is at hand.
        unavailable: the other ones, and why.
    """

    def __init__(
        self, videos: Sequence[Video], options: EvaluationOptions, networks: Networks, *,
        store: PartStore | None = None, workers: int = WORKERS,
    ) -> None:  # fmt: skip
        self.videos = list(videos)
        self.options = options
        self.networks = networks
        self.store = store
        self.workers = workers
        self.unavailable = {name: str(reason) for name, reason in networks.unavailable().items()}
        self.metrics = [name for name in METRICS if name not in self.unavailable]
        self._unreadable: dict[str, Unreadable] = {}

    def measure(self, subject: Subject, progress: Progress | None = None) -> Outcome:
        """Measure `subject` on all videos, but for figures that were kept from before.

        A kept video that lacks a metric is measured by that metric alone. Videos that cannot be read are left out and
        listed, and not tried again for other subjects. Finished videos stay kept if an error or an
        interrupt ends this early.
        """
        started = time.perf_counter()
        job = _Job(self, subject, self._unreadable, progress)
        try:
            job.run()
        finally:
            job.close()
        measured = [job.measured[video.name] for video in self.videos if video.name in job.measured]
        failures = [self._unreadable[video.name] for video in self.videos if video.name in self._unreadable]
        reasons = {name: reason for video in measured for name, reason in video.unavailable.items()} | self.unavailable
        return Outcome(measured, failures, reasons, time.perf_counter() - started, job.subject_seconds,
                       job.new_videos)  # fmt: skip

    def key(self, subject: Subject, video: Video) -> dict[str, Any]:
        """The conditions that all figures of a subject on a video depend on; metrics have versions of their own.

        Raises `VideoError` if the video is gone.
        """
        return {
            "kind": subject.kind,
            "subject": subject.key(video.name),
            "show": subject.show,
            "options": self.options.as_dict(),
            "video": video.name,
            "file": video.stamp(),
        }


class _Opened:
    """A video whose frames are being read ahead."""

    def __init__(self, video: Video, subject: Subject, options: EvaluationOptions) -> None:
        self.stream = FrameStream(video, options)
        self._options = options
        self._length, self._fill = subject.cut(self.stream.size, options)
        self.ahead = Ahead(self.stream.chunks(self._length, fill=self._fill))

    def frames(self) -> Frames:
        stream = self.stream
        return Frames(stream.video.name, stream.size, stream.fps, stream.frame_estimate, self.ahead, self._again)

    def _again(self) -> Iterator[Pixels]:
        return FrameStream(self.stream.video, self._options).chunks(self._length, fill=self._fill)

    def share(self, frames: int) -> float:
        """The share of the video in its first `frames` frames, 0 to 1; 0 if its length is not known."""
        return min(1.0, frames / self.stream.frame_estimate) if self.stream.frame_estimate else 0.0

    def close(self) -> None:
        self.ahead.close()
        self.stream.close()


class _Job:
    """One subject on all videos."""

    def __init__(
        self, runner: Runner, subject: Subject, failed: dict[str, Unreadable], progress: Progress | None
    ) -> None:
        self._runner, self._subject = runner, subject
        self._progress = progress if progress is not None else lambda done: None
        self.measured: dict[str, Measured] = {}
        self._failed = failed
        self.subject_seconds = 0.0
        self.new_videos = 0
        self._memory = PeakMemory(subject.device)
        self._keys: dict[str, dict[str, Any]] = {}
        self._kept: dict[str, Measured] = {}
        self._extremes: dict[str, float] = {}
        self._lock = threading.Lock()
        self._behind: deque[Behind] = deque()
        self._pool = ThreadPoolExecutor(runner.workers)
        self._opening: deque[tuple[Video, Future[_Opened]]] = deque()

    def run(self) -> None:
        todo = self._unfinished()
        done = len(self._runner.videos) - len(todo)
        self._progress(done)
        if todo:
            self._subject.prepare()
        for video, future in self._opened(todo):
            try:
                opened = future.result()
                self._put_through(video, opened, done)
            except VideoError as error:
                self._failed[video.name] = Unreadable(video.name, str(error))
            done += 1
            self._progress(done)
        while self._behind:
            self._finish_oldest()

    def close(self) -> None:
        """End all threads; unfinished videos are dropped."""
        for behind in self._behind:
            behind.abandon()
        self._pool.shutdown(cancel_futures=True)
        for _, future in self._opening:
            _close(future)

    def _unfinished(self) -> list[Video]:
        """The videos that lack some or all metrics; complete figures from before are taken in."""
        todo = []
        for video in self._runner.videos:
            if video.name in self._failed:
                continue
            try:
                key = self._runner.key(self._subject, video)
            except VideoError as error:
                self._failed[video.name] = Unreadable(video.name, str(error))
                continue
            self._keys[video.name] = key
            kept = None if self._runner.store is None else self._runner.store.load(key)
            if kept is None:
                todo.append(video)
            elif kept.lacking(self._runner.metrics):
                self._kept[video.name] = kept
                todo.append(video)
            else:
                self._note(kept)
        return todo

    def _lacking(self, video: Video) -> list[str]:
        """The metrics still to be measured of `video`."""
        kept = self._kept.get(video.name)
        return self._runner.metrics if kept is None else kept.lacking(self._runner.metrics)

    def _opened(self, videos: Sequence[Video]) -> Iterator[tuple[Video, Future[_Opened]]]:
        """The videos as they are opened, a few ahead; each is closed when the next is asked for."""
        waiting = deque(videos)
        while waiting or self._opening:
            while waiting and len(self._opening) < self._runner.workers:
                video = waiting.popleft()
                future = self._pool.submit(_Opened, video, self._subject, self._runner.options)
                self._opening.append((video, future))
            yield self._opening[0]
            _close(self._opening.popleft()[1])

    def _put_through(self, video: Video, opened: _Opened, done: int) -> None:
        """Put one video through the subject; its figures follow behind. Raises `VideoError` if it breaks off."""
        while len(self._behind) >= self._runner.workers:
            self._finish_oldest()
        stream, networks, lacking = opened.stream, self._runner.networks, self._lacking(video)
        measuring = Measuring(networks, stream.fps, lacking, show=self._subject.show)
        tally, seconds, frames = Tally(), 0.0, 0
        behind = Behind()
        self._memory.start()
        try:
            pairs = self._subject.pairs(opened.frames(), self._runner.options, tally)
            while True:
                begun, waited = time.perf_counter(), opened.ahead.waited
                pair = next(pairs, None)
                seconds += time.perf_counter() - begun - (opened.ahead.waited - waited)
                if pair is None:
                    break
                behind.put(partial(measuring.update, pair))
                frames += len(pair.source)
                self._progress(done + opened.share(frames))
            self.subject_seconds += seconds
            self.new_videos += 1
            figures = partial(
                measuring.result, video.name, stream.size, stream.fps, stream.sha256, seconds, tally,
                self._memory.peak(),
            )  # fmt: skip
            behind.put(lambda: self._keep(video, figures()))
        except BaseException:
            behind.abandon()
            raise
        self._behind.append(behind)

    def _finish_oldest(self) -> None:
        self._behind[0].finish()  # stays where `close` finds it, if this is interrupted
        self._behind.popleft()

    def _keep(self, video: Video, measured: Measured) -> None:
        kept = self._kept.get(video.name)
        noted = self._note(measured if kept is None else kept.joined(measured))
        if self._runner.store is not None:
            self._runner.store.save(self._keys[video.name], noted)

    def _note(self, measured: Measured) -> Measured:
        """Take in the figures of this run's metrics; returns all, as they are to be kept.

        Highlights stay only if they are the best or the worst so far: pictures take much room.
        """
        with self._lock:
            highlights = {}
            for kind, highlight in measured.highlights.items():
                value = highlight.value if kind == "best" else -highlight.value
                if value > self._extremes.get(kind, float("-inf")):
                    self._extremes[kind] = value
                    highlights[kind] = highlight
            noted = replace(measured, highlights=highlights)
            self.measured[measured.name] = noted.only(self._runner.metrics)
            return noted


def _close(future: Future[_Opened]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
