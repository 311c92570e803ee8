"""Batches of clips, made by workers: the same ones however they are made, with bad videos left out and counted."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.data.test_files import shard
from tests.video.video_files import make_video, number_of, numbered

from vidtok.errors import TRUNCATION_ADVICE, DamagedVideoError
from vidtok.training.data import DataError, VideosConfig
from vidtok.training.data.batches import Batch, Failure, Loaded
from vidtok.training.data.files import find_videos
from vidtok.training.data.loader import ClipLoader, Loading, TrainingLoader
from vidtok.training.data.order import EvaluationOrder, Place, Position, Ranks, TrainingOrder
from vidtok.training.data.sources import VideoSource
from vidtok.training.data.unreadable import Unreadable
from vidtok.video import Clip, read_clip, to_uint8

PLACE = "data.params.train.params"
FRAMES = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight videos; the frames of video v show 100 v, 100 v + 1, ..."""
    folder = tmp_path_factory.mktemp("videos")
    for video in range(8):
        frames = [numbered(100 * video + i) for i in range(FRAMES)]
        make_video(folder / f"{video}.mp4", frames, options={"g": "12", "preset": "ultrafast"})
    return folder


def config(**changes: Any) -> VideosConfig:
    shape = {"height": 32, "width": 192, "frames": 5, "fps": 10}
    return VideosConfig(**{"data_dir": None, "meta_path": None, "place": PLACE, **shape, **changes})


def source(folder: Path, seed: int = 0, **changes: Any) -> VideoSource:
    return VideoSource(find_videos(str(folder), None, 1.0, PLACE), config(**changes), seed)


def training_loader(
    source: VideoSource, size: int = 2, workers: int = 0, share: float = 0.05, position: Position | None = None
) -> TrainingLoader:
    count = len(source.videos)
    order = TrainingOrder(count, Ranks(size), source.seed, shuffle=True)
    position = Position() if position is None else position
    position.attach(order)
    return TrainingLoader(source, order, position, Unreadable(count, share, PLACE), Loading(workers))


def shown(batch: Batch) -> list[list[int]]:
    return [[number_of(frame) for frame in to_uint8(clip)] for clip in batch["video"]]


def same(one: Batch, other: Batch) -> bool:
    return all(
        torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key]
        for key, value in one.items()
    )


def spoil(folder: Path, target: Path, bad: range, count: int = 8) -> Path:
    """A folder of links to `count` videos, `bad` ones replaced by rubbish."""
    target.mkdir()
    for video in range(count):
        if video in bad:
            (target / f"{video:03d}.mp4").write_bytes(b"rubbish")
        else:
            (target / f"{video:03d}.mp4").symlink_to(folder / f"{video % 8}.mp4")
    return target


def test_a_batch_holds_clips_with_their_names_rates_and_places(folder):
    batch = source(folder, 1).load([Place(0, position, item) for position, item in enumerate((3, 5, 3))]).batch
    assert batch is not None
    assert (batch["video"].shape, batch["video"].dtype) == ((3, 3, 5, 32, 192), torch.float32)
    assert -1 <= batch["video"].min() < -0.9 < 0.9 < batch["video"].max() <= 1
    assert batch["name"] == [f"{folder}/{video}.mp4" for video in (3, 5, 3)]
    assert batch["fps"].tolist() == [10, 10, 10]
    for video, numbers, start in zip((3, 5, 3), shown(batch), batch["start"].tolist(), strict=True):
        first = round(start * 30)
        assert numbers == [100 * video + first + i for i in (0, 3, 6, 9, 13)]  # the last one later, as published
    assert len(set(batch["start"].tolist())) == 3


def test_starts_follow_from_seed_epoch_and_position(folder):
    def starts(seed: int, epoch: int, *positions: int) -> list[float]:
        batch = source(folder, seed).load([Place(epoch, position, 0) for position in positions]).batch
        assert batch is not None
        return batch["start"].tolist()

    first = starts(1, 0, *range(12))
    assert starts(1, 0, 4, 2) == [first[4], first[2]]
    assert len(set(first)) > 8
    assert starts(0, 0, *range(12)) != first != starts(1, 1, *range(12))


