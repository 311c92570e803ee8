"""What can be wrong with a video, beyond `vidtok.errors.VideoError`."""

from __future__ import annotations

from vidtok.errors import VideoError


class DamagedVideoError(VideoError):
    """A video breaks off or cannot be decoded whole; `frames` of it, from where reading began, could be."""

    def __init__(self, message: str, frames: int) -> None:
        super().__init__(message)
        self.frames = frames
