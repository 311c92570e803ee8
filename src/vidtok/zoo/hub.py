"""Files on the Hugging Face Hub, through its client and into its cache."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from vidtok.errors import CheckpointError
from vidtok.text import reason

log = logging.getLogger(__name__)

FOLDER_FILES = ("config.json", "model.safetensors")
"""Files of a model that this package wrote, in a folder or a repository."""

_CONNECT_SECONDS = 10.0
_Result = TypeVar("_Result")


def cached_file(repo: str, file: str) -> Path | None:
    """`file` of `repo` in the Hub's cache on this machine, or None. Never touches the network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(repo, file)
    return Path(path) if isinstance(path, str) else None


def download_file(repo: str, file: str, wanted_for: str) -> Path:
    """`file` of `repo`, downloaded into the Hub's cache unless it is there.

    Raises a `CheckpointError` that names `wanted_for`, the address tried and the way to get the file by hand.
    """
    from huggingface_hub import hf_hub_download, hf_hub_url

    cached = cached_file(repo, file)
    if cached:
        return cached
    url = hf_hub_url(repo, file)
    downloaded = _reach(
        lambda: hf_hub_download(repo, file, etag_timeout=_CONNECT_SECONDS),
        url=url,
        problem=f"the weights of {wanted_for} are not on this machine and could not be downloaded from {url}",
        remedy="download that file with a browser or on another machine and give it with `--checkpoint PATH` "
        "(in Python, `checkpoint=PATH`); the models whose names end in _tiny come with the package",
    )
    return Path(downloaded)


def resolve_hub_repo(repo_id: str, revision: str | None = None) -> Path:
    """The folder in the Hub's cache with the model of the repository `repo_id`, downloaded if the Hub has a newer one.

    The repository must hold `config.json` and `model.safetensors`, as `save_folder` writes them. If the Hub is out
    of reach, the copy in the cache is used, with a warning. Raises `CheckpointError` if there is neither.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        cached = _cached_snapshot(repo_id, revision)
        if cached and _is_commit(revision):
            return cached
        return _download_folder(repo_id, revision)
    except HFValidationError as error:
        raise CheckpointError(
            f"{repo_id!r} is not the name of a repository on the Hub; expected OWNER/NAME ({reason(error)})"
        ) from error
    except CheckpointError as error:
        if not cached:
            raise
        log.warning("%s is read from the cache, as last downloaded (%s)", repo_id, reason(error))
        return cached


def _download_folder(repo_id: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_url, snapshot_download

    url = hf_hub_url(repo_id, FOLDER_FILES[0], revision=revision)
    folder = Path(
        _reach(
            lambda: snapshot_download(
                repo_id, revision=revision, allow_patterns=list(FOLDER_FILES), etag_timeout=_CONNECT_SECONDS
            ),
            url=url,
            problem=f"the model {repo_id} could not be downloaded from {url}",
            remedy=f"download {' and '.join(FOLDER_FILES)} by hand into one folder and give that folder",
        )
    )
    missing = [file for file in FOLDER_FILES if not (folder / file).is_file()]
    if missing:
        raise CheckpointError(
            f"the repository {repo_id} holds no {' and no '.join(missing)}; expected a model that this package wrote, "
            f"with {' and '.join(FOLDER_FILES)}"
        )
    return folder


def _cached_snapshot(repo_id: str, revision: str | None) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    paths = [try_to_load_from_cache(repo_id, file, revision=revision) for file in FOLDER_FILES]
    folders = {Path(path).parent for path in paths if isinstance(path, str)}
    return folders.pop() if len(folders) == 1 and all(isinstance(path, str) for path in paths) else None


def _is_commit(revision: str | None) -> bool:
    """True if `revision` names a commit, which cannot change as a branch does."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def _reach(download: Callable[[], _Result], *, url: str, problem: str, remedy: str) -> _Result:
    """The result of `download`. Raises one `CheckpointError`: "PROBLEM: CAUSE; REMEDY".

    A first request tests the connection: without a network it fails at once, where the client would retry for half a
    minute.
    """
    from huggingface_hub import errors, get_hf_file_metadata
    from huggingface_hub.constants import HF_HUB_OFFLINE

    try:
        if HF_HUB_OFFLINE:
            raise errors.OfflineModeIsEnabled("the environment variable HF_HUB_OFFLINE forbids it")
        get_hf_file_metadata(url, timeout=_CONNECT_SECONDS)
        return download()
    except errors.HFValidationError:
        raise
    except errors.GatedRepoError as error:
        cause = "access must be granted: accept the terms on its page, then log in with `hf auth login`"
        raise CheckpointError(f"{problem}: {cause}; or {remedy}") from error
    except errors.EntryNotFoundError as error:
        raise CheckpointError(f"{problem}: the repository has no such file; {remedy}") from error
    except errors.RevisionNotFoundError as error:
        raise CheckpointError(f"{problem}: the repository has no such revision; {remedy}") from error
    except errors.RepositoryNotFoundError as error:
        cause = "there is no such repository, or it is private (`hf auth login`)"
        raise CheckpointError(f"{problem}: {cause}; {remedy}") from error
    # The client raises the errors of whatever HTTP library its version uses, which share no base: the user needs the
    # same advice after any of them.
    except Exception as error:
        raise CheckpointError(f"{problem}: {reason(error)}; {remedy}") from error


def upload(
    folder: Path, *, repo_id: str, token: str | None = None, private: bool | None = None,
    commit_message: str = "Upload a vidtok model",
) -> str:  # fmt: skip
    """Upload a model's folder to the repository `repo_id`, which is made if missing, and return its address.

    Raises `CheckpointError` if the Hub cannot be reached or refuses it.
    """
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=url.repo_id, folder_path=folder, commit_message=commit_message)
    except Exception as error:  # as for downloads
        raise CheckpointError(
            f"the model could not be uploaded to {repo_id!r} on the Hub: {reason(error)}; log in with `hf auth login`, "
            "or give the token of an account that may write there"
        ) from error
    return str(url)
