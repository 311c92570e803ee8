"""Passes of a video through a model, in the same way for every model.

A causal model takes a video as a stream, or in one piece if it ends within the first group of frames; a non-causal one
takes independent clips. This is decided only here. A pass takes pieces of any length (`push`) and ends with `flush`.
Groups are cut by the number of frames, so the result does not depend on the pieces, and memory does not grow with the
video's length. Videos are padded at their end, also by a model with `padding` "front", as their length is not known
before.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from vidtok.models.base import VideoModel
from vidtok.models.padding import encoded_frames, pad_frame_size
from vidtok.models.state import StreamState
from vidtok.models.streams import DecodeStream, EncodeStream
from vidtok.runtime.limits import check_frame_size
from vidtok.video import Pixels, to_float

T = TypeVar("T")

OnValues = Callable[[Tensor], None]
"""Function called with the tokens, or the latent as one tensor, of every piece as it is encoded."""


def first_group(model: VideoModel, at_a_time: int) -> int:
    """Number of frames in the first group of a pass; later groups have `at_a_time`.

    Pieces of these lengths are computed as they come.
    """
    return at_a_time + 1 if model.is_causal else at_a_time


def in_groups(items: Iterable[T], first: int, count: int) -> Iterator[list[T]]:
    """`items`, such as the frames of a video, in lists: `first` of them, then `count` at a time."""
    rest = iter(items)
    while group := list(islice(rest, first)):
        yield group
        first = count


class EncodePass:
    """One video through a model's encoder.

    Args:
        model: the model that encodes.
        at_a_time: frames to compute at a time, or of a clip; a multiple of the temporal factor, or with `clips` any
            number.
        clips: take independent clips with a causal model too.
        sample: KL: draw from the posterior (True), take its mode (False), or as the model is configured (None).
        known: number of latent frames at the start that are known already: they are not returned, and computed only if
            later ones depend on them. The later ones are the same to the last bit as without `known`.
    """

    def __init__(
        self, model: VideoModel, at_a_time: int, *, clips: bool = False, sample: bool | None = False, known: int = 0
    ) -> None:
        self._model = model = model.with_padding("end")
        self._at_a_time = at_a_time
        self._sample = sample
        self._known = known
        self._stream: EncodeStream | None = None
        self._clip: list[Tensor] = []
        self._skip, self.latent_frames = 0, 0
        """Number of frames still to skip, and of latent frames complete so far, including the known ones."""
        if model.is_causal and not clips:
            each = at_a_time // model.temporal_factor
            look_back = model.encoder_look_back
            groups = 0 if look_back is None else max(0, (known - 1 - look_back) // each)
            if groups:
                self._skip, self.latent_frames = 1 + groups * at_a_time, 1 + groups * each
            self._stream = EncodeStream(model, sample=sample, at_a_time=at_a_time, midway=groups > 0)

    def push(self, video: Tensor) -> Tensor:
        """Take the next frames (1, 3, T, H, W) in -1..1; return the tokens or latent frames that are complete.

        Returns (1, T', H', W') or (1, z, T', H', W'), T' >= 0; the video's last ones may come only with `flush`.
        Raises `VidTokError` if the model does not take frames of this size.
        """
        passed = min(self._skip, video.shape[2])
        self._skip -= passed
        video = video[:, :, passed:]
        if not video.shape[2]:
            return self._nothing(video)
        if self._stream is not None:
            return self._new(self._streamed(self._stream.push(video)))
        self._clip.append(video)
        found = [self._encoded(clip) for clip in _whole_clips(self._clip, self._at_a_time)]
        found = [values for values in found if values.shape[-3]]
        return torch.cat(found, -3) if found else self._nothing(video)

    def flush(self) -> Tensor:
        """End the video; return the rest as `push` does."""
        if self._stream is not None:
            return self._new(self._streamed(self._stream.flush()))
        if not self._clip:
            return torch.empty(1, 0, 1, 1)
        return self._encoded(torch.cat(self._clip, 2))

    def _streamed(self, z: Tensor) -> Tensor:
        assert self._stream is not None
        return self._stream.log["indices"] if self._model.regularization.discrete else z

    def _encoded(self, clip: Tensor) -> Tensor:
        """The new latent frames of an independent clip; a clip that is all known is not computed."""
        latents = encoded_frames(clip.shape[2], self._model.config)
        if self.latent_frames + latents <= self._known:
            self.latent_frames += latents
            return self._nothing(clip)
        check_frame_size(self._model, (clip.shape[3], clip.shape[4]))
        with torch.no_grad():
            return self._new(self._model.encode_packed(clip, sample=self._sample))

    def _new(self, values: Tensor) -> Tensor:
        """`values` without the latent frames that are known."""
        before = self.latent_frames
        self.latent_frames += values.shape[-3]
        return values[..., max(0, self._known - before) :, :, :]

    def _nothing(self, like: Tensor) -> Tensor:
        return like.new_empty(1, 0, 1, 1)


class DecodePass:
    """One latent through a model's decoder: tokens or latent frames as `EncodePass` returns them.

    Args:
        model: the model that decodes.
        at_a_time: frames to compute at a time, or of a clip, as for the pass that encoded.
        clips: take independent clips with a causal model too.
    """

    def __init__(self, model: VideoModel, at_a_time: int, *, clips: bool = False) -> None:
        self._model = model = model.with_padding("end")
        self._frames = at_a_time
        self._stream: DecodeStream | None = None
        self._clip: list[Tensor] = []
        if model.is_causal and not clips:
            size = max(1, at_a_time // model.temporal_factor)
            self._stream = DecodeStream(model, decode_from_indices=model.regularization.discrete, at_a_time=size)
        self._latents = encoded_frames(at_a_time, model.config)

    def push(self, values: Tensor, *, more: bool = False) -> Tensor:
        """Take the next tokens (1, T', H', W') or latent frames (1, z, T', H', W'); return the video that is ready.

        Returns (1, 3, T, H, W), about -1..1, T >= 0, in the size of whole latent positions. `more` says that
        further tokens or latent frames will follow.
        """
        if not values.shape[-3]:
            return torch.empty(1, 3, 0, 1, 1)
        if self._stream is not None:
            return self._stream.push(values, more=more)
        self._clip.append(values)
        found = [self._decoded(clip) for clip in _whole_clips(self._clip, self._latents)]
        return torch.cat(found, 2) if found else torch.empty(1, 3, 0, 1, 1)

    def flush(self) -> Tensor:
        """End the latent; return the rest as `push` does."""
        if self._stream is not None:
            return self._stream.flush()
        return self._decoded(torch.cat(self._clip, -3)) if self._clip else torch.empty(1, 3, 0, 1, 1)

    def drain(self) -> Tensor:
        """Return the rest that is ready; for a latent that does not end here, but of which no more is wanted."""
        return self.flush() if self._stream is None else self._stream.drain()

    def _decoded(self, clip: Tensor) -> Tensor:
        with torch.no_grad():
            # A clip that did not fill its latent frames was padded.
            return self._model.decode_packed(clip)[:, :, : self._frames]


def _whole_clips(held: list[Tensor], count: int) -> Iterator[Tensor]:
    """Clips of `count` frames or latent frames, cut off the pieces (..., T, H, W) in `held`, where the rest stays."""
    while sum(piece.shape[-3] for piece in held) >= count:
        whole = torch.cat(held, -3)
        held[:] = [whole[..., count:, :, :]] if whole.shape[-3] > count else []
        yield whole[..., :count, :, :]


class LatentRange(NamedTuple):
    """The latent frames from which some frames of a video are decoded."""

    first: int
    """Number of the first latent frame."""
    last: int
    """Number after the last latent frame's."""
    at: int
    """Number of the first frame of video that decoding from `first` on gives."""


