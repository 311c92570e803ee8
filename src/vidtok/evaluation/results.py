"""Results of an evaluation as JSON: one schema for models, codecs and transforms. See `docs/evaluation.md`."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vidtok
from vidtok.errors import VidTokError
from vidtok.evaluation.measuring import Measured
from vidtok.evaluation.memory import PeakMemory
from vidtok.evaluation.options import EvaluationOptions, independent_clip
from vidtok.evaluation.runner import Outcome
from vidtok.evaluation.subjects import Subject
from vidtok.files import write_whole
from vidtok.metrics.accumulate import CurvePoints, Estimate, Scores
from vidtok.metrics.codebook import CodebookUse
from vidtok.metrics.fvd import ClipDistance
from vidtok.metrics.positions import PositionFigures, by_position
from vidtok.metrics.rate import bits_per_pixel
from vidtok.metrics.table import METRICS, ClipMetric
from vidtok.metrics.unavailable import Unavailable

SCHEMA = "vidtok-evaluation"
VERSION = 1
_REQUIRED = ("subject", "settings", "data", "rate", "overall", "curves", "videos", "timing", "environment")
_RANKS = 200
_BINS = 64


class ResultError(VidTokError):
    """A file of results cannot be read or compared."""


@dataclass(frozen=True)
class Result:
    """The figures of one subject: the content of a file of results, as JSON holds it."""

    content: dict[str, Any]

    @property
    def name(self) -> str:
        name: str = self.content["subject"]["name"]
        return name

    @property
    def kind(self) -> str:
        kind: str = self.content["subject"]["kind"]
        return kind

    @property
    def bits_per_pixel(self) -> float:
        return float(self.content["rate"]["bits_per_pixel"])

    @property
    def videos(self) -> list[dict[str, Any]]:
        videos: list[dict[str, Any]] = self.content["videos"]
        return videos

    def overall(self, metric: str) -> dict[str, Any]:
        """The entry of `metric` over all videos; empty if the result was written without it."""
        found: dict[str, Any] = self.content["overall"].get(metric, {})
        return found

    def unavailable(self) -> dict[str, str]:
        """The labels of the metrics that were not measured, and why."""
        found = {metric.label: self.overall(name).get("unavailable") for name, metric in METRICS.items()}
        return {label: reason for label, reason in found.items() if reason is not None}

    def mean(self, metric: str) -> float | None:
        """The figure of `metric` over all videos; None if it was not measured."""
        value = self.overall(metric).get("mean")
        return None if value is None else float(value)

    def write(self, path: Path) -> None:
        """Write the file. Raises `VidTokError` if it cannot be written."""
        write_whole(path, json.dumps({"schema": SCHEMA, "version": VERSION, **self.content}, indent=1) + "\n")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Result:
        """The result in a file that `write` wrote. Raises `ResultError` for any other file."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ResultError(f"{path} cannot be read: {error.strerror}; give a file of results") from error
        except ValueError as error:
            raise ResultError(f"{path} is not JSON ({error}); give a file that `vidtok evaluate` wrote") from error
        if not isinstance(content, dict) or content.pop("schema", None) != SCHEMA:
            raise ResultError(f"{path} holds no results; give a .json file that `vidtok evaluate` wrote")
        found = content.pop("version", None)
        if found != VERSION:
            raise ResultError(f"{path} is of version {found!r} of the schema; this vidtok reads version {VERSION}")
        missing = [name for name in _REQUIRED if name not in content]
        if missing:
            raise ResultError(f"{path} lacks {', '.join(missing)}; write it anew with `vidtok evaluate`")
        return cls(content)


def assemble(
    subject: Subject, options: EvaluationOptions, folder: str, outcome: Outcome, device: torch.device
) -> Result:
    """The result of `subject` on all videos; at least one must have been measured."""
    measured = outcome.measured
    scores = Scores()
    for video in measured:
        scores.update(video.name, video.scores)
    bits = sum(video.tally.bits for video in measured)
    pixels = sum(video.pixels for video in measured)
    spent = sum(video.seconds for video in measured)
    frames = sum(video.frames for video in measured)
    return Result(
        {
            "subject": {"name": subject.name, "kind": subject.kind, **subject.identity()},
            "settings": options.as_dict(),
            "data": {
                "folder": folder,
                "videos": len(measured),
                "frames": frames,
                "pixels": pixels,
                "sha256": hash_of_all(measured),
                "unreadable": [asdict(each) for each in outcome.unreadable],
            },
            "rate": {
                "bits_per_pixel": bits_per_pixel(bits, pixels),
                "bits": bits,
                "kind": "stored" if subject.stored else "nominal",
            },
            "overall": _overall(scores, outcome),
            "curves": {name: _curve(scores.curve(name)) for name in METRICS if name in scores.metrics},
            "positions": _positions(scores, subject.identity(), options),
            "codebook": _codebook(measured),
            "videos": [_video(video) for video in measured],
            "timing": {
                "subject_seconds": spent,
                "frames_per_second": frames / max(spent, 1e-9),
                "this_run": {
                    "seconds": outcome.seconds,
                    "subject_seconds": outcome.subject_seconds,
                    "videos": outcome.new_videos,
                },
            },
            "memory": {
                "peak_bytes": max((video.memory for video in measured if video.memory is not None), default=None),
                "kind": PeakMemory(subject.device).kind,
            },
            "environment": environment(device),
        }
    )


