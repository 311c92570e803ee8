"""Graphs of one step of a stream: in onnxruntime and torch.export they give what the model's own streams give."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from support import TESTS, make_clip, small_model
from tiny import FSQ_1_0, FSQ_1_1, KL_1_0, KL_1_1, KL_NONCAUSAL, write_video
from twin import tiny_twin
from vidtok import Tokenizer
from vidtok.cli import main
from vidtok.errors import VidTokError
from vidtok.interop.export import export_graphs
from vidtok.interop.graphs import graphs
from vidtok.jobs import EncodeOptions, encode_file
from vidtok.video import read_video, to_float

SIZE = (8, 12)


def model_of(name: str, **changes: Any) -> Tokenizer:
    """A model of one level, which halves time and space, so that graphs are small."""
    levels = {"spatial_ds": (0,), "spatial_us": (0,), "tempo_ds": (0,), "tempo_us": (0,)}
    return small_model(name, **{"ch": 4, "ch_mult": (1,), "num_res_blocks": 1, **levels, **changes})


class Stream:
    """The graphs in a folder, run one after another."""

    def __init__(self, folder: Path, part: str) -> None:
        self.described = json.loads((folder / f"{part}.json").read_text())
        self.folder = folder
        self.state: list[Tensor] = []
        self._loaded: dict[str, Any] = {}

    def step(self, phase: str, *values: Tensor) -> dict[str, Tensor]:
        graph = self.described["graphs"][phase]
        path = self.folder / graph["file"]
        names = [[each["name"] for each in graph[side]] for side in ("inputs", "outputs")]
        past = self.state if phase in ("next", "end") else []
        if path.suffix == ".onnx":
            import onnxruntime

            run = self._loaded.setdefault(phase, onnxruntime.InferenceSession(path))
            feed = {name: x.numpy() for name, x in zip(names[0], (*values, *past), strict=True)}
            found = [torch.from_numpy(x) for x in run.run(names[1], feed)]
        else:
            found = list(self._loaded.setdefault(phase, torch.export.load(path).module())(*values, *past))
        results = dict(zip(names[1], found, strict=True))
        self.state = [results[given] for given, _ in graph["state"]]
        return results

    def run(self, x: Tensor, first: int, each: int) -> dict[str, Tensor]:
        """All steps for `x`, whose frames are at axis -3, with the values that come out joined."""
        steps = [self.step("first", x[..., :first, :, :])]
        steps += [self.step("next", piece) for piece in torch.split(x[..., first:, :, :], each, -3)]
        if "end" in self.described["graphs"]:
            steps.append(self.step("end"))
        values = [name for name in steps[0] if not name.startswith("next.")]
        return {name: torch.cat([step[name] for step in steps], -3) for name in values}


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def check_decoder(model: Tokenizer, folder: Path, size: tuple[int, int], batch: int) -> None:
    height, width = (side // model.spatial_factor for side in size)
    if model.codebook_size is None:
        z = make_clip(batch, model.z_channels, 5, height, width)
    else:
        z = torch.randint(0, model.codebook_size, (batch, 5, height, width), dtype=torch.int32)
    stream = Stream(folder, "decode")
    first = 2 if "single" in stream.described["graphs"] else 1
    whole = model.decode(z, model.codebook_size is not None)
    close(stream.run(z, first, 1)["video"], whole)
    if first == 2:
        close(
            stream.step("single", z[..., :1, :, :])["video"],
            model.decode(z[..., :1, :, :], model.codebook_size is not None),
        )


def check_encoder(model: Tokenizer, folder: Path, size: tuple[int, int], batch: int) -> None:
    video = make_clip(batch, 3, 1 + 4 * model.temporal_factor, *size)
    found = Stream(folder, "encode").run(video, 1, 2 * model.temporal_factor)
    z, log = model.encode(video, True, sample=False)
    close(found["latent"], z)
    if "indices" in found:
        assert torch.equal(found["indices"], log["indices"])
    else:
        variance = model.regularization.variance(model.moments(video))
        assert variance is not None
        close(found["std"], variance.sqrt())


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX graphs of the decoder of `model_of(FSQ_1_0)`, for frames of one size."""
    folder = tmp_path_factory.mktemp("decoder")
    export_graphs(model_of(FSQ_1_0), folder, format="onnx", part="decode", size=SIZE)
    return folder


@pytest.mark.parametrize("batch", [1, 3])
def test_a_decoder_streams_in_onnxruntime(decoder: Path, batch: int) -> None:
    check_decoder(model_of(FSQ_1_0), decoder, SIZE, batch)


def test_the_graphs_have_no_3d_convolution_and_share_their_weights(decoder: Path) -> None:
    import onnx

    names = sorted(path.name for path in decoder.iterdir())
    files = ["decode_first.onnx", "decode_next.onnx"]
    assert names == ["decode.json", "decode.weights", *files]
    for name in files:
        proto = onnx.load(decoder / name)
        onnx.checker.check_model(proto)
        kernels = {each.name: len(each.dims) for each in proto.graph.initializer}
        convolutions = [node for node in proto.graph.node if node.op_type == "Conv"]
        assert convolutions
        assert all(kernels.get(node.input[1], 4) == 4 for node in convolutions)


