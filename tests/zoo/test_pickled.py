"""Pickles as data: what `torch.save` writes comes back, and nothing takes more memory than the file has."""

from __future__ import annotations

import collections
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from vidtok.errors import CheckpointError
from vidtok.zoo.checkpoint import read_checkpoint, read_content


class _Pickler(pickle._Pickler):
    """Writes storages as `torch.save` does, of any sizes that it is told."""

    def persistent_id(self, value: Any) -> Any:
        return value.pid if isinstance(value, Stored) else None


class Stored:
    """A storage of `numel` values in the record `key`."""

    def __init__(self, kind: type, numel: Any, key: str = "0") -> None:
        self.pid = ("storage", kind, key, "cpu", numel)


class Call:
    """A call of `function` in the pickle."""

    def __init__(self, function: Any, *given: Any) -> None:
        self.made = (function, given)

    def __reduce__(self) -> Any:
        return self.made


def write(path: Path, content: Any, *records: bytes) -> Path:
    """An archive with this pickle and these records."""
    with zipfile.ZipFile(path, "w") as archive:
        with archive.open("archive/data.pkl", "w") as file:
            _Pickler(file, protocol=2).dump(content)
        archive.writestr("archive/byteorder", "little")
        for i, record in enumerate(records):
            archive.writestr(f"archive/data/{i}", record)
    return path


def tensor(stored: Any, offset: Any, size: Any, stride: Any) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, stored, offset, size, stride, False, collections.OrderedDict())


def test_what_torch_saves_comes_back(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 4))
    tagged = torch.zeros(2)
    tagged.note = "kept by nobody"  # type: ignore[attr-defined]
    content = {
        "weight": weight, "view": weight.detach()[1:, ::2], "tagged": tagged, "scalar": torch.tensor(True),
        "half": torch.ones(2, dtype=torch.bfloat16), "eighth": torch.ones(2).to(torch.float8_e4m3fn),
        "u16": torch.tensor([1, 2], dtype=torch.uint16), "small": torch.ones(1).expand(5),
        "plain": [1, 2.5, "text", b"bytes", None, True, (1, 2), {"a": {3}}, 2**70, complex(1, 2), bytearray(b"x")],
        "shape": torch.Size([1, 2]), "dtype": torch.float16, "device": torch.device("cuda", 1),
        "ordered": collections.OrderedDict(a=1), "counter": collections.Counter("aab"),
    }  # fmt: skip
    torch.save(content, tmp_path / "content.ckpt")
    read = read_content(tmp_path / "content.ckpt")
    assert list(read) == list(content)
    for name, value in content.items():
        if isinstance(value, torch.Tensor):
            assert (read[name].dtype, read[name].stride()) == (value.dtype, value.stride())
            assert torch.equal(read[name].float(), value.detach().float())
        else:
            assert (read[name], type(read[name])) == (value, type(value))
    assert read["weight"].untyped_storage().data_ptr() == read["view"].untyped_storage().data_ptr()


