"""Reading collections back: every record once an epoch, whoever reads, and going on in the middle."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from tests.datasets.inline import work_inline
from tests.datasets.stand_in import StandIn, job, write_inputs
from torch.utils.data import DataLoader

from vidtok.datasets import TokenDataset, TokenStream, collate
from vidtok.errors import CollectionError

COUNT = 101


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of 101 records in 13 groups."""
    folder = tmp_path_factory.mktemp("collection")
    with pytest.MonkeyPatch.context() as patch:
        work_inline(patch, StandIn(clips=1))
        job(folder / "out", "tar", together=8).run(write_inputs(folder / "in", COUNT))
    return folder / "out"


def ids(stream: TokenStream) -> list[str]:
    return [record["id"] for record in stream]


def test_records_by_number(folder: Path) -> None:
    data = TokenDataset(folder)
    assert len(data) == COUNT
    assert data[-1]["id"] == data[COUNT - 1]["id"]
    assert data[0]["indices"].shape == (4, 4, 4)
    with pytest.raises(IndexError):
        data[COUNT]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[5]["indices"], data[5]["indices"])


def test_a_part_of_a_manifest_is_a_dataset(folder: Path, tmp_path: Path) -> None:
    manifests = sorted((folder / "manifest").iterdir())
    assert len(TokenDataset(manifests[0])) == 8
    lines = b"".join(path.read_bytes() for path in manifests).splitlines(keepends=True)
    (tmp_path / "half.jsonl").write_bytes(b"".join(lines[::2]).rstrip(b"\n"))
    half = TokenDataset(tmp_path / "half.jsonl", root=folder)
    assert [half[index]["id"] for index in range(len(half))] == [
        TokenDataset(folder)[i]["id"] for i in range(0, COUNT, 2)
    ]
    with pytest.raises(CollectionError, match="lies in no collection"):
        TokenDataset(tmp_path / "half.jsonl")
    with pytest.raises(CollectionError, match="no such collection"):
        TokenDataset(tmp_path / "none")
    with pytest.raises(CollectionError, match="is no collection"):
        TokenDataset(tmp_path)


@pytest.mark.parametrize("even", [False, True])
def test_four_ranks_with_two_workers_read_each_record_once(folder: Path, even: bool) -> None:
    data = TokenDataset(folder)
    orders = []
    for epoch in range(2):
        found: list[list[str]] = []
        for rank in range(4):
            stream = TokenStream(data, seed=3, mixed=4, rank=rank, ranks=4, even=even)
            stream.set_epoch(epoch)
            loader = DataLoader(stream, batch_size=5, num_workers=2, collate_fn=collate)
            found.append([each for batch in loader for each in batch["id"]])
        together = [each for part in found for each in part]
        assert len(set(together)) == len(together) == (COUNT // 8 * 8 if even else COUNT)
        orders.append(sorted(map(tuple, found)))
    assert orders[0] != orders[1]


def test_an_order_is_mixed_and_repeatable(folder: Path) -> None:
    data = TokenDataset(folder)
    stream = TokenStream(data, seed=1)
    assert sorted(stream.order(0)) == list(range(COUNT))
    assert list(stream.order(0)) == list(TokenStream(data, seed=1).order(0)) != list(stream.order(1))
    assert list(stream.order(0)) != list(TokenStream(data, seed=2).order(0))
    assert list(TokenStream(data, shuffle=False).order(4)) == list(range(COUNT))


def test_a_stream_goes_on_from_its_state(folder: Path) -> None:
    data = TokenDataset(folder)
    whole = ids(TokenStream(data, rank=1, ranks=2))
    stream = TokenStream(data, rank=1, ranks=2)
    iterator = iter(stream)
    for _ in range(17):
        next(iterator)
    state = stream.state_dict()
    other = TokenStream(data, rank=1, ranks=2)
    other.load_state_dict(state)
    assert ids(other) == whole[17:]
    assert other.state_dict()["epoch"] == 1
    fewer = TokenStream(data)
    fewer.load_state_dict(state)
    with pytest.raises(CollectionError, match="the state is of 2 ranks times workers"):
        ids(fewer)
    with pytest.raises(CollectionError, match="of seed 0, this stream has 5"):
        TokenStream(data, seed=5).load_state_dict(state)


def test_a_loader_with_workers_goes_on_after_any_batch(folder: Path) -> None:
    data = TokenDataset(folder)

    def batches(stream: TokenStream) -> list[list[str]]:
        return [batch["id"] for batch in DataLoader(stream, batch_size=7, num_workers=2, collate_fn=collate)]

    whole = batches(TokenStream(data))
    for done in (1, 4):
        stream = TokenStream(data)
        stream.resume(0, done, 7)
        rest = [each for batch in batches(stream) for each in batch]
        assert sorted(rest) == sorted(each for batch in whole[done:] for each in batch)


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "copy")
    data = TokenDataset(tmp_path / "copy")
    path = tmp_path / "copy" / data.head(0)["file"]
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(CollectionError, match="bytes"):
        data[1]
    path.unlink()
    with pytest.raises(CollectionError, match="cannot be read"):
        TokenDataset(tmp_path / "copy")[0]