def test_the_example_decodes_a_token_file_without_this_package(decoder: Path, tmp_path: Path) -> None:
    model = model_of(FSQ_1_0)
    video = write_video(tmp_path / "in.mp4", 8, *SIZE)
    encode_file(model, video, tmp_path / "in.vtok", EncodeOptions(coding="packed"))
    script = TESTS.parent / "examples" / "decode_onnx.py"
    code = (
        "import sys, runpy; sys.modules['vidtok'] = sys.modules['torch'] = None; "
        f"sys.argv = ['x', 'in.vtok', {str(decoder)!r}, 'out.mp4']; "
        f"runpy.run_path({str(script)!r}, run_name='__main__')"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert read_video(tmp_path / "out.mp4").shape == (8, *SIZE, 3)
    parts = runpy.run_path(str(script))
    _, frames, values = parts["read"](tmp_path / "in.vtok")
    found = np.concatenate(list(parts["decode"](values, decoder)), 2)
    tokens = model.encode(to_float(read_video(video)), True)[1]["indices"]
    assert frames == 8
    assert np.array_equal(values, tokens)
    close(torch.from_numpy(found), model.decode(tokens, True))


def test_latents_are_encoded_by_torch_export_and_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = model_of(KL_1_1)
    model.save_pretrained(tmp_path / "model")
    arguments = ["export", str(tmp_path / "model"), str(tmp_path / "out"), "--format", "torch", "--part", "encode"]
    assert main([*arguments, "--frames", "4", "--size", "8x12"]) == 0
    assert "encode_first.pt2, encode_next.pt2" in capsys.readouterr().out
    check_encoder(model, tmp_path / "out", SIZE, 1)
    for wrong in (["--size", "8"], ["--size", "9x12"], ["--frames", "3"], ["--dtype", "int8"]):
        assert main([*arguments, *wrong]) == 2
    for wrong in (["--size", "8x8"], ["--frames", "4"], ["--part", "encode"]):
        assert main(["export", str(tmp_path / "model"), str(tmp_path / "none"), *wrong]) == 2
        assert f"{wrong[0]} is for graphs; give --format onnx or torch" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert "Traceback" not in capsys.readouterr().err


def test_a_latent_of_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VidTokError, match="several parts"):
        export_graphs(tiny_twin(), tmp_path / "out", format="torch", part="decode")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", [KL_1_0, KL_1_1, FSQ_1_0, FSQ_1_1])
def test_other_variants_in_onnxruntime(name: str, tmp_path: Path) -> None:
    model = model_of(name)
    export_graphs(model, tmp_path, format="onnx", part="decode", size=SIZE)
    export_graphs(model, tmp_path, format="onnx", part="encode", size=SIZE, frames=4)
    check_decoder(model, tmp_path, SIZE, 2)
    check_encoder(model, tmp_path, SIZE, 2)


@pytest.mark.slow
@pytest.mark.parametrize("format", ["onnx", "torch"])
def test_graphs_for_any_size(format: str, tmp_path: Path) -> None:
    model = model_of(KL_1_1)
    export_graphs(model, tmp_path, format=format, part="decode")  # type: ignore[arg-type]
    export_graphs(model, tmp_path, format=format, part="encode", frames=4)  # type: ignore[arg-type]
    for size, batch in (((8, 12), 2), ((10, 6), 1)):
        check_decoder(model, tmp_path, size, batch)
        check_encoder(model, tmp_path, size, batch)


@pytest.mark.slow
def test_a_block_transform_and_a_non_causal_model(tmp_path: Path) -> None:
    model = model_of(KL_1_1, block_transform=True, patch_size=2)
    export_graphs(model, tmp_path, format="onnx", part="decode", size=SIZE)
    check_decoder(model, tmp_path, SIZE, 2)
    clips = model_of(KL_NONCAUSAL)
    export_graphs(clips, tmp_path / "clips", format="onnx", part="encode", size=SIZE)
    video = make_clip(1, 3, 16, *SIZE)
    close(Stream(tmp_path / "clips", "encode").step("clip", video)["latent"], clips.encode(video, sample=False))


@pytest.mark.slow
def test_aot_inductor(tmp_path: Path) -> None:
    model = model_of(KL_1_1)
    export_graphs(model, tmp_path, format="torch", part="decode", size=SIZE)
    stream = Stream(tmp_path, "decode")
    for phase, graph in stream.described["graphs"].items():
        package = torch._inductor.aoti_compile_and_package(
            torch.export.load(tmp_path / graph["file"]), package_path=str(tmp_path / f"{phase}.aot.pt2")
        )
        stream._loaded[phase] = torch._inductor.aoti_load_package(package)
    z = make_clip(2, model.z_channels, 5, 4, 6)
    close(stream.run(z, 2, 1)["video"], model.decode(z))


def test_steps_are_a_stream_s() -> None:
    """Steps in eager mode, of a decoder that looks ahead: what is exported is what the model computes."""
    model = model_of(KL_1_1)
    steps = {graph.phase: graph.step for graph in graphs(model, "decode")}
    z = make_clip(2, model.z_channels, 4, 4, 6)
    pieces: list[Tensor] = []
    state: list[Tensor] = []
    for phase, given in (("first", [z[:, :, :2]]), ("next", [z[:, :, 2:3]]), ("next", [z[:, :, 3:]]), ("end", [])):
        video, *state = steps[phase](*given, *state)
        pieces.append(video)
    close(torch.cat(pieces, 2), model.decode(z))
    close(steps["single"](z[:, :, :1])[0], model.decode(z[:, :, :1]))
    assert steps["next"].inputs.state[0] == "past.conv_in"
    assert steps["next"].outputs.state[0] == "next.conv_in"