def hash_of_all(measured: Sequence[Measured]) -> str:
    """SHA-256 over the videos' names and the hashes of their frames, in the order of the names."""
    lines = "".join(f"{video.name} {video.sha256}\n" for video in sorted(measured, key=lambda video: video.name))
    return hashlib.sha256(lines.encode()).hexdigest()


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and hardware that the figures depend on."""
    packages = {}
    for package in ("torch", "av", "numpy"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "vidtok": vidtok.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "packages": packages,
    }


def _overall(scores: Scores, outcome: Outcome) -> dict[str, Any]:
    overall: dict[str, Any] = {}
    for name, metric in METRICS.items():
        found: Estimate | ClipDistance | Unavailable
        if isinstance(metric, ClipMetric):
            found = metric.distance(video.features[name] for video in outcome.measured if name in video.features)
        else:
            found = scores.estimate(name)
        if isinstance(found, Unavailable):
            overall[name] = {"unavailable": outcome.unavailable.get(name, found.reason)}
        else:
            overall[name] = _estimate(found) if isinstance(found, Estimate) else _distance(found)
    return overall


def _estimate(estimate: Estimate) -> dict[str, Any]:
    interval = estimate.interval
    spread = {} if interval is None else {
        "low": interval.low, "high": interval.high, "confidence": interval.confidence, "method": interval.method,
    }  # fmt: skip
    return {"mean": estimate.mean, **spread, "videos": estimate.videos, "frames": estimate.frames}


def _distance(found: ClipDistance) -> dict[str, Any]:
    return {"mean": found.distance, "clips": found.clips}


def _codebook(measured: Sequence[Measured]) -> dict[str, Any] | None:
    """Codebook use over all videos, with counts of tokens by the rank of their code and by ranges of codes."""
    whole: CodebookUse | None = None
    for video in measured:
        if video.tally.codebook is not None:
            whole = CodebookUse(video.tally.codebook.size) if whole is None else whole
            whole.merge(video.tally.codebook)
    if whole is None:
        return None
    ranked = whole.ranked()
    at = np.unique(np.geomspace(1, len(ranked), _RANKS).astype(int)) - 1
    return {
        **asdict(whole.result()),
        "ranks": [int(rank) + 1 for rank in at],
        "counts": ranked[at].tolist(),
        "histogram": whole.histogram(_BINS).tolist(),
    }


def _curve(points: CurvePoints) -> dict[str, Any]:
    return {"width": points.width, "frames": points.frames, "values": [round(value, 5) for value in points.values]}


def _positions(scores: Scores, subject: Mapping[str, Any], options: EvaluationOptions) -> dict[str, Any]:
    """A model's figures by a frame's place in the group of one latent frame, and in a clip where clips are independent.

    Metrics without a figure for each frame, or with too few frames, are left out. Empty for other subjects.
    """
    if subject.get("temporal_factor", 1) == 1:  # each frame by itself
        return {}
    causal = bool(subject["causal"])
    # An autoencoder of others says how long its clips are.
    clip = options.clip_length(causal) or subject.get("clip_frames")
    clip = clip or (None if causal else independent_clip(options))
    periods: dict[str, int] = {}
    if clip is None or not causal:  # else each clip begins with a frame by itself, and groups with none
        periods["group"] = int(subject["temporal_factor"])
    if clip is not None:
        periods["clip"] = clip
    found: dict[str, Any] = {}
    for kind, period in periods.items():
        curves = {name: scores.curve(name) for name in METRICS if name in scores.metrics}
        figures = {
            name: by_position(curve, period, first_alone=causal and clip is None) for name, curve in curves.items()
        }
        found[kind] = {name: _position(figure) for name, figure in figures.items() if figure is not None}
    return found


def _position(figure: PositionFigures) -> dict[str, Any]:
    return {**asdict(figure), "spread": figure.spread, "seam": figure.seam}


def _video(video: Measured) -> dict[str, Any]:
    figures = video.scores.result()
    return {
        "name": video.name,
        "frames": video.frames,
        "height": video.height,
        "width": video.width,
        "fps": float(video.fps),
        "sha256": video.sha256,
        "bits": video.tally.bits,
        "bits_per_pixel": video.bits_per_pixel,
        "seconds": video.seconds,
        **({"details": video.tally.details} if video.tally.details else {}),
        "figures": {name: asdict(figures[name]) for name in METRICS if name in figures},
        "psnr": _curve(video.scores.curve("psnr")),
    }
