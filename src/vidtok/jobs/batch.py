"""The same work on many files: those of a folder or list, to a mirrored tree; a file that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from vidtok.errors import VideoError, VidTokError
from vidtok.files import make_folder
from vidtok.text import unforeseen
from vidtok.video.library import OUTPUT_SUFFIXES, PICTURE_SUFFIXES, Inputs

Result = TypeVar("Result")


@dataclass(frozen=True)
class Step:
    """One file that is about to be worked on."""

    number: int
    """Its number, from 1 on."""
    of: int
    input: Path
    output: Path


@dataclass
class BatchResult(Generic[Result]):
    """Results of all files."""

    done: list[Result] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    """Inputs whose output was there already."""
    failed: list[tuple[Path, VidTokError]] = field(default_factory=list)
    """Inputs with which the work failed, and why."""


def run_batch(
    inputs: Inputs, output: Path, work: Callable[[Step], Result], *, drop: str = "", skip_existing: bool = False
) -> BatchResult[Result]:
    """Call `work` for each of `inputs`, whose output's folder is made before, and return the results of all.

    Args:
        inputs: the files, as `find_inputs` finds them.
        output: the folder that mirrors the inputs' root; `video_name` names the files in it.
        work: does the work of a step, and returns its result.
        drop: a suffix of the inputs that their outputs have not.
        skip_existing: leave out inputs whose output exists.

    Raises `VideoError` if `output` is a file, or lies in the folder of the inputs, where its files would be inputs the
    next time.
    """
    if output.exists() and not output.is_dir():
        raise VideoError(f"{output} is a file; expected a folder for the results of many inputs")
    if output.resolve().is_relative_to(inputs.root.resolve()) and not drop:
        raise VideoError(f"{output} lies in {inputs.root}, the folder of the inputs; give a folder elsewhere")
    result = BatchResult[Result]()
    for number, path in enumerate(inputs.paths, 1):
        place = inputs.place(output, path)
        place = place.with_name(video_name(place.name.removesuffix(drop) if drop else place.name))
        if skip_existing and place.exists():
            result.skipped.append(path)
            continue
        try:
            make_folder(place.parent, VideoError, "choose another output")
            result.done.append(work(Step(number, len(inputs.paths), path, place)))
        except VidTokError as error:
            result.failed.append((path, error))
        except Exception as error:  # any fault of one file must not stop the others
            result.failed.append((path, VidTokError(unforeseen(error))))
    return result


def video_name(name: str) -> str:
    """The name of a video or picture that can be written in place of `name`: `a.mp4`, `a.avi.mp4`, `a.jpg.png`."""
    lower = name.lower()
    if lower.endswith(OUTPUT_SUFFIXES):
        return name
    return f"{name}{'.png' if lower.endswith(PICTURE_SUFFIXES) else '.mp4'}"
