"""An evaluation is checked whole before the first frame is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from evaluation.models import subject
from tiny import KL_1_1, write_video
from twin import tiny_twin
from vidtok.errors import CheckpointError, VidTokError
from vidtok.evaluation.evaluate import ModelMaker, evaluate
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.runner import Runner
from vidtok.evaluation.subjects import ModelSubject

SMALL = EvaluationOptions(height=16, width=16)


def good() -> ModelSubject:
    return subject(KL_1_1)


def without_weights() -> ModelSubject:
    raise CheckpointError("the last one has no weights")


def of_one_size() -> ModelSubject:
    return ModelSubject(tiny_twin())


@pytest.mark.parametrize(
    ("models", "baselines", "options", "message"),
    [
        ([good, without_weights], [], SMALL, "the last one has no weights"),
        ([good, of_one_size], [], SMALL, r"frames are 16 x 16 pixels; .* takes only"),
        ([good], ["h264", "vhs"], SMALL, "there is no baseline 'vhs'"),
        ([good], ["h265"], EvaluationOptions(height=4, width=4), "baseline h265 cannot code frames of 4 x 4 pixels"),
    ],
)
def test_models_and_codecs_are_checked_first(
    models: Sequence[ModelMaker], baselines: list[str], options: EvaluationOptions, message: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(Runner, "measure", lambda *_: pytest.fail("a frame was computed"))
    video = write_video(tmp_path / "a.mp4", 2, 16, 16)
    with pytest.raises(VidTokError, match=message):
        evaluate(video, models, tmp_path / "out", baselines=baselines, options=options)
    assert not (tmp_path / "out").exists()


def test_a_codec_says_how_many_rates_are_coming(tmp_path: Path) -> None:
    said: list[str] = []

    @contextmanager
    def announce(title: str, videos: int) -> Iterator[Callable[[float], None]]:
        said.append(title)
        yield lambda done: None

    video = write_video(tmp_path / "a.mp4", 5, 64, 64)
    options = EvaluationOptions(height=64, width=64)
    evaluate(video, [], tmp_path / "out", baselines=["h264"], options=options, report=False, announce=announce)
    assert [title.partition(", ")[2] for title in said] == [f"rate {number} of 5" for number in range(1, 6)]
    assert said[0] == "h264@0.03bpp, rate 1 of 5"


def test_names_that_make_one_file_name_are_told_apart(tmp_path: Path) -> None:
    def named(name: str) -> ModelMaker:
        def make() -> ModelSubject:
            made = subject(KL_1_1)
            made.name = name
            return made

        return make

    video = write_video(tmp_path / "a.mp4", 2, 16, 16)
    done = evaluate(video, [named("a=b"), named("a_b")], tmp_path / "out", options=SMALL, report=False)
    assert [result.name for result in done.results] == ["a=b", "a_b #2"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["a_b.json", "a_b_2.json"]