def test_a_start_index_and_short_videos(folder):
    batch = source(folder, start_index=50).load([Place(0, 0, 6)]).batch
    assert batch is not None
    assert shown(batch) == [[650, 652, 654, 656, 659]]
    batch = source(folder, fps=1).load([Place(0, 0, 6)]).batch
    assert batch is not None
    assert (shown(batch), batch["start"].tolist()) == ([[600, 614, 629, 644, 659]], [0])


def test_clips_narrower_than_the_crop_have_black_sides_unless_they_are_to_be_enlarged(folder):
    bordered, enlarged = (
        source(folder, height=32, width=256, enlarge=enlarge).load([Place(0, 0, 0)]).batch for enlarge in (False, True)
    )
    assert bordered is not None
    assert enlarged is not None
    sides = torch.cat([bordered["video"][..., :32], bordered["video"][..., -32:]], -1)
    assert (sides == -1).all()
    assert (enlarged["video"][..., :32] > -1).any()


def test_workers_change_nothing(folder):
    alone = [batch for _, batch in zip(range(6), training_loader(source(folder)), strict=False)]
    loader = training_loader(source(folder), workers=2)
    shared = list(loader)
    loader.close()
    assert len(alone) == len(shared) == len(loader) == 4
    assert all(map(same, alone, shared))


def test_shards_give_what_files_give(folder, tmp_path):
    for number in range(2):
        members = {
            f"{video}__mp4": (folder / f"{video}.mp4").read_bytes() for video in range(4 * number, 4 * number + 4)
        }
        shard(tmp_path / f"{number}.tar", **members)
    loader = training_loader(source(tmp_path), workers=2)
    for packed, plain in zip(loader, training_loader(source(folder)), strict=True):
        assert torch.equal(packed["video"], plain["video"])
        assert [Path(name).name for name in packed["name"]] == [Path(name).name for name in plain["name"]]
    loader.close()


class Count(VideoSource):
    """Notes in a folder which batches were made."""

    def __init__(self, *args: Any, notes: Path) -> None:
        super().__init__(*args)
        self.notes = notes

    def load(self, places: list[Place]) -> Loaded:
        (self.notes / f"{places[0].epoch}-{places[0].position}").touch()
        return super().load(places)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_goes_on_after_the_last_batch_done_and_makes_none_before(folder, tmp_path, workers):
    whole, position = [], Position()
    loader = training_loader(source(folder), position=position)
    for _ in range(3):
        for batch in loader:
            whole.append(batch)
            position.mark_batch_done()

    stopped = Position()
    loader = training_loader(source(folder), workers=workers, position=stopped)
    batches = iter(loader)
    for _ in range(4):
        next(batches)
        stopped.mark_batch_done()
    next(iter(loader))  # loaded, but not done when the run is stopped
    resumed = Position()
    resumed.load_state_dict(stopped.state_dict())
    videos = find_videos(str(folder), None, 1.0, PLACE)
    loader = training_loader(Count(videos, config(), 0, notes=tmp_path), workers=workers, position=resumed)
    rest = []
    for _ in range(2):
        for batch in loader:
            rest.append(batch)
            resumed.mark_batch_done()
    loader.close()
    assert len(rest) == 8
    assert all(map(same, whole[4:], rest))
    assert {note.name.split("-")[0] for note in tmp_path.iterdir()} >= {"1", "2"}
    assert not list(tmp_path.glob("0-*"))


