"""The procedural evaluation set: the same for a seed, varied, readable, and whole or not there."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from tiny import leftovers
from vidtok.errors import ConfigError, VideoError
from vidtok.metrics.image import psnr
from vidtok.synthetic import evaluation_set
from vidtok.synthetic.evaluation_set import KINDS, EvaluationSet, write_evaluation_set
from vidtok.video import VideoWriter, probe, read_video, to_float

SMALL = EvaluationSet(clips=3, height=32, width=48, frames=4, fps=12.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("sets") / "new" / "clips"
    done: list[int] = []
    paths = write_evaluation_set(place, SMALL, done.append)
    assert paths == [place / "000_still.mp4", place / "001_pan.mp4", place / "002_text.mp4"]
    assert done == [4, 8, 12]
    return place


def test_clips_are_videos_of_what_was_asked_for(folder: Path) -> None:
    assert leftovers(folder) == ["000_still.mp4", "001_pan.mp4", "002_text.mp4", "meta.csv"]
    assert leftovers(folder.parent) == ["clips"]
    for index in range(3):
        path = folder / SMALL.file(index)
        info = probe(path)
        assert (info.width, info.height, info.frame_count, float(info.fps)) == (48, 32, 4, 12.5)
        written = to_float(read_video(path))
        # The loss of colour detail by 4:2:0, and a little more.
        assert psnr(written, SMALL.clip(index)[None]).min() > 28


def test_the_meta_file_names_them_as_the_published_evaluation_reads_it(folder: Path) -> None:
    with open(folder / "meta.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["videos"] for row in rows] == [SMALL.file(index) for index in range(3)]
    assert rows[2] == {"videos": "002_text.mp4", "kind": "text", "seed": "0"}


def test_a_seed_gives_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    again = write_evaluation_set(tmp_path / "again", SMALL)
    for path in again:
        assert path.read_bytes() == (folder / path.name).read_bytes()
    other = EvaluationSet(clips=3, height=32, width=48, frames=4, seed=1)
    assert not torch.equal(other.clip(0), SMALL.clip(0))


def test_a_clip_does_not_depend_on_how_many_there_are() -> None:
    one = EvaluationSet(clips=1, height=32, width=48, frames=4)
    assert torch.equal(one.clip(0), SMALL.clip(0))
    assert (SMALL.kind(0), SMALL.kind(8), SMALL.file(15)) == ("still", "still", "015_cut.mp4")


def test_kinds_move_as_their_names_say() -> None:
    spec = EvaluationSet(height=64, width=64, frames=9)
    kinds = list(KINDS)
    changes = {}
    for kind in ("still", "fast", "cut"):
        video = spec.clip(kinds.index(kind))
        assert video.shape == (3, 9, 64, 64)
        assert video.std() > 0.1
        changes[kind] = (video[:, 1:] - video[:, :-1]).abs().mean(dim=(0, 2, 3)) * 127.5
    assert changes["still"].mean() < 3 < changes["fast"].mean()
    assert changes["cut"].max() > 4 * changes["cut"].median()


def test_dark_bright_and_flat_clips_are_passed_over() -> None:
    fault = evaluation_set._fault
    generator = torch.Generator().manual_seed(0)
    base = (torch.rand(1, 1, 16, 16, generator=generator) * 1.6 - 0.8).expand(3, -1, -1, -1)
    good = torch.cat([base, base + 4 / 127.5], 1)
    assert fault(good, 4.0) < 0.3
    assert fault(good, 16.0) == pytest.approx(2, abs=0.1)  # two octaves too slow
    for video in (good * 0.1 - 0.9, good * 0.1 + 0.95, good * 0.1):
        assert fault(video, 4.0) > 2
    assert fault(base, 4.0) < 0.3  # of one frame, nothing can be said


def test_single_frames_and_odd_sizes(tmp_path: Path) -> None:
    (path,) = write_evaluation_set(tmp_path / "set", EvaluationSet(clips=1, height=17, width=19, frames=1))
    assert read_video(path).shape == (1, 18, 20, 3)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.mp4").write_text("")
    with pytest.raises(VideoError, match=r"is not empty; give a new folder for the clips, so that nothing else is"):
        write_evaluation_set(tmp_path, SMALL)
    with pytest.raises(VideoError, match=r"mine.mp4 is a file; give a new folder for the clips"):
        write_evaluation_set(tmp_path / "mine.mp4", SMALL)
    with pytest.raises(VideoError, match=r"clips cannot be written to .*below: Not a directory; choose another folder"):
        write_evaluation_set(tmp_path / "mine.mp4" / "below", SMALL)
    assert leftovers(tmp_path) == ["mine.mp4"]


def test_an_interrupted_set_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = VideoWriter.write

    def interrupted(writer: VideoWriter, frames: np.ndarray) -> None:
        write(writer, frames)
        if writer.path.name.startswith("001"):
            raise KeyboardInterrupt

    monkeypatch.setattr(VideoWriter, "write", interrupted)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_evaluation_set(empty, SMALL)
    assert leftovers(tmp_path) == ["empty"]
    assert leftovers(empty) == []
    monkeypatch.undo()
    write_evaluation_set(empty, SMALL)
    assert len(leftovers(empty)) == 4


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"clips": 0}, "0 clips were asked for; expected at least 1"),
        ({"frames": 0}, "frames is 0; expected a whole number of at least 1"),
        ({"height": 8}, "height is 8; expected a whole number of at least 16"),
    ],
)
def test_values_out_of_range(values: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EvaluationSet(**values)


def test_a_rate_that_no_video_has() -> None:
    with pytest.raises(VideoError, match="-1"):
        EvaluationSet(fps=-1)
