"""The pickle in a file of `torch.save`, read as data: tensors and plain containers, and nothing that can be called.

Names in it are looked up in a table of the names in such files. The size of each tensor is compared with the bytes that
the file holds for it before memory is taken; `torch.load` trusts the pickle instead.
"""

from __future__ import annotations

import io
import pickle
from collections import Counter, OrderedDict
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vidtok.zoo.archive import ArchiveError, Records

MAX_PICKLE_BYTES = 1 << 23
"""Bytes of the pickle; a tensor takes about 200."""
MAX_EXPANDED = 1 << 16
"""Values of a tensor whose strides make it larger than what is stored."""
MAX_SHARING = 4
"""The most bytes of all tensors for each byte of the records, since tensors may share records."""
_FREE_BYTES = 1 << 24
_MAX_AXES = 64

_STORAGES = {
    "FloatStorage": torch.float32, "DoubleStorage": torch.float64, "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16, "ByteStorage": torch.uint8, "CharStorage": torch.int8,
    "ShortStorage": torch.int16, "IntStorage": torch.int32, "LongStorage": torch.int64, "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64, "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.int8, "QUInt8Storage": torch.uint8, "QInt32Storage": torch.int32,
}  # fmt: skip


class ForeignError(Exception):
    """A pickle asks for something that no file of tensors has; the argument is its name."""


class Unusable:
    """Stands for a tensor of a kind that no model has, such as a sparse one."""


class _Storage(NamedTuple):
    memory: torch.UntypedStorage
    dtype: torch.dtype


def load_pickled(path: Path, *, mapped: bool) -> Any:
    """The content of a file of `torch.save`: tensors on the CPU, mapped from the file if asked for, and plain values.

    Raises `ForeignError` for anything else in it, and `ArchiveError` or any other exception if the file is damaged.
    """
    with Records(path, mapped=mapped) as records:
        content = records.read("data.pkl", MAX_PICKLE_BYTES)
        return _Unpickler(content, records).load()


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler, which reads no more than there is, without the operations that call or change objects."""

    def __init__(self, content: bytes, records: Records) -> None:
        super().__init__(io.BytesIO(content), encoding="utf-8")
        self._records = records
        self._storages: dict[str, torch.UntypedStorage] = {}
        self._left = _FREE_BYTES + MAX_SHARING * records.total

    def find_class(self, module: str, name: str) -> Any:
        module = {"__builtin__": "builtins", "torch.tensor": "torch._tensor"}.get(module, module)
        if module == "torch._utils" and name in _TENSORS:
            return _Made(lambda *given: self._tensor(*given) if name in _STRIDED else _TENSORS[name](*given))
        if (module, name) in _MADE:
            return _Made(_MADE[module, name])
        if module == "torch._tensor" and name == "_rebuild_from_type_v2":
            return _Made(_of_type)
        known: Any = _STORAGES.get(name) if module == "torch" else None
        if (module, name) in (("torch.storage", "UntypedStorage"), ("torch", "UntypedStorage")):
            known = torch.uint8
        if known is None and module == "torch":
            known = getattr(torch, name, None)
        if isinstance(known, torch.dtype | torch.qscheme) or known is torch.Tensor:
            return known
        raise ForeignError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, numel = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype) or not isinstance(key, str):
            raise ArchiveError("it names no storage")
        name, size = f"data/{key}", _whole(numel) * dtype.itemsize
        if size > self._records.size(name):
            raise ArchiveError(f"its record {name!r} has {self._records.size(name):,} bytes, not {size:,}")
        if key not in self._storages:
            memory = self._records.storage(name, dtype.itemsize)
            if self._records.swapped:
                memory.byteswap(dtype)  # type: ignore[no-untyped-call]
            self._storages[key] = memory
        return _Storage(self._storages[key], dtype)

    def _tensor(self, storage: Any, offset: Any, size: Any, stride: Any, *rest: Any) -> Tensor:
        """The tensor of these strides; `rest` holds a flag for gradients, hooks, and in later files a dtype."""
        if not isinstance(storage, _Storage):
            raise ArchiveError("it has a tensor without storage")
        dtype = next((value for value in rest if isinstance(value, torch.dtype)), storage.dtype)
        shape, steps = [_whole(n) for n in size], [_whole(n) for n in stride]
        if len(shape) != len(steps) or len(shape) > _MAX_AXES:
            raise ArchiveError("it has a tensor whose strides do not fit its shape")
        count, stored = prod(shape), storage.memory.nbytes() // dtype.itemsize
        end = _whole(offset) + sum((n - 1) * step for n, step in zip(shape, steps, strict=True)) + 1
        if count and (end > stored or count > max(stored, MAX_EXPANDED)):
            raise ArchiveError(f"it has a tensor of shape {shape} where {stored:,} values are stored")
        self._left -= count * dtype.itemsize
        if self._left < 0:
            raise ArchiveError("its tensors stand for many times the bytes that it holds")
        if any(rest[i] for i in range(2, len(rest)) if isinstance(rest[i], dict)):
            raise ArchiveError("it has a tensor that is conjugated or negated")
        return torch.empty(0, dtype=dtype).set_(storage.memory, offset if count else 0, shape, steps)


class _Made:
    """A name that a pickle may call, and the function that makes the result."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ArchiveError("it has a size that is no whole number")
    return value


