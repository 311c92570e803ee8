"""The list of a data set's videos: from a CSV file, a text file, a folder, or .tar shards."""

from __future__ import annotations

import glob
import logging
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

import numpy as np

from vidtok.errors import ConfigError, DataError, VideoError
from vidtok.text import counted
from vidtok.training.data.shards import SHARD_SUFFIXES, shard_videos
from vidtok.video import MediaSlice
from vidtok.video.library import VIDEO_SUFFIXES, find_files, read_list, unbraced

log = logging.getLogger(__name__)

_LOOKED_FOR = 20


class VideoFiles(Sequence["str | MediaSlice"]):
    """Paths of videos, of files or inside shards, packed into a few arrays.

    A list of a million strings would be copied, page by page, into each worker process as it is read.
    """

    def __init__(self, videos: Iterable[str | MediaSlice]) -> None:
        names: list[bytes] = []
        places: list[tuple[int, int, int]] = []
        shards: dict[str, int] = {}
        for video in videos:
            if isinstance(video, MediaSlice):
                names.append(os.fsencode(video.name))
                places.append((shards.setdefault(video.file, len(shards)), video.offset, video.size))
            else:
                names.append(os.fsencode(video))
                places.append((-1, 0, 0))
        self._names = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self._places = np.array(places, np.int64).reshape(-1, 3)
        self._shards = list(shards)

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> str | MediaSlice: ...

    @overload
    def __getitem__(self, index: slice) -> list[str | MediaSlice]: ...

    def __getitem__(self, index: int | slice) -> str | MediaSlice | list[str | MediaSlice]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        index = range(len(self))[index]
        begin = int(self._ends[index - 1]) if index else 0
        name = os.fsdecode(self._names[begin : int(self._ends[index])])
        shard, offset, size = (int(number) for number in self._places[index])
        return name if shard < 0 else MediaSlice(self._shards[shard], offset, size, name)


def find_videos(data_dir: str | None, meta_path: str | None, data_frac: float, place: str) -> VideoFiles:
    """The videos that the data section at `place` names.

    With `meta_path`, a list as `read_list` reads it: paths are relative to `data_dir`, or to the list's own folder.
    Without, all videos below the folder `data_dir`, as `find_files` finds them; or `data_dir` is itself a video or
    shard, or a pattern such as `shards/{0000..0099}.tar` or `shards/*.tar`. A shard, listed or found, stands for the
    videos in it.

    Raises:
        ConfigError: a file or folder is missing or of another kind.
        DataError: there are no videos, or none of the first ones in the list exists.
    """
    if meta_path is None:
        assert data_dir is not None
        paths: Iterable[str] = _below(data_dir, place)
        where = data_dir
    else:
        listed = _listed(meta_path, place)
        root = os.path.dirname(meta_path) if data_dir is None else data_dir
        if data_dir is not None and not os.path.isdir(data_dir):
            raise ConfigError(
                f"{place}.data_dir: {data_dir} is no folder; expected the one below which the videos of {meta_path} are"
            )
        paths = [os.path.join(root, name) for name in listed]
        where = meta_path
        _check_some_exist(paths, meta_path, root, place)
    videos = VideoFiles(_expanded(paths))
    if not len(videos):
        raise DataError(
            f"{place}: no videos in {where}; expected files that end in {', '.join(VIDEO_SUFFIXES)}, or "
            f"{' or '.join(SHARD_SUFFIXES)} with such files in it"
        )
    if data_frac < 1:
        videos = VideoFiles(videos[: math.ceil(len(videos) * data_frac)])
    log.info("%s: %s in %s", place, counted(len(videos), "video"), where)
    return videos


def _expanded(paths: Iterable[str]) -> Iterator[str | MediaSlice]:
    for path in paths:
        if path.lower().endswith(SHARD_SUFFIXES):
            yield from shard_videos(path)
        else:
            yield path


def _listed(meta_path: str, place: str) -> list[str]:
    names = read_list(meta_path, f"{place}.meta_path:", ConfigError)
    if not names:
        raise DataError(f"{place}.meta_path: {meta_path} lists no videos; expected at least one")
    return names


def _check_some_exist(paths: Sequence[str], meta_path: str, root: str, place: str) -> None:
    """Raise `DataError` if none of the first paths exists: a wrong folder shows without a look at a million files."""
    if not any(os.path.exists(path) for path in paths[:_LOOKED_FOR]):
        first = counted(min(len(paths), _LOOKED_FOR), "video")
        raise DataError(
            f"{place}: of the first {first} that {meta_path} lists none is there, such as {paths[0]}; expected "
            f"paths relative to {root or '.'}: check {place}.data_dir and the list"
        )


def _below(data_dir: str, place: str) -> list[str]:
    if os.path.isdir(data_dir):
        try:
            return find_files(data_dir, VIDEO_SUFFIXES + SHARD_SUFFIXES)
        except VideoError as error:
            raise DataError(f"{place}.data_dir: {error}") from error
    if os.path.exists(data_dir):
        return [data_dir]
    found: list[str] = []
    for name in unbraced(data_dir):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise ConfigError(
                f"{place}.data_dir: {name} does not exist; expected a folder of videos, a video, a .tar of videos, or "
                "a pattern such as shards/{0000..0099}.tar or shards/*.tar"
            )
        found += matches
    return found
