"""Reads many damaged token files in a process of its own: `python -m tests.tokens.fuzzing COUNT SEED FOLDER BOMBS`.

Each file is made from one of the samples by random changes; for half of them the checksums are made right again, so
that what lies behind these is reached. Reading may give an error of ours or values, and nothing else. First come BOMBS
small files that stand for as much as a file may. Prints, as JSON, how often which happened, the longest times and the
most memory.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path

import torch
from tests.tokens.token_files import make_header, resealed

from fuzz import Figures
from vidtok.tokens import ChunkEntry, TokenFile, TokenFileError, TokenHeader
from vidtok.tokens.container import chunk, preamble
from vidtok.tokens.entropy import radices

_DATA = Path(__file__).parent / "data"


def mutated(content: bytes, draw: random.Random) -> bytes:
    """`content` with one to four changes of bits, bytes, numbers, lengths, order or text."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        # Half of the changes are behind the header, which takes most of these small files.
        body = max(0, data.find(b"CHNK")) if draw.random() < 0.5 else 0
        kind, at = draw.randrange(8), draw.randrange(body, len(data))
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + draw.randint(1, 8)] = draw.randbytes(draw.randint(0, 8))
        elif kind == 2:
            del data[at:]
        elif kind == 3:
            data[at:at] = data[draw.randrange(len(data)) :][: draw.randint(1, 300)]
        elif kind == 4:
            value = draw.choice([0, 1, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, draw.getrandbits(32)])
            data[at : at + 4] = value.to_bytes(4, "little")
        elif kind == 5:
            # A field of a chunk's header.
            chunk = data.find(b"CHNK", at)
            if chunk >= 0:
                field = chunk + 4 + 4 * draw.randrange(6)
                data[field : field + 4] = draw.choice(
                    [0, 1, 3, 2**20, 3 * draw.getrandbits(14), 2**32 - 1, draw.getrandbits(9)]
                ).to_bytes(4, "little")
        elif kind == 6:
            # A number in the header.
            digits = [i for i in range(min(len(data), 1200)) if 48 <= data[i] <= 57]
            if digits:
                place = draw.choice(digits)
                data[place : place + 1] = draw.choice(
                    [b"0", b"9", b"-1", b"99999999999", b"1e9", b"null", b'"x"', b"[]"]
                )
        else:
            del data[at : at + draw.randint(1, 60)]
    return bytes(data)


def outcome(path: Path) -> str:
    """What reading the file at `path` gives, values of what is sound of it included."""
    try:
        with TokenFile(path) as file:
            file.damages()
            assert TokenHeader.from_json(file.header.to_json()) == file.header
            kinds = set()
            for skip in (False, True):
                try:
                    if file.frames:
                        file.times(max(0, file.frames - 1000), skip_damaged=skip)
                    for chunk in file.chunks(skip_damaged=skip):
                        assert chunk.values.shape[-2:] == (file.header.latent.height, file.header.latent.width)
                    kinds.add("read")
                except TokenFileError:
                    kinds.add("damaged")
            return "+".join(sorted(kinds))
    except TokenFileError:
        return "refused"


def write_bombs(folder: Path, count: int) -> list[Path]:
    """Small files with all checksums right that stand for as much as a chunk may hold."""
    paths = []
    for name, coding, levels, grid in (
        ("wide", "static", (8,) * 6, (2048, 4096)),
        ("deep", "adaptive", (2,) * 30, (4096, 64)),
        ("large", "adaptive", (256, 256, 256), (512, 4096)),
    )[:count]:
        header = make_header(coding, levels=levels, grid=grid, chunk=1)
        payload = bytes(4) + b"\1\0" * sum(radices(levels)) * (coding == "static") + bytes(64)
        paths.append(folder / f"{name}.vtok")
        paths[-1].write_bytes(preamble(header) + chunk(ChunkEntry(0, 0, 1, 1), payload, 0))
    return paths


def main(count: int, seed: int, folder: Path, bombs: int) -> None:
    torch.set_num_threads(1)
    samples = [path.read_bytes() for path in sorted(_DATA.glob("*.vtok"))]
    path = folder / "fuzzed.vtok"
    for sample in samples:
        path.write_bytes(sample)
        assert outcome(path) == "read"
    figures = Figures(folder)
    began = time.perf_counter()
    for bomb in write_bombs(folder, bombs):
        assert outcome(bomb) == "damaged"
    took = time.perf_counter() - began
    draw = random.Random(seed)
    for _ in range(count):
        content = mutated(draw.choice(samples), draw)
        path.write_bytes(resealed(content) if draw.random() < 0.5 else content)
        figures.take(lambda: outcome(path), path)
    figures.show(bombs=took)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
