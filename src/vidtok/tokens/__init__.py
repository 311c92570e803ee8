"""Token files: what a video was encoded to, in a file that is streamed, seekable, checked and small.

`read` and `write` are the short way; `TokenFile` and `TokenWriter` are what they use. The format is described byte by
byte in `docs/token-file.md`.
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
