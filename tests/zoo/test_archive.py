"""Archives: deflated records are read rightly, sizes are looked at first, and one damaged byte is noticed."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vidtok.errors import CheckpointError
from vidtok.zoo import archive
from vidtok.zoo.archive import ArchiveError, Records
from vidtok.zoo.checkpoint import read_checkpoint, read_content

STATE = {"a": torch.arange(1000.0).view(10, 100), "b": torch.arange(7), "c": torch.zeros(0), "d": torch.tensor(2.5)}


def saved(path: Path) -> Path:
    torch.save({"state_dict": STATE, "epoch": 3}, path)
    return path


def rewritten(
    path: Path, compression: int = zipfile.ZIP_STORED, change: Callable[[str, bytes], bytes] | None = None
) -> Path:
    """The archive at `path` with its records packed and changed."""
    with zipfile.ZipFile(path) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    new = path.with_name("new.ckpt")
    with zipfile.ZipFile(new, "w", compression) as target:
        for name, content in records:
            target.writestr(name, content if change is None else change(name, content))
    return new


def check(state: dict[str, torch.Tensor]) -> None:
    assert list(state) == list(STATE)
    assert all(torch.equal(state[name], value) and state[name].dtype == value.dtype for name, value in STATE.items())


@pytest.mark.parametrize("compression", [None, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_records_are_read_however_they_are_packed(tmp_path: Path, compression: int | None) -> None:
    path = saved(tmp_path / "model.ckpt")
    path = path if compression is None else rewritten(path, compression)
    check(read_checkpoint(path))
    content = read_content(path)
    assert content["epoch"] == 3
    check(content["state_dict"])


def test_stored_records_are_mapped(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt")
    with Records(path, mapped=True) as records:
        assert not records.storage("data/0", 4).is_shared()
        storage = records.storage("data/0", 4)
        assert storage.filename == str(path) if storage.filename else True
        assert records.storage("data/0", 1 << 20).nbytes() == 4000  # copied, as it begins at another place
        assert records.size("data/0") == 4000


def bomb(name: str, content: bytes) -> bytes:
    return bytes(1 << 28) if name.endswith("/data/0") else content


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "model.ckpt"), zipfile.ZIP_DEFLATED, bomb)
    for read in (read_checkpoint, read_content):
        with pytest.raises(
            CheckpointError, match=r"\(its 26\d,\d+ bytes would unpack to 268,4\d+,\d+, of at most 20 t"
        ):
            read(path)


def test_a_pickle_that_is_too_long_is_refused(tmp_path: Path) -> None:
    def long(name: str, content: bytes) -> bytes:
        return content.ljust((1 << 23) + 1, b"\0") if name.endswith("data.pkl") else content

    with pytest.raises(CheckpointError, match=r"its record 'data\.pkl' has 8,388,609 bytes, of at most 8,388,608\)"):
        read_checkpoint(rewritten(saved(tmp_path / "model.ckpt"), zipfile.ZIP_DEFLATED, long))


def test_records_that_overlap(tmp_path: Path) -> None:
    path = saved(tmp_path / "model.ckpt")
    content = bytearray(path.read_bytes())
    at = content.find(b"PK\x01\x02")
    while at >= 0:
        content[at + 20 : at + 24] = (len(content) // 2).to_bytes(4, "little")
        at = content.find(b"PK\x01\x02", at + 4)
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"\(its records overlap\); fetch it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_ways_of_packing(tmp_path: Path, compression: int) -> None:
    path = rewritten(saved(tmp_path / "model.ckpt"), compression)
    with pytest.raises(CheckpointError, match=r"\(its records are packed in a way that no checkpoint is\)"):
        read_checkpoint(path)


def test_too_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_RECORDS", 3)
    with pytest.raises(ArchiveError, match=r"it lists \d+ records in \d+ bytes; expected at most 3 records"):
        Records(saved(tmp_path / "model.ckpt"), mapped=True)


def test_a_damaged_record_is_noticed_where_it_is_unpacked(tmp_path: Path) -> None:
    path = rewritten(saved(tmp_path / "model.ckpt"))
    content = path.read_bytes()
    at = content.index(torch.tensor([5.0, 6.0]).numpy().tobytes())
    path.write_bytes(content[:at] + b"\xff" + content[at + 1 :])
    with pytest.raises(CheckpointError, match=r"\(Bad CRC-32 for file "):
        read_content(path)


def test_numbers_of_another_byte_order(tmp_path: Path) -> None:
    def swap(name: str, content: bytes) -> bytes:
        if name.endswith("/byteorder"):
            return b"big"
        if "/data/" not in name or not content:
            return content
        size = 8 if name.endswith("/1") else 4
        return b"".join(content[i : i + size][::-1] for i in range(0, len(content), size))

    check(read_checkpoint(rewritten(saved(tmp_path / "model.ckpt"), change=swap)))
