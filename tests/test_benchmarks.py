"""The benchmarks run, on the smallest case that shows it, and count what they say they count."""

from __future__ import annotations

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from support import small_config
from tiny import FSQ_1_0, FSQ_1_1, KL_1_1, KL_NONCAUSAL, ONE_THREAD, draw, write_model, write_video
from vidtok import Tokenizer
from vidtok.video import VideoWriter

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("limits")


def run(script: str, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, BENCHMARKS / script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD)
    assert done.returncode == code, done.stderr
    return done


def result(script: str, out: Path, *arguments: str | Path) -> dict[str, Any]:
    run(script, *arguments, "--out", out)
    written: dict[str, Any] = json.loads(out.read_text())
    assert written["environment"]["cpu"]
    return written


@pytest.mark.parametrize("name", [KL_1_1, FSQ_1_1, KL_NONCAUSAL])
def test_operations_are_those_that_pytorch_counts(limits: ModuleType, name: str) -> None:
    config = small_config(name, ch=16)
    frames = 17 if config.is_causal else 16
    for task, layers in limits.limits(config, (frames, 32, 32), torch.float32).items():
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = Tokenizer(config).eval()
            if task == "encode":
                model.encoder(torch.empty(1, 3, frames, 32, 32))
            else:
                model.decoder(torch.empty(1, config.z_channels, -(-frames // config.temporal_factor), 4, 4))
        assert limits.total(layers).flop == counter.get_total_flops()


def test_a_layer_counted_by_hand(limits: ModuleType) -> None:
    layers = limits.limits(small_config(KL_1_1, ch=16), (17, 32, 32), torch.float32)["encode"]
    work = layers["down.0.block.0.conv1"]
    assert work.flop == 2 * 17 * 32 * 32 * 16 * 16 * 9
    assert work.bytes == 4 * (2 * 17 * 32 * 32 * 16 + 16 * 16 * 9)
    assert layers["down.0.block.0"].bytes == 4 * 17 * 32 * 32 * 16
    positions = 4 * 4
    assert layers["mid.attn_1"].flop == 2 * 2 * 5 * positions**2 * 64


def test_fewer_products_are_counted_where_they_are_taken(limits: ModuleType) -> None:
    config = small_config(KL_1_1, ch=128, num_res_blocks=1)
    layers = limits.limits(config, (17, 256, 256), torch.float32)
    plain = layers["encode"]["down.0.block.0.conv1"]
    assert plain.reduced == plain.flop // 4
    upsample = layers["decode"]["up.1.upsample.conv"]
    assert upsample.reduced == round(upsample.flop * 25 / 144)
    upsample = layers["decode"]["up_temporal.1.upsample.conv.conv"]
    assert upsample.reduced == upsample.flop // 6
    kept = layers["encode"]["down_temporal.1.block.0.conv1.conv"]
    assert kept.reduced == kept.flop


def test_the_original_computes_copies_of_the_first_frame(limits: ModuleType) -> None:
    config = dataclasses.replace(small_config(KL_1_1), num_res_blocks=1)
    shape = (17, 32, 32)
    ours, theirs = (limits.limits(c, shape, torch.float32)["encode"] for c in (config, limits.original(config)))
    assert theirs["conv_in.conv"].flop * 17 == ours["conv_in.conv"].flop * 20


@pytest.mark.slow
def test_limits_writes_floors(tmp_path: Path) -> None:
    config = write_model(tmp_path, KL_1_1).config
    options = ("--frames", "5", "--size", "32", "--matrix-size", "64")
    written = result("limits.py", tmp_path / "limits.json", config, *options)["models"][str(config)]
    for task in ("encode", "decode"):
        assert written[task]["flop"] == sum(level["flop"] for level in written[task]["levels"].values())
        assert written[task]["floor_seconds"] >= 0
    assert set(written["encode"]["levels"]) == {"conv_in", "down.0", "down.1", "down.2", "down.3", "mid", "conv_out"}


_BENCHMARK = """\
import json, sys
import vidtok
assert sys.argv[1] == "--size", f"invalid option {sys.argv[1]}"
seconds = vidtok.SECONDS * int(sys.argv[2])
tasks = {"encode": {"seconds": seconds, "all_seconds": [seconds]}, "decode": {"floor_seconds": 2, "frames": 17}}
open(sys.argv[-1], "w").write(json.dumps({"tasks": tasks}))
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits: in the second one, a package of the same name says that it takes a quarter of the time."""
    folder = tmp_path / "repository"
    (folder / "src" / "vidtok").mkdir(parents=True)
    (folder / "benchmarks").mkdir()
    (folder / "benchmarks" / "speed.py").write_text(_BENCHMARK)
    git = ["git", "-C", str(folder), "-c", "user.name=A", "-c", "user.email=a@b.c"]
    subprocess.run([*git, "init", "-q"], check=True)
    for seconds in (4.0, 1.0):
        (folder / "src" / "vidtok" / "__init__.py").write_text(f"SECONDS = {seconds}\n")
        subprocess.run([*git, "add", "."], check=True)
        subprocess.run([*git, "commit", "-qm", f"{seconds}"], check=True)
    return folder


def test_commits_are_compared_by_turns(repository: Path, tmp_path: Path) -> None:
    out = tmp_path / "ratios.json"
    options = ("--repository", repository, "--turns", "2", "--out", out, "--", "speed.py", "--size", "3")
    done = run("compare.py", "HEAD~1", "HEAD", *options)
    expected = {"times_as_fast": 4.0, "range": [4.0, 4.0], "each": [4.0, 4.0]}
    same = {"times_as_fast": 1.0, "range": [1.0, 1.0], "each": [1.0, 1.0]}
    assert json.loads(out.read_text())["ratios"] == {"tasks.encode": expected, "tasks.decode.floor_seconds": same}
    assert "2 turns, times as fast" in done.stdout
    assert "tasks.encode                4.00 (4.00 to 4.00)" in done.stdout
    listed = subprocess.run(["git", "-C", repository, "worktree", "list"], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


def test_compare_says_what_is_wrong(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    compare = importlib.import_module("compare")

    def message(*arguments: str, code: int | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["compare.py", "--repository", str(repository), *arguments])
        with pytest.raises(SystemExit) as ended:
            compare.main()
        if code is None:
            return str(ended.value)
        assert ended.value.code == code
        return capsys.readouterr().err

    assert "give the benchmark behind --" in message("HEAD", "HEAD", code=2)
    assert "--turns is 0; expected at least 1" in message("HEAD", "HEAD", "--turns", "0", "--", "x.py", code=2)
    assert "no-such-commit" in message("no-such-commit", "HEAD", "--", "speed.py")
    failed = message("HEAD", "HEAD", "--", "speed.py", "--shape")
    assert "speed.py failed in" in failed
    assert "invalid option --shape" in failed


def test_gpu_says_so_without_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    message = run("gpu.py", code=2).stderr
    assert "PyTorch sees no CUDA GPU here; run this on a machine with one, or try it out with --device cpu" in message
    assert "Traceback" not in message


def gpu_dry(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    config = write_model(tmp_path, KL_1_1).config
    sizes = ("--size", "64", "--long", "33", "--batch", "2", "--turns", "1", "--matrix-size", "64")
    return result("gpu.py", tmp_path / "gpu.json", "--device", "cpu", "--config", config, *sizes, *arguments)


@pytest.mark.slow
def test_gpu_runs_dry_on_the_cpu(tmp_path: Path) -> None:
    written = gpu_dry(
        tmp_path, "--contestants", "ours", "--cases", "stream", "tiled", "--modes", "eager", "graphs",
        "--dtype", "float32",
    )  # fmt: skip
    assert {name: figures["within_bounds"] for name, figures in written["correctness"].items()} == {
        "float32": True,
        "bfloat16": True,
    }
    for measured in written["results"]:
        if measured["mode"] == "graphs":
            assert measured["skipped"] == "CUDA graphs need a GPU"
        else:
            assert measured["both"]["clips_per_second"] > 0
            assert measured["decode"]["share_of_matrix_rate"] > 0
    assert [(each["case"]["how"], each["mode"]) for each in written["results"]] == [
        (how, mode) for how in ("streamed", "tiled") for mode in ("eager", "graphs")
    ]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_gpu_runs_dry_with_all_contestants(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    written = gpu_dry(tmp_path, "--modes", "eager", "compiled")
    assert len(written["results"]) == 4 * 3 * 2
    assert not [each for each in written["results"] if each["mode"] == "eager" and "failed" in each]
    assert {"share_of_matrix_rate" in each["both"] for each in written["results"] if each["contestant"] == "wan"} == {
        False
    }


@pytest.mark.slow
@pytest.mark.parametrize(("task", "stages"), [("decode", 2), ("reconstruct", 3)])
def test_stages_of_the_pipeline_are_measured(tmp_path: Path, task: str, stages: int) -> None:
    config = write_model(tmp_path, KL_1_1).config
    options = ("--frames", "9", "--source", "36", "48", "--size", "32", "--turns", "1", "--threads", "1")
    written = result("pipeline.py", tmp_path / "out.json", "--config", config, "--task", task, *options)
    assert len(written["stages"]) == stages + 1
    assert all(stage["seconds"] > 0 for stage in written["stages"].values())
    assert len(written["whole_to_slowest"]) == 1


@pytest.mark.slow
def test_inference_compares_nothing_if_asked_for_nothing(tmp_path: Path) -> None:
    config = write_model(tmp_path, KL_1_1).config
    written = result("inference.py", tmp_path / "out.json", "--config", config, "--size", "32", "--turns", "1")
    assert set(written["tasks"]) == {"encode", "decode", "both"}
    assert written["tasks"]["both"]["ours"]["times_ours"] == 1


@pytest.mark.slow
def test_weights(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", 5, 32, 32)
    options = (*write_model(tmp_path, KL_1_1).options, "--frames", 5, "--size", 32)
    written = result("weights.py", tmp_path / "out.json", tmp_path / "a.mkv", *options, "--compute", "bfloat16")
    taken = [run["bytes"] for run in written["runs"].values()]
    assert max(taken[1:3]) < 0.7 * taken[0]
    assert taken[3] < taken[1]
    assert taken[4] == taken[0]
    assert written["runs"]["weights in int8"]["psnr_to_float32"]["a.mkv"] > 20


def test_codes_of_a_model_and_of_plain_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    codes = importlib.import_module("codes")
    video = torch.rand(1, 3, 9, 16, 24)
    cut = codes.blocks(video, small_config(FSQ_1_0, ch=8)).view(3, 2, 3, 3, 4, 8, 8)
    assert torch.equal(cut[1, 1, 2], video[0, :, 1:5, 8:16, 16:24])
    assert torch.equal(cut[0, 0, 1], video[0, :, :1, :8, 8:16].expand(-1, 4, -1, -1)), "a first frame fills a block"
    assert torch.equal(codes.nearest(cut.reshape(18, -1), cut.reshape(18, -1)), torch.arange(18))
    odd = torch.rand(1, 3, 1, 12, 20).repeat(1, 1, 9, 1, 1)
    odd[:, :, 5:, :8, :8] += 1
    assert codes.still(odd, small_config(FSQ_1_0, ch=8)) == 2 * 6 - 1
    counted = codes.used({"a": torch.tensor([0, 1]), "b": torch.tensor([1, 1])}, 4, repeated=3)
    assert counted.pop("by_video") == {"a": 2, "b": 1}
    assert counted == {"tokens": 4, "different": 2, "evenly": 3, "still": 3, "evenly_moving": 1, "entropy": 0.81}

    files = write_model(tmp_path, FSQ_1_0)
    with VideoWriter(tmp_path / "still.mkv", 24, crf=0) as writer:
        writer.write(draw(1, 32, 32).repeat(9, axis=0))
    options = ("--model", f"{files.config}={files.checkpoint}", "--frames", 9, "--size", 32)
    written = result("codes.py", tmp_path / "out.json", tmp_path / "still.mkv", *options)["codes"]
    of_model, of_blocks = written[FSQ_1_0], written["4x8-blocks-4096"]
    assert of_model["tokens"] == of_blocks["tokens"] == 48
    assert of_model["still"] == of_blocks["still"] == 32
    assert of_model["evenly_moving"] == 16
    assert 0 < of_model["different"] <= 48
    assert of_blocks["different"] <= 16, "the same blocks three times"


@pytest.mark.slow
@pytest.mark.parametrize("name", [KL_1_1, "vidtok_fsq_causal_488_32768_v1_1"])
def test_the_plain_layout_takes_the_same_steps(tmp_path: Path, name: str) -> None:
    pytest.importorskip("diffusers")
    small = [f"model.params.{part}_config.params.ch=8" for part in ("encoder", "decoder")]
    options = ("--frames", 5, "--size", 32, "--steps", 2, "--compare", "plain", "--accelerator", "cpu")
    off = [f"model.params.loss_config.params.{part}_weight=0" for part in ("perceptual", "disc")]
    written = result("training.py", tmp_path / "out.json", "--config", name, *options, *small, *off)
    assert written["largest_relative_difference_of_losses"] < 1e-4
    assert len(written["times_as_fast"]) == 1


@pytest.mark.slow
def test_streams_are_timed_beside_whole_clips(tmp_path: Path) -> None:
    config = write_model(tmp_path, KL_1_1).config
    options = ("--size", 32, "--clip", 5, "--frames", 13, "--chunk", 4, "--turns", 1, "--threads", 1)
    written = result("streaming.py", tmp_path / "out.json", "--config", config, *options)
    assert set(written["tasks"]) == {"encode", "decode"}
    assert all(task["streamed_to_whole"] > 0 for task in written["tasks"].values())


def test_bookkeeping_of_collections(tmp_path: Path) -> None:
    found = result("collection.py", tmp_path / "out.json", "bookkeeping", "--records", "300", "--sinks", "bin")
    assert found["figures"]["bin"]["work_ms"] > 0
    assert found["figures"]["bin"]["read_per_second"] > 0
    assert found["figures"]["listing"]["list_ms"] > 0


def test_workers_of_collections(tmp_path: Path) -> None:
    for number in range(6):
        write_video(tmp_path / f"{number}.mp4", 35, 32, 32)
    model = write_model(tmp_path, FSQ_1_0)
    videos = [tmp_path / f"{number}.mp4" for number in range(6)]
    options = ("--model", model.config, "--checkpoint", model.checkpoint, "--size", "32", "--turns", "1")
    found = result("collection.py", tmp_path / "out.json", "workers", *videos, *options, "--engines", "one process")
    assert found["figures"]["one process"]["ratio"] == 1


def test_decoders_take_turns(tmp_path: Path) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(
        f"base: {KL_1_1}\nmodel: {{params: {{encoder_config: {{params: {{ch: 8, num_res_blocks: 1}}}}}}}}\n"
    )
    written = result(
        "decoders.py", tmp_path / "out.json", "--configs", config, "--random", "--decoders", "full", "fast",
        "--sizes", "16", "--stream", "9", "--threads", "1", "--turns", "1",
    )  # fmt: skip
    full, fast = written["rows"]
    assert (full["decoder"], fast["decoder"]) == ("full", "fast")
    assert 0 < fast["gflop_per_frame"] < 1
    assert full["times_full"] == 1
