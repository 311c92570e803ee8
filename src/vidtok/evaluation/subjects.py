"""The subjects of an evaluation: models, classical codecs and the linear block transform, behind one interface."""

from __future__ import annotations

import contextlib
import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch

from vidtok.evaluation.codecs import Codec, Coding, RateSearch, coded_pairs
from vidtok.evaluation.linear import FITTING_CLIPS, FITTING_SEED, LARGEST_BLOCK, BlockShape, BlockTransform
from vidtok.evaluation.measuring import Tally
from vidtok.evaluation.options import EvaluationOptions, independent_clip
from vidtok.fields import plain
from vidtok.metrics.codebook import CodebookUse
from vidtok.metrics.rate import LATENT_BITS, nominal_bits
from vidtok.models.base import VideoModel
from vidtok.models.decoders.base import own_decoder
from vidtok.runtime.limits import CLIP_FRAMES, check_finite, check_frame_size, frames_at_a_time, memory_advice
from vidtok.runtime.passes import Pair, pairs
from vidtok.tokens.identity import encodes, model_identity, weights_hash
from vidtok.video import Pixels

_HELD_BYTES = 1 << 29
"""A codec's video is held in memory up to this size; a larger one is read anew for each pass."""


@dataclass(frozen=True)
class Frames:
    """The frames of one video, on their way to a subject."""

    name: str
    size: tuple[int, int]
    fps: Fraction
    estimate: int | None
    """Their number by the file's own account; None: not known."""
    chunks: Iterable[Pixels]
    """Pieces (T, H, W, 3) uint8, cut as the subject's `cut` says; for one pass."""
    again: Callable[[], Iterator[Pixels]]
    """The same pieces once more, for any number of passes."""


