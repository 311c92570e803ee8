"""Lists of videos: from CSV and text files, folders, patterns and .tar shards."""

import io
import os
import pickle
import tarfile
from pathlib import Path

import pytest

from vidtok.errors import ConfigError
from vidtok.training.data import DataError
from vidtok.training.data.files import VideoFiles, find_videos
from vidtok.video import MediaSlice

PLACE = "data.params.train.params"


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def shard(path: Path, **members: bytes) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name.replace("__", "."))
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def find(data_dir: Path | str | None, meta_path: Path | None = None, frac: float = 1.0) -> list[str]:
    videos = find_videos(
        None if data_dir is None else str(data_dir), None if meta_path is None else str(meta_path), frac, PLACE
    )
    return [str(video) for video in videos]


def test_a_csv_file_names_videos_below_the_folder(tmp_path):
    touch(tmp_path, "v/a.mp4", "v/sub/b, c.mp4")
    meta = tmp_path / "meta.csv"
    meta.write_text('\ufeffcaption,videos,fps\n"one, two",a.mp4,3\n,"sub/b, c.mp4",\nx,gone.mp4,1\n', encoding="utf-8")
    names = ["a.mp4", "sub/b, c.mp4", "gone.mp4"]
    assert find(tmp_path / "v", meta) == [f"{tmp_path}/v/{name}" for name in names]


def test_a_text_file_names_a_video_a_line(tmp_path):
    touch(tmp_path, "a#1.mp4", "sub/b.mp4", "else/c.mp4")
    (tmp_path / "list.txt").write_text(f"# mine\na#1.mp4\n\n  sub/b.mp4 \n{tmp_path}/else/c.mp4\n")
    expected = [f"{tmp_path}/{name}" for name in ("a#1.mp4", "sub/b.mp4", "else/c.mp4")]
    assert find(None, tmp_path / "list.txt") == expected
    assert find(tmp_path, tmp_path / "list.txt") == expected


def test_a_folder_is_searched_whole_and_in_order(tmp_path):
    touch(tmp_path, "b.MP4", "a/z.webm", "a/y.gif", "note.txt", ".hidden/v.mp4", "._a.mp4", "c.jpg")
    os.symlink(tmp_path, tmp_path / "a" / "around", target_is_directory=True)
    touch(tmp_path / "elsewhere", "linked.mkv")
    (tmp_path / "elsewhere").rename(tmp_path.parent / f"{tmp_path.name}-elsewhere")
    os.symlink(tmp_path.parent / f"{tmp_path.name}-elsewhere", tmp_path / "d", target_is_directory=True)
    assert find(tmp_path) == [f"{tmp_path}/{name}" for name in ("a/y.gif", "a/z.webm", "b.MP4", "d/linked.mkv")]


def test_a_shard_stands_for_the_videos_in_it(tmp_path):
    whole = shard(tmp_path / "s.tar", b__mp4=b"video b", a__json=b"{}", a__mp4=b"video a" * 100, __a__mp4=b"of a Mac")
    videos = find_videos(str(whole), None, 1.0, PLACE)
    assert [os.fspath(video) for video in videos] == [f"{whole}/a.mp4", f"{whole}/b.mp4"]
    for video, data in zip(videos, (b"video a" * 100, b"video b"), strict=True):
        assert isinstance(video, MediaSlice)
        assert whole.read_bytes()[video.offset : video.offset + video.size] == data


def test_shards_are_found_by_folder_list_and_pattern(tmp_path):
    for number in range(8, 12):
        shard(tmp_path / f"s{number:03d}.tar", v__mp4=b"x")
    every = [f"{tmp_path}/s{number:03d}.tar/v.mp4" for number in range(8, 12)]
    assert find(tmp_path) == every
    assert find(f"{tmp_path}/s{{009..011}}.tar") == every[1:]
    assert find(f"{tmp_path}/s*8.tar") == every[:1]
    touch(tmp_path, "z.mp4")
    (tmp_path / "list.txt").write_text("z.mp4\ns010.tar\n")
    assert find(tmp_path, tmp_path / "list.txt") == [f"{tmp_path}/z.mp4", every[2]]


