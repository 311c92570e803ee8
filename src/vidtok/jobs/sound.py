"""The sound of a video, kept in a Matroska file of its own."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from pathlib import Path

from vidtok.errors import VideoError
from vidtok.files import Aside, writing
from vidtok.video.audio import AudioCopy

SOUND_SUFFIX = ".mka"


def sound_path(path: str | os.PathLike[str]) -> Path:
    """The file of the sound that belongs to a token file: beside it, with `.mka` for its suffix."""
    return Path(path).with_suffix(SOUND_SUFFIX)


def extract_sound(source: str | os.PathLike[str], sound: Aside, stream: int | None = None) -> bool:
    """Write the first audio track of `source`, from the first video frame on, to `sound`; return False if it has none.

    Packets are copied as they are where Matroska and browsers take them, else coded as AAC. `stream` is the number of
    the video stream that the sound goes with, as for `VideoReader`. `commit_sound` moves the file to its place; without
    a track, nothing is left behind. Raises `VideoError` if the file cannot be written; the caller then discards
    `sound`.
    """
    import av

    bitexact = {"fflags": "+bitexact"}
    with (
        _writing(source, sound),
        av.open(os.fspath(sound.make()), "w", format="matroska", container_options=bitexact) as output,
    ):
        track = AudioCopy.start(source, output, "matroska", stream)
        if track is not None:
            track.copy_until(None)
            track.close()
    if track is None:
        sound.discard()
    return track is not None


def commit_sound(source: str | os.PathLike[str], sound: Aside) -> None:
    """Move the file that `extract_sound` wrote to its place. Raises `VideoError` if the file system refuses."""
    with _writing(source, sound):
        sound.commit()


def _writing(source: str | os.PathLike[str], sound: Aside) -> AbstractContextManager[None]:
    import av

    problem = f"the sound of {source} cannot be written to {sound.place}"
    return writing(sound.place, VideoError, problem=problem, advice="leave out --audio", also=(av.error.FFmpegError,))
