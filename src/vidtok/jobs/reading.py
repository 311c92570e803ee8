"""The base of jobs that read one video: the facts that follow from the input alone."""

from __future__ import annotations

from vidtok.video import VideoReader


class ReadingJob:
    """A job whose input is read by `_reader`, which is open before a model is needed."""

    _reader: VideoReader

    @property
    def other_streams(self) -> str:
        """A note about the other video streams of the input, for the user; empty if there are none."""
        return self._reader.info.other_streams

    @property
    def frame_estimate(self) -> int | None:
        """Number of frames that the job will take, as far as the file says; None if unknown."""
        return self._reader.frame_estimate
