"""Options of a collection: what is encoded, and the form of its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vidtok.datasets.records import LATENT_DTYPES, token_dtype
from vidtok.datasets.sinks import SINKS
from vidtok.errors import CollectionError
from vidtok.jobs import EncodeOptions
from vidtok.models.base import VideoModel
from vidtok.text import near
from vidtok.tokens import default_coding

GPU_BATCH = 8
SHARD_BYTES = 256 << 20


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions(EncodeOptions):
    """Options of a collection: everything that its records depend on besides the inputs and the model."""

    sink: str = "parquet"
    """Form of the records: vtok, safetensors, parquet, tar or bin."""
    clip_frames: int | None = None
    """Cut videos into clips of this many frames; None: whole videos."""
    stride: int | None = None
    """Frames from the start of a clip to the start of the next; None: clips follow one another."""
    batch: int | None = None
    """Clips of one size to compute together; None: 1 on a CPU, 8 on a GPU."""
    threads: int = 1
    """Threads of each worker that compute on a CPU."""
    shard_bytes: int = SHARD_BYTES
    """Size at which a shard of records ends."""
    content: bool = False
    """Tell inputs apart by their content, in place of path, size and time of change."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sink not in SINKS:
            raise CollectionError(f"sink is {self.sink!r}{near(self.sink, SINKS)}; expected one of {', '.join(SINKS)}")
        for name in ("clip_frames", "stride", "batch", "threads", "shard_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise CollectionError(f"{name} is {value}; expected at least 1")
        if self.stride is not None and self.clip_frames is None:
            raise CollectionError(
                f"stride is {self.stride}, but videos are not cut; give --clip-frames (clip_frames) too, or leave it "
                "out"
            )
        if self.sound:
            raise CollectionError("a collection keeps no sound; leave sound out")

    def batch_of(self, device: str) -> int:
        """Clips to compute together on a device of this type."""
        return self.batch or (1 if device == "cpu" else GPU_BATCH)

    def stored_dtype(self, model: VideoModel) -> str:
        """The dtype of the stored values; of token files, their coding.

        Raises `CollectionError` if the sink cannot store the model's values in the coding.
        """
        if self.sink == "vtok":
            return self.coding or default_coding(model)
        if model.regularization.discrete:
            if self.coding not in (None, "packed"):
                raise CollectionError(
                    f"coding is {self.coding}; the sink {self.sink} stores tokens as whole numbers: leave it out"
                )
            return token_dtype(model.codebook_size or 1)
        if self.sink == "bin":
            raise CollectionError(
                f"the sink bin holds tokens alone, and {model.name} has none; choose another (--sink)"
            )
        coding = self.coding or default_coding(model)
        if coding not in LATENT_DTYPES:
            raise CollectionError(
                f"coding is {coding}; the sink {self.sink} stores latents as {', '.join(LATENT_DTYPES)}"
            )
        return coding

    def collection_settings(self, model: VideoModel, device: str) -> dict[str, Any]:
        """The options as JSON values, for workers with this type of device.

        For equal inputs, model and settings, records have equal bytes.
        """
        return {
            **self.settings(model),
            "values": self.stored_dtype(model),
            "sink": self.sink,
            "clip_frames": self.clip_frames,
            "stride": self.stride if self.clip_frames is None else self.stride or self.clip_frames,
            "batch": self.batch_of(device),
            "device": device,
            "threads": self.threads if device == "cpu" else None,
            "shard_bytes": self.shard_bytes,
            "identity": "content" if self.content else "path, size and time",
        }
