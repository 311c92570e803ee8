"""Statistics of a model's latents over videos, token files and procedural clips."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import VideoError, VidTokError
from vidtok.fields import shown
from vidtok.files import write_whole
from vidtok.metrics.latents import MOST_COVARIANCES, LatentFigures, LatentStatistics
from vidtok.models.base import VideoModel
from vidtok.runtime.limits import Progress, check_finite, computing
from vidtok.runtime.options import ReadOptions
from vidtok.runtime.passes import EncodePass, first_group, in_groups
from vidtok.runtime.planning import Plan, plan
from vidtok.runtime.threads import Ahead
from vidtok.synthetic import SyntheticConfig, synthetic_batch
from vidtok.text import one_line, reason, unforeseen
from vidtok.tokens import ModelIdentity, TokenFile, check_model, model_identity
from vidtok.tokens.identity import check_layout
from vidtok.video import to_float
from vidtok.video.library import PICTURE_SUFFIXES, TOKEN_SUFFIX, VIDEO_SUFFIXES, find_files
from vidtok.zoo.latents import LatentScale

FORMAT = "vidtok latent statistics"
VERSION = 1
STATISTICS_SUFFIX = ".json"
SYNTHETIC = "synthetic"
"""The word for procedural clips in place of a path."""
_MOST_BYTES = 1 << 28


class LatentSurvey:
    """Statistics of one model's latents, and the number of videos and frames behind them.

    Surveys of one model merge, whatever process or machine made them; `save` and `load` carry them in a file.
    """

    def __init__(self, model: VideoModel) -> None:
        self.model: ModelIdentity = model_identity(model)
        self.statistics = LatentStatistics(model.z_channels, model.codebook_size)
        self.videos = 0
        self.frames = 0

    def merge(self, other: LatentSurvey) -> None:
        """Add what `other` has counted. Raises `VidTokError` if it is of another model."""
        if (other.model.config, other.model.signs) != (self.model.config, self.model.signs):
            raise VidTokError(
                f"statistics of {shown(other.model.name)} and of {shown(self.model.name)} do not merge: the models "
                "differ in configuration or weights; give statistics of one model"
            )
        self.statistics.merge(other.statistics)
        self.videos += other.videos
        self.frames += other.frames

    def figures(self) -> LatentFigures:
        """The figures. Raises `VidTokError` if nothing was counted."""
        try:
            return self.statistics.result()
        except ValueError as error:
            raise VidTokError(f"{error}; give videos, token files or `{SYNTHETIC}`") from error

    def scale(self) -> LatentScale:
        """The figures as a model's folder holds them. Raises `VidTokError` if nothing was counted."""
        figures = self.figures()
        values: dict[str, Any] = {
            "weights": self.model.signs, "videos": self.videos, "frames": self.frames, "positions": figures.positions,
        }  # fmt: skip
        if self.statistics.channels <= MOST_COVARIANCES:
            values |= {"min": figures.low, "max": figures.high, "covariance": figures.covariance}
        else:
            values |= {"min": min(figures.low), "max": max(figures.high)}
        if figures.posterior_std is not None:
            values["posterior_std"] = figures.posterior_std
        if figures.codebook is not None:
            values["codebook"] = asdict(figures.codebook)
        return LatentScale(figures.mean, figures.std, json.loads(json.dumps(values)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the survey to the JSON file `path`, whole or not at all. Raises `VidTokError` if that fails."""
        values = {
            "format": FORMAT, "version": VERSION, "model": asdict(self.model), "videos": self.videos,
            "frames": self.frames, "statistics": self.statistics.state(),
        }  # fmt: skip
        write_whole(Path(path), json.dumps(values) + "\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LatentSurvey:
        """The survey in the file `path`, which `save` wrote. Raises `VidTokError` if it holds none."""
        wanted = f"expected statistics that `vidtok stats --output FILE{STATISTICS_SUFFIX}` wrote"
        try:
            if os.stat(path).st_size > _MOST_BYTES:
                raise VidTokError(f"{path} holds more than {_MOST_BYTES:,} bytes; {wanted}")
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            if not isinstance(values, dict) or values.get("format") != FORMAT or values.get("version") != VERSION:
                raise VidTokError(f"{path} holds no statistics of version {VERSION}; {wanted}")
            survey = object.__new__(cls)
            survey.model = ModelIdentity(**values["model"])
            survey.videos, survey.frames = int(values["videos"]), int(values["frames"])
            survey.statistics = LatentStatistics.from_state(values["statistics"])
        except OSError as error:
            raise VidTokError(f"{path} cannot be read: {reason(error)}") from error
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if isinstance(error, VidTokError):
                raise
            raise VidTokError(f"{path} holds no statistics: {one_line(error)}; {wanted}") from error
        return survey


@dataclass(frozen=True, kw_only=True)
class SyntheticOptions:
    """Procedural clips to survey."""

    clips: int = 64
    frames: int = 17
    size: int = 256
    """Height and width in pixels, unless the model takes one size only."""
    seed: int = 0


@dataclass(frozen=True)
class Piece:
    """One thing to survey: its name, and the function that surveys it."""

    name: str
    run: Callable[[VideoModel], LatentSurvey]


def pieces(
    data: Sequence[str | os.PathLike[str]], options: ReadOptions, synthetic: SyntheticOptions | None = None
) -> list[Piece]:
    """All that `data` names, in order: videos and pictures, token files, statistics, folders with these below them.

    The word `synthetic` means procedural clips. Raises `VideoError` for a folder without any, and for a path that does
    not exist.
    """
    synthetic = SyntheticOptions() if synthetic is None else synthetic
    found: list[Piece] = []
    for each in [os.fspath(path) for path in data]:
        if each == SYNTHETIC:
            found += [
                Piece(f"clip {index}", partial(survey_synthetic, index=index, options=synthetic, compute=options))
                for index in range(synthetic.clips)
            ]
        elif os.path.isdir(each):
            below = find_files(each, VIDEO_SUFFIXES + PICTURE_SUFFIXES + (TOKEN_SUFFIX,))
            if not below:
                raise VideoError(f"{each} has no videos, pictures or token files ({TOKEN_SUFFIX}) below it")
            found += [_piece_of(path, options) for path in below]
        elif not os.path.exists(each):
            raise VideoError(
                f"{each}: no such file; expected a video, a token file, statistics, a folder of them, or `{SYNTHETIC}`"
            )
        else:
            found.append(_piece_of(each, options))
    return found


def survey(
    model: VideoModel,
    data: Iterable[Piece],
    *,
    progress: Progress | None = None,
    failed: Callable[[str, VidTokError], None] | None = None,
) -> LatentSurvey:
    """Statistics of the latents of all `data` together, in constant memory.

    `progress` is called with the number of pieces done. A piece that cannot be read raises its error, or is left out
    and given to `failed` with it.
    """
    total = LatentSurvey(model)
    for done, piece in enumerate(data, 1):
        try:
            total.merge(piece.run(model))
        except VidTokError as error:
            if failed is None:
                raise
            failed(piece.name, error)
        except Exception as error:  # any fault of one piece must not stop the others
            if failed is None:
                raise
            failed(piece.name, VidTokError(unforeseen(error)))
        if progress is not None:
            progress(done)
    return total


def survey_video(model: VideoModel, path: str | os.PathLike[str], options: ReadOptions) -> LatentSurvey:
    """Statistics of the latent of one video or picture, encoded as `vidtok encode` does.

    Raises `VideoError` if it cannot be read, and `VidTokError` if an option does not fit the model.
    """
    reader = options.open(path)
    options.fit(reader, model)
    chosen = plan(model, reader.size, options, "encode", reader.frame_estimate)
    first, count = first_group(model, chosen.frames), chosen.frames
    with reader, Ahead(_in_batches(reader, first, count), depth=1) as ahead:
        return _surveyed(model, ahead, chosen)


def survey_synthetic(model: VideoModel, *, index: int, options: SyntheticOptions, compute: ReadOptions) -> LatentSurvey:
    """Statistics of the latent of the procedural clip `index`."""
    height, width = model.config.frame_size or (options.size, options.size)
    config = SyntheticConfig(frames=options.frames, height=height, width=width)
    video = synthetic_batch(config, options.seed, [index])
    chosen = plan(model, (height, width), compute, "encode", options.frames)
    first = first_group(model, chosen.frames)
    groups = [video[:, :, :first], *torch.split(video[:, :, first:], chosen.frames, 2)]
    return _surveyed(model, (group for group in groups if group.shape[2]), chosen)


def survey_tokens(model: VideoModel, path: str | os.PathLike[str]) -> LatentSurvey:
    """Statistics of the latent in one token file, which `model` made; the posterior is not in it.

    Raises `TokenFileError` if the file cannot be read or is of another model.
    """
    found = LatentSurvey(model)
    with TokenFile(path) as file:
        check_model(file.header.model, model, path)
        check_layout(file.header.latent, model, path)
        for chunk in file.chunks():
            count_values(found, chunk.values, model)
        found.frames += file.frames
    found.videos += 1
    return found


def _piece_of(path: str, options: ReadOptions) -> Piece:
    if path.lower().endswith(TOKEN_SUFFIX):
        return Piece(path, partial(survey_tokens, path=path))
    if path.lower().endswith(STATISTICS_SUFFIX):
        return Piece(path, lambda _: LatentSurvey.load(path))
    return Piece(path, partial(survey_video, path=path, options=options))


def _surveyed(model: VideoModel, video: Iterable[Tensor], chosen: Plan) -> LatentSurvey:
    """Statistics of the latent of one video, given in pieces (1, 3, T, H, W)."""
    found = LatentSurvey(model)
    with computing(), _variances(model):
        encoder = EncodePass(model.with_tiling(chosen.tiling), chosen.frames)
        for piece in video:
            found.frames += piece.shape[2]
            count_values(found, encoder.push(piece), model)
        count_values(found, encoder.flush(), model)
    found.videos += 1
    return found


def count_values(found: LatentSurvey, values: Tensor, model: VideoModel) -> None:
    """Count tokens (1, T', H', W'), a latent (1, z, T', H', W'), or a latent and its variances in a batch of two."""
    if not values.shape[-3]:
        return
    check_finite(values, model)
    if model.regularization.discrete:
        found.statistics.update(model.regularization.decode_indices(values), None, values)
    else:
        found.statistics.update(values[:1], values[1:] if len(values) > 1 else None)


@contextmanager
def _variances(model: VideoModel) -> Iterator[None]:
    """In this block, latents that are drawn come in a batch of two: the mode, then the posterior's variances.

    So both go through whatever the model's family does with a latent: streams, clips, parts.
    """

    def with_variance(_: object, given: tuple[Tensor, ...], output: Any) -> Any:
        z, log = output
        variance = model.regularization.variance(given[0])
        return (z if variance is None else torch.cat([z, variance.to(z.dtype)]), log)

    handle = model.regularization.register_forward_hook(with_variance)
    try:
        yield
    finally:
        handle.remove()


def _in_batches(frames: Iterable[Any], first: int, count: int) -> Iterator[Tensor]:
    """Frames as (1, 3, T, H, W): `first` of them, then `count` at a time."""
    for group in in_groups(frames, first, count):
        yield to_float(np.stack([frame.pixels for frame in group]))
