"""Token files as arrays for other programs, `.npy` and `.safetensors`, and back."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidtok.errors import TokenFileError
from vidtok.files import aside, save_tensors, write_whole
from vidtok.text import reason
from vidtok.tokens.header import LatentLayout, TokenHeader
from vidtok.tokens.reader import Times, TokenFile
from vidtok.tokens.values import STORED
from vidtok.tokens.writer import TokenWriter, check_place

_SUFFIXES = (".npy", ".safetensors")
_HEADER, _FRAMES, _TIMES = "vidtok_header", "frames", "times"
_MAX_SIDE_FILE = 1 << 28


def export_file(path: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write the contents of the token file at `path` to `output`, which ends in `.npy` or `.safetensors`.

    Tokens become an int32 array (T', H', W'). A latent becomes a float array (z, T', H', W') of its stored dtype, or
    float32 for int8. A `.safetensors` file has the array as `tokens` or `latents`, the times as `times` if they are
    stored, and the header in its metadata. An `.npy` file has bfloat16 as float32, and a file `OUTPUT.json` beside it
    has header and times. `import_file` turns both into the same token file again. All contents are held in memory.

    Raises `TokenFileError` if the file is damaged, or the output cannot be written.
    """
    output = Path(output)
    _check_suffix(output)
    check_place(output)
    with TokenFile(path) as file:
        values = file.read()[0]
        times = file.times()
        regular = file.header.video.start + np.arange(file.frames) / float(file.header.video.fps)
        kept = None if np.array_equal(times, regular) else times
        header = file.header.to_json().decode()
        if output.suffix == ".safetensors":
            tensors = {_key(file.header.latent): values.contiguous()}
            if kept is not None:
                tensors[_TIMES] = torch.from_numpy(kept)
            described = {_HEADER: header, _FRAMES: str(file.frames)}
            with aside(output, TokenFileError) as new:
                save_tensors(new, tensors, described)
            return
        side = {_HEADER: json.loads(header), _FRAMES: file.frames, _TIMES: None if kept is None else kept.tolist()}
        array = (values.float() if values.dtype == torch.bfloat16 else values).numpy()
        with aside(output, TokenFileError) as new:
            np.save(new, array, allow_pickle=False)
            write_whole(_side_file(output), json.dumps(side) + "\n", TokenFileError)


def import_file(source: str | os.PathLike[str], path: str | os.PathLike[str]) -> None:
    """Write the token file at `path` from `source`, which `export_file` wrote; its arrays may have been changed.

    Raises `TokenFileError` if `source` cannot be read, or its array does not fit its header.
    """
    source = Path(source)
    _check_suffix(source)
    try:
        values, times, content, frames = (_load_npy if source.suffix == ".npy" else _load_safetensors)(source)
    except FileNotFoundError as error:
        raise TokenFileError(f"{error.filename or source}: no such file; check the path") from error
    except (OSError, ValueError, TypeError, KeyError, OverflowError, EOFError, RecursionError) as error:
        if isinstance(error, TokenFileError):
            raise
        raise TokenFileError(f"{source} is not what export_file wrote: {reason(error)[:160]}") from error
    try:
        header = TokenHeader.from_json(content.encode())
    except TokenFileError as error:
        raise TokenFileError(f"{source}: {error}") from error
    latent = header.latent
    dtype = torch.int32 if latent.discrete else STORED[latent.coding]
    wanted_dims = 3 if latent.discrete else 4
    if values.dim() != wanted_dims or values.is_floating_point() == latent.discrete:
        raise TokenFileError(
            f"{source} holds {values.dtype} of shape {tuple(values.shape)}; expected "
            f"{'tokens' if latent.discrete else 'a latent'} of {wanted_dims} dimensions, as its header says"
        )
    with TokenWriter(path, header) as writer:
        writer.write(values.to(dtype).unsqueeze(0), None if times is None else times.tolist())
        writer.finish(frames)


def _key(latent: LatentLayout) -> str:
    return "tokens" if latent.discrete else "latents"


def _side_file(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _check_suffix(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise TokenFileError(f"{path} ends in {path.suffix!r}; expected one of {', '.join(_SUFFIXES)}")


_Loaded = tuple[Tensor, Times | None, str, int]


def _load_npy(path: Path) -> _Loaded:
    side = _side_file(path)
    if side.stat().st_size > _MAX_SIDE_FILE:
        raise ValueError(f"{side} is far too large")
    described = json.loads(side.read_text(encoding="utf-8"))
    # Mapped, so that an array header that promises more than the file holds takes no memory.
    values = torch.from_numpy(np.array(np.load(path, mmap_mode="r", allow_pickle=False)))
    times = described[_TIMES]
    return (
        values,
        None if times is None else np.asarray(times, np.float64),
        json.dumps(described[_HEADER]),
        int(described[_FRAMES]),
    )


def _load_safetensors(path: Path) -> _Loaded:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata, names = file.metadata() or {}, set(file.keys())
            values = file.get_tensor("tokens" if "tokens" in names else "latents")
            times = file.get_tensor(_TIMES).numpy() if _TIMES in names else None
            return values, times, metadata[_HEADER], int(metadata[_FRAMES])
    except SafetensorError as error:
        raise ValueError(str(error)) from error
