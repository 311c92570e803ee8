"""All videos below a folder to token files below another, which mirrors it; what is done already is left as it is."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from vidtok.errors import VideoError, VidTokError
from vidtok.jobs.encode import TOKEN_SUFFIX, Encoded, EncodeJob, EncodeOptions
from vidtok.jobs.sound import sound_path
from vidtok.models.base import VideoModel
from vidtok.text import one_line
from vidtok.tokens import ModelIdentity, TokenFile, TokenFileError, model_identity
from vidtok.video.library import PICTURE_SUFFIXES, VIDEO_SUFFIXES, find_files


@dataclass
class TreeResult:
    """Results of the videos of a tree."""

    encoded: list[Encoded] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    """Inputs whose output was there already, made with the same model, settings and source."""
    failed: list[tuple[Path, VidTokError]] = field(default_factory=list)
    """Inputs that could not be encoded, and why."""


@dataclass(frozen=True)
class TreeStep:
    """One file that is about to be encoded."""

    number: int
    """From 1 on."""
    of: int
    """Files in all."""
    input: Path
    job: EncodeJob


Announce = Callable[[TreeStep], Callable[[int], None] | None]
"""Called before each file; returns what is to be called with the number of frames done, if anything."""


class TreeJob:
    """All videos and pictures below `folder`, as `find_files` finds them, to be encoded below `output`.

    `folder/a/b.mp4` becomes `output/a/b.mp4.vtok`. Raises `VideoError` if there are none, and `TokenFileError` if
    `output` cannot be a folder.
    """

    def __init__(
        self, folder: str | os.PathLike[str], output: str | os.PathLike[str], options: EncodeOptions | None = None
    ) -> None:
        self._folder, self._output = Path(folder), Path(output)
        self._options = EncodeOptions() if options is None else options
        if not self._folder.is_dir():
            raise VideoError(f"{folder} is not a folder; give one with videos in it")
        if self._output.exists() and not self._output.is_dir():
            raise TokenFileError(f"{output} is a file; expected a folder for the token files of {folder}")
        suffixes = VIDEO_SUFFIXES + PICTURE_SUFFIXES
        self.inputs = [Path(path) for path in find_files(self._folder, suffixes)]
        if not self.inputs:
            raise VideoError(
                f"{folder} has no videos and no pictures below it; expected files that end in {', '.join(suffixes)}"
            )

    def run(self, model: VideoModel, announce: Announce | None = None) -> TreeResult:
        """Encode what is not there yet, and go on where a file cannot be encoded. Each file is as `EncodeJob` does it.

        An interrupted run can be started again: finished files are skipped.
        """
        result = TreeResult()
        identity = model_identity(model)
        for number, path in enumerate(self.inputs, 1):
            relative = path.relative_to(self._folder)
            output = self._output / relative.parent / (relative.name + TOKEN_SUFFIX)
            if _is_done(output, path, identity, self._options, model):
                result.skipped.append(path)
                continue
            try:
                _make_folder(output.parent)
                job = EncodeJob(path, output, self._options)
                progress = None if announce is None else announce(TreeStep(number, len(self.inputs), path, job))
                result.encoded.append(job.run(model, progress))
            except VidTokError as error:
                result.failed.append((path, error))
            except Exception as error:  # whatever one file of many brings about, the others are encoded
                result.failed.append((path, VidTokError(f"{type(error).__name__}: {one_line(error)}")))
        return result


def encode_tree(
    model: VideoModel,
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    *,
    announce: Announce | None = None,
) -> TreeResult:
    """Write token files of all videos below `folder` to `output`; see `TreeJob`."""
    return TreeJob(folder, output, options).run(model, announce)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TokenFileError(f"{folder} cannot be made: {error.strerror}; choose another output") from error


def _is_done(output: Path, path: Path, identity: ModelIdentity, options: EncodeOptions, model: VideoModel) -> bool:
    """True if `output` is a whole token file of `path` as it is now, made with this model and these options."""
    try:
        if not output.exists() or output.stat().st_mtime < path.stat().st_mtime:
            return False
        with TokenFile(output) as file:
            header = file.header
            sound = not header.encoding.get("sound") or sound_path(output).exists()
            return (
                file.complete
                and sound
                and dataclasses.replace(header.model, name=identity.name) == identity
                and header.encoding.get("settings") == options.settings(model)
                and header.source is not None
                and header.source.bytes == path.stat().st_size
            )
    except (TokenFileError, OSError):
        return False
