"""Graphs of a model for other programs: ONNX, or PyTorch's own `torch.export`, with a JSON file that describes them.

A folder holds one file a graph, `PART_PHASE.onnx` or `.pt2`, and `PART.json`. The ONNX graphs of one part share their
weights, which lie in `PART.weights`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from vidtok.errors import VidTokError
from vidtok.files import aside
from vidtok.interop.graphs import Graph, Part, graphs, program
from vidtok.models.base import VideoModel
from vidtok.tokens import model_identity

Format = Literal["onnx", "torch"]
FORMAT_VERSION = 1
OPSET = 18
_SHARED_BYTES = 1 << 10
"""Weights of at least this size lie beside the graphs."""


def export_graphs(
    model: VideoModel,
    folder: str | os.PathLike[str],
    *,
    format: Format,
    part: Part,
    frames: int | None = None,
    size: tuple[int, int] | None = None,
    phases: Collection[str] | None = None,
) -> dict[str, Any]:
    """Write the graphs of one `part` of `model` to `folder` and return their description, the content of `PART.json`.

    Args:
        model: a model whose latent is one tensor, in float32 on the CPU.
        folder: made if missing; other files in it stay, so that both parts may go to one folder.
        format: "onnx", or "torch" for files of `torch.export`.
        part: "encode" or "decode".
        frames, size: as for `vidtok.interop.graphs.graphs`.
        phases: the graphs to write, such as "next"; None: all.

    Raises:
        VidTokError: the model, `frames` or `size` cannot be exported, the folder cannot be written, or ONNX is wanted
            and is not installed.
    """
    if format == "onnx" and any(find_spec(name) is None for name in ("onnx", "onnxscript")):
        raise VidTokError(
            "ONNX is not installed; `pip install 'vidtok[onnx]'` does that, or export with --format torch"
        )
    place = Path(os.path.abspath(folder))
    found = [g for g in graphs(model, part, frames=frames, size=size) if phases is None or g.phase in phases]
    described = _description(model, part, format, size, found)
    with aside(place, VidTokError, folder=True, problem=f"the graphs cannot be written to {folder}") as new:
        weights = _Weights(new / f"{part}.weights")
        for graph in found:
            file = new / _file(part, graph.phase, format)
            with _quiet():
                made = program(graph, any_size=size is None)
                if format == "torch":
                    torch.export.save(made, file)
                else:
                    _save_onnx(graph, made, file, weights)
        (new / f"{part}.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    return described


def _file(part: Part, phase: str, format: Format) -> str:
    return f"{part}_{phase}.{'onnx' if format == 'onnx' else 'pt2'}"


def _description(
    model: VideoModel, part: Part, format: Format, size: tuple[int, int] | None, found: list[Graph]
) -> dict[str, Any]:
    import vidtok

    config = model.config
    levels = config.bottleneck.token_levels
    return {
        "format": format,
        "format_version": FORMAT_VERSION,
        "vidtok": vidtok.__version__,
        "part": part,
        "model": asdict(model_identity(model)),
        "causal": model.is_causal,
        "temporal_factor": model.temporal_factor,
        "spatial_factor": model.spatial_factor,
        "channels": model.z_channels,
        "levels": None if levels is None else list(levels),
        "delay": model.delay,
        "size": None if size is None else list(size),
        "graphs": {graph.phase: _signature(graph, part, format, any_size=size is None) for graph in found},
    }


def _signature(graph: Graph, part: Part, format: Format, *, any_size: bool) -> dict[str, Any]:
    """File, inputs and outputs of a graph, each with shape and dtype; axes of any length have a name."""
    inputs, outputs = graph.step.inputs, graph.step.outputs
    with torch.no_grad():
        results = graph.step(*graph.example)

    def listed(names: tuple[str, ...], tensors: tuple[torch.Tensor, ...]) -> list[dict[str, Any]]:
        return [
            {"name": name, "dtype": str(x.dtype).removeprefix("torch."), "frames_axis": _frames_axis(name, x),
             "shape": ["batch", *x.shape[1:]] if not any_size else ["batch", *_free(name, x)]}
            for name, x in zip(names, tensors, strict=True)
        ]  # fmt: skip

    return {
        "file": _file(part, graph.phase, format),
        "inputs": listed(inputs.values + inputs.state, graph.example),
        "outputs": listed(outputs.values + outputs.state, results),
        "state": [[name, f"past.{name.removeprefix('next.')}"] for name in outputs.state],
    }  # fmt: skip


def _frames_axis(name: str, x: torch.Tensor) -> int:
    state = name.startswith(("past.", "next."))
    return 1 if state and not name.endswith("transform") else x.dim() - 3


def _free(name: str, x: torch.Tensor) -> list[int | str]:
    """The shape after the batch, with the two axes after the frames' as "height" and "width"."""
    at = _frames_axis(name, x)
    return ["height" if i == at + 1 else "width" if i == at + 2 else x.shape[i] for i in range(1, x.dim())]


class _Weights:
    """One file with the weights of several ONNX graphs, each of which lies in it once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, int] = {}

    def move(self, proto: Any) -> None:
        """Put the weights in the ONNX model `proto` into the file, and leave their places in it."""
        import onnx
        from onnx.external_data_helper import set_external_data

        for tensor in proto.graph.initializer:
            raw = onnx.numpy_helper.to_array(tensor).tobytes()
            if len(raw) < _SHARED_BYTES:
                continue
            key = hashlib.sha256(raw).hexdigest()
            if key not in self._places:
                with open(self.path, "ab") as file:
                    file.write(b"\0" * (-file.tell() % 4096))
                    self._places[key] = file.tell()
                    file.write(raw)
            tensor.ClearField("float_data")
            tensor.raw_data = raw
            set_external_data(tensor, self.path.name, offset=self._places[key], length=len(raw))
            tensor.ClearField("raw_data")


def _save_onnx(graph: Graph, made: torch.export.ExportedProgram, file: Path, weights: _Weights) -> None:
    inputs, outputs = graph.step.inputs, graph.step.outputs
    result = torch.onnx.export(
        made, dynamo=True, verbose=False, opset_version=OPSET,
        input_names=[*inputs.values, *inputs.state], output_names=[*outputs.values, *outputs.state],
    )  # fmt: skip
    assert result is not None
    proto = result.model_proto
    for node in (*proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        node.ClearField("metadata_props")  # lines of this package's code
        node.ClearField("doc_string")
    weights.move(proto)
    file.write_bytes(proto.SerializeToString())


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings, which name its own workings."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
