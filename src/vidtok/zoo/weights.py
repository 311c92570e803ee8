"""Weights of the models that have a name: shipped with the package, in the Hub's cache, or on the Hub."""

from __future__ import annotations

import re
from pathlib import Path

from vidtok.config.registry import ModelEntry, package_folder
from vidtok.errors import CheckpointError
from vidtok.zoo import hub

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]*")


def weights_at_hand(entry: ModelEntry) -> Path | None:
    """The weights of `entry` on this machine: shipped with the package or in the Hub's cache; None if neither.

    Never touches the network.
    """
    shipped = package_folder() / "zoo" / "weights" / entry.name / "model.safetensors"
    if shipped.is_file():
        return shipped
    return hub.cached_file(entry.hub_repo, entry.hub_file) if entry.hub_repo and entry.hub_file else None


def decoder_at_hand(decoder: str, model: str, folder: Path | None) -> Path | None:
    """The folder of the decoder called `decoder` that comes with a model; None if there is none.

    It lies in the model's own `folder`, or in the package's for `model`, a model's name. Never touches the network.
    """
    if not _NAME.fullmatch(decoder):
        return None
    places = [folder] if folder is not None else [package_folder() / "zoo" / "weights" / model]
    return next((place / decoder for place in places if (place / decoder / hub.FOLDER_FILES[0]).is_file()), None)


def fetch_weights(entry: ModelEntry) -> Path:
    """The weights of `entry`: those at hand, else downloaded into the Hub's cache.

    Raises a `CheckpointError` that says what was tried and how to get the file by hand, if they cannot be had.
    """
    at_hand = weights_at_hand(entry)
    if at_hand is not None:
        return at_hand
    if not entry.hub_repo or not entry.hub_file:
        raise CheckpointError(
            f"the weights of {entry.name}, which come with this package, are missing from {package_folder()}; "
            "install it anew: `pip install --force-reinstall vidtok`"
        )
    return hub.download_file(entry.hub_repo, entry.hub_file, wanted_for=entry.name)
