"""Clips of stored token files, for training without an encoder."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import ConfigError, DataError, TokenFileError
from vidtok.text import counted, unforeseen
from vidtok.tokens import TokenFile
from vidtok.training.data.batches import Failure, Loaded
from vidtok.training.data.config import StoredConfig
from vidtok.training.data.order import Place
from vidtok.video.library import TOKEN_SUFFIX, find_files

_FROM_START = 0.25
"""Share of clips that begin with a video: its first latent frame stands for one frame alone."""


def find_token_files(config: StoredConfig) -> list[str]:
    """All token files of `config`; `DataError` if there are none."""
    if os.path.isfile(config.data_dir):
        return [config.data_dir]
    if not os.path.isdir(config.data_dir):
        raise ConfigError(
            f"{config.place}.data_dir: {config.data_dir} does not exist; expected a folder of token files"
        )
    found = find_files(config.data_dir, (TOKEN_SUFFIX,))
    if not found:
        raise DataError(
            f"{config.place}: no token files in {config.data_dir}; expected files that end in {TOKEN_SUFFIX}"
        )
    return found


class StoredSource:
    """Pieces of latents or tokens from places drawn by (seed, epoch, position)."""

    def __init__(self, files: Sequence[str], config: StoredConfig, seed: int) -> None:
        self.files = files
        self.config = config
        self.seed = seed

    def load(self, places: list[Place]) -> Loaded:
        values: list[Tensor] = []
        names: list[str] = []
        tried: list[int] = []
        failures: list[Failure] = []
        for place in places:
            draws = np.random.default_rng([self.seed, place.epoch, place.position])
            item, left = place.item, len(self.files)
            while True:
                tried.append(item)
                try:
                    values.append(self._piece(self.files[item], draws))
                    names.append(self.files[item])
                    break
                except (TokenFileError, OSError) as error:
                    failures.append(Failure(item, str(error)))
                except Exception as error:  # no single file of many may end the run
                    failures.append(Failure(item, f"{self.files[item]}: {unforeseen(error)}"))
                item, left = (item + 1) % len(self.files), left - 1
                if not left:
                    return Loaded(None, tried, failures)
        unknown = torch.full((len(names),), math.nan, dtype=torch.float64)
        return Loaded({"latent": torch.cat(values), "name": names, "fps": unknown, "start": unknown}, tried, failures)

    def _piece(self, path: str, draws: np.random.Generator) -> Tensor:
        """One piece of the file at `path`: tokens (1, T', H', W') or a latent (1, z, T', H', W'), float32."""
        config = self.config
        with TokenFile(path) as file:
            latent = file.header.latent
            lead = 1 if latent.causal else 0
            wanted = lead + -(-(config.frames - lead) // latent.temporal_factor)
            rows, columns = (-(-side // latent.spatial_factor) for side in (config.height, config.width))
            here = (file.latent_frames, latent.height, latent.width)
            if any(have < want for have, want in zip(here, (wanted, rows, columns), strict=True)):
                raise TokenFileError(
                    f"{path} has {' x '.join(map(str, here))} latent positions, fewer than the {wanted} x {rows} x "
                    f"{columns} of a training clip; leave it out, or set smaller clips ({config.place}.video_params)"
                )
            starts = [
                int(draws.integers(have - want + 1)) for have, want in zip(here, (wanted, rows, columns), strict=True)
            ]
            first = 0 if draws.random() < _FROM_START else starts[0]
            if not latent.causal:
                first -= first % latent.chunk
                wanted = min(wanted, here[0] - first)
            values = file.read(first, first + wanted)
        piece = values[..., starts[1] : starts[1] + rows, starts[2] : starts[2] + columns]
        return piece.float() if piece.is_floating_point() else piece.contiguous()

    def __repr__(self) -> str:
        return counted(len(self.files), "token file")
