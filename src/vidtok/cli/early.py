"""Checks of what a user gave that need no PyTorch, which takes seconds to load: each command makes them first.

Jobs check again, more thoroughly; messages are the same.
"""

from __future__ import annotations

from pathlib import Path

from vidtok.errors import TokenFileError, VideoError, VidTokError
from vidtok.files import check_place
from vidtok.video.library import TOKEN_SUFFIX


def check_model(
    model: str, checkpoint: Path | None = None, decoder: str | None = None, parts: str | None = None
) -> None:
    """Raise `VidTokError` for a model that does not exist, a configuration or weights that cannot be used.

    Weights of a model by name are downloaded now if they are not on this machine.
    """
    from vidtok.zoo.source import check_source

    check_source(model, checkpoint, decoder, parts)


def check_input(path: Path) -> None:
    """Raise `VideoError` unless `path` is a folder, or a media file whose head can be read."""
    check_exists(path, "a video, a picture or a folder", VideoError)
    if path.is_dir():
        return
    from vidtok.video.container import open_container, reading

    with reading(path), open_container(path):
        pass


def check_exists(path: Path, expected: str, error: type[VidTokError] = VidTokError) -> None:
    """Raise `error` unless there is a file or folder at `path`; `expected` says which kind."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"{path}: no such file; check the path; expected {expected}") from None


def check_output(path: Path, *, input: Path | None = None) -> None:
    """Raise `VideoError` unless a video or picture can be written to `path`, and that is not `input` itself."""
    check_place(path, VideoError, "output.mp4")

    from vidtok.video import VideoWriter
    from vidtok.video.source import check_apart

    if input is not None:
        check_apart(path, input)
    VideoWriter(path, 1).abort()


def check_token_output(path: Path, input: Path) -> None:
    """Raise `VidTokError` unless a token file of `input` can be written to `path`."""
    if path.suffix != TOKEN_SUFFIX:
        raise TokenFileError(f"{path} does not end in {TOKEN_SUFFIX}; expected a name such as video{TOKEN_SUFFIX}")
    check_place(path, TokenFileError, f"video{TOKEN_SUFFIX}")

    from vidtok.video.source import check_apart

    check_apart(path, input)
