"""Inputs to records: files fetched and decoded ahead, clips of one size computed together."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vidtok.datasets.collection import failure_text
from vidtok.datasets.inputs import Input
from vidtok.datasets.options import TokenizeOptions
from vidtok.datasets.plan import Unit
from vidtok.datasets.records import Record, record_id, to_bytes
from vidtok.datasets.remote import fetch, is_url
from vidtok.datasets.sink import FileSink
from vidtok.datasets.sinks import SINKS
from vidtok.errors import CollectionError, TokenFileError
from vidtok.files import CHECK_DISK, make_folder
from vidtok.jobs import EncodeJob
from vidtok.models.base import VideoModel
from vidtok.runtime.limits import check_finite, computing
from vidtok.runtime.passes import EncodePass, first_group, in_groups
from vidtok.runtime.planning import plan
from vidtok.runtime.threads import Ahead
from vidtok.tokens import write
from vidtok.video import Frame, MediaSlice, Pixels, VideoReader, to_float

READERS = 2
_AHEAD = 4
"""Clips, or pieces of a video, that each reader holds ready."""


class Report(Protocol):
    """Told of the inputs that are begun and of every step, so that a fault can be laid to one of them."""

    def begin(self, unit: str) -> None:
        """An input is about to be opened."""

    def alive(self) -> None:
        """Something was decoded or computed."""


class Quiet:
    """A report that nobody reads."""

    def begin(self, unit: str) -> None:
        pass

    def alive(self) -> None:
        pass


class OutputError(CollectionError):
    """The collection cannot be written, which is no fault of an input."""


class BrokenDeviceError(Exception):
    """The GPU has failed; only a new process can use it again."""


@dataclass(frozen=True)
class Failure:
    """An input of a block that could not be encoded."""

    index: int
    reason: str


class Encoder(Protocol):
    """Whatever turns a block of inputs into records."""

    def encode(
        self, units: Sequence[Unit], folder: Path, report: Report, *, ahead: bool = True
    ) -> Iterator[tuple[int, Record] | Failure]:
        """The records of `units`, each with the number of its unit in the block, and the failures among them.

        Records of one unit come in order; those of a unit that fails do not count.
        """


class _Piece(NamedTuple):
    """Frames of an input, decoded: a clip, or some frames of a whole video."""

    pixels: Pixels
    first: int
    start: float


class ModelEncoder:
    """Encodes inputs with a model; `vidtok.datasets.options` says how.

    Records are the same whatever is read ahead. With the sink vtok, token files are put into their places here.
    """

    def __init__(
        self, model: VideoModel, options: TokenizeOptions, *, readers: int = READERS, scratch: Path | None = None
    ) -> None:
        self._model, self._options = model, options
        self._dtype = options.stored_dtype(model)
        self._batch = options.batch_of(model.device.type)
        self._readers = readers
        self._scratch = scratch
        kind = SINKS[options.sink]
        self._files = kind if issubclass(kind, FileSink) else None

    def encode(
        self, units: Sequence[Unit], folder: Path, report: Report, *, ahead: bool = True
    ) -> Iterator[tuple[int, Record] | Failure]:
        """See `Encoder`."""
        block = _Block(self, units, folder, report, self._readers if ahead else 1)
        yield from block.clips() if self._options.clip_frames else block.whole()


class _Block:
    """One block of inputs on its way through the model."""

    def __init__(
        self, encoder: ModelEncoder, units: Sequence[Unit], folder: Path, report: Report, readers: int
    ) -> None:
        self._options, self._model, self._dtype = encoder._options, encoder._model, encoder._dtype
        self._batch, self._files, self._scratch = encoder._batch, encoder._files, encoder._scratch
        self._units, self._folder, self._report, self._ahead = units, folder, report, readers

    def whole(self) -> Iterator[tuple[int, Record] | Failure]:
        """Whole inputs, one after another."""
        for index, unit in enumerate(self._units):
            self._report.begin(unit.id)
            try:
                with self._opened(unit.input) as path:
                    if self._options.sink == "vtok":
                        yield index, self._token_file(unit, path)
                    else:
                        yield index, self._stored(self._whole(unit, path))
            except Exception as error:
                yield _failure(index, error)

    def _whole(self, unit: Unit, path: Any) -> Record:
        options, model = self._options, self._model
        reader = options.open(path)
        options.fit(reader, model)
        chosen = plan(model, reader.size, options, "encode", reader.frame_estimate)
        encoder = EncodePass(model.with_tiling(chosen.tiling), chosen.frames)
        found: list[Tensor] = []
        frames, start = 0, 0.0
        with (
            reader,
            computing(),
            Ahead(_in_pieces(reader, first_group(model, chosen.frames), chosen.frames), depth=1) as ahead,
        ):
            for piece in ahead:
                start = start if frames else piece.start
                frames += len(piece.pixels)
                found.append(self._bytes_ready(encoder.push(self._video(piece.pixels[None]))))
                self._report.alive()
            found.append(self._bytes_ready(encoder.flush()))
        values = torch.cat([part for part in found if part.shape[-3]], -3)[0]
        return self._record(unit, values, frames, reader, start)

    def _bytes_ready(self, values: Tensor) -> Tensor:
        if values.shape[-3]:
            check_finite(values, self._model)
        return values.cpu()

    def _token_file(self, unit: Unit, path: Any) -> Record:
        place = self._token_place(unit.id)
        result = EncodeJob(path, place, self._options).run(self._model, lambda _: self._report.alive())
        header = result.header
        latent = header.latent
        shape = [latent.channels] * (not latent.discrete) + [result.latent_frames, latent.height, latent.width]
        head = {
            **_about(unit, None, result.frames, (header.video.height, header.video.width), header.video.fps),
            "start": header.video.start,
            "picture": header.video.picture,
            "values": "indices" if latent.discrete else "latent",
            "shape": shape,
            "dtype": latent.coding,
        }
        return Record(head | self._file_of(place), b"")

    def _token_place(self, id: str) -> Path:
        assert self._files is not None
        place = self._folder / self._files.place(id)
        make_folder(place.parent, OutputError, CHECK_DISK)
        return place

    def _file_of(self, place: Path) -> dict[str, Any]:
        with open(place, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"file": str(place.relative_to(self._folder)), "bytes": place.stat().st_size, "sha256": digest}

    def clips(self) -> Iterator[tuple[int, Record] | Failure]:
        """All clips of the block's inputs; clips of one size are computed together as soon as there are enough."""
        waiting: dict[tuple[int, ...], list[tuple[int, _Piece, VideoReader]]] = {}
        failed: set[int] = set()
        for index, item in self._pieces():
            if isinstance(item, Failure):
                failed.add(index)
                yield item
                continue
            piece, reader = item
            bucket = waiting.setdefault(piece.pixels.shape, [])
            bucket.append((index, piece, reader))
            if len(bucket) == self._batch:
                yield from self._computed(waiting.pop(piece.pixels.shape))
        for bucket in waiting.values():
            yield from self._computed(bucket)

    def _computed(self, bucket: list[tuple[int, _Piece, VideoReader]]) -> Iterator[tuple[int, Record] | Failure]:
        try:
            video = self._video(np.stack([piece.pixels for _, piece, _ in bucket]))
            with computing():
                values = self._model.encode_packed(video, sample=False).cpu()
        except Exception as error:
            reason = _failure(0, error).reason
            yield from (Failure(index, reason) for index, _, _ in bucket)
            return
        self._report.alive()
        for (index, piece, reader), each in zip(bucket, values, strict=True):
            try:
                check_finite(each, self._model)
                record = self._record(self._units[index], each, len(piece.pixels), reader, piece.start, piece.first)
                yield index, self._stored(record, each, reader)
            except Exception as error:
                yield _failure(index, error)

    def _pieces(self) -> Iterator[tuple[int, tuple[_Piece, VideoReader] | Failure]]:
        """Clips of all inputs in order, read by several threads ahead."""
        running: deque[tuple[int, Ahead[tuple[_Piece, VideoReader]]]] = deque()
        left = iter(range(len(self._units)))
        try:
            while True:
                for index in left:
                    running.append((index, Ahead(self._cut(self._units[index]), _AHEAD)))
                    if len(running) >= self._ahead:
                        break
                if not running:
                    return
                index, ahead = running[0]
                try:
                    for item in ahead:
                        yield index, item
                except Exception as error:
                    yield index, _failure(index, error)
                running.popleft()[1].close()
        finally:
            for _, ahead in running:
                ahead.close()

    def _cut(self, unit: Unit) -> Iterator[tuple[_Piece, VideoReader]]:
        """The whole clips of one input."""
        options = self._options
        count = options.clip_frames or 1
        stride = options.stride or count
        self._report.begin(unit.id)
        with self._opened(unit.input) as path:
            reader = options.open(path)
            options.fit(reader, self._model)
            held: deque[Frame] = deque(maxlen=count)
            with reader:
                for number, frame in enumerate(reader):
                    self._report.alive()
                    held.append(frame)
                    first = number - count + 1
                    if first >= 0 and first % stride == 0:
                        yield _Piece(np.stack([each.pixels for each in held]), first, held[0].time), reader

    @contextlib.contextmanager
    def _opened(self, input: Input) -> Iterator[Any]:
        """A path of `input` on this machine; files behind URLs, and for token files members of a .tar, are copied."""
        part = (input.offset, input.size) if input.member else None
        if not is_url(input.source) and part is None:
            yield input.source
        elif not is_url(input.source) and self._options.sink != "vtok":
            yield MediaSlice(input.source, input.offset, input.size, input.member)
        else:
            folder = Path(tempfile.mkdtemp(prefix="vidtok-", dir=self._scratch))
            try:
                yield fetch(input.source, folder, part, input.member)
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _video(self, pixels: Pixels) -> Tensor:
        """(B, T, H, W, 3) uint8 to (B, 3, T, H, W) in -1..1."""
        return torch.cat([to_float(each) for each in pixels])

    def _record(
        self, unit: Unit, values: Tensor, frames: int, reader: VideoReader, start: float, first: int | None = None
    ) -> Record:
        head = {
            **_about(unit, first, frames, reader.size, reader.fps),
            "start": start,
            "picture": reader.info.is_picture,
            "values": "indices" if self._model.regularization.discrete else "latent",
            "shape": list(values.shape),
            "dtype": self._dtype,
        }
        if self._options.sink == "vtok":
            return Record(head, b"")
        payload = to_bytes(values, self._dtype)
        return Record(head | {"bytes": len(payload), "sha256": hashlib.sha256(payload).hexdigest()}, payload)

    def _stored(self, record: Record, values: Tensor | None = None, reader: VideoReader | None = None) -> Record:
        """`record` as the sink wants it: with its file written, where each record has one."""
        if self._files is None:
            return record
        if self._options.sink == "vtok":
            assert values is not None
            assert reader is not None
            head = record.head
            place = self._token_place(head["id"])
            size = (head["frames"], head["height"], head["width"])
            write(place, values[None], self._model, size=size, fps=reader.fps, coding=self._options.coding)
            return Record(head | self._file_of(place), b"")
        try:
            return Record(record.head | self._files.write(self._folder, record), b"")
        except CollectionError as error:
            raise OutputError(str(error)) from error


def _failure(index: int, error: Exception) -> Failure:
    """`error` as the failure of an input, unless it is the output's or the device's fault: then it is raised."""
    if isinstance(error, OutputError):
        raise error
    if isinstance(error, TokenFileError):
        raise OutputError(str(error)) from error
    if "CUDA error" in str(error):
        raise BrokenDeviceError(str(error)) from error
    return Failure(index, failure_text(error))


def _about(unit: Unit, first: int | None, frames: int, size: tuple[int, int], fps: Any) -> Mapping[str, Any]:
    head: dict[str, Any] = {"id": record_id(unit.id, first), "input": unit.id, "source": unit.input.name}
    if first is not None:
        head["first_frame"] = first
    head |= {"frames": frames, "height": size[0], "width": size[1], "fps": float(fps)}
    if unit.input.columns:
        head["columns"] = unit.input.columns
    return head


def _in_pieces(reader: VideoReader, first: int, count: int) -> Iterator[_Piece]:
    """All frames of `reader`: `first` of them, then `count` at a time."""
    number = 0
    for held in in_groups(reader, first, count):
        yield _Piece(np.stack([each.pixels for each in held]), number, held[0].time)
        number += len(held)
