"""Encoding of all videos of a folder or list to a mirrored tree of token files; finished token files are kept."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vidtok.errors import BeingWrittenError, VidTokError
from vidtok.fields import shown
from vidtok.files import make_folder
from vidtok.jobs.encode import Encoded, EncodeJob, EncodeOptions
from vidtok.jobs.sound import sound_path
from vidtok.models.base import VideoModel
from vidtok.text import counted, unforeseen
from vidtok.tokens import ModelIdentity, TokenFile, TokenFileError, TokenHeader, model_identity
from vidtok.video.library import PICTURE_SUFFIXES, TOKEN_SUFFIX, VIDEO_SUFFIXES, find_inputs

_NAMED = 3
"""Differences and files that a message names."""
_POLL = 0.5
"""Seconds between looks at a file that another process is writing."""


@dataclass
class TreeResult:
    """Results of the videos of a tree."""

    encoded: list[Encoded] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    """Inputs whose output was there already, made with the same model, settings and source."""
    elsewhere: list[Path] = field(default_factory=list)
    """Inputs that another process has encoded in the same way meanwhile."""
    failed: list[tuple[Path, VidTokError]] = field(default_factory=list)
    """Inputs that could not be encoded, with their errors."""


@dataclass(frozen=True)
class TreeStep:
    """One file that is about to be encoded."""

    number: int
    """Number of the file in the tree, from 1 on."""
    of: int
    """Number of files in the tree."""
    input: Path
    job: EncodeJob


Announce = Callable[[TreeStep], Callable[[int], None] | None]
"""Function called before each file; returns a function to call with the number of frames done, or None."""


class TreeJob:
    """All videos and pictures below `folder`, or of a list, as `find_inputs` finds them, to be encoded below `output`.

    `folder/a/b.mp4` becomes `output/a/b.mp4.vtok`. With `overwrite`, token files made with another model or other
    options are replaced. Raises `VideoError` if `folder` is neither a folder nor a list, or has no videos and pictures,
    and `TokenFileError` if `output` is a file.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        output: str | os.PathLike[str],
        options: EncodeOptions | None = None,
        *,
        overwrite: bool = False,
    ) -> None:
        self._output = Path(output)
        self._options = EncodeOptions() if options is None else options
        self._overwrite = overwrite
        if self._output.exists() and not self._output.is_dir():
            raise TokenFileError(f"{output} is a file; expected a folder for the token files of {folder}")
        self._found = find_inputs(folder, VIDEO_SUFFIXES + PICTURE_SUFFIXES)
        self.inputs = self._found.paths

    def run(
        self, model: VideoModel, announce: Announce | None = None, waiting: Callable[[Path], None] | None = None
    ) -> TreeResult:
        """Encode each input that has no up-to-date token file yet, as `EncodeJob` does; return the results of all.

        An input that cannot be encoded does not end the run. An interrupted run can be started again: finished files
        are skipped. A file that another process is writing is left to it. At the end, the run calls `waiting` with the
        input of each such file, waits for the process, and encodes the file if the process has not finished it. Raises
        `TokenFileError`, before a file is written, if token files were made with another model or other options, unless
        they may be overwritten.
        """
        made = _Made(self._options, model)
        if not self._overwrite:
            self._refuse_others(made)
        result = TreeResult()
        left = [step for step in enumerate(self.inputs, 1) if not self._encode(*step, model, made, result, announce)]
        for number, path in left:
            if waiting is not None:
                waiting(path)
            while not self._encode(number, path, model, made, result, announce, again=True):
                time.sleep(_POLL)
        return result

    def _encode(
        self, number: int, path: Path, model: VideoModel, made: _Made, result: TreeResult, announce: Announce | None,
        *, again: bool = False,
    ) -> bool:  # fmt: skip
        """Encode `path` unless it is done, and note it in `result`; return False if another process is writing it."""
        output = self._place(path)
        if made.is_done(output, path):
            (result.elsewhere if again else result.skipped).append(path)
            return True
        try:
            make_folder(output.parent, TokenFileError, "choose another output")
            job = EncodeJob(path, output, self._options)
            progress = None if announce is None else announce(TreeStep(number, len(self.inputs), path, job))
            result.encoded.append(job.run(model, progress))
        except BeingWrittenError:
            return False
        except VidTokError as error:
            result.failed.append((path, error))
        except Exception as error:  # any fault of one file must not stop the others
            result.failed.append((path, VidTokError(unforeseen(error))))
        return True

    def _place(self, path: Path) -> Path:
        """The token file of the input `path`."""
        place = self._found.place(self._output, path)
        return place.with_name(place.name + TOKEN_SUFFIX)

    def _refuse_others(self, made: _Made) -> None:
        """Raise `TokenFileError` if the tree has token files made with another model or other options."""
        found = [(place, made.difference(place)) for place in map(self._place, self.inputs) if place.exists()]
        others = [(place, difference) for place, difference in found if difference]
        if others:
            place, difference = others[0]
            raise TokenFileError(
                f"{counted(len(others), 'token file')} below {self._output} would be replaced by others, such as "
                f"{place} ({difference}); give --overwrite (overwrite) to replace them, or another --output"
            )


def encode_tree(
    model: VideoModel,
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    options: EncodeOptions | None = None,
    *,
    overwrite: bool = False,
    announce: Announce | None = None,
) -> TreeResult:
    """Encode all videos and pictures below `folder` to token files below `output`; see `TreeJob`."""
    return TreeJob(folder, output, options, overwrite=overwrite).run(model, announce)


class _Made:
    """Model and settings of token files that are made now, to compare with files that are there."""

    def __init__(self, options: EncodeOptions, model: VideoModel) -> None:
        self._identity: ModelIdentity = model_identity(model)
        self._settings: dict[str, Any] = options.settings(model)

    def is_done(self, output: Path, path: Path) -> bool:
        """True if `output` is a whole token file of `path` as it is now, made with these."""
        try:
            if not output.exists() or output.stat().st_mtime < path.stat().st_mtime:
                return False
            with TokenFile(output) as file:
                header = file.header
                sound = not header.encoding.get("sound") or sound_path(output).is_file()
                source = header.source is not None and header.source.bytes == path.stat().st_size
                return file.complete and sound and source and not self._differing(header)
        except (TokenFileError, OSError):
            return False

    def difference(self, output: Path) -> str:
        """The differences of the token file at `output`, for a message; empty if it has none, or is damaged."""
        try:
            with TokenFile(output) as file:
                differing = self._differing(file.header)
        except (TokenFileError, OSError):
            return ""
        more = len(differing) - _NAMED
        return ", ".join(differing[:_NAMED]) + (f" and {more} more" if more > 0 else "")

    def _differing(self, header: TokenHeader) -> list[str]:
        """Model and settings of a file with `header` that differ from these, each with both values."""
        differing = []
        if dataclasses.replace(header.model, name=self._identity.name) != self._identity:
            differing.append(f"made with {shown(header.model.name)}, of other weights or configuration")
        noted = header.encoding.get("settings")
        if not isinstance(noted, dict):
            return [*differing, "made with settings that it does not name"]
        names = [*self._settings, *(name for name in noted if name not in self._settings)]
        return differing + [
            f"{name} was {shown(noted.get(name))}, is {shown(self._settings.get(name))}"
            for name in names
            if noted.get(name) != self._settings.get(name)
        ]