FLOATS = bytes(40)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            tensor(Stored(torch.CharStorage, 1), 0, (2**32,), (0,)),
            r"tensor of shape \[4294967296\] where 40 values are",
        ),
        (tensor(Stored(torch.FloatStorage, 10), 0, (11,), (1,)), r"tensor of shape \[11\] where 10 values are stored"),
        (tensor(Stored(torch.FloatStorage, 10), 9, (2,), (1,)), r"tensor of shape \[2\] where 10 values are stored"),
        (tensor(Stored(torch.FloatStorage, 11), 0, (11,), (1,)), r"record 'data/0' has 40 bytes, not 44"),
        (tensor(Stored(torch.FloatStorage, 2**61), 0, (1,), (1,)), r"record 'data/0' has 40 bytes, not 9"),
        (tensor(Stored(torch.FloatStorage, 1, "7"), 0, (1,), (1,)), r"it has no record 'data/7'"),
        (tensor(Stored(torch.FloatStorage, 10), -1, (1,), (1,)), "it has a size that is no whole number"),
        (tensor(Stored(torch.FloatStorage, 10), 0, (2,), (-1,)), "it has a size that is no whole number"),
        (tensor(Stored(torch.FloatStorage, 10), 0, (2, 2), (1,)), "tensor whose strides do not fit its shape"),
        (tensor(Stored(torch.FloatStorage, 10), 0, (1,) * 99, (1,) * 99), "tensor whose strides do not fit its"),
        (tensor([1.0], 0, (1,), (1,)), "it has a tensor without storage"),
        (tensor(Stored(torch.FloatStorage, 10), 0, "11", (1, 1)), "it has a size that is no whole number"),
        (Call(bytearray, 10**10), "it has bytes in a form that is not known"),
        (Call(bytes, 10**10), "it has bytes in a form that is not known|holds pickled code or objects"),
        (Call(complex, "x", "y"), "its table of weights cannot be read"),
    ],
)
def test_pickles_that_ask_for_more_than_there_is(tmp_path: Path, content: Any, expected: str) -> None:
    path = write(tmp_path / "model.ckpt", {"a": content}, FLOATS)
    for read in (read_checkpoint, read_content):
        with pytest.raises(CheckpointError, match=expected):
            read(path)


def test_tensors_that_share_a_storage_many_times(tmp_path: Path) -> None:
    stored = Stored(torch.FloatStorage, 250_000)
    content = {str(i): tensor(stored, 0, (250_000,), (1,)) for i in range(40)}
    path = write(tmp_path / "model.ckpt", content, bytes(1_000_000))
    with pytest.raises(CheckpointError, match="its tensors stand for many times the bytes that it holds"):
        read_checkpoint(path)
    path = write(tmp_path / "model.ckpt", dict(list(content.items())[:8]), bytes(1_000_000))
    assert len(read_checkpoint(path)) == 8


@pytest.mark.parametrize(
    "value",
    [
        torch.eye(2).to_sparse(),
        torch.eye(2).to_sparse_csr(),
        torch.zeros(2, dtype=torch.complex64),
        torch.zeros(2, device="meta"),
        torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)]),
        torch.quantize_per_tensor(torch.zeros(2), 0.1, 0, torch.qint8),
        {"b": torch.zeros(2)},
        [torch.zeros(2)],
        "x" * 5000,
    ],
)
def test_weights_of_other_kinds(tmp_path: Path, value: Any) -> None:
    torch.save({"state_dict": {"a": value}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"model\.ckpt holds under 'a' no tensors; expected a state dict"):
        read_checkpoint(tmp_path / "model.ckpt")


def test_names_and_calls_that_no_checkpoint_has(tmp_path: Path) -> None:
    for function in (print, eval, torch.load, getattr, collections.namedtuple):
        path = write(tmp_path / "model.ckpt", {"a": Call(function, 3)})
        with pytest.raises(CheckpointError, match=rf"holds pickled code or objects \(.*{function.__name__}\) and was"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02ctorch\nfloat32\n)R.",  # a dtype, called
        b"\x80\x02]q\x00)R.",  # a list, called
        b"\x80\x02ccollections\nOrderedDict\n)\x81.",  # an object, made without a call
        b"\x80\x02(i__main__\nx\n.",
        b"\x80\x04\x82\x01.",
        b"Px\n.",
        b"\x80\x02\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # bytes, far more than there are
        b"\x80\x02r\xff\xff\xff\xff.",
        b"\x80\x02K\x01r\xff\xff\xff\xffh\xff.",  # a place far away that is remembered
        b"",
    ],
)
def test_pickles_of_other_forms(tmp_path: Path, pickled: bytes) -> None:
    with zipfile.ZipFile(tmp_path / "model.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    with pytest.raises(CheckpointError, match=r"is damaged or truncated|holds pickled code or objects"):
        read_checkpoint(tmp_path / "model.ckpt")
