"""The sound of a video, kept in a Matroska file of its own."""

from __future__ import annotations

import os
from pathlib import Path

from vidtok.errors import VideoError
from vidtok.files import Aside
from vidtok.text import reason
from vidtok.video.audio import AudioCopy

SOUND_SUFFIX = ".mka"


def sound_path(path: str | os.PathLike[str]) -> Path:
    """The file of the sound that belongs to a token file: beside it, with `.mka` for its suffix."""
    return Path(path).with_suffix(SOUND_SUFFIX)


def extract_sound(source: str | os.PathLike[str], sound: Aside, stream: int | None = None) -> bool:
    """Write the first audio track of `source` to `sound`, from the first video frame on; returns True if there is one.

    Packets are copied as they are where Matroska and browsers take them, else coded as AAC. Raises `VideoError` if the
    file cannot be written; nothing is left behind then, and where there is no track.
    """
    import av

    found, path = False, sound.path
    try:
        with av.open(
            os.fspath(sound.make()), "w", format="matroska", container_options={"fflags": "+bitexact"}
        ) as output:
            track = AudioCopy.start(source, output, "matroska", stream)
            if track is not None:
                found = True
                track.copy_until(None)
                track.close()
    except (av.error.FFmpegError, OSError) as error:
        sound.discard()
        problem = f"the sound of {source} cannot be written to {path}"
        raise VideoError(f"{problem}: {reason(error)}; leave out --audio") from error
    if not found:
        sound.discard()
    return found
