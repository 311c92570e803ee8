"""`vidtok info`: the content of a token file."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidtok.cli.early import check_exists
from vidtok.errors import TokenFileError
from vidtok.metrics.rate import bits_per_pixel, compression

if TYPE_CHECKING:
    from vidtok.tokens import LatentLayout, TokenFile

_HASH = 12
_LISTED = 20
"""The most faults that are listed."""


def info(
    input: Annotated[Path, typer.Argument(help="A token file, finished or still growing (.part).")],
    check: Annotated[bool, typer.Option("--check", help="Read the whole file and name its damaged parts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the whole header.")] = False,
) -> None:
    """Show the content of a token file: model, video, latent or tokens, size, and its rate beside the video's.

    With --check, a damaged file is an error.
    """
    check_exists(input, "a token file that `vidtok encode` wrote", TokenFileError)

    from vidtok.tokens import DamagedTokenFileError, read

    with read(input) as file:
        damages = file.damages() if check else []
        typer.echo(json.dumps(_as_json(file, damages if check else None), indent=2) if as_json else _as_text(file))
    if damages:
        more = [f"  and {len(damages) - _LISTED} more (--json has all)"] if len(damages) > _LISTED else []
        lines = [*(f"  {damage}" for damage in damages[:_LISTED]), *more]
        raise DamagedTokenFileError(f"{input} is damaged:\n" + "\n".join(lines))
    if check and not as_json:
        typer.echo("check   all chunks are sound")


def values(latent: LatentLayout, frames: int) -> tuple[str, str]:
    """The row on the values of a file of `frames` latent frames: "tokens" or "latent", and their number."""
    grid = f"{frames} x {latent.height} x {latent.width}"
    count = latent.values_per_frame * frames
    if latent.discrete:
        return "tokens", f"{count:,} ({grid}, T x H x W), each one of {latent.codebook_size:,}, {latent.coding}"
    if latent.streams:
        streams = ", ".join(f"{s.name} {' x '.join(map(str, (s.channels, *s.positions)))}" for s in latent.streams)
        return "latent", f"{frames} clips of {latent.channels:,} values ({streams}), {latent.coding}"
    return "latent", f"{latent.channels} channels x {grid} (T x H x W), {count:,} values, {latent.coding}"


def tiles(tiling: Any) -> tuple[str, str]:
    """The row on the tiles that a file's header notes."""
    known = isinstance(tiling, dict) and all(
        type(tiling.get(key)) is int for key in ("size", "overlap", "rows", "columns")
    )
    if not known:
        return "tiles", "frames were encoded in tiles"
    return "tiles", "{rows} x {columns}, of at most {size} pixels, which overlap by {overlap} or more".format(**tiling)


def rate(bits: float, times: float, size: int, source_bytes: int | None) -> str:
    """The rate of a file of `size` bytes in words: `bits` per pixel, and `times` smaller than RGB."""
    text = f"{bits:.4f} bits per pixel, {times:.1f} times smaller than 24-bit RGB"
    if not source_bytes:
        return text
    ratio = source_bytes / size
    than = f"{ratio:.2f} times smaller" if ratio >= 1 else f"{1 / ratio:.2f} times larger"
    return f"{text}, {than} than the source file"


def _as_text(file: TokenFile) -> str:
    header = file.header
    video, latent, model, source = header.video, header.latent, header.model, header.source
    state = "" if file.complete else ", not finished: still being written, or cut off"
    shown = "a picture" if video.picture else f"{float(video.fps):.6g} a second{', on average' if file.timed else ''}"
    rows = [
        ("file", f"{file.path}, {file.bytes:,} bytes{state}"),
        ("model", f"{model.name}, weights {model.weights[:_HASH]} ({model.weights_dtype}), "
                  f"configuration {model.config[:_HASH]}"),
        ("video", f"{file.frames:,} frames, {shown}, {video.width} x {video.height} pixels"),
        values(latent, file.latent_frames),
        ("chunks", f"{len(file.entries):,}, of {latent.chunk} latent frames"),
    ]  # fmt: skip
    if file.frames:
        figures = _figures(file)
        rows.append(("rate", rate(figures["bits_per_pixel"], figures["compression"], file.bytes, _source_bytes(file))))
    if header.encoding.get("tiling"):
        rows.insert(4, tiles(header.encoding["tiling"]))
    if source is not None:
        before = "" if source.width is None else f", {source.width} x {source.height} pixels"
        coded = "" if source.codec is None else f", {source.codec} {source.pixel_format}"
        size = "" if source.bytes is None else f", {source.bytes:,} bytes"
        part = "" if source.whole else ", a range of it"
        rows.append(("source", f"{source.name}{before}{coded}{size}{part}"))
    return "\n".join(f"{name:<8}{value}" for name, value in rows)


def _as_json(file: TokenFile, damages: list[str] | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "file": str(file.path),
        "bytes": file.bytes,
        "complete": file.complete,
        "frames": file.frames,
        "latent_frames": file.latent_frames,
        "chunks": len(file.entries),
        "variable_rate": file.timed,
        **(_figures(file) if file.frames else {}),
        "header": json.loads(file.header.to_json()),
    }
    return result if damages is None else {**result, "damages": damages}


def _figures(file: TokenFile) -> dict[str, Any]:
    cost = bits_per_pixel(8 * file.bytes, math.prod(file.size))
    source = _source_bytes(file)
    return {
        "bits_per_pixel": cost,
        "compression": compression(cost),
        "compression_of_source": None if source is None else source / file.bytes,
    }


def _source_bytes(file: TokenFile) -> int | None:
    """The size of the source in bytes, if all of it was encoded; else None."""
    source = file.header.source
    return source.bytes if source is not None and source.whole and file.complete else None
