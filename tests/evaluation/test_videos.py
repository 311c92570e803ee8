from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from tiny import write_video
from vidtok import VideoError, VidTokError
from vidtok.evaluation.options import EvaluationOptions
from vidtok.evaluation.videos import FrameStream, Video, find_videos
from vidtok.runtime.threads import Ahead, Behind
from vidtok.video import read_video


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "videos"
    (place / "deep").mkdir(parents=True)
    write_video(place / "b.mp4", 7, 32, 40)
    write_video(place / "deep" / "a.MOV", 5, 32, 40)
    (place / "notes.txt").write_text("not a video")
    return place


def test_videos_are_found_below_a_folder(folder: Path) -> None:
    assert [video.name for video in find_videos(folder)] == ["b.mp4", "deep/a.MOV"]
    assert [video.name for video in find_videos(folder, suffixes=(".mp4",))] == ["b.mp4"]
    assert [video.name for video in find_videos(folder / "b.mp4")] == ["b.mp4"]


def test_a_meta_file_chooses_and_orders(folder: Path, tmp_path: Path) -> None:
    meta = tmp_path / "meta.csv"
    meta.write_text("kind,videos\nx,deep/a.MOV\ny,b.mp4\nz,deep/a.MOV\n")
    assert [video.name for video in find_videos(folder, meta)] == ["deep/a.MOV", "b.mp4"]
    meta.write_text("videos\n\n")
    with pytest.raises(VideoError, match=r"--meta .*meta\.csv names no videos; expected a column `videos`"):
        find_videos(folder, meta)
    with pytest.raises(VideoError, match=r"--meta .*none\.csv cannot be read"):
        find_videos(folder, tmp_path / "none.csv")


def test_folders_without_videos(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match=r"no video \(\.mp4, .*\) below .*; give a folder with videos"):
        find_videos(tmp_path)
    with pytest.raises(VideoError, match="is not a folder; expected one with videos below it"):
        find_videos(tmp_path / "no")
    with pytest.raises(VideoError, match=r"gone\.mp4 cannot be read: No such file"):
        Video(tmp_path / "gone.mp4", "gone.mp4").stamp()


def test_frames_are_hashed_as_they_pass(folder: Path) -> None:
    stream = FrameStream(find_videos(folder)[0], EvaluationOptions(height=16, width=16))
    frames = np.concatenate(list(stream.chunks(3)))
    np.testing.assert_array_equal(frames, read_video(folder / "b.mp4", height=16, width=16).numpy())
    assert stream.sha256 == hashlib.sha256(b"(16, 16)" + frames.tobytes()).hexdigest()
    assert stream.frames == 7
    first = stream.sha256
    assert [len(piece) for piece in stream.chunks(5)] == [5, 2]
    assert stream.sha256 == first


def test_the_last_clip_is_filled_with_copies(folder: Path) -> None:
    stream = FrameStream(find_videos(folder)[0], EvaluationOptions(clip_frames=4, fill=True))
    pieces = list(stream.chunks(5, fill=True))
    assert [len(piece) for piece in pieces] == [5, 5]
    for copy in pieces[1][2:]:
        np.testing.assert_array_equal(copy, pieces[1][1])
    assert stream.frames == 10


def test_options_are_checked() -> None:
    with pytest.raises(VidTokError, match="clip_frames is 0; expected at least 1"):
        EvaluationOptions(clip_frames=0)
    with pytest.raises(VidTokError, match=r"no clips to fill; give their length too \(--clip-frames"):
        EvaluationOptions(fill=True)
    assert EvaluationOptions(clip_frames=16).clip_length(first_alone=True) == 17
    assert EvaluationOptions(clip_frames=16).clip_length(first_alone=False) == 16
    assert EvaluationOptions().clip_length(first_alone=True) is None


def test_ahead_gives_all_items_in_order_and_raises_in_their_place() -> None:
    def items() -> Iterator[int]:
        yield from range(20)
        raise VideoError("broken off")

    found = []
    with pytest.raises(VideoError, match="broken off"):
        found.extend(Ahead(items(), depth=2))
    # `extend` takes what came before the error, one by one.
    assert found == list(range(20))
    assert list(Ahead([])) == []


def test_ahead_makes_no_more_than_fits_and_ends_when_closed() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for item in range(1000):
            made.append(item)
            yield item

    before = threading.active_count()
    ahead = Ahead(items(), depth=3)
    assert next(iter(ahead)) == 0
    while len(made) < 5:
        time.sleep(0.001)
    ahead.close()
    assert len(made) <= 6
    assert threading.active_count() == before


def test_behind_does_all_tasks_in_order() -> None:
    done: list[int] = []
    behind = Behind(depth=2)
    for number in range(20):
        behind.put(lambda number=number: done.append(number))  # type: ignore[misc]
    behind.finish()
    assert done == list(range(20))


def test_behind_raises_what_a_task_raised_and_drops_the_rest() -> None:
    done: list[int] = []

    def fail() -> None:
        raise VidTokError("not finite")

    behind = Behind()
    behind.put(fail)
    behind.put(lambda: done.append(1))
    with pytest.raises(VidTokError, match="not finite"):
        behind.finish()
    assert done == []
    behind = Behind()
    with pytest.raises(VidTokError, match="not finite"):
        put_often(behind, fail)
    behind.abandon()


def put_often(behind: Behind, task: Callable[[], None]) -> None:
    for _ in range(100):
        behind.put(task)
