"""Videos inside .tar files (WebDataset's shards), found by the headers and read in place.

WebDataset's own reader streams a shard from its start: to resume in the middle of an epoch, it reads all that comes
before. Members of an uncompressed .tar lie there as they are, so each can be opened like a file of its own:
videos in shards get the same order, sharing among ranks and workers, and resuming as single files.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath

from vidtok.errors import DataError
from vidtok.text import reason
from vidtok.video import MediaSlice
from vidtok.video.library import is_media

SHARD_SUFFIXES = (".tar",)


def shard_videos(path: str) -> Iterator[MediaSlice]:
    """The videos among the members of the .tar at `path`, sorted by name; hidden ones are left out.

    Reads the headers alone. Raises `DataError` if the file is missing, cut off, compressed or no .tar.
    """
    try:
        # "r:" takes no compressed archive: there a member can only be found by reading all before it.
        with tarfile.open(path, "r:") as archive:
            members = [member for member in archive if member.isfile() and _is_video(member.name)]
        whole = os.path.getsize(path)
    except tarfile.ReadError as error:
        raise DataError(
            f"{path} cannot be read as a .tar ({error}); expected an uncompressed one, whole, with videos in it"
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}; check the path and its permissions") from error
    for member in members:
        if member.offset_data + member.size > whole:
            raise DataError(f"{path} is cut off in the middle of {member.name}; get a whole copy of it")
    members.sort(key=lambda member: member.name)
    for member in members:
        yield MediaSlice(os.path.abspath(path), member.offset_data, member.size, member.name)


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    return is_media(path.name) and not any(folder.startswith(".") for folder in path.parts)
