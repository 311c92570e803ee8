"""Encoding and decoding video as it comes: any number of frames at a time, with the result of the whole clip at once.

A stream holds what the model's layers remember, never the model; so one model serves many streams and threads, and a
copy of a stream is a second one that goes on from the same point.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import torch
from torch import Tensor

from vidtok.models.bottleneck import RegLog
from vidtok.models.padding import (
    Size,
    check_latent,
    check_video,
    crop,
    pad_frame_size,
    pad_frames,
    padded_frames,
)
from vidtok.models.state import StreamState
from vidtok.models.vidtok.autoencoder import VideoAutoencoder
from vidtok.runtime.tiles import Coder, TiledCoder, Tiling

NOT_A_STREAM = "a non-causal model sees whole clips only and cannot stream; encode it clip by clip"

S = TypeVar("S", bound="_Stream")


class _Stream:
    """What both directions share: a model, a state, and an end after which nothing more may come."""

    def __init__(self, model: VideoAutoencoder, coder: Coder, *, encodes: bool, tiling: Tiling | None) -> None:
        if not model.is_causal:
            raise ValueError(NOT_A_STREAM)
        self.model = model
        self._coder = coder
        self._state = StreamState()
        if tiling is not None:
            tiled = TiledCoder(coder, tiling, model.config.spatial_factor, encodes=encodes)
            self._coder, self._state = tiled, tiled.new_state()
        self._closed = False

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._state = StreamState()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("this stream has ended; open a new one for another video")

    def _copied(self: S) -> S:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._state = self._state.copy()
        return twin

    def copy(self: S) -> S:
        """A second stream that goes on from here, independently of this one; the model is shared."""
        return self._copied()

    def __copy__(self: S) -> S:
        return self.copy()

    def __deepcopy__(self: S, memo: dict[int, object]) -> S:
        return self.copy()


class EncodeStream(_Stream):
    """Encodes a video frame by frame, or in chunks of any length; see `Tokenizer.encode_stream`."""

    def __init__(
        self,
        model: VideoAutoencoder,
        *,
        sample: bool | None = None,
        generator: torch.Generator | None = None,
        moments_only: bool = False,
        tiling: Tiling | None = None,
        midway: bool = False,
    ) -> None:
        """`midway`: the stream starts with a group of f frames inside of a video, and what comes before is unknown; so
        the first latent frames differ from the video's, `unsettled_latents` of them at most."""
        super().__init__(model, model.encoder, encodes=True, tiling=tiling)
        self._state.started = midway
        self._moments_only = moments_only
        self._sample = sample
        self._generator = generator
        self._pending: Tensor | None = None
        self._shape: torch.Size | None = None
        self.log: RegLog = {}
        """The bottleneck's log of the latent frames returned last, as `encode(…, return_reg_log=True)` gives it."""

    def copy(self) -> EncodeStream:
        twin = self._copied()
        if self._generator is not None:
            twin._generator = torch.Generator(self._generator.device)
            twin._generator.set_state(self._generator.get_state())
        return twin

    @torch.no_grad()
    def push(self, frames: Tensor) -> Tensor:
        """Take the next `frames`, (B, 3, T, H, W) in -1..1, T >= 1; return the latent frames that are complete.

        Returns (B, z, T', H', W'), T' >= 0: the first video frame makes a latent frame, then every f frames do.
        Raises `ValueError` if the frames are not like those before, or the stream has ended.
        """
        self._check_open()
        check_video(frames, self.model.config)
        before, now = self._shape, frames.shape
        if before is not None and (*before[:2], *before[3:]) != (*now[:2], *now[3:]):
            raise ValueError(f"frames of shape {tuple(now)} came after {tuple(before)}; only T may differ")
        self._shape = now
        frames = frames.to(self.model.device, self.model.dtype)
        held = frames if self._pending is None else torch.cat([self._pending, frames], 2)
        lead = 0 if self._state.started else 1
        factor = self.model.config.temporal_factor
        ready = lead + (held.shape[2] - lead) // factor * factor
        self._pending = held[:, :, ready:].clone()
        return self._encode(held[:, :, :ready])

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the stream: the latent frame of an incomplete last group, its last frame repeated; T' is 0 or 1."""
        self._check_open()
        if self._pending is None:
            raise ValueError("nothing was pushed into this stream, so there is nothing to end")
        pending = self._pending
        if pending.shape[2]:
            # padded_frames counts the clip's first frame, which is through by now
            pending = pad_frames(pending, padded_frames(1 + pending.shape[2], self.model.config) - 1)
        self._state.end = True
        out = self._encode(pending)
        self._close()
        return out

    def _encode(self, frames: Tensor) -> Tensor:
        config = self.model.config
        if not frames.shape[2]:
            height, width = (-(-size // config.spatial_factor) for size in frames.shape[3:])
            moments = frames.new_empty(frames.shape[0], config.moments_channels, 0, height, width)
        else:
            moments = self._coder(pad_frame_size(frames, config.spatial_factor), self._state)
        if self._moments_only:
            return moments
        z, self.log = self.model.regularization(moments, sample=self._sample, generator=self._generator)
        out: Tensor = z
        return out


class DecodeStream(_Stream):
    """Decodes a latent frame by frame, or in chunks of any length; see `Tokenizer.decode_stream`."""

    def __init__(
        self,
        model: VideoAutoencoder,
        *,
        decode_from_indices: bool = False,
        size: Size | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        super().__init__(model, model.decoder, encodes=False, tiling=tiling)
        self._from_indices = decode_from_indices
        self._size = size
        self._emitted = 0
        self._latent_shape: torch.Size | None = None

    @property
    def delay(self) -> int:
        """Frames of video that are held back until the next latent frame, or the end, is known."""
        return self.model.decoder.delay

    @torch.no_grad()
    def push(self, z: Tensor) -> Tensor:
        """Take the next latent frames, (B, z, T', H', W'), or indices (B, T', H', W'); return the video that is ready.

        Returns (B, 3, T, H, W), about -1..1, T >= 0. Raises `ValueError` if `z` is not like what came before, or the
        stream has ended.
        """
        self._check_open()
        z = self.model.latent(z, decode_from_indices=self._from_indices)
        check_latent(z, self.model.config)
        before, now = self._latent_shape, z.shape
        if before is not None and (*before[:2], *before[3:]) != (*now[:2], *now[3:]):
            raise ValueError(f"a latent of shape {tuple(now)} came after {tuple(before)}; only T' may differ")
        self._latent_shape = now
        return self._decode(z)

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the stream: the frames that were held back, `delay` of them or none."""
        self._check_open()
        if self._latent_shape is None:
            raise ValueError("nothing was pushed into this stream, so there is nothing to end")
        shape = self._latent_shape
        nothing = torch.empty(*shape[:2], 0, *shape[3:], device=self.model.device, dtype=self.model.dtype)
        self._state.end = True
        out = self._decode(nothing)
        self._close()
        return out

    def _decode(self, z: Tensor) -> Tensor:
        if z.shape[2] or self._state.started:
            video = self._coder(z, self._state)
        else:
            raise ValueError("a stream cannot start with no latent frames")
        if self._size is not None:
            frames, height, width = self._size
            video = crop(video, (min(video.shape[2], max(0, frames - self._emitted)), height, width))
        self._emitted += video.shape[2]
        return video


def in_chunks(video: Tensor, frames: int, push: Callable[[Tensor], Tensor], flush: Callable[[], Tensor]) -> Tensor:
    """`video` (B, C, T, H, W) or (B, T, H, W) through a stream, `frames` at a time."""
    axis = 2 if video.dim() == 5 else 1
    return torch.cat([*(push(chunk) for chunk in torch.split(video, frames, axis)), flush()], 2)
