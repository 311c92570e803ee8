"""Writing and reading token files: any cut, while they grow, with damage, and never half a file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.tokens.token_files import LEVELS, draw_values, make_header, resealed, write_file

from tiny import leftovers
from vidtok.tokens import (
    LATENT_CODINGS,
    TOKEN_CODINGS,
    DamagedTokenFileError,
    TokenFile,
    TokenFileError,
    TokenWriter,
    rebuild_index,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "video.vtok"


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_round_trip(path: Path, data: st.DataObject) -> None:
    """Whatever the coding, the chunks, the cuts of what is written and the range that is read."""
    header = make_header(
        data.draw(st.sampled_from([c for c in TOKEN_CODINGS + LATENT_CODINGS if c != "int8"])),
        levels=tuple(data.draw(st.lists(st.integers(2, 9), min_size=1, max_size=5))),
        grid=(data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))),
        chunk=data.draw(st.integers(1, 6)),
        factor=data.draw(st.sampled_from([1, 2, 4, 8])),
        causal=data.draw(st.booleans()),
    )
    latent = header.latent
    count = data.draw(st.integers(1, 20), label="latent frames")
    most = latent.frames_before(count)
    frames = data.draw(st.integers(max(1, most - latent.temporal_factor + 1), most), label="frames")
    values = draw_values(header, count)
    with TokenWriter(path, header) as writer:
        at = 0
        writer.write(values[..., :0, :, :])
        while at < count:
            step = data.draw(st.integers(1, 7))
            writer.write(values[..., at : at + step, :, :])
            at += step
        writer.finish(frames)
    with TokenFile(path) as file:
        assert file.complete
        assert file.header == header
        assert (file.frames, file.latent_frames) == (frames, count)
        assert file.size == (frames, header.video.height, header.video.width)
        start = data.draw(st.integers(0, count - 1), label="start")
        stop = data.draw(st.integers(start + 1, count), label="stop")
        read = file.read(start, stop)
        assert torch.equal(read, values[..., start:stop, :, :].to(read.dtype))
        assert [chunk.latents for chunk in file.chunks()][:-1] == [latent.chunk] * ((count - 1) // latent.chunk)
        first = data.draw(st.integers(0, frames - 1), label="first frame")
        low, high = file.latents_of(first, first + 1)
        assert high == low + 1
        assert latent.frames_before(low) <= first < latent.frames_before(high)
        assert file.damages() == []
    assert leftovers(path.parent) == [path.name]


def test_a_file_grows_chunk_by_chunk_and_can_be_read_meanwhile(path: Path) -> None:
    header = make_header(chunk=4)
    values = draw_values(header, 11)
    with TokenWriter(path, header) as writer, TokenFile(writer.partial) as early:
        assert (early.frames, early.latent_frames, early.complete) == (0, 0, False)
        writer.write(values[:, :5])
        assert early.refresh()
        assert not early.refresh()
        assert (early.frames, early.latent_frames) == (13, 4)
        writer.write(values[:, 5:])
        with TokenFile(writer.partial) as late:
            assert late.latent_frames == 8
            assert torch.equal(late.read(), values[:, :8])
            assert late.damages() == ["the end is missing: after 29 frames, the file is cut off or still being "
                                      "written"]  # fmt: skip
            assert not path.exists()
            writer.finish(38)
            assert early.refresh()
            assert late.refresh()
            assert not late.refresh()
            for file in early, late:
                assert (file.frames, file.complete) == (38, True)
                assert torch.equal(file.read(), values)


def test_half_a_chunk_is_not_there_yet(path: Path) -> None:
    values = write_file(path, make_header(chunk=4))
    content = path.read_bytes()
    with TokenFile(path) as file:
        places = [entry.offset for entry in file.entries]
    growing = path.with_name("growing.vtok")
    for end, latents in (places[1] + 3, 4), (places[1] + 40, 4), (places[2], 8), (places[2] + 37, 8):
        growing.write_bytes(content[:end])
        with TokenFile(growing) as file:
            assert (file.complete, file.latent_frames) == (False, latents)
            assert torch.equal(file.read(), values[:, :latents])
            growing.write_bytes(content)
            assert file.refresh()
            assert torch.equal(file.read(), values)


def write_and(path: Path, latents: int, do: Callable[[TokenWriter], object]) -> None:
    """Write `latents` latent frames and then `do` something before the file is finished."""
    with TokenWriter(path, make_header()) as writer:
        if latents:
            writer.write(draw_values(make_header(), latents))
        do(writer)


def stop(writer: TokenWriter) -> None:
    raise RuntimeError("stopped")


def test_nothing_is_left_of_what_was_not_finished(path: Path) -> None:
    path.write_bytes(b"what stood there")
    with pytest.raises(RuntimeError, match="stopped"):
        write_and(path, 9, stop)
    with pytest.raises(TokenFileError, match=r"9 latent frames were written to .* for 3 frames; expected 30 to 33"):
        write_and(path, 9, lambda writer: writer.finish(3))
    with pytest.raises(TokenFileError, match="nothing was written to"):
        write_and(path, 0, lambda writer: None)
    assert leftovers(path.parent) == [path.name]
    assert path.read_bytes() == b"what stood there"


_KILLED = """
import sys, time
sys.path[:0] = {path!r}
from tests.tokens.token_files import draw_values, make_header
from vidtok.tokens import TokenWriter
with TokenWriter(sys.argv[1], make_header()) as writer:
    writer.write(draw_values(make_header(), 9))
    print("writing", flush=True)
    time.sleep(60)
