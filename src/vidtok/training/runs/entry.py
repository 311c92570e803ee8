"""Entry of `main.py` and `vidtok train`. PyTorch and Lightning are imported once the configuration is checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vidtok.errors import TrainingError
from vidtok.training.runs.arguments import parse_arguments
from vidtok.training.runs.problems import check_configuration


@contextmanager
def needing_lightning() -> Iterator[None]:
    """Raise `TrainingError` in place of the error that Lightning is not installed."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "lightning":
            raise
        raise TrainingError(
            "training needs Lightning, which is not installed: `pip install 'vidtok[train]'`, or in a clone "
            "`pip install -c constraints.txt -e '.[train]'`"
        ) from error


def train(argv: Sequence[str] | None = None, *, prog: str = "main.py") -> None:
    """Train as the arguments `argv` say. Raises `VidTokError` and `KeyboardInterrupt` as `run.run` does."""
    arguments = parse_arguments(argv, prog=prog)
    check_configuration(arguments)
    with needing_lightning():
        from vidtok.device import keep_freed_memory
        from vidtok.training.runs.run import run
    keep_freed_memory(training=True)
    try:
        run(arguments)
    except Exception:
        if arguments.debug:
            import pdb
            import sys

            pdb.post_mortem(sys.exc_info()[2])
        raise
