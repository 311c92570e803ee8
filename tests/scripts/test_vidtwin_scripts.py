from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from vidtwin.scripts import inference_evaluate, inference_reconstruct
from vidtwin.scripts import inference_vidtwin_cross_reconstruct as cross
from vidtwin.scripts.inference_evaluate import load_model_from_config

from support import make_clip
from tiny import ONE_THREAD, ModelFiles, write_video
from twin import NAME, SIDE, tiny_twin, write_twin
from vidtok import VidTwin
from vidtok.metrics.lpips import LPIPS, LPIPSWeightsError
from vidtok.video import read_video

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return write_twin(tmp_path_factory.mktemp("model"))


@pytest.fixture(autouse=True)
def _no_lpips(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(cls: type[LPIPS], source: object = None) -> LPIPS:
        raise LPIPSWeightsError("there are none")

    monkeypatch.setattr(LPIPS, "from_weights", classmethod(none))


def options(files: ModelFiles) -> list[str]:
    size = ["--input_height", str(SIDE), "--input_width", str(SIDE), "--sample_fps", "24"]
    return ["--config", str(files.config), "--ckpt", str(files.checkpoint), *size]


def test_the_published_defaults() -> None:
    shared = {
        "config": f"configs/vidtwin/{NAME}.yaml",
        "ckpt": f"checkpoints/{NAME}.ckpt",
        "chunk_size": 16,
        "input_height": 224,
        "input_width": 224,
        "sample_fps": 25,
        "precision": "full",
        "seed": 42,
        "read_long_video": True,
    }
    assert vars(inference_reconstruct.parse_arguments([])) == shared | {
        "input_video_path": "assets/example.mp4",
        "output_video_dir": "tmp",
        "pad_gen_frames": False,
        "concate_input": True,
    }
    assert vars(inference_evaluate.parse_arguments([])) == shared | {
        "data_dir": "./", "meta_path": None, "input_video_path": None
    }  # fmt: skip
    assert vars(
        cross.parse_arguments(["--input_video_path_structure", "a.mp4", "--input_video_path_dynamics", "b.mp4"])
    ) == shared | {
        "input_video_path_structure": "a.mp4",
        "input_video_path_dynamics": "b.mp4",
        "output_video_dir": "tmp",
        "concate_input": True,
        "dynamics_split": None,
    }


@pytest.mark.parametrize("beside", [True, False])
def test_cross(beside: bool, tmp_path: Path, files: ModelFiles) -> None:
    first, second = (write_video(tmp_path / f"{name}.mp4", 16, SIDE, SIDE) for name in "AB")
    arguments = ["--input_video_path_structure", str(first), "--input_video_path_dynamics", str(second)]
    shown = ["--concate_input", "true" if beside else "false", "--dynamics_split"]
    assert cross.main([*options(files), *arguments, *shown, "--output_video_dir", str(tmp_path)]) == 0
    frames = read_video(tmp_path / "structure_A_dynamics_B_reconstructed.mp4")
    assert frames.shape == (16, SIDE, (3 if beside else 1) * SIDE, 3)


def test_the_published_snippet(files: ModelFiles) -> None:
    model = load_model_from_config(files.config, files.checkpoint)
    assert isinstance(model, VidTwin)
    model.to("cpu").eval()
    x_input = make_clip(1, 3, 16, SIDE, SIDE)
    _, x_recon, *_ = model(x_input, sample=False)
    assert x_recon.shape == x_input.shape
    assert torch.equal(x_recon, tiny_twin()(x_input, sample=False)[1])


def test_reconstruct_in_a_process_of_its_own(tmp_path: Path, files: ModelFiles) -> None:
    video = write_video(tmp_path / "in.mp4", 21, 40, 56)
    output = tmp_path / "results"
    done = subprocess.run(
        [sys.executable, "vidtwin/scripts/inference_reconstruct.py", *options(files), "--input_video_path", video,
         "--output_video_dir", output, "--num_frames_per_batch", "16"],
        cwd=ROOT, env=ONE_THREAD, capture_output=True, text=True,
    )  # fmt: skip
    written = f"reconstructed video: {output / 'in_reconstructed.mp4'}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, written, "")
    frames = read_video(output / "in_reconstructed.mp4")
    assert frames.shape == (21, SIDE, 2 * SIDE, 3)
    source = read_video(video, height=SIDE, width=SIDE)
    assert (frames[:, :, :SIDE].float() - source.float()).abs().mean() < 8


def test_evaluate(tmp_path: Path, files: ModelFiles, capsys: pytest.CaptureFixture[str]) -> None:
    for name, frames in (("a.mp4", 16), ("b.mp4", 21)):
        write_video(tmp_path / name, frames, 40, 56)
    (tmp_path / "meta.csv").write_text("videos\nb.mp4\n")
    assert inference_evaluate.main([*options(files), "--data_dir", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    # The last clip of 21 frames is filled, and what fills it is counted, as published.
    assert lines[0] == "videos: 2, frames: 48"
    assert re.fullmatch(r"PSNR: \d+\.\d+, SSIM: \d\.\d+, LPIPS: not measured: there are none", lines[1])
    assert len(lines) == 2
    assert inference_evaluate.main(
        [*options(files), "--data_dir", str(tmp_path), "--meta_path", str(tmp_path / "meta.csv")]
    ) == 0  # fmt: skip
    assert capsys.readouterr().out.startswith("videos: 1, frames: 32")


def test_another_size_is_refused(tmp_path: Path, files: ModelFiles, capsys: pytest.CaptureFixture[str]) -> None:
    video = write_video(tmp_path / "in.mp4", 16, 40, 56)
    arguments = ["--config", str(files.config), "--ckpt", str(files.checkpoint), "--input_video_path", str(video)]
    assert inference_reconstruct.main([*arguments, "--output_video_dir", str(tmp_path / "results")]) == 2
    assert "error: frames are 224 x 224 pixels; twin takes only 32 x 32" in capsys.readouterr().err
    assert list((tmp_path / "results").iterdir()) == []
