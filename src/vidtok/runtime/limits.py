"""Chunk sizes, frame sizes and out-of-memory errors of work from file to file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig

Progress = Callable[[int], None]
"""Called with the number of frames done."""

CLIP_FRAMES = 16
"""Frames of a clip, where a non-causal model takes a video clip by clip; what the family was trained on."""
_CHUNK_PIXELS = CLIP_FRAMES * 512 * 512


def frames_at_a_time(config: ModelConfig, size: tuple[int, int], given: int | None) -> int:
    """Frames of `size` (height, width) to compute at a time: `given`, made to fit the model, or a number that suits it.

    Raises `VidTokError` if `given` does not fit the model.
    """
    factor = config.temporal_factor
    if given is not None and given < 1:
        raise VidTokError(f"chunk_frames is {given}; expected at least 1")
    if config.is_causal:
        suits = min(CLIP_FRAMES, _CHUNK_PIXELS // (size[0] * size[1]))
        return max(1, (suits if given is None else given) // factor) * factor
    if given is not None and given % factor:
        raise VidTokError(
            f"chunk_frames is {given}; expected a multiple of {factor}, since a non-causal model takes "
            f"a video in clips of whole groups of {factor} frames"
        )
    return given or -(-CLIP_FRAMES // factor) * factor


def frame_size(
    model: VideoModel, height: int | None, width: int | None, default: int | None = None
) -> tuple[int | None, int | None]:
    """The height and width to read frames at for `model`, where `height` and `width` are asked for.

    With neither, the one size that the model takes; if it takes any, squares of `default`, or None: as stored.
    Raises `VidTokError` if the model takes another size than that asked for.
    """
    if height is None and width is None:
        return model.config.frame_size or (default, default)
    check_frame_size(model, (height or width or 1, width or height or 1))
    return height, width


def check_frame_size(model: VideoModel, size: tuple[int, int]) -> None:
    """Raise `VidTokError` if `model` does not take frames of `size` (height, width) as they are."""
    fixed = model.config.frame_size
    if fixed is not None and size != fixed:
        raise VidTokError(
            f"frames are {size[1]} x {size[0]} pixels; {model.name} takes {fixed[1]} x {fixed[0]} alone: give "
            f"--height {fixed[0]} --width {fixed[1]} (height, width)"
        )


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turns an out-of-memory error, the machine's or the GPU's, into a `VidTokError` with advice."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # PyTorch raises a plain RuntimeError where the CPU's memory is short.
        if not isinstance(error, torch.cuda.OutOfMemoryError | MemoryError) and "allocate memory" not in str(error):
            raise
        raise VidTokError(
            "memory is too small for this; choose smaller frames (--size), tiles (--max-memory), fewer frames at a "
            "time (--chunk-frames), or bfloat16 (--dtype)"
        ) from error


@contextmanager
def computing() -> Iterator[None]:
    """No gradients, and `memory_advice`."""
    with memory_advice(), torch.no_grad():
        yield


def check_finite(values: Tensor, model: VideoModel) -> None:
    """Raise `VidTokError` if `model` has made a value that is not finite, or the index -1 that stands for one."""
    finite = values.isfinite() if values.is_floating_point() else values >= 0
    if not bool(finite.all()):
        dtype = str(model.dtype).removeprefix("torch.")
        raise VidTokError(
            f"{model.name} gives values that are not finite in {dtype}; "
            "use float32 or bfloat16 (--dtype), or check the checkpoint"
        )
