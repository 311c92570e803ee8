"""Encoding and decoding video as it comes: any number of frames at a time, with the result of the whole clip at once.

A stream holds the memory of the model's layers, never the model; so one model serves many streams and threads, and a
copy of a stream is a second one that goes on from the same point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from vidtok.models.bottleneck import Bottleneck, RegLog
from vidtok.models.config import ModelConfig
from vidtok.models.padding import Size, check_video, crop, pad_frame_size, pad_frames, padded_frames
from vidtok.models.state import Coder, StreamState
from vidtok.models.tiles import TiledCoder, Tiling

NOT_A_STREAM = "a non-causal model sees whole clips only and cannot stream; encode it clip by clip"

S = TypeVar("S", bound="_Stream")


class StreamingModel(Protocol):
    """The part of a causal model that its streams use; every `vidtok.models.base.VideoModel` has it."""

    @property
    def config(self) -> ModelConfig: ...
    @property
    def encoder(self) -> Coder: ...
    @property
    def decoder(self) -> Coder: ...
    @property
    def regularization(self) -> Bottleneck: ...
    @property
    def tiling(self) -> Tiling | None: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def dtype(self) -> torch.dtype: ...
    @property
    def delay(self) -> int: ...
    def latent(self, z: Tensor, *, decode_from_indices: bool = False) -> Tensor: ...


class _Stream:
    """A stream in either direction: a model, a state, the input that waits, and an end after which no input may come.

    With `at_a_time`, the input is computed in groups of that many frames, the first group one frame longer, however it
    is pushed. A video that ends within its first group is computed in one piece, like a whole clip.

    An error inside the model ends the stream, as some of its layers have then moved on and others have not. A copy made
    before the error (`copy`) can go on, with the same result.
    """

    def __init__(self, model: StreamingModel, coder: Coder, *, encodes: bool, at_a_time: int | None) -> None:
        if not model.config.is_causal:
            raise ValueError(NOT_A_STREAM)
        self.model = model
        self._coder = coder
        self._state = StreamState()
        if model.tiling is not None:
            tiled = TiledCoder(coder, model.tiling, model.config.spatial_factor, encodes=encodes)
            self._coder, self._state = tiled, tiled.new_state()
        self._at_a_time = at_a_time
        self._held: Tensor | None = None
        self._emitted = 0
        self._closed = False
        self._broken = False

    def __enter__(self: S) -> S:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        self._closed = True
        self._state = StreamState()
        self._held = None

    def _take(self, x: Tensor, what: str, time: str) -> None:
        """Put `x` (B, C, T, H, W) behind the input that waits. Raises `ValueError` if the shapes do not match."""
        before = None if self._held is None else self._held.shape
        if before is not None and (*before[:2], *before[3:]) != (*x.shape[:2], *x.shape[3:]):
            raise ValueError(f"{what} of shape {tuple(x.shape)} came after {tuple(before)}; only {time} may differ")
        self._held = x if self._held is None else torch.cat([self._held, x], 2)

    def _next(self, unit: int, *, more: bool = False) -> Tensor | None:
        """The next input to compute: whole units of frames, the first after one single frame; None if too few wait.

        `more` says that further input will follow.
        """
        assert self._held is not None
        lead, held = (0 if self._state.started else 1), self._held.shape[2]
        if self._at_a_time is None:
            count = lead + (held - lead) // unit * unit
        else:
            # The first group waits for a frame after it: without one, it is computed as a whole clip.
            count = lead + self._at_a_time
            count = 0 if held < count or (lead and held == count and not more) else count
        if count <= 0:
            return None
        ready, self._held = self._held[:, :, :count], self._held[:, :, count:].clone()
        return ready

    @contextmanager
    def _closed_on_error(self) -> Iterator[None]:
        """Close the stream if the block raises: some layers have moved on and others have not.

        A stream that could go back would have to hold the state of its layers twice.
        """
        try:
            yield
        except BaseException:
            self._close()
            self._broken = True
            raise

    def _check_open(self) -> None:
        if self._broken:
            raise ValueError(
                "this stream broke off in an error and cannot go on; open a new one, or go on with a copy "
                "(stream.copy()) made before the push that failed"
            )
        if self._closed:
            raise ValueError("this stream has ended; open a new one for another video")

    def _begin_end(self) -> Tensor:
        """The input that still waits, for the end of the stream. Raises `ValueError` if nothing was pushed."""
        self._check_open()
        if self._held is None:
            raise ValueError("nothing was pushed into this stream, so there is nothing to end")
        return self._held

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
    """Encodes a video frame by frame, or in chunks of any length; see `VideoModel.encode_stream`."""

    def __init__(
        self,
        model: StreamingModel,
        *,
        sample: bool | None = None,
        generator: torch.Generator | None = None,
        at_a_time: int | None = None,
        moments_only: bool = False,
        midway: bool = False,
    ) -> None:
        """Open a stream. Raises `ValueError` for a non-causal model.

        Args:
            model: the model that encodes.
            sample, generator: as for `VideoModel.encode`.
            at_a_time: frames to compute at a time, a multiple of f; None: as they are pushed.
            moments_only: return moments, and leave out the bottleneck.
            midway: start inside a video, with a group of f frames. As the frames before are unknown, the first latent
                frames differ from the video's, `model.encoder_look_back` of them at most.
        """
        super().__init__(model, model.encoder, encodes=True, at_a_time=at_a_time)
        self._state.started = midway
        self._moments_only = moments_only
        self._sample = sample
        self._generator = generator
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
        self._take(frames.to(self.model.device, self.model.dtype), "frames", "T")
        found: list[tuple[Tensor, RegLog]] = []
        with self._closed_on_error():
            while (ready := self._next(self.model.config.temporal_factor)) is not None:
                found.append(self._encode(ready))
            return self._joined(found or [self._encode(frames[:, :, :0])])

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the stream; return the latent frames of an incomplete last group, its last frame repeated. T' may be 0.

        Raises `ValueError` if nothing was pushed, or the stream has ended.
        """
        held = self._begin_end()
        if held.shape[2]:
            # A stream's first frame is a latent frame by itself; once it is through, whole groups follow.
            through = int(self._state.started)
            held = pad_frames(held, padded_frames(through + held.shape[2], self.model.config) - through)
        with self._closed_on_error():
            self._state.end = True
            out = self._joined([self._encode(held)])
        self._close()
        return out

    def _encode(self, frames: Tensor) -> tuple[Tensor, RegLog]:
        config = self.model.config
        if not frames.shape[2]:
            height, width = (-(-size // config.spatial_factor) for size in frames.shape[3:])
            channels = config.bottleneck.moments_channels(config.z_channels)
            moments = self._empty(frames.shape[0], channels, height, width)
        else:
            moments = self._coder(pad_frame_size(frames, config.spatial_factor), self._state)
        if self._moments_only:
            return moments, {}
        z, log = self.model.regularization(moments, sample=self._sample, generator=self._generator)
        return z, log

    def _empty(self, batch: int, channels: int, height: int, width: int) -> Tensor:
        return torch.empty(batch, channels, 0, height, width, device=self.model.device, dtype=self.model.dtype)

    def _joined(self, found: list[tuple[Tensor, RegLog]]) -> Tensor:
        """The latent of several groups, whose logs become one: tokens one after another, losses added."""
        self.log = {}
        for name, value in found[0][1].items():
            values = [log[name] for _, log in found]
            self.log[name] = torch.cat(values, 1) if value.dim() else torch.stack(values).sum(0)
        return found[0][0] if len(found) == 1 else torch.cat([z for z, _ in found], 2)


class DecodeStream(_Stream):
    """Decodes a latent frame by frame, or in chunks of any length; see `VideoModel.decode_stream`."""

    def __init__(
        self,
        model: StreamingModel,
        *,
        decode_from_indices: bool = False,
        size: Size | None = None,
        at_a_time: int | None = None,
    ) -> None:
        """Open a stream. Raises `ValueError` for a non-causal model.

        Args:
            model: the model that decodes.
            decode_from_indices: `push` takes token indices instead of latents.
            size: (frames, height, width) to crop the video to; None: all that is decoded.
            at_a_time: latent frames to compute at a time; None: as they are pushed.
        """
        super().__init__(model, model.decoder, encodes=False, at_a_time=at_a_time)
        self._from_indices = decode_from_indices
        self._size = size

    @property
    def delay(self) -> int:
        """Number of frames of video that are held back until the next latent frame, or the end, is known."""
        return self.model.delay

    @torch.no_grad()
    def push(self, z: Tensor, *, more: bool = False) -> Tensor:
        """Take the next latent frames, (B, z, T', H', W'), or indices (B, T', H', W'); return the video that is ready.

        Returns (B, 3, T, H, W), about -1..1, T >= 0. `more` says that further latent frames will follow, so that a
        first group need not wait for them. Raises `ValueError` if `z` is not like the latent frames before it, or the
        stream has ended.
        """
        self._check_open()
        z = self.model.latent(z, decode_from_indices=self._from_indices)
        if not z.shape[2] and self._held is None:
            raise ValueError("a stream cannot start with no latent frames; push at least one first")
        self._take(z, "a latent", "T'")
        found = []
        with self._closed_on_error():
            while (ready := self._next(1, more=more)) is not None:
                found.append(self._decode(ready))
            return torch.cat(found, 2) if found else self._nothing(z)

    @torch.no_grad()
    def drain(self) -> Tensor:
        """Decode the latent frames that wait for their group, and return their video as `push` does.

        The stream can go on, and `delay` frames stay held back.
        """
        held = self._begin_end()
        if not held.shape[2]:
            return self._nothing(held)
        with self._closed_on_error():
            self._held = held[:, :, :0]
            return self._decode(held)

    @torch.no_grad()
    def flush(self) -> Tensor:
        """End the stream; return the video of latent frames that wait, and the frames held back. T may be 0.

        Raises `ValueError` if nothing was pushed, or the stream has ended.
        """
        held = self._begin_end()
        with self._closed_on_error():
            self._state.end = True
            out = self._decode(held)
        self._close()
        return out

    def _decode(self, z: Tensor) -> Tensor:
        video = self._coder(z, self._state)
        if self._size is not None:
            frames, height, width = self._size
            video = crop(video, (min(video.shape[2], max(0, frames - self._emitted)), height, width))
        self._emitted += video.shape[2]
        return video

    def _nothing(self, z: Tensor) -> Tensor:
        """A video of no frames."""
        factor = self.model.config.spatial_factor
        height, width = (z.shape[3] * factor, z.shape[4] * factor) if self._size is None else self._size[1:]
        return z.new_empty(z.shape[0], self.model.config.in_channels, 0, height, width)


def in_chunks(video: Tensor, frames: int, push: Callable[[Tensor], Tensor], flush: Callable[[], Tensor]) -> Tensor:
    """The output of a stream for `video` (B, C, T, H, W) or (B, T, H, W), pushed `frames` at a time and flushed."""
    axis = 2 if video.dim() == 5 else 1
    return torch.cat([*(push(chunk) for chunk in torch.split(video, frames, axis)), flush()], 2)
