"""Videos in folders and lists."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vidtok.errors import ConfigError, VideoError
from vidtok.video.library import PICTURE_SUFFIXES, VIDEO_SUFFIXES, find_files, read_list


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def found(folder: Path, suffixes: tuple[str, ...] = VIDEO_SUFFIXES) -> list[str]:
    return [Path(path).relative_to(folder).as_posix() for path in find_files(folder, suffixes)]


def test_videos_are_found_in_either_case_folder_by_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "a/z.webm", "a/y.Gif", "a b/x.mkv", "note.txt", "c.jpg", "mp4", "a/deep/er/v.mxf", "a.mov")
    assert found(tmp_path) == ["a/deep/er/v.mxf", "a/y.Gif", "a/z.webm", "a b/x.mkv", "a.mov", "b.MP4"]
    assert found(tmp_path, PICTURE_SUFFIXES) == ["c.jpg"]
    assert find_files(tmp_path / "a" / "deep") == [str(tmp_path / "a" / "deep" / "er" / "v.mxf")]


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, ".hidden/v.mp4", "._a.mp4", ".mp4", "a/.b/c.mp4", "a/v.mp4")
    assert found(tmp_path) == ["a/v.mp4"]
    assert found(tmp_path / ".hidden") == ["v.mp4"]  # unless asked for by name


def test_a_folder_that_is_called_like_a_video_is_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4/b.mp4")
    assert found(tmp_path) == ["a.mp4/b.mp4"]


def test_links_are_followed_and_each_folder_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path, "videos/a/v.mp4", "elsewhere/w.mp4", "single.mp4")
    videos = tmp_path / "videos"
    os.symlink(videos, videos / "a" / "around", target_is_directory=True)
    os.symlink(tmp_path / "elsewhere", videos / "linked", target_is_directory=True)
    os.symlink(tmp_path / "elsewhere", videos / "once more", target_is_directory=True)
    os.symlink(tmp_path / "single.mp4", videos / "b.mp4")
    os.symlink(videos / "itself", videos / "itself")
    assert found(videos) == ["a/v.mp4", "b.mp4", "linked/w.mp4"]
    os.symlink(tmp_path / "gone.mp4", videos / "c.mp4")  # its reader says that it is gone
    assert found(videos) == ["a/v.mp4", "b.mp4", "c.mp4", "linked/w.mp4"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes with names")
def test_pipes_are_no_videos(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    assert found(tmp_path) == []


@pytest.mark.parametrize("locked", ["", "below"])
def test_a_folder_that_cannot_be_read_is_an_error(locked: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "a.mp4", "below/b.mp4")
    scandir = os.scandir

    def refuse(path: str) -> os.PathLike[str]:
        if Path(path) == tmp_path / locked:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)  # type: ignore[return-value]

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(VideoError, match=rf"{locked} cannot be read: Permission denied; make it readable"):
        find_files(tmp_path)


def test_a_folder_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="none cannot be read: No such file or directory"):
        find_files(tmp_path / "none")


@pytest.mark.parametrize(
    ("name", "text", "names"),
    [
        ("a.csv", 'kind,videos\nx,b.mp4\ny," a, c.mp4 "\n', ["b.mp4", "a, c.mp4"]),
        ("a.CSV", "\ufeffvideos\r\nb.mp4\r\n\r\n", ["b.mp4"]),
        ("a.list", "videos,kind\nb.mp4,x\n", ["b.mp4"]),
        ("a.txt", "# mine\na#1.mp4\n\n  sub/b.mp4 \n/c.mp4", ["a#1.mp4", "sub/b.mp4", "/c.mp4"]),
        ("a.csv", "videos\n", []),
        ("a.txt", "", []),
    ],
)
def test_lists_name_videos(name: str, text: str, names: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(text.encode())
    assert read_list(tmp_path / name) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"video\n",
            r"^--meta .*a\.csv has no column videos, but video \(did you mean video\?\); expected a",
        ),
        (b"", r"has no column videos, but nothing; expected a first line that names the columns, videos among them$"),
        (b"n,videos\n1,a\n2,\n", r"a\.csv, line 3: no path in the column videos; expected one in every row$"),
        (b"n,videos\n1\n", r"a\.csv, line 2: no path in the column videos"),
        (
            b"\xff\xfe\x00",
            r"a\.csv cannot be read \(.*can't decode.*\); expected a CSV file with a column",
        ),
    ],
)
def test_lists_that_do_not_do_are_errors(text: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(ConfigError, match=message):
        read_list(tmp_path / "a.csv", "--meta", ConfigError)
    with pytest.raises(VideoError, match=r"gone\.csv cannot be read \(No such file or directory\)"):
        read_list(tmp_path / "gone.csv")


def test_pyav_is_not_imported() -> None:
    code = "import sys, vidtok.video.library; assert 'av' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
