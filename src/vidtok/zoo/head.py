"""The first bytes of checkpoints, which tell their kind before PyTorch is loaded."""

from __future__ import annotations

from pathlib import Path

from vidtok.errors import CheckpointError
from vidtok.text import reason

ZIP = b"PK\x03\x04"
"""The first bytes of what `torch.save` writes."""

# First bytes of files that are mistaken for checkpoints.
_FOREIGN: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, which stands for a file that was not fetched (`git lfs pull`)"),
    (b"<", "a web page, as a download that failed leaves it"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x89PNG", "a PNG picture"),
    (b"\x80", "a pickle or a PyTorch file from before version 1.6; open it where you trust it and save it anew"),
)


def check_kind(path: Path) -> None:
    """Raise `CheckpointError` if the file at `path` is missing, empty, or of a kind that is no checkpoint."""
    head = head_of(path)
    if head[8:9] != b"{" and not head.startswith(ZIP):
        raise CheckpointError(f"{path} is not a checkpoint{kind_of(head)}; expected a .safetensors or .ckpt file")


def head_of(path: Path) -> bytes:
    """The first bytes of the file. Raises `CheckpointError` if it cannot be read or is empty."""
    try:
        if path.is_dir():
            raise CheckpointError(f"{path} is a folder; expected a checkpoint file (.safetensors or .ckpt)")
        with path.open("rb") as file:
            head = file.read(64)
    except FileNotFoundError:
        raise CheckpointError(f"the checkpoint {path} does not exist; expected a .safetensors or .ckpt file") from None
    except OSError as error:
        raise CheckpointError(f"the checkpoint {path} cannot be read: {reason(error)}") from error
    if not head:
        raise CheckpointError(f"the checkpoint {path} is empty; fetch it again")
    return head


def kind_of(head: bytes) -> str:
    """The likely kind of a file that begins with `head`, as the middle of a sentence."""
    found = next((kind for start, kind in _FOREIGN if head.lstrip().startswith(start)), None)
    return f" but seems to be {found}" if found else f" (it begins with {head[:8]!r})"
