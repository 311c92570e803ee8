"""Commands on many files: folders and lists as inputs, one line on all of them, and the failures at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtok.errors import VideoError, VidTokError

if TYPE_CHECKING:
    from vidtok.jobs.batch import BatchResult, Step

ManyOutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Output: .mp4, .mov, .mkv; .png for one frame; a folder for many.")
]
SkipExistingOption = Annotated[
    bool, typer.Option("--skip-existing", help="For a folder or list: leave out inputs whose output is there already.")
]


def are_many(input: Path, output: Path, suffixes: tuple[str, ...]) -> bool:
    """True if `input` is a folder or list of inputs: `output` is a folder too, as it ends in none of `suffixes`.

    Raises `VideoError` for a list with an output that is one file.
    """
    from vidtok.video.library import is_list

    one = output.suffix.lower() in suffixes
    if one and is_list(input):
        raise VideoError(f"{input} is a list of inputs, and {output} is one file; give a folder as --output")
    return not one and (input.is_dir() or is_list(input))


def title(step: Step) -> str:
    """The words beside the progress of one of many files."""
    return f"{step.number}/{step.of} {step.input.name}"


def say_result(result: BatchResult[Any], output: Path, done: str, further: str = "") -> None:
    """Print one line on all files, `done` being the verb; raise `VidTokError`, with a line for each, if some failed."""
    count, skipped, failed = len(result.done), len(result.skipped), len(result.failed)
    typer.echo(f"{output}: {count} {done}, {skipped} there already, {failed} failed{further}")
    if failed:
        listed = "\n".join(f"  {path}: {error}" for path, error in result.failed)
        raise VidTokError(f"{failed} of {count + skipped + failed} files could not be {done}:\n{listed}")