class Subject(ABC):
    """Something that turns video into fewer bits and back."""

    kind: str
    """`model`, `codec` or `transform`."""
    name: str
    """The name in tables and files, unique among all that are compared."""
    stored: bool
    """True if its bits are counted in real streams; False if they follow from the number of tokens or values."""
    show: bool = True
    """Keep frames to look at."""

    @property
    def device(self) -> torch.device:
        """The device that it computes on."""
        return torch.device("cpu")

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Its description, as JSON holds it; subjects of equal identity have equal figures."""

    def key(self, video: str) -> dict[str, Any]:
        """The part of `identity` that its figures of this video depend on."""
        return self.identity()

    def prepare(self) -> None:  # noqa: B027  # most have nothing to prepare
        """Get ready; called once before the first video, if there is one to measure."""

    @abstractmethod
    def cut(self, size: tuple[int, int], options: EvaluationOptions) -> tuple[int, bool]:
        """Frames of a piece, for frames of this (height, width), and True if the last piece is to be filled."""

    @abstractmethod
    def pairs(self, frames: Frames, options: EvaluationOptions, tally: Tally) -> Iterator[Pair]:
        """The video piece by piece, each with its reconstruction; `tally` is filled by the end."""


class LatentSubject(Subject):
    """Something with a latent: a tokenizer, of this package or of anyone else."""

    kind = "model"
    stored = False

    @abstractmethod
    def check(self, options: EvaluationOptions) -> None:
        """Raise `VidTokError` if it does not take the frames that `options` give."""

    @abstractmethod
    def block_shape(self) -> BlockShape | None:
        """The linear transform with its block and number of values; None if its blocks are too large."""


class ModelSubject(LatentSubject):
    """A tokenizer of this package.

    Args:
        model: ready to encode and decode.
        name: its name in tables and files; None: the model's own.
        precision: makes the context manager that it computes in, such as `torch.autocast`.
        reseed: draw the noise of sampling anew for each video, so that a video's figures do not depend on the videos
            before it.
        show: keep frames to look at.
    """

    def __init__(
        self, model: VideoModel, name: str | None = None, *,
        precision: Callable[[], contextlib.AbstractContextManager[object]] = contextlib.nullcontext,
        reseed: bool = True,
        show: bool = True,
    ) -> None:  # fmt: skip
        self.model = model
        self.name = name or model.name
        self._precision = precision
        self._reseed = reseed
        self.show = show

    def identity(self) -> dict[str, Any]:
        config = self.model.config
        found = model_identity(self.model)
        return {
            "model": found.name,
            "config_sha256": found.config,
            "weights_sha256": found.weights,
            "dtype": found.weights_dtype,
            "device": self.model.device.type,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
            "causal": config.is_causal,
            "temporal_factor": config.temporal_factor,
            "spatial_factor": config.spatial_factor,
            "values": config.z_channels,
            "codebook_size": self.model.codebook_size,
        } | self._decoder()

    def _decoder(self) -> dict[str, Any]:
        """The decoder in place of the model's own, if it has one."""
        config = own_decoder(self.model)
        if config is None:
            return {}
        weights = {name: value for name, value in self.model.named_weights().items() if not encodes(name, self.model)}
        return {"decoder": plain(config), "decoder_sha256": weights_hash(weights)}

    @property
    def device(self) -> torch.device:
        return self.model.device

    def check(self, options: EvaluationOptions) -> None:
        if options.frame_size is not None:
            check_frame_size(self.model, options.frame_size)

    def cut(self, size: tuple[int, int], options: EvaluationOptions) -> tuple[int, bool]:
        if options.clip_frames is not None:
            length = options.clip_length(self.model.is_causal)
            assert length is not None
            return length, options.fill
        if self.model.is_causal:
            return frames_at_a_time(self.model.config, size, None), False
        return independent_clip(options), False

    def pairs(self, frames: Frames, options: EvaluationOptions, tally: Tally) -> Iterator[Pair]:
        codes = self.model.codebook_size
        use = None if codes is None else CodebookUse(codes)
        if self._reseed:
            torch.manual_seed(seed_of(options.seed, frames.name))
        latent_frames, sample = 0, None if options.sample else False
        at_a_time, _ = self.cut(frames.size, options)
        clips = options.clip_frames is not None
        with self._precision(), memory_advice():
            found = pairs(
                self.model, frames.chunks, at_a_time, clips=clips, sample=sample,
                on_values=None if use is None else use.update,
            )  # fmt: skip
            for pair in found:
                check_finite(pair.reconstruction, self.model)
                latent_frames = pair.latent_frames
                yield pair
        tally.codebook = use
        tally.bits = self._bits(latent_frames, frames.size)

    def _bits(self, latent_frames: int, size: tuple[int, int]) -> float:
        config = self.model.config
        positions = latent_frames * math.prod(-(-side // config.spatial_factor) for side in size)
        return nominal_bits(positions, config.z_channels, self.model.codebook_size)

    def block_shape(self) -> BlockShape | None:
        config = self.model.config
        if BlockShape.numbers_of(config.temporal_factor, config.spatial_factor) > LARGEST_BLOCK:
            return None
        return BlockShape(config.temporal_factor, config.spatial_factor, config.z_channels, config.is_causal)


@dataclass(frozen=True)
class BitTarget:
    """The bits that a codec is to spend on each video."""

    bits_per_pixel: float
    """The rate over all videos."""
    bits: Mapping[str, float] = field(default_factory=dict)
    """The bits that a model spends on each video, by the video's name; empty without a model to match."""
    matches: tuple[str, ...] = ()
    """The models whose bits these are."""


class CodecSubject(Subject):
    """A classical codec at a given rate, matched video by video.

    `searches`, by the video's name, are shared by the targets of one codec, so that trials on a video serve them all.
    """

    kind = "codec"
    stored = True

    def __init__(self, codec: Codec, target: BitTarget, searches: dict[str, RateSearch]) -> None:
        self.codec = codec
        self.target = target
        self.name = f"{codec.name}@{target.bits_per_pixel:.4g}bpp"
        self.show = bool(target.matches)
        self._searches = searches

    def identity(self) -> dict[str, Any]:
        import av

        return {
            "codec": self.codec.name,
            "label": self.codec.label,
            "encoder": self.codec.encoder,
            "pixel_format": self.codec.pixel_format,
            "options": self.codec.options,
            "pyav": av.__version__,
            "target_bits_per_pixel": self.target.bits_per_pixel,
            "matches": list(self.target.matches),
        }

    def key(self, video: str) -> dict[str, Any]:
        of_all = {name: value for name, value in self.identity().items() if name not in ("matches", "label")}
        return {**of_all, "target_bits": self.target.bits.get(video)}

    def cut(self, size: tuple[int, int], options: EvaluationOptions) -> tuple[int, bool]:
        return _baseline_cut(options, first_alone=True)

    def pairs(self, frames: Frames, options: EvaluationOptions, tally: Tally) -> Iterator[Pair]:
        height, width = frames.size
        held = frames.estimate is not None and 3 * frames.estimate * height * width <= _HELD_BYTES
        chunks = list(frames.chunks) if held else None
        interval = options.clip_length(first_alone=True)

        def passed() -> Iterable[Pixels]:
            return frames.again() if chunks is None else chunks

        def bits_at(crf: float) -> int:
            trial = Coding(self.codec, crf, frames.size, frames.fps, key_interval=interval, decode=False)
            for chunk in passed():
                for frame in chunk:
                    trial.push(frame)
            trial.flush()
            return trial.bits

        wanted = self.target.bits.get(frames.name)
        if wanted is None:
            wanted = self.target.bits_per_pixel * height * width * sum(map(len, passed()))
        crf = self._searches.setdefault(frames.name, RateSearch(self.codec)).find(wanted, bits_at)
        final = Coding(self.codec, crf, frames.size, frames.fps, key_interval=interval)
        yield from coded_pairs(final, frames.chunks if chunks is None else chunks)
        tally.bits = final.bits
        tally.details = {"crf": crf}


class TransformSubject(Subject):
    """The linear block transform with the block and number of values of models, fitted on procedural clips."""

    kind = "transform"
    stored = False

    def __init__(self, shape: BlockShape, matches: tuple[str, ...] = ()) -> None:
        self.shape = shape
        self.matches = matches
        self.name = shape.name
        self._fitted: BlockTransform | None = None

    def identity(self) -> dict[str, Any]:
        return {
            "block": [self.shape.frames, self.shape.side, self.shape.side],
            "values": self.shape.components,
            "first_frame_alone": self.shape.first_alone,
            "fitted_on": f"{FITTING_CLIPS} synthetic clips of seed {FITTING_SEED}",
            "matches": list(self.matches),
        }

    def key(self, video: str) -> dict[str, Any]:
        return {name: value for name, value in self.identity().items() if name != "matches"}

    def cut(self, size: tuple[int, int], options: EvaluationOptions) -> tuple[int, bool]:
        return _baseline_cut(options, first_alone=self.shape.first_alone)

    def prepare(self) -> None:
        if self._fitted is None:
            self._fitted = BlockTransform.fit_synthetic(self.shape)

    def pairs(self, frames: Frames, options: EvaluationOptions, tally: Tally) -> Iterator[Pair]:
        self.prepare()
        assert self._fitted is not None
        values = 0
        streams = [frames.chunks] if options.clip_frames is None else ([clip] for clip in frames.chunks)
        for stream in streams:
            length = 0
            for pair in self._fitted.pairs(stream):
                length += len(pair.source)
                yield pair
            values += self.shape.values(length, *frames.size)
        tally.bits = LATENT_BITS * values


def _baseline_cut(options: EvaluationOptions, *, first_alone: bool) -> tuple[int, bool]:
    return options.clip_length(first_alone) or CLIP_FRAMES, options.fill


def seed_of(seed: int, video: str) -> int:
    """The seed of the sampling noise for one video."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{video}".encode()).digest()[:8], "little") >> 1
