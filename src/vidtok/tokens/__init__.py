"""Token files: the tokens or the latent of a video in a small file, with checksums, for streaming and random access.

`read` and `write` do it in one call; they use `TokenFile` and `TokenWriter`. `docs/token-file.md` describes the format
byte by byte.
"""

from vidtok.errors import DamagedTokenFileError, TokenFileError
from vidtok.tokens.container import ChunkEntry
from vidtok.tokens.export import export_file, import_file
from vidtok.tokens.files import default_coding, make_header, read, write
from vidtok.tokens.header import (
    LATENT_CODINGS,
    TOKEN_CODINGS,
    LatentLayout,
    ModelIdentity,
    Source,
    TokenHeader,
    VideoLayout,
)
from vidtok.tokens.identity import check_model, config_hash, model_identity
from vidtok.tokens.reader import Chunk, TokenFile
from vidtok.tokens.repair import rebuild_index
from vidtok.tokens.writer import TokenWriter, partial_path

__all__ = [
    "LATENT_CODINGS",
    "TOKEN_CODINGS",
    "Chunk",
    "ChunkEntry",
    "DamagedTokenFileError",
    "LatentLayout",
    "ModelIdentity",
    "Source",
    "TokenFile",
    "TokenFileError",
    "TokenHeader",
    "TokenWriter",
    "VideoLayout",
    "check_model",
    "config_hash",
    "default_coding",
    "export_file",
    "import_file",
    "make_header",
    "model_identity",
    "partial_path",
    "read",
    "rebuild_index",
    "write",
]
