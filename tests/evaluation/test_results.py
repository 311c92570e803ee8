from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.models import NO_NETWORKS, subject
from tiny import FSQ_1_1, KL_1_1, write_video
from vidtok.evaluation.comparison import compare
from vidtok.evaluation.evaluate import bit_targets, file_name
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.plots import Point, Series, axis, bars, chart
from vidtok.evaluation.results import Result, ResultError, _positions, assemble
from vidtok.evaluation.runner import Runner
from vidtok.evaluation.videos import find_videos
from vidtok.metrics.accumulate import Scores, VideoScores

SMALL = EvaluationOptions(height=64, width=64)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """Real results of two models on two videos and one that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "0.mp4", 9, 64, 64)
    write_video(folder / "1.mp4", 5, 64, 64)
    (folder / "2.mp4").write_bytes(b"nothing")
    runner = Runner(find_videos(folder), SMALL, NO_NETWORKS)
    found = {}
    for name in (FSQ_1_1, KL_1_1):
        model = subject(name)
        found[name] = assemble(model, SMALL, "videos", runner.measure(model), torch.device("cpu"))
    return found


def made(name: str, psnr: list[float], *, frames: int = 10, sha256: str = "same", bits: float = 100.0) -> Result:
    """A result with these figures, a video each."""
    videos = [
        {
            "name": f"{index}.mp4",
            "sha256": sha256,
            "bits": bits,
            "figures": {"psnr": {"mean": value, "count": frames}},
        }
        for index, value in enumerate(psnr)
    ]
    content: dict[str, Any] = {
        "subject": {"name": name, "kind": "model"},
        "rate": {"bits_per_pixel": bits / 1000},
        "videos": videos,
    }
    return Result(content)


def test_a_result_says_what_was_measured_on_what_with_what(results: dict[str, Result]) -> None:
    content = results[FSQ_1_1].content
    model = subject(FSQ_1_1)
    assert content["subject"] == {"name": FSQ_1_1, "kind": "model", **model.identity()}
    assert len(content["subject"]["weights_sha256"]) == 64
    assert content["data"]["videos"] == 2
    assert content["data"]["frames"] == 14
    assert [video["name"] for video in content["data"]["unreadable"]] == ["2.mp4"]
    assert content["data"]["sha256"] == results[KL_1_1].content["data"]["sha256"]
    assert content["settings"]["height"] == 64
    assert {"vidtok", "python", "platform", "packages", "date"} <= set(content["environment"])
    figures = [video["figures"]["psnr"] for video in content["videos"]]
    mean = sum(figure["mean"] * figure["count"] for figure in figures) / 14
    assert content["overall"]["psnr"]["mean"] == pytest.approx(mean)
    assert content["overall"]["psnr"]["low"] <= mean <= content["overall"]["psnr"]["high"]
    assert content["overall"]["lpips"] == {"unavailable": "no LPIPS here"}
    assert content["overall"]["fvd"] == {"unavailable": "no I3D here"}
    assert len(content["videos"][0]["psnr"]["values"]) == 9
    group = content["positions"]["group"]["psnr"]
    assert (group["period"], len(group["means"])) == (8, 8)
    assert group["first"] == pytest.approx(content["curves"]["psnr"]["values"][0], abs=1e-4)
    assert group["spread"] == pytest.approx(max(group["means"]) - min(group["means"]))
    bits = sum(video["bits"] for video in content["videos"])
    assert content["rate"] == {"bits_per_pixel": bits / (14 * 64 * 64), "bits": bits, "kind": "nominal"}
    assert content["codebook"]["size"] == 32768
    assert sum(content["codebook"]["histogram"]) == content["codebook"]["tokens"] == (2 + 2) * 8 * 8
    assert results[KL_1_1].content["codebook"] is None


@pytest.mark.parametrize(
    ("causal", "clip_frames", "periods"),
    [
        (True, None, {"group": 4}),
        (True, 8, {"clip": 9}),
        (False, None, {"group": 4, "clip": 16}),
        (False, 8, {"group": 4, "clip": 8}),
    ],
)
def test_places_are_counted_in_latent_groups_and_in_independent_clips(
    causal: bool, clip_frames: int | None, periods: dict[str, int]
) -> None:
    scores, video = Scores(), VideoScores()
    video.update(0, {"psnr": [float(frame) for frame in range(33)]})
    scores.update("a", video)
    options = EvaluationOptions(clip_frames=clip_frames)
    found = _positions(scores, {"temporal_factor": 4, "causal": causal}, options)
    assert {kind: figures["psnr"]["period"] for kind, figures in found.items()} == periods
    streams = causal and clip_frames is None
    assert all((figures["psnr"]["first"] == 0) == streams for figures in found.values())
    assert _positions(scores, {"codec": "h264"}, options) == {}


def test_results_are_read_as_they_were_written(results: dict[str, Result], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    results[FSQ_1_1].write(path)
    assert Result.read(path) == results[FSQ_1_1]
    assert json.loads(path.read_text())["schema"] == "vidtok-evaluation"
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"cannot be read: No such file or directory; give a file of results"),
        ("{", r"is not JSON \(.*\); give a file that `vidtok evaluate` wrote"),
        ("[]", r"holds no results; give a \.json file that `vidtok evaluate` wrote"),
        (
            '{"schema": "vidtok-evaluation", "version": 9}',
            r"is of version 9 of the schema; this vidtok reads version 1",
        ),
        ('{"schema": "vidtok-evaluation", "version": 1}', r"lacks subject, settings, data, rate"),
    ],
)
def test_what_is_no_result(text: str | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ResultError, match=message):
        Result.read(path)


def test_a_difference_that_every_video_shows_is_significant() -> None:
    a = [30.0, 25.0, 35.0, 28.0, 33.0, 31.0, 26.0, 38.0]
    b = [value + 0.5 + 0.01 * index for index, value in enumerate(a)]
    (difference,) = compare(made("A", a), made("B", b)).differences
    assert difference.mean == pytest.approx(0.535)
    assert difference.p_value == pytest.approx(2 / 2**8)
    assert difference.interval is not None
    assert 0.5 < difference.interval.low < 0.535 < difference.interval.high < 0.57
    assert difference.significant
    assert difference.better == "B"


def test_a_difference_that_videos_do_not_agree_on_is_not() -> None:
    (difference,) = compare(made("A", [30, 25, 35, 28]), made("B", [33, 24, 34, 28.5])).differences
    assert difference.mean == pytest.approx(0.375)
    assert not difference.significant
    (none,) = compare(made("A", [30, 25]), made("B", [30, 25])).differences
    assert none.better is None
    assert none.p_value == 1


def test_videos_are_paired_by_name() -> None:
    a, b = made("A", [30, 25, 35]), made("B", [31], sha256="other")
    comparison = compare(a, b)
    assert comparison.videos == ["0.mp4"]
    assert comparison.other_frames == ["0.mp4"]
    assert comparison.differences[0].p_value is None
    assert comparison.differences[0].interval is None
    b.videos[0]["name"] = "another.mp4"
    with pytest.raises(ResultError, match=r"no video of the same name: A was measured on 0\.mp4, B on another\.mp4"):
        compare(a, b)


def test_codecs_are_measured_at_the_models_rates_and_around_them() -> None:
    models = [made("high", [30, 31], bits=1000), made("low", [30, 31], bits=50), made("same", [30, 31], bits=51)]
    targets = list(bit_targets(models))
    rates = [target.bits_per_pixel for target in targets]
    assert rates == sorted(rates)
    assert rates[0] == pytest.approx(0.025)
    assert rates[-1] == pytest.approx(2)
    matched = {target.matches: target.bits for target in targets if target.matches}
    assert matched == {("low", "same"): {"0.mp4": 50, "1.mp4": 50}, ("high",): {"0.mp4": 1000, "1.mp4": 1000}}
    assert all(after / before < 3 for before, after in pairwise(rates))
    assert [target.bits_per_pixel for target in bit_targets([])] == [0.03, 0.06, 0.12, 0.25, 0.5]


def test_names_make_files() -> None:
    assert file_name("vidtok_kl@0.06bpp") == "vidtok_kl@0.06bpp"
    assert file_name("a/b: c=d #2") == "a_b_c_d_2"
    assert file_name("...") == "result"


def test_axes_hold_all_values_at_round_ticks() -> None:
    found = axis("x", [3.2, 17.9], log=False)
    assert found.low <= 3.2
    assert found.high >= 17.9
    assert list(found.ticks) == [2.5, 5, 7.5, 10, 12.5, 15, 17.5, 20]
    assert axis("x", [4, 4], log=False).low < 4 < axis("x", [4, 4], log=False).high
    logarithmic = axis("x", [0.02, 1.1], log=True)
    assert logarithmic.low < 0.02
    assert {0.02, 0.1, 1.0} <= {round(tick, 6) for tick in logarithmic.ticks}
    assert logarithmic.at(logarithmic.low) == 0
    assert logarithmic.at(logarithmic.high) == pytest.approx(1)


def test_charts_are_well_formed_and_escaped() -> None:
    from xml.etree import ElementTree

    series = [
        Series("a < b", [Point(0.1, 30, "<p>", 29, 31), Point(0.4, 33)], 0),
        Series("alone", [Point(0.2, 31)], 9, line=False),
    ]
    time = chart([Series("a", [Point(frame, 30 + frame) for frame in range(17)], 0)], "frame", "PSNR")
    assert ">15</text>" in time
    assert ">20</text>" not in time
    root = ElementTree.fromstring(chart(series, "bits & pixels", "PSNR (dB)", log_x=True))
    texts = {element.text for element in root.iter() if element.text}
    assert {"bits & pixels", "PSNR (dB)", "<p>", "alone"} <= texts
    assert len(list(ElementTree.fromstring(bars([1, 5, 0], "x", "y")).iter("rect"))) == 3
