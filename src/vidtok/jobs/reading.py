"""The part of a job that its input alone decides, common to jobs that read one video."""

from __future__ import annotations

from vidtok.video import VideoReader


class ReadingJob:
    """A job whose input is read by `_reader`, opened before the job needs a model."""

    _reader: VideoReader

    @property
    def other_streams(self) -> str:
        """A word about the video streams of the input that are left out; empty if there are none."""
        return self._reader.info.other_streams

    @property
    def frame_estimate(self) -> int | None:
        """Frames of the video, as far as the file says."""
        return self._reader.frame_estimate