def test_a_share_is_taken_from_the_start(tmp_path):
    touch(tmp_path, *(f"{i}.mp4" for i in range(7)))
    assert find(tmp_path, frac=0.4) == [f"{tmp_path}/{i}.mp4" for i in range(3)]


def test_a_packed_list_is_a_list():
    paths = ["a", "", "ü/\udc80", MediaSlice("s", 5, 7, "m"), MediaSlice("t", 1, 2, "n"), MediaSlice("s", 8, 9, "o")]
    for packed in (VideoFiles(paths), pickle.loads(pickle.dumps(VideoFiles(paths)))):
        assert list(packed) == paths
        assert packed[-2] == paths[-2]
        assert packed[1:4] == paths[1:4]
        with pytest.raises(IndexError):
            packed[6]


def meta(folder: Path, text: str, name: str = "meta.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "video,fps\na.mp4,3\n",
            ConfigError,
            r"no column videos, but video, fps \(did you mean video\?\); expected a first",
        ),
        ("", ConfigError, r"meta\.csv has no column videos, but nothing; expected a first line"),
        ("videos\n", DataError, r"params\.meta_path: .*meta\.csv lists no videos; expected at least one"),
        (
            "n,videos\n1,a.mp4\n2,\n",
            ConfigError,
            r"meta\.csv, line 3: no path in the column videos; expected one in every",
        ),
        (
            "videos\nx.mp4\n",
            DataError,
            r"of the first 1 video that .*csv lists none is there, such as .*/x\.mp4; expected",
        ),
    ],
)
def test_a_csv_file_that_does_not_do_is_told(tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        find(tmp_path, meta(tmp_path, text))


def test_lists_and_folders_that_cannot_be_read_are_told(tmp_path):
    with pytest.raises(
        ConfigError, match=r"gone\.csv cannot be read \(No such file .*\); expected a CSV file with a column"
    ):
        find(tmp_path, tmp_path / "gone.csv")
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary\.csv cannot be read \(.*codec can't decode.*; expected a CSV file"):
        find(tmp_path, tmp_path / "binary.csv")
    listed = meta(tmp_path, "a.mp4\n", "list.txt")
    with pytest.raises(
        ConfigError, match=r"params\.data_dir: .*/nowhere is no folder; expected the one below which the"
    ):
        find(tmp_path / "nowhere", listed)
    with pytest.raises(ConfigError, match=r"params\.data_dir: .*/nowhere does not exist; expected a folder of videos"):
        find(tmp_path / "nowhere")
    shard(tmp_path / "s0.tar", v__mp4=b"x")
    with pytest.raises(ConfigError, match=r"s1\.tar does not exist; expected"):
        find(f"{tmp_path}/s{{0..1}}.tar")


def test_no_videos_are_told(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"params: no videos in .*/empty; expected files that end in \.mp4, .* or \.tar"
    ):
        find(tmp_path / "empty")
    with pytest.raises(DataError, match=r"no videos in .*s\.tar"):
        find(shard(tmp_path / "s.tar", a__txt=b"x"))


def test_shards_that_cannot_be_read_are_told(tmp_path):
    whole = shard(tmp_path / "s.tar", a__mp4=b"x" * 5000, b__mp4=b"y" * 5000)
    (tmp_path / "cut.tar").write_bytes(whole.read_bytes()[:9000])
    with pytest.raises(
        DataError, match=r"cut\.tar (is cut off in the middle of b\.mp4; get|cannot be read as a \.tar)"
    ):
        find(tmp_path / "cut.tar")
    with tarfile.open(tmp_path / "z.tar", "w:gz") as tar:
        tar.add(__file__, "a.mp4")
    with pytest.raises(
        DataError, match=r"z\.tar cannot be read as a \.tar \(.*\); expected an uncompressed one, whole"
    ):
        find(tmp_path / "z.tar")
    listed = meta(tmp_path, "s.tar\ngone.tar\n", "list.txt")
    with pytest.raises(DataError, match=r"gone\.tar cannot be read: No such file or directory; check the path and its"):
        find(tmp_path, listed)
