"""Statistics of a collection's latents, for `vidtok stats`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import torch

from vidtok.datasets.collection import SETTINGS, Collection
from vidtok.datasets.reading import TokenDataset
from vidtok.jobs.statistics import LatentSurvey, Piece, count_values
from vidtok.models.base import VideoModel
from vidtok.tokens import ModelIdentity, check_model


def collection_pieces(data: Sequence[str | os.PathLike[str]]) -> tuple[list[Piece], list[str]]:
    """One piece for each group of the collections among `data`, and the rest of `data`."""
    folders = [Path(each) for each in data if (Path(each) / SETTINGS).is_file()]
    rest = [os.fspath(each) for each in data if Path(each) not in folders]
    found: list[Piece] = []
    for folder in folders:
        records = TokenDataset(folder)
        made_with = ModelIdentity(**Collection(folder).settings()["model"])
        starts = records.groups.tolist()
        found += [
            Piece(f"{folder}, records {first} to {last - 1}", partial(_survey, records, made_with, first, last))
            for first, last in pairwise(starts)
            if first < last
        ]
    return found, rest


def _survey(records: TokenDataset, made_with: ModelIdentity, first: int, last: int, model: VideoModel) -> LatentSurvey:
    """Statistics of some records. Raises `VidTokError` if another model made them, or they cannot be read."""
    check_model(made_with, model, records.root)
    found = LatentSurvey(model)
    sources = set()
    with torch.no_grad():
        for index in range(first, last):
            record = records[index]
            values = record["indices"] if "indices" in record else record["latent"].to(model.dtype)
            count_values(found, values[None].to(model.device), model)
            found.frames += record["frames"]
            sources.add(record["input"])
    found.videos += len(sources)
    return found
