"""Video through a tokenizer and back, piece by piece, each piece with what it was made from.

Memory does not grow with the video's length: pieces are read, encoded, decoded and handed on as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from vidtok.models.bottleneck import RegLog
from vidtok.models.padding import encoded_frames, pad_frame_size
from vidtok.models.state import StreamState
from vidtok.runtime.limits import check_frame_size
from vidtok.video import Pixels, to_float

if TYPE_CHECKING:
    from vidtok.tokenizer import Tokenizer


OnLog = Callable[[RegLog], None]
"""Called with the bottleneck's log of every piece as it is encoded."""


class Pair(NamedTuple):
    """Some frames and their reconstruction."""

    source: Pixels
    """(T, H, W, 3) uint8 RGB, T >= 1."""
    reconstruction: Tensor
    """(1, 3, T, H, W) float32, clamped to -1..1, on the model's device."""
    latent_frames: int
    """How many latent frames were computed for the video so far, those of frames still to come included."""


def stream_pairs(
    model: Tokenizer, chunks: Iterable[Pixels], *, sample: bool | None = False, on_log: OnLog | None = None
) -> Iterator[Pair]:
    """All frames of a video through one stream of a causal model, with the result of the whole video at once.

    Args:
        model: a causal tokenizer; a non-causal one raises `ValueError`.
        chunks: the video, (T, H, W, 3) uint8, in pieces of any length; how it is cut makes no difference.
        sample: KL: draw from the posterior (True), take its mode (False), or as the model says (None).
        on_log: called with the bottleneck's log of what is encoded, before it is decoded.
    """
    encoder, decoder = model.encode_stream(sample=sample), model.decode_stream()
    waiting: list[Pixels] = []
    latent_frames = 0

    def latents() -> Iterator[Tensor]:
        for chunk in chunks:
            waiting.extend(chunk)
            yield encoder.push(to_float(chunk))
        if waiting:
            yield encoder.flush()

    def videos() -> Iterator[Tensor]:
        nonlocal latent_frames
        for z in latents():
            latent_frames += z.shape[2]
            if z.shape[2]:
                if on_log is not None:
                    on_log(encoder.log)
                yield decoder.push(z)
        if waiting:
            yield decoder.flush()

    for video in videos():
        # Beyond the last frame there is only what completes the last group.
        source = waiting[: video.shape[2]]
        del waiting[: len(source)]
        if source:
            yield _pair(np.stack(source), video, latent_frames)


def clip_pairs(
    model: Tokenizer, clips: Iterable[Pixels], *, sample: bool | None = False, on_log: OnLog | None = None
) -> Iterator[Pair]:
    """Every one of `clips`, (T, H, W, 3) uint8, for itself; any model, any T. Otherwise as `stream_pairs`.

    Raises `VidTokError` if the model takes frames of another size alone.
    """
    latent_frames = 0
    for clip in clips:
        check_frame_size(model, (clip.shape[1], clip.shape[2]))
        with torch.no_grad():
            z, log = model.encode(to_float(clip), sample=sample, return_reg_log=True)
            if on_log is not None:
                on_log(log)
            video = model.decode(z)
        latent_frames += encoded_frames(len(clip), model.config)
        yield _pair(clip, video, latent_frames)


def continued_clip_pairs(model: Tokenizer, clips: Iterable[Pixels], *, sample: bool | None = False) -> Iterator[Pair]:
    """Every one of `clips`, but with the last f - 1 reconstructed frames of the clip before in front of it.

    This is `--pad_gen_frames` of the published script: where a clip's first frame would be preceded by copies of itself
    (f is the temporal factor), it is preceded by what the viewer saw last, so that clips join more smoothly.

    `clips` are (T, H, W, 3) uint8 with T = 1 + a multiple of f; `sample` is as for `stream_pairs`. Raises
    `ValueError` for a non-causal model or another T.
    """
    if not model.is_causal:
        raise ValueError("a non-causal model pads no frames in front, so none can be put there; use clip_pairs")
    factor = model.config.temporal_factor
    latent_frames = 0
    before: Tensor | None = None
    for clip in clips:
        if (len(clip) - 1) % factor:
            raise ValueError(f"a clip has {len(clip)} frames; expected 1 + a multiple of {factor}")
        video = to_float(clip).to(model.device, model.dtype)
        with torch.no_grad():
            if before is None or factor == 1:
                z = model.encode(video, sample=sample)
            else:
                moments = _moments_after(model, before, video)
                z, _ = model.regularization(moments, sample=sample)
            pair = _pair(clip, model.decode(z), latent_frames + z.shape[2])
        latent_frames = pair.latent_frames
        before = pair.reconstruction[:, :, -(factor - 1) :].to(model.dtype)
        yield pair


def _moments_after(model: Tokenizer, before: Tensor, video: Tensor) -> Tensor:
    """The moments of `video` where the f - 1 frames `before` stand in front of it, not copies of its first frame."""
    frames = pad_frame_size(torch.cat([before, video], 2), model.config.spatial_factor)
    moments: Tensor = model.encoder(frames, StreamState(started=True, end=True))
    return moments


def _pair(source: Pixels, video: Tensor, latent_frames: int) -> Pair:
    """`source` and as much of the decoded `video` as belongs to it."""
    frames, height, width = source.shape[:3]
    return Pair(source, video[:, :, :frames, :height, :width].float().clamp(-1, 1), latent_frames)
