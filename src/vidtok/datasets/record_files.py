"""Sinks that write a file a record: token files and safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vidtok.datasets.records import Record, from_bytes
from vidtok.datasets.sink import FileSink
from vidtok.errors import CollectionError
from vidtok.files import CHECK_DISK, aside, save_tensors, writing
from vidtok.video.library import TOKEN_SUFFIX


class TokenFiles(FileSink):
    """Token files (docs/token-file.md); the encoder writes them itself."""

    name = "vtok"
    suffix = TOKEN_SUFFIX


class SafetensorsFiles(FileSink):
    """One safetensors file a record, with musubi-tuner's keys: `latents_{F}x{H}x{W}_{dtype}`, and text as metadata.

    Tokens have the key `indices_{F}x{H}x{W}_{dtype}`.
    """

    name = "safetensors"
    suffix = ".safetensors"

    @classmethod
    def write(cls, folder: Path, record: Record) -> dict[str, Any]:
        head = record.head
        shape, dtype = tuple(head["shape"]), head["dtype"]
        size = "x".join(map(str, shape[-3:]))
        values = from_bytes(record.payload, shape, dtype)
        if head["values"] == "indices":
            values = values.to(getattr(torch, dtype))
        key = f"{'latents' if head['values'] == 'latent' else 'indices'}_{size}_{dtype}"
        text: dict[str, str] = {
            "format_version": "1.0.1",
            "width": str(head["width"]),
            "height": str(head["height"]),
            "frame_count": str(head["frames"]),
            **{name: str(head[name]) for name in ("id", "source", "start", "fps") if name in head},
        }
        place = folder / cls.place(head["id"])
        with writing(place, CollectionError, advice=CHECK_DISK):
            place.parent.mkdir(exist_ok=True)
            with aside(place, CollectionError) as path:
                save_tensors(path, {key: values}, text)
            return {"file": cls.place(head["id"]), "offset": place.stat().st_size - len(record.payload)}
