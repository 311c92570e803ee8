"""Jobs from file to file: videos to token files and back, one at a time or a whole tree."""

from vidtok.jobs.decode import Decoded, DecodeJob, DecodeOptions, Decoding, decode_file
from vidtok.jobs.encode import Encoded, EncodeJob, EncodeOptions, encode_file
from vidtok.jobs.sound import sound_path
from vidtok.jobs.timestamp import Timestamp, frame_range
from vidtok.jobs.tree import TreeJob, TreeResult, TreeStep, encode_tree
from vidtok.video.library import TOKEN_SUFFIX

__all__ = [
    "TOKEN_SUFFIX",
    "DecodeJob",
    "DecodeOptions",
    "Decoded",
    "Decoding",
    "EncodeJob",
    "EncodeOptions",
    "Encoded",
    "Timestamp",
    "TreeJob",
    "TreeResult",
    "TreeStep",
    "decode_file",
    "encode_file",
    "encode_tree",
    "frame_range",
    "sound_path",
]
