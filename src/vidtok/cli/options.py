"""Options that several subcommands have."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidtok.cli.early import check_model
from vidtok.cli.progress import status
from vidtok.cli.usage import COUNT, MOST_PIXELS, OVERLAP, RATE, SECONDS, SIDE, STREAM, memory
from vidtok.errors import VidTokError
from vidtok.fields import shown

if TYPE_CHECKING:
    import torch

    from vidtok.tokenizer import Part, Tokenizer

_OVERLAP = 64
_PUBLISHED_SIZE = 256


class DType(StrEnum):
    """Types that a model computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"

    @property
    def torch(self) -> torch.dtype:
        import torch

        dtype = getattr(torch, self.value)
        assert isinstance(dtype, torch.dtype)
        return dtype


def _size(text: str) -> str:
    """`text` of `--size`: "original", or a number of pixels."""
    number = text.isascii() and text.isdigit() and len(text) <= len(str(MOST_PIXELS))
    if text != "original" and not (number and 1 <= int(text) <= MOST_PIXELS):
        raise typer.BadParameter(f"{shown(text)} is neither `original` nor a number of pixels from 1 to {MOST_PIXELS}")
    return text


def model_names(incomplete: str) -> list[str]:
    """Names of models that begin with `incomplete`, for completion."""
    from vidtok.config.registry import models

    return [name for name in models() if name.startswith(incomplete)]


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|YAML|FOLDER|HUB",
        autocompletion=model_names,
        help="A name that `vidtok models` lists, a YAML file, a folder with a saved model, or OWNER/NAME on the Hub.",
    ),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Weights to use (.safetensors, .ckpt or .pt) instead of the model's own.")
]
DecoderOption = Annotated[
    str | None,
    typer.Option(
        "--decoder",
        metavar="full|fast|FOLDER",
        help="Decoder in place of the model's own: one that comes with it, by name, or a folder of `vidtok distill`.",
        show_default="full",
    ),
]
DeviceOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="cpu, cuda, cuda:1 and so on.", show_default="cuda if there is one, else cpu"),
]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="Type to compute in.")]
VideoOutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Output: .mp4, .mov, .mkv; .png for one frame.")
]

HeightOption = Annotated[
    int | None,
    typer.Option(parser=SIDE, metavar="PIXELS", help="Rows after resize and crop.", show_default="as --width, or 256"),
]
WidthOption = Annotated[
    int | None,
    typer.Option(
        parser=SIDE, metavar="PIXELS", help="Columns after resize and crop.", show_default="as --height, or 256"
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(parser=_size, metavar="original|N", help="`original`: no resize and no crop; N: both sides N."),
]
FpsOption = Annotated[
    float | None,
    typer.Option(parser=RATE, metavar="RATE", help="Frames per second to sample.", show_default="every frame"),
]
StartOption = Annotated[
    float, typer.Option(parser=SECONDS, metavar="SECONDS", help="Seconds into the video to start at.")
]
MaxFramesOption = Annotated[
    int | None, typer.Option(parser=COUNT, metavar="N", help="Stop after this many frames.", show_default="all")
]
TruncatedOption = Annotated[
    bool, typer.Option("--allow-truncated", help="Use the part of a damaged video that can be decoded.")
]
StreamOption = Annotated[
    int | None,
    typer.Option(
        parser=STREAM,
        metavar="N",
        help="Video stream of the file, from 0 on.",
        show_default="the one that FFmpeg takes",
    ),
]
ChunkFramesOption = Annotated[
    int | None,
    typer.Option(
        parser=COUNT,
        metavar="N",
        help="Frames to compute at a time; for a non-causal model, the length of its clips.",
        show_default="16, fewer if large",
    ),
]
TileOption = Annotated[
    int | None,
    typer.Option(
        parser=SIDE,
        metavar="PIXELS",
        help="Cut large frames into tiles of at most this many pixels a side, blended where they overlap.",
        show_default="whole frames",
    ),
]
TileOverlapOption = Annotated[
    int | None,
    typer.Option(
        parser=OVERLAP, metavar="PIXELS", help="Least overlap of neighbouring tiles.", show_default=str(_OVERLAP)
    ),
]
MaxMemoryOption = Annotated[
    str | None,
    typer.Option(
        parser=memory,
        metavar="SIZE",
        help="Most memory to use, such as 6GB: of the process, or of the GPU. Tiles are chosen to fit.",
        show_default="no limit",
    ),
]


def wanted_size(height: int | None, width: int | None, size: str | None) -> dict[str, int | None]:
    """The size options of a job: `height` and `width`, or `default_size`, for models without a size of their own."""
    if size is None and height is None and width is None:
        return {"default_size": _PUBLISHED_SIZE}
    rows, columns = frame_size(height, width, size)
    return {"height": rows, "width": columns}


def frame_size(height: int | None, width: int | None, size: str | None) -> tuple[int | None, int | None]:
    """(height, width) of the frames after the resize: (None, None) for no resize.

    Raises `VidTokError` for options that contradict each other.
    """
    if size is None:
        return (_PUBLISHED_SIZE, _PUBLISHED_SIZE) if height is None and width is None else (height, width)
    if height is not None or width is not None:
        raise VidTokError("--size cannot be given together with --height or --width; leave one of them out")
    return (None, None) if size == "original" else (int(size), int(size))


def load_model(
    model: str,
    checkpoint: Path | None,
    device: str | None,
    dtype: DType,
    *,
    limited: bool = False,
    decoder: str | None = None,
    parts: Part | None = None,
) -> Tokenizer:
    """The tokenizer that these options name. Memory is kept between layers, unless `limited` (by --max-memory)."""
    check_model(model, checkpoint, decoder, parts)
    with status(f"loading {model}"):
        import vidtok
        from vidtok.device import choose_device, keep_freed_memory

        if not limited:
            keep_freed_memory()
        place = choose_device(device)
        return vidtok.load(model, checkpoint, device=place, dtype=dtype.torch, decoder=decoder, parts=parts)


def say_other_streams(said: str) -> None:
    """Print the line about other video streams of the input, unless it is empty."""
    if said:
        typer.echo(f"{'stream':<8}{said}")
