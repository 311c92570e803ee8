"""All sinks by name."""

from __future__ import annotations

from vidtok.datasets.record_files import SafetensorsFiles, TokenFiles
from vidtok.datasets.shards import FlatTokens, ParquetShards, TarShards
from vidtok.datasets.sink import Sink

SINKS: dict[str, type[Sink]] = {
    kind.name: kind for kind in (TokenFiles, SafetensorsFiles, ParquetShards, TarShards, FlatTokens)
}
