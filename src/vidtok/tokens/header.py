"""The header of a token file: what the file holds, as validated values and as JSON (docs/token-file.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from fractions import Fraction
from math import prod
from typing import Any, TypeVar

from vidtok.errors import TokenFileError
from vidtok.models.vidtok.config import LatentStream

TOKEN_CODINGS = ("packed", "static", "adaptive")
LATENT_CODINGS = ("float16", "bfloat16", "float32", "int8")
DEFAULT_CHUNK = 16
"""Latent frames of a chunk of a causal model."""

MAX_HEADER_BYTES = 1 << 20
MAX_CHUNK_VALUES = 1 << 23
"""How many tokens, or values of a latent, a chunk holds at most; what reading one takes is bounded by this."""
MAX_ADAPTIVE_ROWS = 1 << 12
"""How many rows of tokens a chunk with adaptive coding has at most, as each takes a step of its own."""
MAX_GRID = 4096
"""Latent rows and columns at most."""
MAX_CHANNELS = 1024
MAX_STREAMS = 16
MAX_STREAM_VALUES = 1 << 16
"""Values of a latent position, where they are those of several streams."""
MAX_CHUNK = 4096
MAX_FACTOR = 1024
MAX_FRAMES = 1 << 40
_MAX_PIXELS = MAX_GRID * MAX_FACTOR
_MAX_TEXT = 4096
_MAX_AXES = 4
_MAX_RATE = 1_000_000_000

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ModelIdentity:
    """Which model made a file; see `vidtok.tokens.identity` for what the hashes are of."""

    name: str
    config: str
    """Hash of what the model is made of, 64 hexadecimal digits."""
    weights: str
    """Hash of the weights in the dtype that they had, 64 hexadecimal digits."""
    weights_dtype: str
    """That dtype."""
    signs: str
    """Hash of the weights' signs, which no change of dtype alters, 64 hexadecimal digits."""