def latents_of(model: VideoModel, start: int, stop: int, total: int, clip: int) -> LatentRange:
    """The latent frames, of a video of `total`, from which the frames `start` to before `stop` are decoded.

    A causal model starts as many latent frames before as its layers look back, and goes on as far as it looks ahead; a
    non-causal one takes the whole clips, of `clip` latent frames, that these frames lie in.
    """
    factor = model.temporal_factor
    if model.is_causal:
        first = model.start_latent(start)
        last = 1 + math.ceil((stop - 1 + model.delay) / factor)
    else:
        first = start // factor // clip * clip
        last = math.ceil(math.ceil(stop / factor) / clip) * clip
    return LatentRange(first, min(total, last), first * factor)


class Pair(NamedTuple):
    """Some frames and their reconstruction."""

    source: Pixels
    """(T, H, W, 3) uint8 RGB, T >= 1."""
    reconstruction: Tensor
    """(1, 3, T, H, W) float32, clamped to -1..1, on the model's device."""
    latent_frames: int
    """Number of latent frames computed for the video so far, some of them for frames still to come."""


def pairs(
    model: VideoModel,
    chunks: Iterable[Pixels],
    at_a_time: int,
    *,
    clips: bool = False,
    sample: bool | None = False,
    on_values: OnValues | None = None,
) -> Iterator[Pair]:
    """All frames of a video with their reconstruction, encoded and decoded as they come.

    Args:
        chunks: the video, (T, H, W, 3) uint8, in pieces of any length.
        on_values: called with the encoded values before they are decoded.
        model, at_a_time, clips, sample: as for `EncodePass`.

    Raises:
        VidTokError: the model does not take frames of this size.
    """
    encoder = EncodePass(model, at_a_time, clips=clips, sample=sample)
    decoder = DecodePass(model, at_a_time, clips=clips)
    waiting: deque[Pixels] = deque()

    def decoded(values: Tensor, decode: Callable[[Tensor], Tensor]) -> Iterator[Pair]:
        if values.shape[-3] and on_values is not None:
            on_values(values)
        video = decode(values)
        # Frames beyond the video's last one only fill the last group.
        frames = [waiting.popleft() for _ in range(min(len(waiting), video.shape[2]))]
        if frames:
            yield _pair(np.stack(frames), video, encoder.latent_frames)

    for chunk in chunks:
        waiting.extend(chunk)
        # Before the end, more values will follow.
        yield from decoded(encoder.push(to_float(chunk)), partial(decoder.push, more=True))
    if waiting or encoder.latent_frames:
        yield from decoded(encoder.flush(), decoder.push)
        yield from decoded(torch.empty(1, 0, 1, 1), lambda _: decoder.flush())


