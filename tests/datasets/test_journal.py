"""Journals: what is left after an end at any byte, and who may write."""

from __future__ import annotations

from pathlib import Path

from vidtok.datasets.journal import Journal, claim


def opened(folder: Path) -> Journal:
    journal = claim(folder, "g")
    assert journal is not None
    return journal


def test_an_end_at_any_byte_leaves_whole_blocks(tmp_path: Path) -> None:
    ends = []
    with opened(tmp_path) as journal:
        for block in range(3):
            for number in range(block):
                journal.append({"id": f"{block}-{number}"}, bytes([block, number]) * 5)
            journal.close_block({"failed": [block]})
            ends.append((tmp_path / "g.journal").stat().st_size)
    whole = (tmp_path / "g.journal").read_bytes()
    for size in range(len(whole) + 1):
        (tmp_path / "g.journal").write_bytes(whole[:size])
        with opened(tmp_path) as journal:
            blocks = sum(size >= end for end in ends)
            assert [each["failed"] for each in journal.blocks] == [[block] for block in range(blocks)]
            assert [each.head["id"] for each in journal.entries] == ["1-0", "2-0", "2-1"][: [0, 0, 1, 3][blocks]]
            assert all(
                journal.read(each) == bytes(map(int, each.head["id"].split("-"))) * 5 for each in journal.entries
            )
            assert (tmp_path / "g.journal").stat().st_size == ([0, *ends][blocks])


def test_damage_ends_a_journal_where_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        for block in range(2):
            journal.append({"id": block}, b"payload")
            journal.close_block({})
    path = tmp_path / "g.journal"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with opened(tmp_path) as journal:
        assert len(journal.blocks) == 1
        journal.append({"id": "new"}, b"other")
        journal.close_block({})
        assert [journal.read(each) for each in journal.entries] == [b"payload", b"other"]


def test_a_block_is_taken_back(tmp_path: Path) -> None:
    with opened(tmp_path) as journal:
        journal.append({"id": 1}, b"one")
        journal.close_block({})
        journal.append({"id": 2}, b"two" * 1000)
        journal.drop_block()
        journal.append({"id": 3}, b"three")
        journal.close_block({})
        assert [journal.read(each) for each in journal.entries] == [b"one", b"three"]
    with opened(tmp_path) as journal:
        assert [journal.read(each) for each in journal.entries] == [b"one", b"three"]


def test_one_claim_at_a_time(tmp_path: Path) -> None:
    with opened(tmp_path):
        assert claim(tmp_path, "g") is None
        assert claim(tmp_path, "h") is not None
    with opened(tmp_path) as journal:
        journal.remove()
    assert not (tmp_path / "g.journal").exists()


def test_without_locks_each_process_has_a_journal_of_its_own(tmp_path: Path, monkeypatch: object) -> None:
    import pytest

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vidtok.datasets.journal.lock", lambda handle: False)
        with opened(tmp_path) as journal:
            journal.append({"id": 1}, b"one")
            journal.close_block({})
            assert [journal.read(each) for each in journal.entries] == [b"one"]
            journal.remove()