def test_workers_run_on_from_pass_to_pass(folder, tmp_path):
    position = Position()
    videos = find_videos(str(folder), None, 1.0, PLACE)
    loader = training_loader(Count(videos, config(), 0, notes=tmp_path), size=8, workers=1, position=position)
    for _ in range(3):
        (batch,) = loader
        position.mark_batch_done()
    assert len(batch["name"]) == 8
    while not (tmp_path / "3-0").exists():  # the batch of the pass to come, which nobody has asked for yet
        time.sleep(0.01)
    loader.close()


def test_random_numbers_of_training_are_left_alone(folder):
    before = torch.get_rng_state()
    loader = training_loader(source(folder), workers=1)
    next(iter(loader))
    loader.close()
    assert torch.equal(torch.get_rng_state(), before)


class Report(VideoSource):
    def load(self, places: list[Place]) -> Loaded:
        ignores = signal.getsignal(signal.SIGINT) == signal.SIG_IGN
        return Loaded({"threads": torch.get_num_threads(), "pid": os.getpid(), "ignores": ignores}, [], [])


def test_workers_have_one_thread_and_leave_ctrl_c_to_the_trainer(folder):
    videos = find_videos(str(folder), None, 1.0, PLACE)
    loader = training_loader(Report(videos, config(), 0), workers=1)
    report = next(iter(loader))
    loader.close()
    assert report["pid"] != os.getpid()
    assert (report["threads"], report["ignores"]) == (1, True)


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="this system does not tell who sent a signal")
def test_workers_leave_sigterm_to_the_trainer(folder):
    loader = training_loader(Report(find_videos(str(folder), None, 1.0, PLACE), config(), 0), size=1, workers=1)
    batches = iter(loader)
    pid = next(batches)["pid"]
    (worker,) = (child for child in multiprocessing.active_children() if child.pid == pid)
    subprocess.run([sys.executable, "-c", f"import os; os.kill({worker.pid}, {signal.SIGTERM})"], check=True)
    assert [next(batches)["pid"] for _ in range(7)] == [worker.pid] * 7  # more than were made in advance
    worker.terminate()
    worker.join(60)
    assert worker.exitcode == 0
    loader.close()


def test_validation_takes_every_video_in_turn(folder):
    videos = source(folder, start_index=0)
    seen = []
    for rank in range(2):
        order = EvaluationOrder(8, Ranks(3, rank, 2))
        loader = ClipLoader(videos, order, Unreadable(8, 0.05, PLACE), Loading(rank))
        assert len(loader) == 2
        for _ in range(2):
            batches = list(loader)
        seen += [numbers[0] for batch in batches for numbers in shown(batch)]
    assert sorted(seen) == [100 * video for video in range(8)]


def test_unreadable_videos_are_named_once_and_others_taken(folder, tmp_path, caplog):
    spoilt = spoil(folder, tmp_path / "v", range(2, 3))
    passes = []
    for workers in (0, 2):
        caplog.clear()
        position = Position()
        loader = training_loader(source(spoilt), workers=workers, share=0.2, position=position)
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                for batch in loader:
                    passes.append(batch)
                    position.mark_batch_done()
        loader.close()
        (record,) = caplog.records
        assert record.getMessage().startswith("another video is taken, since one cannot be read: ")
        assert "002.mp4 is neither a video nor a picture" in record.getMessage()
    assert len(passes) == 24
    assert all(map(same, passes[:12], passes[12:]))
    for batch in passes[:12]:
        assert f"{spoilt}/002.mp4" not in batch["name"]
        assert batch["video"].std() > 0.1
        numbers = [first // 100 for first, *_ in shown(batch)]
        assert [f"{spoilt}/{video:03d}.mp4" for video in numbers] == batch["name"]


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_unreadable_videos_stop_the_run(folder, tmp_path, workers):
    spoilt = spoil(folder, tmp_path / "v", range(1, 8))
    loader = training_loader(source(spoilt), workers=workers, share=0.8)
    message = (
        r"7 of 8 videos opened so far, of 8 in all, cannot be read; at most a share of 0\.8 may be "
        r"\(data\.params\.train\.params\.max_unreadable\)\. Mend them, take them off the list, or allow a larger share:"
        r"(\n  .*\d\.mp4 is neither a video .*){5}\n  and 2 more, named in the log$"
    )
    with pytest.raises(DataError, match=message):
        list(loader)
    loader.close()


def test_when_no_video_can_be_read_the_search_ends(folder, tmp_path):
    spoilt = spoil(folder, tmp_path / "v", range(0, 30), 30)
    loaded = source(spoilt).load([Place(0, 0, 4)])
    assert loaded.batch is None
    assert len({failure.item for failure in loaded.failures}) == len(loaded.failures) == 20
    with pytest.raises(DataError, match="20 of 20 videos opened so far, of 30 in all, cannot be read"):
        next(iter(training_loader(source(spoilt), share=1.0)))
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "0.mp4").write_bytes(b"")
    with pytest.raises(DataError, match="1 of 1 video opened so far, of 1 in all"):
        next(iter(training_loader(source(tmp_path / "one"), share=1.0)))