def continued_clip_pairs(model: VideoModel, clips: Iterable[Pixels], *, sample: bool | None = False) -> Iterator[Pair]:
    """Pairs for `clips`, each encoded with the last f - 1 reconstructed frames of the clip before in front of it.

    This is `--pad_gen_frames` of the published script: where a clip's first frame would be preceded by copies of itself
    (f is the temporal factor), the last frames that the viewer saw precede it, so that clips join more smoothly.

    `clips` are (T, H, W, 3) uint8 with T = 1 + a multiple of f; `sample` is as for `EncodePass`. Raises `ValueError`
    for a non-causal model or another T.
    """
    if not model.is_causal:
        raise ValueError("a non-causal model pads no frames in front, so none can be put there; take independent clips")
    model, factor = model.with_padding("end"), model.temporal_factor
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


def _moments_after(model: VideoModel, before: Tensor, video: Tensor) -> Tensor:
    """The moments of `video` with the f - 1 frames `before` in front of it, in place of copies of its first frame."""
    frames = pad_frame_size(torch.cat([before, video], 2), model.spatial_factor)
    moments: Tensor = model.encoder(frames, StreamState(started=True, end=True))
    return moments


def _pair(source: Pixels, video: Tensor, latent_frames: int) -> Pair:
    """`source`, and the decoded `video` cropped to its size."""
    frames, height, width = source.shape[:3]
    return Pair(source, video[:, :, :frames, :height, :width].float().clamp(-1, 1), latent_frames)
