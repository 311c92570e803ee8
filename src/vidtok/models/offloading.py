"""Stream states kept elsewhere while other tiles are computed: off the GPU, or in unnamed temporary files."""

from __future__ import annotations

import tempfile
from typing import BinaryIO

import torch
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.models.state import StreamState


class OffloadedState:
    """A stream state that is kept elsewhere and never changed, so that copies of a stream can share it.

    The state of a model on a GPU is kept in the machine's memory, any other in a temporary file. The file disappears
    with the last reference to it, or with the process, however that ends.

    Raises `VidTokError` if the file cannot be written.
    """

    def __init__(self, state: StreamState) -> None:
        self._started = state.started
        self._held: dict[int, Tensor] = {}
        self._layout: dict[int, tuple[torch.Size, torch.dtype]] = {}
        self._file: BinaryIO | None = None
        on_cpu = all(past.device.type == "cpu" for past in state.past.values())
        if not on_cpu:
            self._held = {slot: past.to("cpu") for slot, past in state.past.items()}
            return
        try:
            self._file = tempfile.TemporaryFile(prefix="vidtok-", buffering=0)  # noqa: SIM115
            for slot, past in state.past.items():
                self._layout[slot] = past.shape, past.dtype
                _write(self._file, past)
        except OSError as error:
            raise VidTokError(
                f"the stream states of tiles cannot be kept in {tempfile.gettempdir()}: {error.strerror}; name a "
                "folder with more space in the environment variable TMPDIR, or allow more memory (--max-memory)"
            ) from error

    def load(self, device: torch.device) -> StreamState:
        """A copy of the state on `device`. Raises `OSError` if the file cannot be read."""
        if self._file is None:
            return StreamState({slot: past.to(device) for slot, past in self._held.items()}, self._started)
        self._file.seek(0)
        past = {slot: _read(self._file, *layout) for slot, layout in self._layout.items()}
        return StreamState(past, self._started)


def _write(file: BinaryIO, values: Tensor) -> None:
    content = _bytes_of(values.contiguous())
    while content:
        content = content[file.write(content) :]


def _read(file: BinaryIO, shape: torch.Size, dtype: torch.dtype) -> Tensor:
    values = torch.empty(shape, dtype=dtype)
    content = _bytes_of(values)
    while content:
        count = file.readinto(content)  # type: ignore[attr-defined]
        if not count:
            raise OSError("a temporary file has lost its end")
        content = content[count:]
    return values


def _bytes_of(values: Tensor) -> memoryview:
    return values.flatten().view(torch.uint8).numpy().data
