"""The figures of one video: metrics of its frames, rate, tokens, features, and frames worth looking at."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vidtok.errors import VidTokError
from vidtok.evaluation.highlights import Moment, Moments
from vidtok.metrics.accumulate import VideoScores
from vidtok.metrics.codebook import CodebookUse
from vidtok.metrics.fvd import ClipFeatures
from vidtok.metrics.i3d import I3D
from vidtok.metrics.lpips import LPIPS
from vidtok.metrics.meter import VideoMeter, load_lpips
from vidtok.metrics.unavailable import Unavailable
from vidtok.runtime.passes import Pair
from vidtok.video import to_float, to_uint8

_TEXT = "text"
Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Networks:
    """What metrics need beside arithmetic; each may be unavailable."""

    lpips: LPIPS | Unavailable
    i3d: I3D | Unavailable
    device: torch.device

    @classmethod
    def load(cls, device: torch.device, lpips: Any = None, i3d: Any = None) -> Networks:
        """From the files given, or else from the usual places, where they need not be; see `load_lpips`, `load_i3d`.

        Raises `VidTokError` if a file that is given cannot be used.
        """
        from vidtok.metrics.fvd import load_i3d

        networks = cls(load_lpips(lpips, device), load_i3d(i3d, device), device)
        for given, network in ((lpips, networks.lpips), (i3d, networks.i3d)):
            if given is not None and isinstance(network, Unavailable):
                raise VidTokError(network.reason)
        return networks

    def measured(self) -> list[str]:
        """The names of those that are at hand."""
        return [name for name in ("lpips", "i3d") if not isinstance(getattr(self, name), Unavailable)]


@dataclass
class Tally:
    """What a subject notes of one video beside its frames."""

    bits: float = 0.0
    """What the video costs; see `Subject.stored` for what kind of bits they are."""
    codebook: CodebookUse | None = None
    details: dict[str, Any] = field(default_factory=dict)
    """Whatever else there is to say, as JSON holds it, such as a codec's rate factor."""


@dataclass
class Measured:
    """All that was measured of one video with one subject."""

    name: str
    frames: int
    height: int
    width: int
    fps: Fraction
    sha256: str
    """Of the frames, see `FrameStream.sha256`."""
    seconds: float
    """In the subject: reading and measuring not counted."""
    tally: Tally
    scores: VideoScores
    unavailable: dict[str, str]
    """Why metrics are missing, by name."""
    features: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None
    """I3D's of the clips of source and reconstruction, (N, 400) each."""
    moments: dict[str, Moment]
    """Frames to look at: `best` and `worst`."""

    @property
    def bits_per_pixel(self) -> float:
        return self.tally.bits / (self.frames * self.height * self.width)

    def to_arrays(self) -> Arrays:
        """As `numpy.savez` keeps it; `from_arrays` undoes it."""
        text = {
            "name": self.name,
            "frames": self.frames,
            "height": self.height,
            "width": self.width,
            "fps": str(self.fps),
            "sha256": self.sha256,
            "seconds": self.seconds,
            "bits": self.tally.bits,
            "details": self.tally.details,
            "scores": self.scores.state(),
            "unavailable": self.unavailable,
            "moments": {kind: moment.described() for kind, moment in self.moments.items()},
        }
        arrays: Arrays = {_TEXT: np.array(json.dumps(text))}
        if self.tally.codebook is not None:
            state = self.tally.codebook.state()
            arrays |= {f"codebook_{name}": np.asarray(value, np.int64) for name, value in state.items()}
        if self.features is not None:
            arrays |= {"features_source": self.features[0], "features": self.features[1]}
        for kind, moment in self.moments.items():
            arrays |= {f"{kind}_{name}": np.frombuffer(content, np.uint8) for name, content in moment.files.items()}
        return arrays

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Measured:
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
        moments = {}
        for kind, about in text["moments"].items():
            files = {name: arrays[f"{kind}_{name}"].tobytes() for name in about["files"]}
            moments[kind] = Moment(about["frame"], about["value"], files)
        same = {name: text[name] for name in ("name", "frames", "height", "width", "sha256", "seconds", "unavailable")}
        return cls(
            **same,
            fps=Fraction(text["fps"]),
            tally=Tally(text["bits"], codebook, text["details"]),
            scores=VideoScores.from_state(text["scores"]),
            features=(arrays["features_source"], arrays["features"]) if "features" in arrays else None,
            moments=moments,
        )


class Measuring:
    """Measures one video as its pairs of source and reconstruction come.

    Args:
        networks: for LPIPS and FVD.
        fps: of the video, for the moments' clips.
        show: whether to keep moments.
    """

    def __init__(self, networks: Networks, fps: Fraction, *, show: bool) -> None:
        self._device = networks.device
        self._meter = VideoMeter(networks.lpips)
        self._moments = Moments(fps) if show else None
        self._unavailable = {}
        self._clips: tuple[ClipFeatures, ClipFeatures] | None = None
        if isinstance(networks.i3d, Unavailable):
            self._unavailable["fvd"] = networks.i3d.reason
        else:
            self._clips = ClipFeatures(networks.i3d), ClipFeatures(networks.i3d)
        self._features: tuple[list[npt.NDArray[np.float64]], ...] = ([], [])

    def update(self, pair: Pair) -> None:
        first = self._meter.frames
        source = to_float(pair.source).to(self._device)
        reconstruction = pair.reconstruction.to(self._device)
        self._meter.update(reconstruction, source)
        if self._clips is not None:
            for clips, video, found in zip(self._clips, (source, reconstruction), self._features, strict=True):
                found.append(clips.update(video))
        if self._moments is not None:
            figure = self._meter.scores.result()["psnr"]
            self._moments.update(first, pair.source, to_uint8(reconstruction), figure)

    def result(
        self, name: str, size: tuple[int, int], fps: Fraction, sha256: str, seconds: float, tally: Tally
    ) -> Measured:
        """All of it, after the last pair."""
        reasons = {metric: str(reason) for metric, reason in self._meter.unavailable.items()}
        features = None
        if self._clips is not None:
            features = np.concatenate(self._features[0]), np.concatenate(self._features[1])
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
            unavailable={**reasons, **self._unavailable},
            features=features,
            moments={} if self._moments is None else self._moments.finish(),
        )
