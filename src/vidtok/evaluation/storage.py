"""Figures kept video by video, so that an evaluation that was stopped goes on from there."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from vidtok.errors import VidTokError
from vidtok.evaluation.measuring import Measured
from vidtok.files import make_folder, write_whole

_FOLDER = "parts"
_VERSION = 2


class PartStore:
    """The folder `parts` of an evaluation: a file for each subject and video.

    A part is found again only for the same subject, options and file. It names its metrics and the versions of their
    definitions, so that a new metric leaves all kept figures valid. Raises `VidTokError` if the folder cannot be made.
    As a context manager, it leaves no empty folder of its own behind.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder / _FOLDER
        self._made = [each for each in (self._folder, folder) if not each.exists()]
        make_folder(self._folder, VidTokError, "choose another --out")

    def __enter__(self) -> PartStore:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):  # a folder that is not empty stays
            for folder in self._made:
                folder.rmdir()

    def load(self, key: Mapping[str, Any]) -> Measured | None:
        """The figures kept under `key`; None if there are none, or the file is damaged."""
        path = self._path(key)
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return Measured.from_arrays({name: arrays[name] for name in arrays.files})
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
            return None

    def save(self, key: Mapping[str, Any], measured: Measured) -> None:
        """Keep `measured` under `key`. Raises `VidTokError` if the file cannot be written."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {**measured.to_arrays()}
        np.savez(buffer, **arrays)
        write_whole(self._path(key), buffer.getvalue())

    def _path(self, key: Mapping[str, Any]) -> Path:
        text = json.dumps({"version": _VERSION, **key}, sort_keys=True)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npz"
