"""The header of a token file, which describes its contents: validated values, and JSON (docs/token-file.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from math import prod
from typing import Annotated, Any

from vidtok.errors import TokenFileError
from vidtok.fields import Check, Within, build, fit, plain, require
from vidtok.models.config import LatentPart

TOKEN_CODINGS = ("packed", "static", "adaptive")
LATENT_CODINGS = ("float16", "bfloat16", "float32", "int8")
DEFAULT_CHUNK = 16
"""Latent frames in a chunk of a causal model."""

MAX_HEADER_BYTES = 1 << 20
MAX_HEADER_DEPTH = 32
"""Levels of nested mappings and lists in `encoding` at most."""
MAX_CHUNK_VALUES = 1 << 23
"""Tokens, or values of a latent, in a chunk at most, to bound the memory and time of reading it."""
MAX_ADAPTIVE_ROWS = 1 << 12
"""Rows of tokens in a chunk with adaptive coding at most, since each row is a step of its own."""
MAX_GRID = 4096
"""Latent rows and columns at most."""
MAX_CHANNELS = 1024
MAX_STREAMS = 16
MAX_STREAM_VALUES = 1 << 16
"""Values of a latent position with several parts at most."""
MAX_CHUNK = 4096
MAX_CHUNK_FRAMES = 1 << 16
"""Video frames that a chunk stands for, at most."""
MAX_SECONDS = 1e12
"""Largest time, and largest negative time, in seconds."""
MAX_FACTOR = 1024
MAX_FRAMES = 1 << 40
_MAX_PIXELS = MAX_GRID * MAX_FACTOR
_MAX_TEXT = 4096
_MAX_AXES = 4
_MAX_RATE = 1_000_000_000
_PLACE = "the header's "

_Text = Annotated[str, Check(f"text of at most {_MAX_TEXT} characters",
                             lambda text: len(text) <= _MAX_TEXT and text.isprintable())]  # fmt: skip
_Whole = Annotated[int, Within(-(2**63), 2**63 - 1, expected="a whole number")]
_Wholes = Annotated[tuple[_Whole, ...], Check("a list of whole numbers", lambda items: len(items) <= MAX_CHANNELS)]
_Pair = Annotated[tuple[_Whole, _Whole], Check("two whole numbers")]
_Streams = Annotated[tuple[LatentPart, ...], Check(f"a list of at most {MAX_STREAMS} mappings",
                                                     lambda streams: len(streams) <= MAX_STREAMS)]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Identity of the model that made a file; `vidtok.tokens.identity` defines the hashes."""

    name: _Text
    config: _Text
    """Hash of the model's configuration, 64 hexadecimal digits."""
    weights: _Text
    """Hash of the weights in `weights_dtype`, 64 hexadecimal digits."""
    weights_dtype: _Text
    """The dtype of the weights in memory, such as "float32"."""
    signs: _Text
    """Hash of the weights' signs, which no change of dtype alters, 64 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class LatentLayout:
    """Shape of the latent of a whole video, its chunks and its coding."""

    coding: _Text
    """One of `TOKEN_CODINGS` or `LATENT_CODINGS`."""
    channels: _Whole
    """z: values of a latent position."""
    height: _Whole
    """H', rows of a latent frame."""
    width: _Whole
    """W', columns of a latent frame."""
    temporal_factor: _Whole
    """f: video frames per latent frame."""
    spatial_factor: _Whole
    """Pixels per latent position, in height and in width."""
    causal: bool
    """True: the first latent frame stands for one video frame, the others for f. False: all stand for f."""
    chunk: _Whole = DEFAULT_CHUNK
    """Latent frames in every chunk but the last; for a non-causal model, in a clip."""
    levels: _Wholes | None = None
    """For tokens, the number of values of each channel; their product is the codebook's size."""
    lead: _Whole | None = None
    """Video frames of the first latent frame, 1 to f, if the clip was padded in front; None: padded at its end."""
    streams: _Streams = ()
    """The parts that the channels of a latent position make up, in order; empty: they are one part."""

    @property
    def scaled(self) -> tuple[tuple[int, int], ...]:
        """For each part: its number of channels, which have one int8 scale each, and of values per channel."""
        return tuple((s.channels, prod(s.positions)) for s in self.streams) or ((self.channels, 1),)

    @property
    def discrete(self) -> bool:
        """True if the file holds tokens."""
        return self.coding in TOKEN_CODINGS

    @property
    def codebook_size(self) -> int | None:
        """Codes that a token can be; None for a continuous latent."""
        return None if self.levels is None else prod(self.levels)

    @property
    def values_per_frame(self) -> int:
        """Number of tokens, or of values of a latent, in a latent frame."""
        return self.height * self.width * (1 if self.discrete else self.channels)

    @property
    def largest_chunk(self) -> int:
        """Latent frames in a chunk at most, so that reading it takes bounded memory and time."""
        rows = MAX_ADAPTIVE_ROWS if self.coding == "adaptive" else MAX_CHUNK * MAX_GRID
        frames = MAX_CHUNK_FRAMES // self.temporal_factor
        return max(0, min(MAX_CHUNK, MAX_CHUNK_VALUES // self.values_per_frame, rows // self.height, frames))

    @property
    def first_frames(self) -> int:
        """Number of video frames that the first latent frame stands for."""
        return self.lead or (1 if self.causal else self.temporal_factor)

    def frames_before(self, latent: int) -> int:
        """Number of video frames that the latent frames before `latent` stand for."""
        return max(0, latent * self.temporal_factor - (self.temporal_factor - self.first_frames))

    def latent_of(self, frame: int) -> int:
        """The latent frame that the video frame `frame` belongs to."""
        return (frame + self.temporal_factor - self.first_frames) // self.temporal_factor


@dataclass(frozen=True, kw_only=True)
class VideoLayout:
    """Size and timing of the encoded video, which decoding gives back in full-range RGB."""

    height: _Whole
    width: _Whole
    fps: Fraction
    """Frames per second; the average where times are stored."""
    start: float = 0.0
    """Seconds into the source at which the first frame is shown."""
    picture: bool = False
    """True if the source is a still picture."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width to height of a pixel."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file that was encoded."""

    name: _Text
    bytes: _Whole | None = None
    """Size of the file; None for a folder."""
    height: _Whole | None = None
    """Rows of a frame after rotation, before resize and crop."""
    width: _Whole | None = None
    """Columns of a frame, likewise."""
    resized: _Pair | None = None
    """(height, width) between resize and crop."""
    crop: _Pair | None = None
    """(top, left) of the crop in the resized frames."""
    codec: _Text | None = None
    pixel_format: _Text | None = None
    whole: bool = True
    """True if all of its frames were encoded."""


@dataclass(frozen=True, kw_only=True)
class TokenHeader:
    """The header of a token file; `TokenFileError` names a value that is out of range or contradicts another."""

    model: ModelIdentity
    latent: LatentLayout
    video: VideoLayout
    source: Source | None = None
    encoding: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the encoding as JSON values: for information, and to see if encoding again gives the same file."""

    def __post_init__(self) -> None:
        latent, video = self.latent, self.video
        _require(latent.coding in TOKEN_CODINGS + LATENT_CODINGS, "latent.coding", latent.coding,
                 "one of " + ", ".join(TOKEN_CODINGS + LATENT_CODINGS))  # fmt: skip
        channels = MAX_STREAM_VALUES if latent.streams else MAX_CHANNELS
        for name, limit in (("height", MAX_GRID), ("width", MAX_GRID), ("channels", channels),
                            ("temporal_factor", MAX_FACTOR), ("spatial_factor", MAX_FACTOR),
                            ("chunk", MAX_CHUNK)):  # fmt: skip
            value = getattr(latent, name)
            _require(1 <= value <= limit, f"latent.{name}", value, f"1 to {limit}")
        if latent.lead is not None:
            _require(latent.causal and 1 <= latent.lead <= latent.temporal_factor, "latent.lead", latent.lead,
                     f"none, or of a causal model 1 to {latent.temporal_factor}")  # fmt: skip
        _require(latent.discrete == (latent.levels is not None), "latent.levels", latent.levels,
                 "the levels of each channel for tokens, none for a continuous latent")  # fmt: skip
        if latent.levels is not None:
            fits = len(latent.levels) == latent.channels and min(latent.levels) >= 2 and prod(latent.levels) < 2**31
            _require(fits, "latent.levels", list(latent.levels),
                     f"{latent.channels} numbers of at least 2 (one a channel), the product below 2^31")  # fmt: skip
        for name in ("height", "width"):
            pixels = getattr(video, name)
            _require(1 <= pixels <= _MAX_PIXELS, f"video.{name}", pixels, f"1 to {_MAX_PIXELS}")
            expected = -(-pixels // latent.spatial_factor)
            _require(getattr(latent, name) == expected, f"latent.{name}", getattr(latent, name),
                     f"{expected}, for {pixels} pixels at a factor of {latent.spatial_factor}")  # fmt: skip
        self._check_streams()
        _require(latent.chunk <= latent.largest_chunk, "latent.chunk", latent.chunk,
                 f"at most {latent.largest_chunk} latent frames of this size in {latent.coding}")  # fmt: skip
        _require(abs(video.start) <= MAX_SECONDS, "video.start", video.start, "a number of seconds")
        for name, ratio in (("fps", video.fps), ("sample_aspect_ratio", video.sample_aspect_ratio)):
            _require(0 < ratio.numerator <= _MAX_RATE and ratio.denominator <= _MAX_RATE, f"video.{name}",
                     str(ratio), f"a positive fraction of numbers up to {_MAX_RATE}")  # fmt: skip
        _check_json(self.encoding)

    def _check_streams(self) -> None:
        latent, streams = self.latent, self.latent.streams
        if not streams:
            return
        names = [fit(stream.name, _Text, f"{_PLACE}latent.streams.name", TokenFileError) for stream in streams]
        sizes = [size for stream in streams for size in (stream.channels, *stream.positions)]
        few_axes = all(len(stream.positions) <= _MAX_AXES for stream in streams)
        _require(few_axes and len(set(names)) == len(names) and 1 <= min(sizes) <= max(sizes) <= MAX_STREAM_VALUES,
                 "latent.streams", names, "streams of different names and of 1 to "
                 f"{MAX_STREAM_VALUES} channels and positions along at most {_MAX_AXES} axes")  # fmt: skip
        total = sum(stream.values for stream in streams)
        _require(total == latent.channels and latent.height == latent.width == 1 and not latent.discrete,
                 "latent.streams", f"of {total} values", f"{latent.channels} values of a continuous latent of one "
                 "position a frame")  # fmt: skip

    def to_json(self) -> bytes:
        """UTF-8 JSON, from which `from_json` makes an equal header. Raises `TokenFileError` if it is too long."""
        values = plain(self)
        if not self.latent.streams:  # a latent of one part is written without a list of them
            del values["latent"]["streams"]
        if self.latent.lead is None:
            del values["latent"]["lead"]
        content = json.dumps(values, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace")
        if len(content) > MAX_HEADER_BYTES:
            raise TokenFileError(
                f"the header takes {len(content)} bytes; expected at most {MAX_HEADER_BYTES}: put less in `encoding`"
            )
        return content

    @classmethod
    def from_json(cls, content: bytes) -> TokenHeader:
        """The header in `content`; unknown keys are ignored, so that later versions can add some.

        Raises `TokenFileError` that names the value at fault.
        """
        try:
            raw = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise TokenFileError(f"the header is not valid JSON ({str(error)[:100]})") from error
        _require(isinstance(raw, dict), "header", raw, "a mapping")
        given = partial(build, error=TokenFileError, ignore_unknown=True)
        source = raw.get("source")
        return cls(
            model=given(ModelIdentity, raw.get("model"), f"{_PLACE}model"),
            latent=given(LatentLayout, raw.get("latent"), f"{_PLACE}latent"),
            video=given(VideoLayout, raw.get("video"), f"{_PLACE}video"),
            source=None if source is None else given(Source, source, f"{_PLACE}source"),
            encoding=fit(raw.get("encoding", {}), Mapping[str, Any], f"{_PLACE}encoding", TokenFileError),
        )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON has")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is beyond all numbers that can be computed with")
    return number


def _check_json(encoding: Mapping[str, Any]) -> None:
    """Raise `TokenFileError` unless `encoding` has only values that JSON can hold, nested not too deeply."""
    waiting: list[tuple[object, int]] = [(encoding, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            if depth > MAX_HEADER_DEPTH:
                raise TokenFileError(
                    f"{_PLACE}encoding has mappings and lists more than {MAX_HEADER_DEPTH} deep; expected fewer"
                )
            items = value.values() if isinstance(value, Mapping) else value
            waiting += [(item, depth + 1) for item in items]
            if isinstance(value, Mapping):
                odd = next((key for key in value if not isinstance(key, str)), "")
                _require(isinstance(odd, str), "encoding", odd, "text for every name")
        elif isinstance(value, float):
            _require(math.isfinite(value), "encoding", value, "numbers that are finite")
        elif isinstance(value, int):
            _require(-(2**63) <= value < 2**63, "encoding", value, "numbers below 2^63")
        else:
            _require(value is None or isinstance(value, str), "encoding", value, "values that JSON has")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    require(holds, f"{_PLACE}{name}", value, expected, TokenFileError)
