"""Weights of metrics' networks in a cache of this package's own, as safetensors, each whole or not at all."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from vidtok.files import Aside, save_tensors, writing
from vidtok.metrics.flax_files import FlaxFile

log = logging.getLogger(__name__)

VARIABLE = "VIDTOK_CACHE"
_SUFFIX = ".safetensors"


def cache_folder() -> Path:
    """The folder of converted weights: below `VIDTOK_CACHE`, or `vidtok` in the user's cache."""
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given).expanduser() / "metrics"
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "vidtok" / "metrics"


def cached_file(source: FlaxFile) -> Path:
    """The place of the weights converted from `source`, named by its hash, so that no other file is taken for it."""
    return cache_folder() / f"{source.package}-{source.sha256[:12]}{_SUFFIX}"


def converted(source: FlaxFile) -> Path | None:
    """The file of weights made from the installed package of `source`, now or before; None if there is neither.

    Raises `VidTokError` if the package's file is not the one that was published, or the cache cannot be written.
    """
    kept = cached_file(source)
    if kept.is_file():
        return kept
    found = source.find()
    return None if found is None else convert(source, found)


def convert(source: FlaxFile, path: Path) -> Path:
    """Convert the package's file `path` into the cache; returns the place there.

    Raises `VidTokError` if it is not the published file, or the cache cannot be written.
    """
    from safetensors import SafetensorError

    state = source.read(path)
    kept = cached_file(source)
    advice = f"make room there, or set {VARIABLE} to another folder"
    with writing(kept, advice=advice, also=(SafetensorError,)):
        kept.parent.mkdir(parents=True, exist_ok=True)
        with Aside(kept) as aside:
            save_tensors(aside, state, {"source": f"{source.requirement} {source.sha256}"})
    log.info("converted %s into %s", path, kept)
    return kept
