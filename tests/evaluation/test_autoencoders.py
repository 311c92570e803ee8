"""Anyone's autoencoder in an evaluation: two functions and a description."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tiny import write_video
from vidtok import VidTokError
from vidtok.evaluation.autoencoders import AutoencoderSubject, Description
from vidtok.evaluation.evaluate import evaluate
from vidtok.evaluation.memory import PeakMemory
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.results import Result


class Averages:
    """Means of blocks, two frames by four pixels; a first frame by itself."""

    def __init__(self, **changes: Any) -> None:
        facts = {"name": "averages", "temporal_factor": 2, "spatial_factor": 4, "values": 3, **changes}
        self.description = Description(**facts)
        self.shapes: list[tuple[int, ...]] = []

    def encode(self, video: Tensor) -> Any:
        self.shapes.append(tuple(video.shape[2:]))
        first, rest = video[:, :, :1], video[:, :, 1:]
        groups = [F.avg_pool3d(first, (1, 4, 4))]
        groups += [F.avg_pool3d(rest, (2, 4, 4))] if rest.shape[2] else []
        return torch.cat(groups, 2)

    def decode(self, code: Any) -> Tensor:
        large = F.interpolate(code, scale_factor=(2, 4, 4))
        return large[:, :, 1:]


class Tokens(Averages):
    """One of four greys a block."""

    def encode(self, video: Tensor) -> Any:
        grey = super().encode(video).mean(1)
        return {"tokens": ((grey + 1) * 2).long().clamp(0, 3)}

    def decode(self, code: Any) -> Tensor:
        grey = (code["tokens"].float() + 0.5) / 2 - 1
        return super().decode(grey[:, None].expand(-1, 3, -1, -1, -1))


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("videos") / "a.mp4", 10, 30, 42)


def measure(video: Path, out: Path, made: Averages, **options: Any) -> Result:
    options = {"height": None, "width": None, **options}
    found = evaluate(video, [lambda: AutoencoderSubject(made)], out, options=EvaluationOptions(**options), report=False)
    return found.results[0]


def test_latents_are_padded_cropped_and_counted(video: Path, tmp_path: Path) -> None:
    made = Averages()
    result = measure(video, tmp_path, made)
    assert made.shapes == [(11, 32, 44)]
    assert result.content["rate"]["bits"] == 6 * 8 * 11 * 3 * 16
    assert result.content["data"]["frames"] == 10
    assert 10 < (result.mean("psnr") or 0) < 40
    assert result.kind == "model"
    assert result.content["subject"]["causal"]
    assert result.content["codebook"] is None
    assert result.content["positions"]["clip"] == {}  # the video ends within its first clip


def test_clips(video: Path, tmp_path: Path) -> None:
    made = Averages()
    result = measure(video, tmp_path, made, clip_frames=4)
    assert made.shapes == [(5, 32, 44)] * 2
    assert result.content["rate"]["bits"] == 2 * 3 * 8 * 11 * 3 * 16
    assert result.content["positions"]["clip"]["psnr"]["period"] == 5


def test_tokens_are_counted(video: Path, tmp_path: Path) -> None:
    result = measure(video, tmp_path, Tokens(name="tokens", codebook_size=4))
    assert result.content["rate"]["bits"] == 6 * 8 * 11 * 2
    assert result.content["codebook"]["used"] > 1


def test_sizes_that_it_takes(video: Path, tmp_path: Path) -> None:
    made = Averages(frames=(5, 8), height=(40, 20), width=(48, 100))
    measure(video, tmp_path, made)
    assert made.shapes == [(13, 40, 48)]


def test_a_description_and_results_that_do_not_fit(video: Path, tmp_path: Path) -> None:
    with pytest.raises(VidTokError, match="averages: values is 0; expected at least 1"):
        Averages(values=0)
    with pytest.raises(VidTokError, match=r"averages: frames is \(1, 0\); expected \(first, step\)"):
        Averages(frames=(1, 0))
    with pytest.raises(VidTokError, match="codebook_size is 1; expected at least 2"):
        Averages(codebook_size=1)
    with pytest.raises(VidTokError, match=r"'torch.int64', tokens, but its description has no codebook_size"):
        measure(video, tmp_path, Tokens(name="tokens"))

    class Wrong(Averages):
        result: Any = None

        def decode(self, code: Any) -> Tensor:
            found: Tensor = self.result
            return found

    for result, message in (
        (None, "decodes to a NoneType; expected a tensor"),
        (torch.zeros(1, 3, 4, 4), r"decodes to \(1, 3, 4, 4\); expected a tensor \(1, 3, T, H, W\)"),
        (torch.zeros(1, 3, 9, 32, 44), r"\(10, 30, 42\) to \(9, 32, 44\); expected at least as much"),
        (torch.full((1, 3, 11, 32, 44), float("nan")), "values that are not finite in float32"),
    ):
        wrong = Wrong()
        wrong.result = result
        with pytest.raises(VidTokError, match=message):
            measure(video, tmp_path, wrong)

    class Odd(Averages):
        def encode(self, video: Tensor) -> Any:
            return "code"

        def decode(self, code: Any) -> Tensor:
            return torch.zeros(1, 3, 11, 32, 44)

    with pytest.raises(VidTokError, match="a code holds a str; expected tensors"):
        measure(video, tmp_path, Odd())


def test_peak_memory_counts_what_a_subject_takes() -> None:
    gauge = PeakMemory(torch.device("cpu"))
    gauge.start()
    before = gauge.peak()
    if before is None:
        pytest.skip("this system does not tell the peak of a process's memory")
    held = torch.ones(1 << 25)  # 128 MiB
    assert (gauge.peak() or 0) >= before + (1 << 26)
    del held
    assert PeakMemory(torch.device("meta")).peak() is None