def _of_type(make: Any, kind: Any, given: Any, state: Any) -> Any:
    """A tensor with attributes of its own, which are left out."""
    if not isinstance(make, _Made) or kind is not torch.Tensor:
        raise ArchiveError("it has a tensor of a kind that is not known")
    return make.make(*given)


def _text_as_bytes(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ArchiveError("it has bytes in a form that is not known")
    return text.encode("latin1")


def _bytearray(content: Any = b"", *encoding: Any) -> bytearray:
    return bytearray(content if isinstance(content, bytes) else _text_as_bytes(content, *encoding))


def _unusable(*_: Any) -> Unusable:
    return Unusable()


_STRIDED = ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
_TENSORS: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_STRIDED, _unusable),
    "_rebuild_parameter": lambda data, *_: data,
    "_rebuild_parameter_with_state": lambda data, *_: data,
    **dict.fromkeys(
        ("_rebuild_sparse_tensor", "_rebuild_qtensor", "_rebuild_meta_tensor_no_storage", "_rebuild_nested_tensor"),
        _unusable,
    ),
}
"""Functions by which tensors are written; the unpickler itself makes the tensors of `_STRIDED`."""
_MADE: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "Counter"): Counter,
    ("torch", "Size"): lambda sizes=(): torch.Size(map(_whole, sizes)),
    ("torch", "device"): lambda *place: torch.device(*place),
    ("torch.serialization", "_get_layout"): _unusable,
    ("builtins", "set"): lambda items=(): set(items),
    ("builtins", "complex"): lambda real, imaginary: complex(real, imaginary),
    ("builtins", "bytearray"): _bytearray,
    ("_codecs", "encode"): _text_as_bytes,
}


def _reduce(unpickler: Any) -> None:
    """A call in the pickle, which only names in the tables allow. Raises `ForeignError` for others."""
    given = unpickler.stack.pop()
    made = unpickler.stack[-1]
    if not isinstance(made, _Made) or not isinstance(given, tuple):
        raise ForeignError(type(made).__name__)
    unpickler.stack[-1] = made.make(*given)


def _build(unpickler: Any) -> None:
    """Drop the attributes of an object, which no reader here needs."""
    unpickler.stack.pop()


_CALLING = (
    pickle.INST, pickle.OBJ, pickle.NEWOBJ, pickle.NEWOBJ_EX, pickle.EXT1, pickle.EXT2, pickle.EXT4, pickle.PERSID,
    pickle.NEXT_BUFFER, pickle.READONLY_BUFFER,
)  # fmt: skip
_Unpickler.dispatch = {key: do for key, do in pickle._Unpickler.dispatch.items() if key not in {c[0] for c in _CALLING}}
_Unpickler.dispatch[pickle.REDUCE[0]] = _reduce
_Unpickler.dispatch[pickle.BUILD[0]] = _build
