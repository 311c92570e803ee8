"""Damaged videos give an error of ours or frames, within seconds and in bounded memory, whatever is damaged."""

from __future__ import annotations

import random
import resource
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from video.video_files import make_video, numbered
from vidtok.errors import VidTokError
from vidtok.video import VideoReader, read_clip

_KINDS = (
    ("mp4", "libx264", {}), ("mkv", "libx264", {"sound": True}), ("mov", "mpeg4", {}), ("avi", "mpeg4", {}),
    ("ts", "libx264", {}), ("mpg", "mpeg2video", {}), ("webm", "libvpx-vp9", {}), ("flv", "flv1", {}),
    ("gif", "gif", {"pix_fmt": "rgb8"}), ("png", "png", {"pix_fmt": "rgb24"}),
    ("jpg", "mjpeg", {"pix_fmt": "yuvj420p"}),
)  # fmt: skip
_NUMBERS = (0, 1, 127, 128, 255, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def samples(folder: Path) -> dict[str, bytes]:
    """One small file of each kind."""
    made = {}
    for suffix, codec, options in _KINDS:
        frames = [numbered(index) for index in range(1 if suffix in ("png", "jpg") else 12)]
        made[suffix] = make_video(folder / f"whole.{suffix}", frames, codec=codec, fps=25, **options).read_bytes()  # type: ignore[arg-type]
    return made


def mutated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """`content` with one to four changes: bits, numbers, pieces lost, repeated or of another file, an early end."""
    data = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        if not data:
            break
        # Half of the changes are near the start or the end, where containers have their tables.
        edge = draw.choice([min(len(data), 400), len(data)])
        at = draw.randrange(edge) if draw.random() < 0.7 else len(data) - 1 - draw.randrange(edge)
        kind = draw.randrange(7)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + 4] = draw.choice(_NUMBERS).to_bytes(4, draw.choice(["big", "little"]))
        elif kind == 2:
            data[at : at + 40] = draw.randbytes(draw.randint(0, 40))
        elif kind == 3:
            del data[at : at + draw.randint(1, 300)]
        elif kind == 4:
            data[at:at] = data[draw.randrange(len(data)) :][: draw.randint(1, 600)]
        elif kind == 5:
            data[at:at] = other[draw.randrange(len(other)) :][: draw.randint(1, 600)]
        else:
            del data[at:]
    return bytes(data)


def outcome(path: Path, draw: random.Random) -> str:
    """Result of reading the file at `path` whole, as far as it goes, and a clip from some place."""
    kinds = set()
    for allow in (False, True):
        try:
            with VideoReader(path, height=24, width=24, max_frames=40, allow_truncated=allow) as reader:
                for frame in reader:
                    assert frame.pixels.shape == (24, 24, 3)
            kinds.add("read")
        except VidTokError:
            kinds.add("refused")
    try:
        clip = read_clip(path, 5, sample_fps=10, height=24, width=24, position=draw.random())
        assert clip.pixels.shape == (5, 24, 24, 3)
        kinds.add("clip")
    except VidTokError:
        kinds.add("no clip")
    return "+".join(sorted(kinds))


def fuzz(folder: Path, count: int, seed: int) -> None:
    """Read `count` damaged files; print the outcomes, the longest time and the growth of memory."""
    draw, whole = random.Random(seed), samples(folder)
    for suffix in whole:
        assert outcome(folder / f"whole.{suffix}", draw) == "clip+read", suffix
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes: Counter[str] = Counter()
    longest, wrong = 0.0, []
    for number in range(count):
        suffix = draw.choice(list(whole))
        path = folder / f"fuzzed.{suffix}"
        path.write_bytes(mutated(whole[suffix], whole[draw.choice(list(whole))], draw))
        began = time.perf_counter()
        try:
            outcomes[outcome(path, draw)] += 1
        except Exception as error:
            wrong.append(f"{number} ({suffix}): {type(error).__name__}: {error}")
        longest = max(longest, time.perf_counter() - began)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    sys.stdout.write(f"{count} files: {dict(outcomes)}, longest {longest:.2f} s, memory grew by {grown:.0f} MB\n")
    assert wrong == []
    assert longest < 10
    assert grown < 1024
    assert min(outcomes["clip+read"], outcomes["no clip+refused"]) > count / 30


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
def test_a_few_damaged_videos(tmp_path: Path) -> None:
    fuzz(tmp_path, 40, 1)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in other units elsewhere")
@pytest.mark.parametrize("seed", [2, 3, 4, 5])
def test_two_thousand_damaged_videos(seed: int, tmp_path: Path) -> None:
    fuzz(tmp_path, 500, seed)
