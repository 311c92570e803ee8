"""Measures subjects on videos: frames are read ahead, figures computed behind, and what is done is kept."""

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
from vidtok.evaluation.highlights import Moment
from vidtok.evaluation.measuring import Measured, Measuring, Networks, Tally
from vidtok.evaluation.options import Settings
from vidtok.evaluation.storage import PartStore
from vidtok.evaluation.subjects import Frames, Subject
from vidtok.evaluation.videos import FrameStream, Video
from vidtok.runtime.threads import Ahead, Behind
from vidtok.video import Pixels

WORKERS = 2
Shown = dict[str, tuple[str, Moment]]
"""By `best` and `worst`: the video's name and the frame."""
Progress = Callable[[float], None]
"""Called with how many videos are done, the part of the one under way included."""


@dataclass(frozen=True)
class Unreadable:
    """A video that is left out."""

    name: str
    reason: str


@dataclass(frozen=True)
class Outcome:
    """What `Runner.measure` returns, in the videos' order."""

    measured: list[Measured]
    unreadable: list[Unreadable]
    seconds: float
    """From the start to the end."""
    subject_seconds: float
    """Of these, in the subject; videos that were kept from before count in neither."""

    def moments(self) -> Shown:
        """The best and the worst frame of all videos, by `best` and `worst`, if the subject is shown."""
        shown: Shown = {}
        for kind, sign in (("best", 1), ("worst", -1)):
            found = [(video.name, video.moments[kind]) for video in self.measured if kind in video.moments]
            if found:
                shown[kind] = max(found, key=lambda each: sign * each[1].value)
        return shown


class Runner:
    """Measures any number of subjects on the same videos, in the same way.

    Args:
        videos: what to measure on.
        settings: how they are read.
        networks: for LPIPS and FVD.
        store: keeps what is done; None: nothing is kept.
        workers: how many videos are opened ahead, and how many may have their figures computed behind the subject, each
            by a thread of its own.
    """

    def __init__(
        self, videos: Sequence[Video], settings: Settings, networks: Networks, *,
        store: PartStore | None = None, workers: int = WORKERS,
    ) -> None:  # fmt: skip
        self.videos = list(videos)
        self.settings = settings
        self.networks = networks
        self.store = store
        self.workers = workers
        self._unreadable: dict[str, Unreadable] = {}

    def measure(self, subject: Subject, progress: Progress | None = None) -> Outcome:
        """Measure `subject` on all videos; those that were kept from before are not measured again.

        Videos that cannot be read are left out and listed, and not tried again for other subjects. What is done is
        kept, whatever ends this early.
        """
        started = time.perf_counter()
        job = _Job(self, subject, self._unreadable, progress)
        try:
            job.run()
        finally:
            job.close()
        measured = [job.measured[video.name] for video in self.videos if video.name in job.measured]
        failures = [self._unreadable[video.name] for video in self.videos if video.name in self._unreadable]
        return Outcome(measured, failures, time.perf_counter() - started, job.subject_seconds)

    def key(self, subject: Subject, video: Video) -> dict[str, Any]:
        """What the figures of a subject on a video depend on. Raises `VideoError` if the video is gone."""
        return {
            "kind": subject.kind,
            "subject": subject.key(video.name),
            "show": subject.show,
            "settings": self.settings.as_dict(),
            "networks": self.networks.measured(),
            "video": video.name,
            "file": video.stamp(),
        }


class _Opened:
    """A video whose frames are being read ahead."""

    def __init__(self, video: Video, subject: Subject, settings: Settings) -> None:
        self.stream = FrameStream(video, settings)
        self._settings = settings
        self._length, self._fill = subject.cut(self.stream.size, settings)
        self.ahead = Ahead(self.stream.chunks(self._length, fill=self._fill))

    def frames(self) -> Frames:
        stream = self.stream
        return Frames(stream.video.name, stream.size, stream.fps, stream.frame_estimate, self.ahead, self._again)

    def _again(self) -> Iterator[Pixels]:
        return FrameStream(self.stream.video, self._settings).chunks(self._length, fill=self._fill)

    def share(self, frames: int) -> float:
        """How much of it so many frames are, 0 to 1, as far as that can be told."""
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
        self._keys: dict[str, dict[str, Any]] = {}
        self._extremes: dict[str, float] = {}
        self._lock = threading.Lock()
        self._behind: deque[Behind] = deque()
        self._pool = ThreadPoolExecutor(runner.workers)
        self._opening: deque[tuple[Video, Future[_Opened]]] = deque()

    def run(self) -> None:
        todo = self._not_kept()
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
            self._behind.popleft().finish()

    def close(self) -> None:
        """End all threads; what they have not finished is dropped."""
        for behind in self._behind:
            behind.abandon()
        self._pool.shutdown(cancel_futures=True)
        for _, future in self._opening:
            _close(future)

    def _not_kept(self) -> list[Video]:
        """The videos that are still to be measured."""
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
            else:
                self._note(kept)
        return todo

    def _opened(self, videos: Sequence[Video]) -> Iterator[tuple[Video, Future[_Opened]]]:
        """The videos as they are opened, a few ahead; each is closed when the next is asked for."""
        waiting = deque(videos)
        while waiting or self._opening:
            while waiting and len(self._opening) < self._runner.workers:
                video = waiting.popleft()
                future = self._pool.submit(_Opened, video, self._subject, self._runner.settings)
                self._opening.append((video, future))
            yield self._opening[0]
            _close(self._opening.popleft()[1])

    def _put_through(self, video: Video, opened: _Opened, done: int) -> None:
        """Put one video through the subject, its figures following behind. Raises `VideoError` if it breaks off."""
        while len(self._behind) >= self._runner.workers:
            self._behind.popleft().finish()
        stream, networks = opened.stream, self._runner.networks
        measuring, tally, seconds = Measuring(networks, stream.fps, show=self._subject.show), Tally(), 0.0
        frames = 0
        behind = Behind()
        try:
            pairs = self._subject.pairs(opened.frames(), self._runner.settings, tally)
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
            figures = partial(measuring.result, video.name, stream.size, stream.fps, stream.sha256, seconds, tally)
            behind.put(lambda: self._keep(video, figures()))
        except BaseException:
            behind.abandon()
            raise
        self._behind.append(behind)

    def _keep(self, video: Video, measured: Measured) -> None:
        noted = self._note(measured)
        if self._runner.store is not None:
            self._runner.store.save(self._keys[video.name], noted)

    def _note(self, measured: Measured) -> Measured:
        """Take figures in. Only those moments stay that are the best or the worst so far: pictures take much room."""
        with self._lock:
            moments = {}
            for kind, moment in measured.moments.items():
                value = moment.value if kind == "best" else -moment.value
                if value > self._extremes.get(kind, float("-inf")):
                    self._extremes[kind] = value
                    moments[kind] = moment
            noted = replace(measured, moments=moments)
            self.measured[measured.name] = noted
            return noted


def _close(future: Future[_Opened]) -> None:
    if not future.cancelled() and future.exception() is None:
        future.result().close()
