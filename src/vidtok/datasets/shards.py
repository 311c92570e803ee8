"""Sinks that write shards: Parquet, .tar for WebDataset, and flat files of token ids."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from vidtok.datasets.records import Record, from_bytes
from vidtok.datasets.sink import ShardSink
from vidtok.errors import CollectionError

_ROWS = 16
_ROW_BYTES = 4 << 20
"""Rows, or bytes of values, after which a row group ends: what is read for one record."""
_BLOCK = 512
"""Bytes of a .tar's header, and the unit of its content."""


class ParquetShards(ShardSink):
    """Parquet with FastVideo's columns; values are bytes as they are, uncompressed."""

    name = "parquet"
    suffix = ".parquet"
    package = "pyarrow"

    def _begin(self, path: Path) -> None:
        import pyarrow.parquet

        self._schema = _schema()
        text = {"vidtok": json.dumps(dict(self.about))}
        self._writer = pyarrow.parquet.ParquetWriter(
            path, self._schema.with_metadata(text), compression="none", use_dictionary=False
        )
        self._rows: list[dict[str, Any]] = []
        self._row_groups, self._row_bytes = 0, 0

    def _put(self, record: Record) -> dict[str, Any]:
        if len(self._rows) == _ROWS or self._row_bytes + len(record.payload) > _ROW_BYTES:
            self._write_rows()
        self._rows.append(_row(record))
        self._row_bytes += len(record.payload)
        return {"row_group": self._row_groups, "row": len(self._rows) - 1}

    def _write_rows(self) -> None:
        import pyarrow

        if self._rows:
            self._writer.write_table(pyarrow.Table.from_pylist(self._rows, self._schema), row_group_size=_ROWS)
            self._row_groups += 1
            self._rows, self._row_bytes = [], 0

    def _close(self) -> None:
        self._write_rows()
        self._writer.close()


def _row(record: Record) -> dict[str, Any]:
    head = record.head
    columns = head.get("columns", {})
    return {
        "id": head["id"],
        "vae_latent_bytes": record.payload,
        "vae_latent_shape": head["shape"],
        "vae_latent_dtype": head["dtype"],
        "file_name": head["source"],
        "caption": str(columns.get("caption", "")),
        "media_type": "image" if head["picture"] else "video",
        "width": head["width"],
        "height": head["height"],
        "num_frames": head["frames"],
        "duration_sec": head["frames"] / head["fps"],
        "fps": head["fps"],
        "start_sec": head["start"],
        "columns": json.dumps(columns, sort_keys=True),
    }


def _schema() -> Any:
    import pyarrow as pa

    text, whole, real = pa.string(), pa.int64(), pa.float64()
    return pa.schema(
        [
            ("id", text),
            ("vae_latent_bytes", pa.binary()),
            ("vae_latent_shape", pa.list_(whole)),
            ("vae_latent_dtype", text),
            ("file_name", text),
            ("caption", text),
            ("media_type", text),
            ("width", whole),
            ("height", whole),
            ("num_frames", whole),
            ("duration_sec", real),
            ("fps", real),
            ("start_sec", real),
            ("columns", text),
        ]
    )


class TarShards(ShardSink):
    """WebDataset's shards: of each record `ID.npy` (`ID.safetensors` for bfloat16, which .npy lacks) and `ID.json`."""

    name = "tar"
    suffix = ".tar"

    def _begin(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._archive = tarfile.open(fileobj=self._file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    def _put(self, record: Record) -> dict[str, Any]:
        head = record.head
        suffix, content = _member(record)
        offset = self._file.tell() + _BLOCK + len(content) - len(record.payload)
        self._add(f"{head['id']}{suffix}", content)
        self._add(f"{head['id']}.json", json.dumps(head | head.get("columns", {})).encode())
        return {"offset": offset}

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        self._archive.addfile(member, io.BytesIO(content))

    def _close(self) -> None:
        self._archive.close()
        self._file.close()


def _member(record: Record) -> tuple[str, bytes]:
    """Suffix and content of the member with the values, which are its last bytes."""
    shape, dtype = tuple(record.head["shape"]), record.head["dtype"]
    if dtype == "bfloat16":
        from safetensors.torch import save

        return ".safetensors", save({"latents": from_bytes(record.payload, shape, dtype)})
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False, "shape": shape}
    )
    return ".npy", header.getvalue() + record.payload


class FlatTokens(ShardSink):
    """Token ids one after another, uint16 or uint32, for memory-mapping.

    Beside each `.bin` lie a `.json` (dtype, size of the codebook, records) and `.index.npy`, (N, 2) int64: first token
    and number of tokens of each record.
    """

    name = "bin"
    suffix = ".bin"

    def _begin(self, path: Path) -> None:
        self._file = open(path, "wb")  # noqa: SIM115
        self._heads: list[dict[str, Any]] = []
        self._index: list[tuple[int, int]] = []
        self._beside = self._stage(".json"), self._stage(".index.npy")

    def _put(self, record: Record) -> dict[str, Any]:
        head = record.head
        if head["values"] != "indices":
            raise CollectionError("the sink bin holds tokens alone, and this model has none; choose another (--sink)")
        offset = self._file.tell()
        self._file.write(record.payload)
        item = np.dtype(head["dtype"]).itemsize
        self._index.append((offset // item, len(record.payload) // item))
        self._heads.append(head)
        return {"offset": offset}

    def _close(self) -> None:
        self._file.close()
        tokens = sum(count for _, count in self._index)
        names = ("id", "source", "shape", "start", "frames", "height", "width", "fps", "columns")
        records = [{name: head[name] for name in names if name in head} for head in self._heads]
        about = {**self.about, "dtype": self._heads[0]["dtype"], "tokens": tokens, "records": records}
        self._beside[0].write_text(json.dumps(about) + "\n")
        with open(self._beside[1], "wb") as file:
            np.save(file, np.array(self._index, np.int64))