def test_a_file_that_goes_away_or_may_not_be_read_counts_as_unreadable(folder, tmp_path, monkeypatch):
    videos = source(spoil(folder, tmp_path / "v", range(0)))
    (tmp_path / "v" / "003.mp4").unlink()
    loaded = videos.load([Place(0, 0, 3)])
    assert [failure.reason for failure in loaded.failures] == [f"{tmp_path}/v/003.mp4: no such file; check the path"]

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("vidtok.training.data.sources.read_clip", fail)
    assert videos.load([Place(0, 0, 3)]).failures[0].reason == f"{tmp_path}/v/003.mp4: Input/output error"


@pytest.mark.parametrize(
    "error", [IndexError("tuple index\nout of range"), ZeroDivisionError("by zero"), MemoryError()]
)
def test_whatever_one_video_brings_about_another_one_is_taken(folder, tmp_path, monkeypatch, error):
    videos = source(spoil(folder, tmp_path / "v", range(0)))

    def read(path: Any, *arguments: Any, **named: Any) -> Any:
        if str(path).endswith("003.mp4"):
            raise error
        return read_clip(path, *arguments, **named)

    monkeypatch.setattr("vidtok.training.data.sources.read_clip", read)
    loaded = videos.load([Place(0, 0, 3)])
    (failure,) = loaded.failures
    cause = " ".join(f"{type(error).__name__}: {error}".split())
    assert failure.reason.strip() == f"{tmp_path}/v/003.mp4: {cause}"
    assert loaded.batch is not None
    assert loaded.batch["name"] != [f"{tmp_path}/v/003.mp4"]


def test_the_share_is_of_all_videos_of_a_small_set_and_of_those_opened_of_a_large_one():
    def check(unreadable: Unreadable, tried: range, bad: int) -> None:
        unreadable.check(Loaded({}, list(tried), [Failure(item, f"{item} is bad") for item in tried[:bad]]))

    small = Unreadable(40, 0.05, PLACE)
    check(small, range(10), 2)
    check(small, range(10), 2)
    with pytest.raises(DataError, match=r"3 of 11 videos opened so far, of 40 in all"):
        check(small, range(10, 11), 1)
    large = Unreadable(10**6, 0.05, PLACE)
    check(large, range(100), 10)
    check(large, range(100, 400), 10)
    with pytest.raises(DataError, match=r"21 of 401 videos opened so far"):
        check(large, range(400, 401), 1)


def test_what_training_cannot_do_is_not_recommended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_clip(*_: object, **__: object) -> Clip:
        raise DamagedVideoError(f"a.mp4 is cut off{TRUNCATION_ADVICE}", 3)

    monkeypatch.setattr("vidtok.training.data.sources.read_clip", read_clip)
    loaded = source(folder).load([Place(0, 0, 0)])
    assert {failure.reason for failure in loaded.failures} == {"a.mp4 is cut off; get an undamaged copy"}
