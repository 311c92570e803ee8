"""The sound of a video, kept in a Matroska file of its own."""

from __future__ import annotations

import os
from pathlib import Path

from vidtok.errors import VideoError
from vidtok.text import reason
from vidtok.video.audio import AudioCopy

SOUND_SUFFIX = ".mka"


def sound_path(path: str | os.PathLike[str]) -> Path:
    """The file of the sound that belongs to a token file: beside it, with `.mka` for its suffix."""
    return Path(path).with_suffix(SOUND_SUFFIX)


def extract_sound(source: str | os.PathLike[str], path: Path, stream: int | None = None) -> bool:
    """Write the first audio track of `source` to `path`, from the first video frame on; whether there is one.

    Packets are copied as they are where Matroska and browsers take them, else coded as AAC. Raises `VideoError` if the
    file cannot be written.
    """
    import av

    found = False
    try:
        with av.open(os.fspath(path), "w", format="matroska") as output:
            sound = AudioCopy.start(source, output, "matroska", stream)
            if sound is not None:
                found = True
                sound.copy_until(None)
                sound.close()
    except (av.error.FFmpegError, OSError) as error:
        path.unlink(missing_ok=True)
        problem = f"the sound of {source} cannot be written to {path}"
        raise VideoError(f"{problem}: {reason(error)}; leave out --audio") from error
    if not found:
        path.unlink(missing_ok=True)
    return found