"""


def test_one_process_writes_at_a_time_and_a_killed_one_is_in_nobody_s_way(path: Path) -> None:
    root = Path(__file__).parents[2]
    code = _KILLED.format(path=[str(root / "tests"), str(root)])
    process = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"writing\n"
    with pytest.raises(TokenFileError, match=r"is being written by another process, to .*\.part; wait for it"):
        TokenWriter(path, make_header())
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert leftovers(path.parent) == [path.name + ".part"]
    values = write_file(path, make_header(), 3, seed=1)
    assert leftovers(path.parent) == [path.name]
    with TokenFile(path) as file:
        assert torch.equal(file.read(), values)


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    values = write_file(path, make_header())
    with TokenFile(path) as file:
        assert torch.equal(file.read(), values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(1, 2, 3, 4, dtype=torch.int32), r"values are torch.int32 of shape \(1, 2, 3, 4\); expected whole"),
        (torch.zeros(2, 1, 3, 5, dtype=torch.int32), r"expected whole numbers \(1, T', 3, 5\)"),
        (torch.zeros(1, 2, 3, 5), r"values are torch.float32 of shape"),
        (torch.full((1, 5, 3, 5), 120), "tokens run from 120 to 120; the codebook has 0 to 119"),
    ],
)
def test_values_that_do_not_fit(path: Path, values: torch.Tensor, message: str) -> None:
    with pytest.raises(TokenFileError, match=message), TokenWriter(path, make_header()) as writer:
        writer.write(values)
    with (
        pytest.raises(TokenFileError, match=r"expected float \(1, 4, T', 3, 5\)"),
        TokenWriter(path, make_header("int8")) as writer,
    ):
        writer.write(torch.zeros(1, 3, 2, 3, 5))
    assert leftovers(path.parent) == []


def test_a_finished_writer_takes_no_more(path: Path) -> None:
    with TokenWriter(path, make_header()) as writer:
        writer.write(draw_values(make_header(), 2))
        writer.finish()
        writer.finish()
        with pytest.raises(TokenFileError, match="is finished; open another writer"):
            writer.write(draw_values(make_header(), 2))


def test_places_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    for place, message in (
        (tmp_path, "is a folder; give the path of a file in it"),
        (tmp_path / "none" / "a.vtok", "no such folder; make the folder first"),
        (tmp_path / "file" / "a.vtok", "not a folder; make the folder first"),
    ):
        with pytest.raises(TokenFileError, match=message):
            TokenWriter(place, make_header())
    monkeypatch.setattr(os, "fsync", _no_space)
    with pytest.raises(TokenFileError, match="cannot be written: No space left on device; check the folder and"):
        write_file(tmp_path / "full.vtok", make_header())
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(TokenFileError, match="no permission to write in"):
        TokenWriter(tmp_path / "a.vtok", make_header())
    assert leftovers(tmp_path) == ["file"]


def _no_space(handle: int) -> None:
    raise OSError(28, "No space left on device")


def test_times_come_back_exactly(path: Path) -> None:
    header = make_header(fps=Fraction(30000, 1001), chunk=2)
    values = draw_values(header, 7)
    with TokenWriter(path, header) as writer:
        writer.write(values)
    size = path.stat().st_size
    with TokenFile(path) as file:
        assert not file.timed
        np.testing.assert_allclose(file.times(), np.arange(25) * 1001 / 30000, atol=1e-12)
    times = [round(i**1.3 / 24, 3) for i in range(25)]
    with TokenWriter(path, header) as writer:
        for at in range(7):
            writer.write(values[:, at : at + 1], times[4 * at : 4 * at + 4])
    assert path.stat().st_size == size + 8 * 25
    with TokenFile(path) as file:
        assert file.timed
        assert file.times().tolist() == times
        assert file.times(5, 12).tolist() == times[5:12]
        assert file.times(24, 25).tolist() == times[24:]
    with (
        pytest.raises(TokenFileError, match=r"4 times were given for 25 frames of .*; give one for each"),
        TokenWriter(path, make_header(chunk=20)) as writer,
    ):
        writer.write(draw_values(header, 7), [0.0, 1.0, 2.0, 3.0])


def damaged_file(path: Path, chunk: int, *, at: int = 50) -> torch.Tensor:
    """A file of 11 latent frames in chunks of 4, one byte of one chunk wrong; its values."""
    values = write_file(path, make_header(chunk=4))
    content = bytearray(path.read_bytes())
    with TokenFile(path) as file:
        content[file.entries[chunk].offset + at] ^= 16
    path.write_bytes(content)
    return values


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize(("at", "reason"), [(50, "it does not match its checksum"), (9, "its header does not match")])
def test_a_damaged_chunk_is_named_and_the_rest_can_be_had(path: Path, at: int, reason: str, indexed: bool) -> None:
    values = damaged_file(path, 1, at=at)
    if not indexed:
        path.write_bytes(path.read_bytes()[:-1])
        reason = reason if at == 50 else ""
    message = rf"chunk 1 \(frames 13 to 28\) is {f'damaged: {reason}' if reason else 'missing'}"
    with TokenFile(path) as file:
        assert file.complete
        with pytest.raises(DamagedTokenFileError, match=rf"video.vtok: {message}.*; decode the rest with --skip-dam"):
            file.read()
        assert torch.equal(file.read(0, 4), values[:, :4])
        assert torch.equal(file.read(8, 11), values[:, 8:])
        rest = file.read(skip_damaged=True)
        assert torch.equal(rest[:, :4], values[:, :4])
        assert torch.equal(rest[:, 4:8], values[:, 3:4].expand(-1, 4, -1, -1))
        assert torch.equal(rest[:, 8:], values[:, 8:])
        assert torch.equal(file.read(6, 9, skip_damaged=True), rest[:, 6:9])
        assert [bool(chunk.damage) for chunk in file.chunks(skip_damaged=True)] == [False, True, False]
        assert len(file.times(skip_damaged=True)) == file.frames == 41
        (damage,) = file.damages()
        assert damage.startswith(message.replace("\\", ""))


def test_the_first_chunk_damaged(path: Path) -> None:
    values = damaged_file(path, 0)
    with TokenFile(path) as file:
        rest = file.read(skip_damaged=True)
        assert torch.equal(rest[:, :4], values[:, 4:5].expand(-1, 4, -1, -1))
        assert torch.equal(rest[:, 4:], values[:, 4:])


def test_all_chunks_damaged(path: Path) -> None:
    write_file(path, make_header(chunk=4), 4)
    content = path.read_bytes()
    path.write_bytes(content.replace(content[-60:-50], bytes(10)))
    with TokenFile(path) as file, pytest.raises(DamagedTokenFileError, match="all of its chunks are damaged"):
        file.read(skip_damaged=True)


def test_a_damaged_or_missing_index_is_rebuilt(path: Path) -> None:
    values = write_file(path, make_header(chunk=4))
    whole = path.read_bytes()
    index = whole.rindex(b"INDX")
    assert not rebuild_index(path)
    for content in (whole[:-3], whole[:index] + whole[index:].replace(b"\x04\0\0\0", b"\x05\0\0\0"), whole[:index]):
        path.write_bytes(content)
        with TokenFile(path) as file:
            assert torch.equal(file.read(), values)
        assert rebuild_index(path)
        assert path.read_bytes() == whole
    path.write_bytes(whole[: index - 5])
    assert rebuild_index(path)
    with TokenFile(path) as file:
        assert (file.complete, file.latent_frames) == (True, 8)
        assert torch.equal(file.read(), values[:, :8])
    with TokenFile(path) as file:
        start = file.entries[0].offset
    path.write_bytes(whole[: start + 20])
    with pytest.raises(TokenFileError, match="is cut off before its first chunk ends; encode again"):
        rebuild_index(path)
    with pytest.raises(TokenFileError, match="cannot be read: No such file"):
        rebuild_index(path.with_name("none.vtok"))
    assert leftovers(path.parent) == [path.name]


def test_files_that_are_no_token_files(path: Path) -> None:
    write_file(path, make_header())
    whole = path.read_bytes()
    other = path.with_name("other.vtok")
    for content, message in (
        (b"", "is empty; get an undamaged copy"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "does not begin as a token file does"),
        (whole[:20], "is cut off in its header"),
        (whole[:300], "is cut off in its header"),
        (whole[:9] + b"x" + whole[10:], "is damaged in its first 24 bytes"),
        (whole[:100] + b"~" + whole[101:], "is damaged in its header; get an undamaged copy"),
        (resealed(whole[:8] + b"\x03" + whole[9:]), "is a token file of version 3; this version of the package reads"),
        (resealed(whole.replace(b'"chunk": 4', b'"chunk": 0')), "the header's latent.chunk is 0; expected 1 to 4096"),
    ):
        other.write_bytes(content)
        with pytest.raises(TokenFileError, match=f"other.vtok:? {message}"):
            TokenFile(other)
    with pytest.raises(TokenFileError, match="no such file; check the path"):
        TokenFile(path.with_name("none.vtok"))
    with pytest.raises(TokenFileError, match="is a folder; expected a token file"):
        TokenFile(path.parent)


def test_ranges_that_are_not_there(path: Path) -> None:
    write_file(path, make_header())
    with TokenFile(path) as file:
        for start, stop in (3, 3), (-1, 3), (0, 12), (11, None):
            with pytest.raises(TokenFileError, match=r"latent frames .* were asked for; .* has 11"):
                file.read(start, stop)
        with pytest.raises(TokenFileError, match=r"frames 0 to 42 were asked for; .* has 41"):
            file.latents_of(0, 42)


def test_a_gap_that_cannot_be_bridged(path: Path) -> None:
    write_file(path, make_header(chunk=4))
    content = bytearray(path.read_bytes())
    with TokenFile(path) as file:
        at = file.entries[2].offset
    content[at + 8 : at + 16] = (4 << 30).to_bytes(8, "little")
    path.write_bytes(resealed(bytes(content[: content.rindex(b"INDX")])))
    with TokenFile(path) as file, pytest.raises(TokenFileError, match="has nothing between the latent frames 8 and"):
        file.read(skip_damaged=True)


def test_lengths_are_checked_before_memory_is_taken(path: Path) -> None:
    header = make_header("static", levels=LEVELS, chunk=4)
    write_file(path, header)
    content = bytearray(path.read_bytes())
    with TokenFile(path) as file:
        first, second = file.entries[0].offset, file.entries[1].offset
    content[first + 4 : first + 8] = (len(content) - first - 60).to_bytes(4, "little")
    path.write_bytes(resealed(bytes(content)))
    with TokenFile(path) as file, pytest.raises(DamagedTokenFileError, match=r"its length of \d+ bytes is more than"):
        file.read(0, 4)
    assert second > first
