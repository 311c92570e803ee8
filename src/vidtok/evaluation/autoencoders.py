"""Autoencoders that others made, in an evaluation: a protocol of two functions and a description, and its subject.

Any object with `encode`, `decode` and `description` can be measured beside this package's models::

    class Mine:
        description = Description(name="mine", temporal_factor=4, spatial_factor=8, values=16)

        def encode(self, video):             # (1, 3, T, H, W) in -1..1 -> a tensor, or several
            return network.encode(video)

        def decode(self, code):              # what encode gave -> (1, 3, T, H, W), about -1..1
            return network.decode(code)

    evaluate("videos", [lambda: AutoencoderSubject(Mine())], "results")
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from vidtok.errors import VidTokError
from vidtok.evaluation.linear import LARGEST_BLOCK, BlockShape
from vidtok.evaluation.measuring import Tally
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.subjects import Frames, LatentSubject, seed_of
from vidtok.fields import shown
from vidtok.metrics.codebook import CodebookUse
from vidtok.metrics.rate import LATENT_BITS
from vidtok.runtime.limits import memory_advice
from vidtok.runtime.passes import Pair
from vidtok.video import to_float

FRAMES = 64
"""Frames of a clip, with one more for an autoencoder that codes a first frame by itself."""
Sizes = tuple[int, int]
"""(first, step): the sizes first + k step, k >= 0, that an autoencoder takes."""


@dataclass(frozen=True, kw_only=True)
class Description:
    """Facts about an autoencoder, from which clips are cut and padded and a baseline is chosen.

    Raises `VidTokError` for a number that is out of range.
    """

    name: str
    """Its name in tables and files."""
    temporal_factor: int
    """Frames of video per latent frame."""
    spatial_factor: int
    """Pixels per latent position, in height and in width."""
    values: int
    """Values per latent position."""
    codebook_size: int | None = None
    """Codes that a token can be; None: `encode` gives floats, not tokens."""
    frames: Sizes | None = None
    """Numbers of frames that `encode` takes; None: 1 + k x `temporal_factor`."""
    height: Sizes | None = None
    """Heights that `encode` takes; None: multiples of `spatial_factor`."""
    width: Sizes | None = None
    device: str = "cpu"
    """The device that videos are moved to for `encode`."""
    samples: bool = False
    """`encode` takes `sample=True`, to draw from a posterior, or `sample=False`."""
    parameters: int = 0
    """Number of its weights, for the report."""
    dtype: str = "float32"
    """Dtype that it computes in, for the report."""
    identity: Mapping[str, Any] = field(default_factory=dict)
    """Everything else that its figures depend on, such as a hash of its weights, as JSON holds it: figures are kept
    from run to run as long as this is equal."""

    def __post_init__(self) -> None:
        for name in ("temporal_factor", "spatial_factor", "values"):
            if getattr(self, name) < 1:
                raise VidTokError(f"{self.name}: {name} is {getattr(self, name)}; expected at least 1")
        for name in ("frames", "height", "width"):
            sizes = getattr(self, name)
            if sizes is not None and (len(sizes) != 2 or min(sizes) < 1):
                raise VidTokError(f"{self.name}: {name} is {sizes}; expected (first, step), both at least 1")
        if self.codebook_size is not None and self.codebook_size < 2:
            raise VidTokError(f"{self.name}: codebook_size is {self.codebook_size}; expected at least 2")

    @property
    def first_alone(self) -> bool:
        """True if a first frame is coded by itself, so that clips have a frame more than whole groups."""
        return self.frame_counts[0] == 1 and self.temporal_factor > 1

    @property
    def frame_counts(self) -> Sizes:
        return self.frames or (1, self.temporal_factor)

    def padding(self, frames: int, height: int, width: int) -> tuple[int, int, int]:
        """Frames, rows and columns to add to a clip of this size."""
        sides = (self.height or (self.spatial_factor,) * 2, self.width or (self.spatial_factor,) * 2)
        return (
            size_above(frames, self.frame_counts) - frames, size_above(height, sides[0]) - height,
            size_above(width, sides[1]) - width,
        )  # fmt: skip


class Autoencoder(Protocol):
    """Two functions and a description; the functions run without gradients."""

    @property
    def description(self) -> Description: ...

    def encode(self, video: Tensor) -> Any:
        """The code of `video` (1, 3, T, H, W), float32 in -1..1, of a size that the description allows.

        A code is a tensor, or a sequence or mapping of tensors: floats count as 16 bits each, whole numbers as tokens.
        """

    def decode(self, code: Any) -> Tensor:
        """The video (1, 3, T, H, W), about -1..1, at least as large as the one that was encoded."""


class AutoencoderSubject(LatentSubject):
    """An `Autoencoder`, given videos in independent clips, padded with copies of the last frame, row and column.

    Args:
        autoencoder: the object to measure.
        name: its name in tables and files; None: the description's.
        show: keep frames to look at.
    """

    def __init__(self, autoencoder: Autoencoder, name: str | None = None, *, show: bool = True) -> None:
        self.autoencoder = autoencoder
        self.description = autoencoder.description
        self.name = name or self.description.name
        self.show = show

    @property
    def device(self) -> torch.device:
        return torch.device(self.description.device)

    def identity(self) -> dict[str, Any]:
        found = self.description
        return {
            "model": found.name,
            **found.identity,
            "dtype": found.dtype,
            "device": self.device.type,
            "parameters": found.parameters,
            "causal": found.first_alone,
            "temporal_factor": found.temporal_factor,
            "spatial_factor": found.spatial_factor,
            "values": found.values,
            "codebook_size": found.codebook_size,
            "clip_frames": FRAMES + int(found.first_alone),
        }

    def check(self, options: EvaluationOptions) -> None:
        """Any size is padded, so that all are taken."""

    def cut(self, size: tuple[int, int], options: EvaluationOptions) -> tuple[int, bool]:
        first_alone = self.description.first_alone
        return options.clip_length(first_alone) or FRAMES + int(first_alone), options.fill

    def pairs(self, frames: Frames, options: EvaluationOptions, tally: Tally) -> Iterator[Pair]:
        codes = self.description.codebook_size
        use = None if codes is None else CodebookUse(codes)
        torch.manual_seed(seed_of(options.seed, frames.name))
        latent_frames = 0
        for clip in frames.chunks:
            video = to_float(clip)
            with memory_advice(), torch.no_grad():
                code = self._encoded(self._padded(video), sample=options.sample)
                decoded = self.autoencoder.decode(code)
            tensors = list(_tensors(code))
            tally.bits += sum(self._bits(tensor) for tensor in tensors)
            for tensor in tensors:
                if use is not None and not tensor.is_floating_point():
                    use.update(tensor)
            latent_frames += max((tensor.shape[2] for tensor in tensors if tensor.dim() == 5), default=1)
            yield Pair(clip, self._cropped(decoded, video), latent_frames)
        tally.codebook = use

    def _encoded(self, video: Tensor, *, sample: bool) -> Any:
        video = video.to(self.device)
        if self.description.samples:
            return self.autoencoder.encode(video, sample=sample)  # type: ignore[call-arg]  # described by `samples`
        return self.autoencoder.encode(video)

    def _padded(self, video: Tensor) -> Tensor:
        frames, rows, columns = self.description.padding(*video.shape[2:])
        return F.pad(video, (0, columns, 0, rows, 0, frames), mode="replicate")

    def _cropped(self, decoded: Any, video: Tensor) -> Tensor:
        """The part of `decoded` that the frames `video` came back as. Raises `VidTokError` if it is too small."""
        wanted = tuple(video.shape)
        if not isinstance(decoded, Tensor) or decoded.dim() != 5 or decoded.shape[:2] != video.shape[:2]:
            found = tuple(decoded.shape) if isinstance(decoded, Tensor) else f"a {type(decoded).__name__}"
            raise VidTokError(f"{self.name} decodes to {found}; expected a tensor (1, 3, T, H, W) of at least {wanted}")
        if any(has < wants for has, wants in zip(decoded.shape[2:], wanted[2:], strict=True)):
            raise VidTokError(
                f"{self.name} decodes a clip of (frames, height, width) {wanted[2:]} to {tuple(decoded.shape[2:])}; "
                "expected at least as much: check the sizes in its description"
            )
        part = decoded[:, :, : wanted[2], : wanted[3], : wanted[4]].float()
        if not bool(part.isfinite().all()):
            raise VidTokError(
                f"{self.name} gives values that are not finite in {self.description.dtype}; use float32 or bfloat16 "
                "(--dtype), or check its weights"
            )
        return part.clamp(-1, 1)

    def _bits(self, tensor: Tensor) -> float:
        if tensor.is_floating_point():
            return float(LATENT_BITS * tensor.numel())
        if self.description.codebook_size is None:
            raise VidTokError(
                f"{self.name} encodes to {shown(str(tensor.dtype))}, tokens, but its description has no codebook_size"
            )
        return tensor.numel() * math.log2(self.description.codebook_size)

    def block_shape(self) -> BlockShape | None:
        found = self.description
        block = BlockShape.numbers_of(found.temporal_factor, found.spatial_factor)
        if block > LARGEST_BLOCK or found.values > block:
            return None
        return BlockShape(found.temporal_factor, found.spatial_factor, found.values, found.first_alone)


def size_above(size: int, sizes: Sizes) -> int:
    """The smallest of `sizes` that is at least `size`."""
    first, step = sizes
    return first + max(0, -(-(size - first) // step)) * step


def _tensors(code: Any) -> Iterator[Tensor]:
    """All tensors in a code. Raises `VidTokError` for anything else in it."""
    if isinstance(code, Tensor):
        yield code
    elif isinstance(code, Mapping):
        yield from (tensor for value in code.values() for tensor in _tensors(value))
    elif isinstance(code, Sequence) and not isinstance(code, str):
        yield from (tensor for value in code for tensor in _tensors(value))
    else:
        raise VidTokError(f"a code holds a {type(code).__name__}; expected tensors, whose values are counted")
