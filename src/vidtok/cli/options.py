"""Options that several subcommands have."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import torch

    from vidtok.tokenizer import Tokenizer


class DType(str, Enum):
    """What a model computes in."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"

    @property
    def torch(self) -> torch.dtype:
        import torch

        dtype = getattr(torch, self.value)
        assert isinstance(dtype, torch.dtype)
        return dtype


ModelOption = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        metavar="NAME|YAML|FOLDER|HUB",
        help="A name that `vidtok models` lists, a YAML file, a folder with a saved model, or OWNER/NAME on the Hub.",
    ),
]
CheckpointOption = Annotated[
    Path | None, typer.Option(help="Weights to use (.safetensors, .ckpt or .pt) instead of those the model leads to.")
]
DeviceOption = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 and so on.", show_default="cuda if there is one, else cpu")
]
DTypeOption = Annotated[DType, typer.Option("--dtype", help="What to compute in.")]


def load_model(model: str, checkpoint: Path | None, device: str | None, dtype: DType) -> Tokenizer:
    """The tokenizer that these options ask for."""
    import vidtok
    from vidtok.device import choose_device

    return vidtok.load(model, checkpoint, device=choose_device(device), dtype=dtype.torch)
