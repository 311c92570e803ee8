"""The figures of one video: metrics, rate, tokens, and frames worth looking at."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from vidtok.evaluation.highlights import RANKED_BY, Highlight, Highlights
from vidtok.metrics.accumulate import VideoScores
from vidtok.metrics.codebook import CodebookUse
from vidtok.metrics.meter import VideoMeter
from vidtok.metrics.networks import Networks
from vidtok.metrics.rate import bits_per_pixel
from vidtok.metrics.table import METRICS, Features
from vidtok.runtime.passes import Pair
from vidtok.video import to_float, to_uint8

_TEXT = "text"
_PLAIN = ("name", "frames", "height", "width", "sha256", "seconds", "versions", "unavailable")
"""Fields that JSON holds as they are."""
_LATER = ("memory",)
"""Fields that parts from before do not have."""
Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class Tally:
    """A subject's notes on one video beside its frames."""

    bits: float = 0.0
    """Cost of the video; `Subject.stored` tells the kind of bits."""
    codebook: CodebookUse | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """Anything else, as JSON holds it, such as a codec's rate factor."""


@dataclass
class Measured:
    """The figures of one video with one subject."""

    name: str
    frames: int
    height: int
    width: int
    fps: Fraction
    sha256: str
    """Of the frames, see `FrameStream.sha256`."""
    seconds: float
    """Time in the subject, without reading and measuring."""
    tally: Tally
    scores: VideoScores
    """Figures of frames, by the metric's name."""
    features: dict[str, Features]
    """Features of clips, by the metric's name."""
    versions: dict[str, int]
    """The metrics that were measured, each with the version of its definition."""
    unavailable: dict[str, str]
    """Of these, the metrics without a figure, by name, and why."""
    highlights: dict[str, Highlight]
    """Frames to look at: `best` and `worst`."""
    memory: int | None = None
    """Peak memory in bytes while the subject had the video, see `memory.py`; None: not known."""

    @property
    def pixels(self) -> int:
        return self.frames * self.height * self.width

    @property
    def bits_per_pixel(self) -> float:
        return bits_per_pixel(self.tally.bits, self.pixels)

    def lacking(self, metrics: Sequence[str]) -> list[str]:
        """The names in `metrics` that were not measured, or by another version of their definition."""
        return [name for name in metrics if self.versions.get(name) != METRICS[name].version]

    def only(self, metrics: Collection[str]) -> Measured:
        """A copy with the figures of `metrics` alone."""
        return replace(
            self,
            scores=self.scores.only(metrics),
            features={name: found for name, found in self.features.items() if name in metrics},
            versions={name: version for name, version in self.versions.items() if name in metrics},
            unavailable={name: reason for name, reason in self.unavailable.items() if name in metrics},
        )

    def joined(self, newer: Measured) -> Measured:
        """A copy with the metrics of `newer`, of the same video, added or put in place of older versions."""
        kept = self.only(self.versions.keys() - newer.versions.keys())
        kept.scores.merge(newer.scores)
        return replace(
            kept,
            features=kept.features | newer.features,
            versions=kept.versions | newer.versions,
            unavailable=kept.unavailable | newer.unavailable,
            highlights=newer.highlights or self.highlights,
        )

    def to_arrays(self) -> Arrays:
        """The figures as arrays for `numpy.savez`; `from_arrays` reads them back."""
        text = {
            **{name: getattr(self, name) for name in (*_PLAIN, *_LATER)},
            "fps": str(self.fps),
            "bits": self.tally.bits,
            "details": self.tally.details,
            "scores": self.scores.state(),
            "features": list(self.features),
            "highlights": {kind: highlight.described() for kind, highlight in self.highlights.items()},
        }
        arrays: Arrays = {_TEXT: np.array(json.dumps(text))}
        if self.tally.codebook is not None:
            state = self.tally.codebook.state()
            arrays |= {f"codebook_{name}": np.asarray(value, np.int64) for name, value in state.items()}
        for name, (source, reconstruction) in self.features.items():
            arrays |= {f"source_{name}": source, f"reconstruction_{name}": reconstruction}
        for kind, highlight in self.highlights.items():
            arrays |= {f"{kind}_{name}": np.frombuffer(content, np.uint8) for name, content in highlight.files.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Measured:
        """The figures that `to_arrays` gave. Raises `KeyError`, `TypeError` or `ValueError` for anything else."""
        text = json.loads(str(arrays[_TEXT]))
        codebook = None
        if "codebook_size" in arrays:
            codebook = CodebookUse.from_state(
                {
                    "size": int(arrays["codebook_size"]),
                    "codes": arrays["codebook_codes"],
                    "counts": arrays["codebook_counts"],
                }
            )
        highlights = {}
        for kind, about in text["highlights"].items():
            files = {name: arrays[f"{kind}_{name}"].tobytes() for name in about["files"]}
            highlights[kind] = Highlight(about["frame"], about["value"], files)
        return cls(
            **{name: text[name] for name in _PLAIN},
            **{name: text[name] for name in _LATER if name in text},
            fps=Fraction(text["fps"]),
            tally=Tally(text["bits"], codebook, text["details"]),
            scores=VideoScores.from_state(text["scores"]),
            features={name: (arrays[f"source_{name}"], arrays[f"reconstruction_{name}"]) for name in text["features"]},
            highlights=highlights,
        )


class Measuring:
    """Measures one video as its pairs of source and reconstruction come.

    Args:
        networks: the networks that some metrics need.
        fps: of the video, for the highlights' clips.
        metrics: names of the metrics to measure; those whose network is missing are left out.
        show: keep highlights.
    """

    def __init__(self, networks: Networks, fps: Fraction, metrics: Collection[str], *, show: bool) -> None:
        self._device = networks.device
        self._meter = VideoMeter(networks, metrics)
        # Highlights are chosen by one metric: without it there are none.
        self._highlights = Highlights(fps) if show and RANKED_BY in self._meter.versions else None

    def update(self, pair: Pair) -> None:
        """Measure the next frames."""
        first = self._meter.frames
        source = to_float(pair.source).to(self._device)
        reconstruction = pair.reconstruction.to(self._device)
        self._meter.update(reconstruction, source)
        if self._highlights is not None:
            figure = self._meter.scores.result()[RANKED_BY]
            self._highlights.update(first, pair.source, to_uint8(reconstruction), figure)

    def result(
        self, name: str, size: tuple[int, int], fps: Fraction, sha256: str, seconds: float, tally: Tally,
        memory: int | None = None,
    ) -> Measured:  # fmt: skip
        """The figures, after the last pair; `size` is (height, width), `seconds` and `memory` those of the subject."""
        versions, reasons = self._meter.versions, self._meter.unavailable
        return Measured(
            name=name,
            frames=self._meter.frames,
            height=size[0],
            width=size[1],
            fps=fps,
            sha256=sha256,
            seconds=seconds,
            tally=tally,
            scores=self._meter.scores,
            features=self._meter.features(),
            versions=versions,
            unavailable={metric: str(reason) for metric, reason in reasons.items() if metric in versions},
            highlights={} if self._highlights is None else self._highlights.finish(),
            memory=memory,
        )
