"""Chunk sizes, frame sizes and out-of-memory errors for file-to-file jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.models.base import VideoModel
from vidtok.models.config import ModelConfig

Progress = Callable[[int], None]
"""Function called with the number of frames done."""

CLIP_FRAMES = 16
"""Frames of a clip where a non-causal model takes a video clip by clip; the family was trained on clips of 16."""
_CHUNK_PIXELS = CLIP_FRAMES * 512 * 512


def frames_at_a_time(config: ModelConfig, size: tuple[int, int], given: int | None) -> int:
    """Number of frames of `size` (height, width) to compute at a time: a multiple of the temporal factor.

    A causal model takes `given` rounded down to a multiple, at least one; by default 16 frames, or fewer if they are
    large. A non-causal one takes `given` as it is; by default 16 frames, rounded up. Raises `VidTokError` if `given` is
    below 1, or is not a multiple for a non-causal model.
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
    """The (height, width) to read frames at for `model`, where the user gives `height` and `width`.

    With neither given, it is the one size that the model takes; if the model takes any, squares of `default`, where
    None means as stored. Raises `VidTokError` if the model does not take the size given.
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
            f"frames are {size[1]} x {size[0]} pixels; {model.name} takes only {fixed[1]} x {fixed[0]}: give "
            f"--height {fixed[0]} --width {fixed[1]} (height, width)"
        )


@contextmanager
def memory_advice() -> Iterator[None]:
    """Turn an out-of-memory error, of the machine or of the GPU, into a `VidTokError` with advice."""
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
    """Turn gradients off, and give `memory_advice`."""
    with memory_advice(), torch.no_grad():
        yield


def check_finite(values: Tensor, model: VideoModel) -> None:
    """Raise `VidTokError` if `values`, made by `model`, are not all finite, or have an index of -1 (FSQ's for NaN)."""
    finite = values.isfinite() if values.is_floating_point() else values >= 0
    if not bool(finite.all()):
        dtype = str(model.dtype).removeprefix("torch.")
        raise VidTokError(
            f"{model.name} gives values that are not finite in {dtype}; "
            "use float32 or bfloat16 (--dtype), or check the checkpoint"
        )
