"""A metric that exists in this file alone: one entry of the table is all that an evaluation needs."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.models import NO_NETWORKS, subject
from tiny import FSQ_1_1, KL_1_1, write_model, write_video
from vidtok.cli import main
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.results import Result
from vidtok.evaluation.runner import Outcome, Runner
from vidtok.evaluation.storage import PartStore
from vidtok.evaluation.subjects import ModelSubject
from vidtok.evaluation.videos import find_videos
from vidtok.metrics.fvd import ClipDistance
from vidtok.metrics.i3d import I3D
from vidtok.metrics.image import psnr
from vidtok.metrics.networks import Networks
from vidtok.metrics.table import METRICS, ClipMetric, Features, FrameMeasure, FrameMetric
from vidtok.metrics.unavailable import Unavailable

SMALL = EvaluationOptions(height=64, width=64)


def absolute_error(prediction: Tensor, target: Tensor) -> Tensor:
    """(1, T), in 8-bit levels."""
    return (prediction - target).abs().mean(dim=(1, 3, 4)) * 127.5


ERROR = FrameMetric(
    name="mae", label="mean error", unit="levels", higher_is_better=False, digits=3,
    start=lambda network: FrameMeasure(absolute_error),
)  # fmt: skip


class Brightness:
    """The mean brightness of a source and of its reconstruction as their only feature."""

    def __init__(self) -> None:
        self._means: tuple[list[float], list[float]] = ([], [])

    def update(self, prediction: Tensor, target: Tensor) -> None:
        for means, video in zip(self._means, (target, prediction), strict=True):
            means.append(video.mean().item())

    def result(self) -> Features:
        source, reconstruction = (np.array([[np.mean(means)]]) for means in self._means)
        return source, reconstruction


def shift(features: Iterable[Features]) -> ClipDistance:
    apart = [abs(float((source - reconstruction).sum())) for source, reconstruction in features]
    return ClipDistance(float(np.mean(apart)), len(apart))


SHIFT = ClipMetric(
    name="shift", label="shift of brightness", higher_is_better=False, digits=3,
    start=lambda network: Brightness(), distance=shift,
)  # fmt: skip


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for index, frames in enumerate((9, 5)):
        write_video(folder / f"{index}.mp4", frames, 64, 64)
    return folder


def refuse(network: object) -> Any:
    raise AssertionError("this metric is kept, and was begun anew")


def test_it_is_in_results_report_table_and_comparison(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(METRICS, "mae", ERROR)
    monkeypatch.setitem(METRICS, "shift", SHIFT)
    out = tmp_path / "out"
    files = [write_model(tmp_path, name) for name in (FSQ_1_1, KL_1_1)]
    options = [part for file in files for part in ("--model", f"{file.config}={file.checkpoint}")]
    with torch.no_grad():
        assert main(["evaluate", str(videos), *options, "--size", "64", "--out", str(out)]) == 0
    result = Result.read(out / f"{FSQ_1_1}.json")
    mean, apart = result.mean("mae"), result.mean("shift")
    assert mean is not None
    assert apart is not None
    assert 0 < mean < 255
    figures = [video["figures"]["mae"] for video in result.videos]
    assert mean == pytest.approx(sum(figure["mean"] * figure["count"] for figure in figures) / 14)
    assert result.content["overall"]["mae"]["videos"] == 2
    assert len(result.content["curves"]["mae"]["values"]) == 9
    assert result.content["overall"]["shift"] == {"mean": apart, "clips": 2}
    header, row = capsys.readouterr().out.splitlines()[:2]
    assert header.split("FVD")[1].split() == ["flicker", "mean", "error", "shift", "of", "brightness", "codes", "used"]
    assert f"{mean:.3f}" in row.split()
    page = (out / "report.html").read_text()
    assert "<th>mean error ↓<span" in page
    assert f"<td>{mean:.3f}<" in page or f'<td class="best">{mean:.3f}<' in page
    assert "<h3>mean error, lower is better</h3>" in page
    assert "shift of brightness" in page
    assert main(["compare", *(str(out / f"{name}.json") for name in (FSQ_1_1, KL_1_1))]) == 0
    compared = capsys.readouterr().out
    (line,) = (line for line in compared.splitlines() if line.startswith("mean error (levels)"))
    assert f"{mean:.3f}" in line.split()
    assert "shift" not in compared


def measured(videos: Path, store: PartStore, networks: Networks = NO_NETWORKS) -> Outcome:
    return Runner(find_videos(videos), SMALL, networks, store=store).measure(subject(KL_1_1))


def test_figures_that_are_kept_stay_and_the_new_metric_alone_is_measured(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PartStore(tmp_path)
    first = measured(videos, store)
    assert [list(video.scores.result()) for video in first.measured] == [["psnr", "ssim", "flicker"]] * 2
    monkeypatch.setitem(METRICS, "mae", ERROR)
    monkeypatch.setitem(METRICS, "shift", SHIFT)
    with monkeypatch.context() as patch:
        for name in ("psnr", "ssim", "flicker"):
            patch.setitem(METRICS, name, replace(METRICS[name], start=refuse))
        second = measured(videos, store)
        patch.setattr(ModelSubject, "pairs", refuse)
        third = measured(videos, store)
    for before, after, again in zip(first.measured, second.measured, third.measured, strict=True):
        for name in ("psnr", "ssim", "flicker"):
            assert after.scores.state()["metrics"][name] == before.scores.state()["metrics"][name]
        assert after.scores.result()["mae"].count == before.frames
        assert after.features.keys() == {"shift"}
        assert after.highlights == before.highlights
        assert (after.seconds, after.sha256, after.tally.bits) == (before.seconds, before.sha256, before.tally.bits)
        assert again.to_arrays()["text"] == after.to_arrays()["text"]
    assert len(list((tmp_path / "parts").iterdir())) == 2
    # Without the entry, its figures are kept, but not shown.
    monkeypatch.delitem(METRICS, "mae")
    monkeypatch.delitem(METRICS, "shift")
    monkeypatch.setattr(ModelSubject, "pairs", refuse)
    for before, after in zip(first.measured, measured(videos, store).measured, strict=True):
        assert after.to_arrays()["text"] == before.to_arrays()["text"]


def test_another_version_of_a_definition_is_measured_again_and_nothing_else(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PartStore(tmp_path)
    first = measured(videos, store)

    def doubled(network: None) -> FrameMeasure:
        return FrameMeasure(lambda prediction, target: 2 * psnr(prediction, target))

    monkeypatch.setitem(METRICS, "psnr", replace(METRICS["psnr"], version=2, start=doubled))
    for name in ("ssim", "flicker"):
        monkeypatch.setitem(METRICS, name, replace(METRICS[name], start=refuse))
    second = measured(videos, store)
    for before, after in zip(first.measured, second.measured, strict=True):
        assert after.versions == {"psnr": 2, "ssim": 1, "flicker": 1}
        assert after.scores.result()["psnr"].mean == pytest.approx(2 * before.scores.result()["psnr"].mean)
        assert after.scores.result()["ssim"] == before.scores.result()["ssim"]
        # Which video keeps a frame depends on the order in which they were done.
        for kind in after.highlights.keys() & before.highlights.keys():
            assert after.highlights[kind].value == pytest.approx(2 * before.highlights[kind].value)
    assert set(second.highlights()) == set(first.highlights()) == {"best", "worst"}
    for kind in ("best", "worst"):
        (name, before), (again, after) = first.highlights()[kind], second.highlights()[kind]
        assert again == name
        assert after.value == pytest.approx(2 * before.value)


def test_a_network_that_has_come_adds_its_metric_alone(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PartStore(tmp_path)
    write_video(videos / "1.mp4", 17, 64, 64)
    first = measured(videos, store)
    assert first.unavailable == {"lpips": "no LPIPS here", "fvd": "no I3D here"}
    with monkeypatch.context() as patch:
        for name in ("psnr", "ssim", "flicker"):
            patch.setitem(METRICS, name, replace(METRICS[name], start=refuse))
        networks = Networks(Unavailable("no LPIPS here"), I3D().eval(), torch.device("cpu"))
        second = measured(videos, store, networks)
    assert second.unavailable == {"lpips": "no LPIPS here"}
    assert [len(video.features["fvd"][0]) for video in second.measured] == [0, 1]
    # And without it again, the results are those of before.
    monkeypatch.setattr(ModelSubject, "pairs", refuse)
    third = measured(videos, store)
    assert third.unavailable == first.unavailable
    for before, after in zip(first.measured, third.measured, strict=True):
        assert json.loads(str(after.to_arrays()["text"])) == json.loads(str(before.to_arrays()["text"]))
