"""Structure of one video, dynamics of another: by the library, by the command, and by the published script."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from vidtwin.scripts import inference_vidtwin_cross_reconstruct as cross

from tiny import KL_1_0, frames_written, leftovers, tiny_model, write_video
from twin import SIDE, tiny_twin, write_twin
from vidtok import VideoError, VidTokError, VidTwin
from vidtok.cli import main
from vidtok.jobs.reenact import ReenactmentJob
from vidtok.video import Pixels, probe, read_video, to_float, to_uint8


@pytest.fixture(scope="module")
def twin() -> VidTwin:
    return tiny_twin()


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return write_video(folder / "a.mp4", 21, 40, 56), write_video(folder / "b.mp4", 40, 64, 36, fps=12)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Pixels]:
    return frames_written(monkeypatch, "vidtok.jobs.reenact")


def sources(videos: tuple[Path, Path], frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = (read_video(path, height=SIDE, width=SIDE)[:frames] for path in videos)
    return a, b


def expected(twin: VidTwin, structure: torch.Tensor | None, dynamics: torch.Tensor | None) -> Pixels:
    given = structure if structure is not None else dynamics
    assert given is not None
    z = twin.encode(to_float(given), sample=False)
    if dynamics is not None:
        other = twin.encode(to_float(dynamics), sample=False)
        z = z._replace(dynamics_x=other.dynamics_x, dynamics_y=other.dynamics_y)
    else:
        z = z._replace(dynamics_x=None, dynamics_y=None)
    z = z._replace(structure=None) if structure is None else z
    return to_uint8(twin.decode(z)[:, :, : len(given)])


def close(one: Pixels, other: Pixels) -> bool:
    """Equal but for rounding."""
    return one.shape == other.shape and int(np.abs(one.astype(int) - other).max()) <= 1


def test_both_sources_stand_beside_the_result(
    tmp_path: Path, twin: VidTwin, videos: tuple[Path, Path], written: list[Pixels]
) -> None:
    seen: list[int] = []
    job = ReenactmentJob(tmp_path / "out.mp4", structure=videos[0], dynamics=videos[1])
    result = job.run(twin, seen.append)
    assert (result.frames, result.height, result.width, result.fps) == (21, SIDE, SIDE, Fraction(24))
    assert result.sources == ("structure", "dynamics")
    assert seen == [16, 21]
    shown = np.concatenate(written)
    a, b = sources(videos, 21)
    assert np.array_equal(shown[:, :, :SIDE], a)
    assert np.array_equal(shown[:, :, SIDE : 2 * SIDE], b)
    # The last clip is filled with its last frame, of either video.
    whole = expected(twin, a[:16], b[:16]), expected(twin, a[16:], b[16:])
    assert close(shown[:, :, 2 * SIDE :], np.concatenate(whole))
    assert probe(tmp_path / "out.mp4").fps == 24


@pytest.mark.parametrize("part", ["structure", "dynamics"])
def test_one_part_alone_shows_what_it_holds(
    tmp_path: Path, twin: VidTwin, videos: tuple[Path, Path], written: list[Pixels], part: str
) -> None:
    path = videos[1]
    given: dict[str, Any] = {part: path}
    result = ReenactmentJob(tmp_path / "out.mp4", **given, max_frames=16, side_by_side=False).run(twin)
    assert (result.frames, result.fps, result.sources) == (16, Fraction(12), (part,))
    b = sources(videos, 16)[1]
    assert close(np.concatenate(written), expected(twin, *((b, None) if part == "structure" else (None, b))))


def test_the_same_video_twice_is_its_reconstruction(
    tmp_path: Path, twin: VidTwin, videos: tuple[Path, Path], written: list[Pixels]
) -> None:
    ReenactmentJob(tmp_path / "out.mp4", structure=videos[0], dynamics=videos[0], side_by_side=False).run(twin)
    a = to_float(sources(videos, 21)[0])
    assert close(np.concatenate(written), to_uint8(twin(a, sample=False)[1]))


def test_errors_before_any_work(tmp_path: Path, videos: tuple[Path, Path]) -> None:
    a, out = videos[0], tmp_path / "out.mp4"
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(a.read_bytes())
    cases: list[tuple[Path, dict[str, Any], str]] = [
        (out, {}, "there is nothing to decode; give --structure, --dynamics or both"),
        (copy, {"structure": a, "dynamics": copy}, r"copy\.mp4 is the input itself; give another output"),
        (tmp_path / "out.png", {"structure": a}, r"out\.png is a picture; give an output that ends in \.mp4"),
        (tmp_path / "out.avi", {"structure": a}, r"ends in '\.avi'"),
        (out, {"structure": a, "dynamics": tmp_path / "none.mp4"}, r"none\.mp4: no such file"),
        (out, {"dynamics": a, "max_frames": 0}, "max_frames is 0; expected at least 1"),
    ]
    for output, options, message in cases:
        with pytest.raises(VidTokError, match=message):
            ReenactmentJob(output, **options)
    assert leftovers(tmp_path) == ["copy.mp4"]


def test_a_model_that_cannot_do_it(tmp_path: Path, videos: tuple[Path, Path]) -> None:
    with pytest.raises(VidTokError, match="does not keep structure and dynamics apart; give a VidTwin, such"):
        ReenactmentJob(tmp_path / "out.mp4", structure=videos[0]).run(tiny_model(KL_1_0))
    assert leftovers(tmp_path) == []


def test_a_video_that_breaks_off_leaves_nothing(tmp_path: Path, twin: VidTwin, videos: tuple[Path, Path]) -> None:
    broken = tmp_path / "broken.mp4"
    whole = write_video(tmp_path / "whole.mp4", 60, 64, 64).read_bytes()
    cut = bytearray(whole)
    middle = whole.index(b"mdat") + (len(whole) - whole.index(b"mdat")) // 2
    cut[middle : middle + 4000] = bytes(4000)
    broken.write_bytes(bytes(cut))
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        ReenactmentJob(tmp_path / "out.mp4", structure=broken, dynamics=videos[1]).run(twin)
    assert leftovers(tmp_path) == ["broken.mp4", "whole.mp4"]


def test_the_command(tmp_path: Path, videos: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model = write_twin(tmp_path).options
    out = tmp_path / "out.mp4"
    arguments = ["reenact", "--structure", str(videos[0]), "--dynamics", str(videos[1]), "-o", str(out), *model]
    assert main(arguments) == 0
    text = capsys.readouterr().out
    assert f"structure of {videos[0]}" in text
    assert f"dynamics  of {videos[1]}" in text
    assert "frames    21, 24 a second, 32 x 32 pixels each" in text
    assert read_video(out).shape == (21, SIDE, 3 * SIDE, 3)
    assert main(["reenact", "--dynamics", str(videos[1]), "-o", str(out), "--alone", "--max-frames", "5", *model]) == 0
    assert "structure left out" in capsys.readouterr().out
    assert read_video(out).shape == (5, SIDE, SIDE, 3)
    assert main(["reenact", "-o", str(out), *model]) == 2
    assert capsys.readouterr().err.startswith("error: there is nothing to decode")


def test_the_published_script(tmp_path: Path, videos: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    files = write_twin(tmp_path)
    arguments = [
        "--config", str(files.config), "--ckpt", str(files.checkpoint), "--output_video_dir", str(tmp_path / "results"),
        "--input_video_path_structure", str(videos[0]), "--input_video_path_dynamics", str(videos[1]),
        "--input_height", "32", "--input_width", "32", "--sample_fps", "12",
    ]  # fmt: skip
    assert cross.main(arguments) == 0
    output = tmp_path / "results" / "structure_a_dynamics_b_reconstructed.mp4"
    assert capsys.readouterr().out == f"reenacted video: {output}\n"
    assert read_video(output).shape == (11, SIDE, 3 * SIDE, 3)
    assert cross.main([*arguments, "--input_height", "64", "--input_width", "64"]) == 2
    assert "error: frames are 64 x 64 pixels; twin takes only 32 x 32" in capsys.readouterr().err
    assert cross.main([*arguments, "--num_frames_per_batch", "8"]) == 2
    assert "error: --num_frames_per_batch is 8; expected a multiple of 16" in capsys.readouterr().err