@dataclass(frozen=True, kw_only=True)
class LatentLayout:
    """The latent of the whole video, and how it is cut and coded."""

    coding: str
    """One of `TOKEN_CODINGS` or `LATENT_CODINGS`."""
    channels: int
    """z: values of a latent position."""
    height: int
    """H', rows of a latent frame."""
    width: int
    """W', columns of a latent frame."""
    temporal_factor: int
    """f: video frames to a latent frame."""
    spatial_factor: int
    causal: bool
    """Whether the first latent frame stands for one video frame; else all stand for f."""
    chunk: int = DEFAULT_CHUNK
    """Latent frames of every chunk but the last; for a non-causal model, those of a clip."""
    levels: tuple[int, ...] | None = None
    """For tokens, the number of values of each channel; their product is the codebook's size."""
    streams: tuple[LatentStream, ...] = ()
    """The parts that the channels of a latent position are of, one after another; none: they are of one part."""

    @property
    def scaled(self) -> tuple[tuple[int, int], ...]:
        """By stream: channels, of which each has a scale of its own in int8, and how many of the z values one has."""
        return tuple((s.channels, prod(s.positions)) for s in self.streams) or ((self.channels, 1),)

    @property
    def discrete(self) -> bool:
        """Whether the file holds tokens."""
        return self.coding in TOKEN_CODINGS

    @property
    def codebook_size(self) -> int | None:
        return None if self.levels is None else prod(self.levels)

    @property
    def values_per_frame(self) -> int:
        """Tokens, or values of the latent, in a latent frame."""
        return self.height * self.width * (1 if self.discrete else self.channels)

    @property
    def largest_chunk(self) -> int:
        """Latent frames of a chunk at most, so that reading one takes bounded memory and time."""
        rows = MAX_ADAPTIVE_ROWS if self.coding == "adaptive" else MAX_CHUNK * MAX_GRID
        return max(0, min(MAX_CHUNK, MAX_CHUNK_VALUES // self.values_per_frame, rows // self.height))

    def frames_before(self, latent: int) -> int:
        """How many video frames the latent frames before `latent` stand for."""
        return max(0, latent * self.temporal_factor - (self.temporal_factor - 1 if self.causal else 0))

    def latent_of(self, frame: int) -> int:
        """The latent frame that the video frame `frame` belongs to."""
        return -(-frame // self.temporal_factor) if self.causal else frame // self.temporal_factor


@dataclass(frozen=True, kw_only=True)
class VideoLayout:
    """The video that was encoded, as decoding gives it back; colours are RGB of full range."""

    height: int
    width: int
    fps: Fraction
    """Frames per second; where times are stored, their average."""
    start: float = 0.0
    """Seconds into the source at which the first frame is shown."""
    picture: bool = False
    """Whether the source is a still picture."""
    sample_aspect_ratio: Fraction = Fraction(1)
    """Width to height of a pixel."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The file that was encoded."""

    name: str
    bytes: int | None = None
    """Its size; None for a folder."""
    height: int | None = None
    """Rows before resize and crop, after rotation."""
    width: int | None = None
    resized: tuple[int, int] | None = None
    """(height, width) between resize and crop."""
    crop: tuple[int, int] | None = None
    """(top, left) of what was cut out of the resized frames."""
    codec: str | None = None
    pixel_format: str | None = None
    whole: bool = True
    """Whether all of its frames were encoded."""


@dataclass(frozen=True, kw_only=True)
class TokenHeader:
    """What a token file says of itself before its first chunk."""

    model: ModelIdentity
    latent: LatentLayout
    video: VideoLayout
    source: Source | None = None
    encoding: Mapping[str, Any] = field(default_factory=dict)
    """How it was made, as JSON holds it; for information, and to tell whether making it again would give the same."""

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
        _require(math.isfinite(video.start), "video.start", video.start, "a number of seconds")
        for name, ratio in (("fps", video.fps), ("sample_aspect_ratio", video.sample_aspect_ratio)):
            _require(0 < ratio.numerator <= _MAX_RATE and ratio.denominator <= _MAX_RATE, f"video.{name}",
                     str(ratio), "a positive fraction of numbers up to a thousand million")  # fmt: skip

    def _check_streams(self) -> None:
        latent, streams = self.latent, self.latent.streams
        if not streams:
            return
        names = [stream.name for stream in streams]
        sizes = [size for stream in streams for size in (stream.channels, *stream.positions)]
        fit = all(len(stream.positions) <= _MAX_AXES for stream in streams)
        _require(fit and len(set(names)) == len(names) and 1 <= min(sizes) <= max(sizes) <= MAX_STREAM_VALUES,
                 "latent.streams", names, "streams of different names and of 1 to "
                 f"{MAX_STREAM_VALUES} channels and positions along at most {_MAX_AXES} axes")  # fmt: skip
        total = sum(stream.values for stream in streams)
        _require(total == latent.channels and latent.height == latent.width == 1 and not latent.discrete,
                 "latent.streams", f"of {total} values", f"{latent.channels} values of a continuous latent of one "
                 "position a frame")  # fmt: skip

    def to_json(self) -> bytes:
        """UTF-8 JSON, from which `from_json` makes an equal header."""
        text = json.dumps(_plain(self), ensure_ascii=False, allow_nan=False)
        content = text.encode("utf-8", "replace")
        if len(content) > MAX_HEADER_BYTES:
            raise TokenFileError(
                f"the header takes {len(content)} bytes; expected at most {MAX_HEADER_BYTES}: put less in `encoding`"
            )
        return content

    @classmethod
    def from_json(cls, content: bytes) -> TokenHeader:
        """The header in `content`. Unknown keys are ignored, so that later versions can say more.

        Raises `TokenFileError` that names the value at fault.
        """
        try:
            raw = json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise TokenFileError(f"the header is not valid JSON ({str(error)[:100]})") from error
        _require(isinstance(raw, dict), "header", raw, "a mapping")
        source = raw.get("source")
        encoding = raw.get("encoding", {})
        _require(isinstance(encoding, dict), "encoding", encoding, "a mapping")
        return cls(
            model=_read(ModelIdentity, raw, "model"),
            latent=_read(LatentLayout, raw, "latent"),
            video=_read(VideoLayout, raw, "video"),
            source=None if source is None else _read(Source, raw, "source"),
            encoding=encoding,
        )


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number that JSON has")


def _plain(value: Any) -> Any:
    if isinstance(value, Fraction):
        return [value.numerator, value.denominator]
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if hasattr(value, "__dataclass_fields__"):
        # A latent of one part is written without a list of streams.
        named = {f.name: getattr(value, f.name) for f in fields(value)}
        return {name: _plain(item) for name, item in named.items() if item or name != "streams"}
    return value


def _read(cls: Callable[..., T], raw: Mapping[str, Any], place: str) -> T:
    section = raw.get(place)
    if not isinstance(section, dict):
        raise TokenFileError(f"the header's {place} is {_short(section)}; expected a mapping")
    values: dict[str, Any] = {}
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name in section:
            values[f.name] = _checked(section[f.name], str(f.type), f"{place}.{f.name}")
    try:
        return cls(**values)
    except TypeError as error:
        raise TokenFileError(f"the header's {place} is incomplete: {str(error).partition('() ')[2]}") from error


def _checked(value: Any, kind: str, place: str) -> Any:
    """`value` as the type that the field declares, or an error that names the field."""
    kind, _, optional = kind.partition(" | ")
    if optional and value is None:
        return None
    read, expected = _READERS[kind]
    checked = read(value)
    _require(checked is not None, place, value, expected)
    return checked


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and len(value) <= _MAX_TEXT and value.isprintable() else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 2**63 else None


def _number(value: Any) -> float | None:
    return float(value) if type(value) is float or _whole(value) is not None else None


def _wholes(value: Any) -> tuple[int, ...] | None:
    fine = isinstance(value, list) and len(value) <= MAX_CHANNELS and all(_whole(item) is not None for item in value)
    return tuple(value) if fine else None


def _pair(value: Any) -> tuple[int, ...] | None:
    pair = _wholes(value)
    return pair if pair is not None and len(pair) == 2 else None


def _fraction(value: Any) -> Fraction | None:
    pair = _pair(value)
    return Fraction(*pair) if pair is not None and pair[1] > 0 else None


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _streams(value: Any) -> tuple[LatentStream, ...] | None:
    if not isinstance(value, list) or len(value) > MAX_STREAMS or not all(isinstance(item, dict) for item in value):
        return None
    return tuple(_read(LatentStream, {"latent.streams": item}, "latent.streams") for item in value)


_READERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "str": (_text, f"text of at most {_MAX_TEXT} characters"),
    "int": (_whole, "a whole number"),
    "float": (_number, "a number"),
    "bool": (_flag, "true or false"),
    "Fraction": (_fraction, "[numerator, denominator]"),
    "tuple[int, ...]": (_wholes, "a list of whole numbers"),
    "tuple[int, int]": (_pair, "two whole numbers"),
    "tuple[LatentStream, ...]": (_streams, f"a list of at most {MAX_STREAMS} mappings"),
}


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise TokenFileError(f"the header's {name} is {_short(value)}; expected {expected}")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
