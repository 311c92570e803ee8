"""Whole-or-nothing writing: any exception at any point leaves the old content, and nothing beside it."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tiny import leftovers
from vidtok.errors import CheckpointError, TokenFileError, VideoError, VidTokError
from vidtok.files import (
    Aside,
    aside,
    check_place,
    hidden_path,
    save_tensors,
    sweep,
    sweep_folder,
    write_whole,
    writing,
)

NO_SPACE = OSError(errno.ENOSPC, "No space left on device")
SYSTEM_CALLS = ("open", "fsync", "replace", "rename", "unlink", "mkdir")


class AtCall:
    """Raises an exception at the call of one number of all calls of the `os` functions that writing may use."""

    def __init__(self, patch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
        self.calls = 0
        for name in SYSTEM_CALLS:
            patch.setattr(os, name, self._counted(getattr(os, name), number, error))

    def _counted(self, call: Callable[..., object], number: int, error: BaseException) -> Callable[..., object]:
        def counted(*arguments: object, **options: object) -> object:
            self.calls += 1
            if self.calls == number:
                raise error
            return call(*arguments, **options)

        return counted


def write_file(place: Path) -> None:
    with aside(place, CheckpointError, sync=True) as path:
        path.write_bytes(b"new")


def write_folder(place: Path) -> None:
    with aside(place, CheckpointError, folder=True, sync=True) as path:
        for name in ("a", "b"):
            (path / name).write_bytes(b"new")


def content(place: Path) -> dict[str, bytes]:
    """All files of the folder that `place` is in, by path."""
    return {str(p.relative_to(place.parent)): p.read_bytes() for p in place.parent.rglob("*") if p.is_file()}


@pytest.mark.parametrize("error", [NO_SPACE, KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("write", [write_file, write_folder, lambda place: write_whole(place, "new")])
def test_any_exception_at_any_call_leaves_all_old_or_all_new(
    write: Callable[[Path], None], error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fresh(number: int) -> Path:
        place = tmp_path / str(number) / "place.bin"
        place.parent.mkdir()
        if write is not write_folder:
            place.write_bytes(b"old")
        return place

    wanted = fresh(0)
    with monkeypatch.context() as patch:
        counting = AtCall(patch, 0, error)
        old = content(wanted)
        write(wanted)
    new = content(wanted)
    assert new != old
    assert counting.calls >= 2
    for number in range(1, counting.calls + 1):
        place = fresh(number)
        with monkeypatch.context() as patch:
            AtCall(patch, number, error)
            with contextlib.suppress(VidTokError if error is NO_SPACE else type(error)):
                write(place)
        assert content(place) in (old, new), number


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt(), SystemExit(1), GeneratorExit()])
@pytest.mark.parametrize("folder", [False, True])
def test_an_exception_in_the_block_passes_and_leaves_what_was_there(
    folder: bool, error: BaseException, tmp_path: Path
) -> None:
    place = tmp_path / "place"
    if folder:
        place.mkdir()
        (place / "a").write_bytes(b"old")
    else:
        place.write_bytes(b"old")
    before = content(place)

    def interrupted() -> None:
        with aside(place, folder=folder) as path:
            (path / "a" if folder else path).write_bytes(b"half")
            raise error

    with pytest.raises(type(error)) as raised:
        interrupted()
    assert raised.value is error
    assert content(place) == before


def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    place = tmp_path / "model.bin"
    place.write_bytes(b"old")
    code = (
        "import sys, time; from pathlib import Path; from vidtok.files import aside\n"
        "with aside(Path(sys.argv[1])) as path:\n"
        "    path.write_bytes(b'half'); print('written', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert place.read_bytes() == b"old"


@pytest.mark.skipif(sys.platform == "win32", reason="no such locks there")
@pytest.mark.parametrize("folder", [False, True])
def test_leftovers_of_killed_processes_go_with_the_next_write(folder: bool, tmp_path: Path) -> None:
    place = tmp_path / "o.mp4"
    left = hidden_path(place)
    if folder:
        left.mkdir()
        (left / "a").touch()
    else:
        left.write_bytes(b"half")
    kept = [
        tmp_path / name
        for name in (".o-abc.mp4", ".other-0123456789ab.mp4", ".o-0123456789ab.mkv", "o-0123456789ab.mp4")
    ]
    for path in kept:
        path.touch()
    with aside(place) as path:  # a process that is at work at the same time keeps what it has
        path.write_bytes(b"first")
        assert not left.exists()
        with aside(place) as other:
            other.write_bytes(b"second")
        sweep(place)
        assert path.read_bytes() == b"first"
        assert place.read_bytes() == b"second"
    assert place.read_bytes() == b"first"
    assert leftovers(tmp_path) == sorted(["o.mp4", *(path.name for path in kept)])
    sweep_folder(tmp_path)
    assert leftovers(tmp_path) == [".o-abc.mp4", "o-0123456789ab.mp4", "o.mp4"]


def test_what_is_dropped_is_discarded(tmp_path: Path) -> None:
    dropped = Aside(tmp_path / "a.mp4")
    dropped.path.write_bytes(b"half")
    del dropped
    gc.collect()
    assert leftovers(tmp_path) == []
    kept = Aside(tmp_path / "a.mp4")
    kept.path.write_bytes(b"whole")
    kept.commit()
    kept.discard()
    assert (tmp_path / "a.mp4").read_bytes() == b"whole"
    with pytest.raises(FileNotFoundError):
        Aside(tmp_path / "b.mp4").commit()


def test_a_folder_appears_whole_or_takes_the_new_files_in(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "model"
    with aside(place, folder=True) as path:
        (path / "a").write_text("1")
        assert not place.exists()
    (place / "mine").write_text("kept")
    inode = place.stat().st_ino
    with aside(place, folder=True) as path:
        (path / "a").write_text("2")
    assert {each.name: each.read_text() for each in place.iterdir()} == {"a": "2", "mine": "kept"}
    assert place.stat().st_ino == inode
    assert leftovers(place.parent) == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_whole(tmp_path / "a", "text")
        with aside(tmp_path / "b.safetensors") as path:
            save_tensors(path, {"x": torch.zeros(1)}, {})
        with aside(tmp_path / "c", folder=True) as path:
            (path / "d").touch()
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "b.safetensors", "c", "c/d")]
    assert modes == [0o640, 0o640, 0o750, 0o640]


@pytest.mark.parametrize(
    "name",
    ["video.mp4", "a" * 251 + ".mp4", "猫" * 83 + ".mp4", "x." + "y" * 253, ".hidden", "a\udcff.mp4", "no suffix"],
)
def test_every_name_that_a_file_can_have_has_a_hidden_one(name: str, tmp_path: Path) -> None:
    place = tmp_path / name
    path = hidden_path(place)
    assert path.parent == tmp_path
    assert path.name.startswith(".")
    assert path != hidden_path(place)
    assert path.suffix == place.suffix[:32]
    write_whole(place, "whole")
    assert os.listdir(tmp_path) == [name]


def test_text_is_utf_8_and_folders_are_made(tmp_path: Path) -> None:
    write_whole(tmp_path / "a" / "b" / "ü.txt", "ü\n")
    assert (tmp_path / "a" / "b" / "ü.txt").read_bytes() == "ü\n".encode()
    write_whole(tmp_path / "c", b"\x00\r\n")
    assert (tmp_path / "c").read_bytes() == b"\x00\r\n"


def test_errors_name_the_file_the_cause_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(VidTokError, match=r"below/a cannot be written: Not a directory; check the folder and the space"),
        aside(tmp_path / "file" / "below" / "a") as path,
    ):
        path.touch()
    kept = writing(tmp_path, TokenFileError, problem="no sound", advice="leave it out", also=(KeyError,))
    with pytest.raises(TokenFileError, match=r"^no sound: 'two words'; leave it out$"), kept:
        raise KeyError("two words")
    with pytest.raises(KeyError), writing(tmp_path):
        raise KeyError("no error of the file system")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder", r"folder is a folder; give the path of a file in it, such as .*folder/a\.mp4$"),
        ("none/a.mp4", r"a\.mp4 cannot be written: .*none is no such folder; make the folder first"),
        ("file/a.mp4", r"a\.mp4 cannot be written: .*file is not a folder; make the folder first"),
        ("a" * 256, "aaa cannot be written: File name too long; choose another path"),
    ],
)
def test_places_are_checked(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(VideoError, match=message):
        check_place(tmp_path / name, VideoError, "a.mp4")
    check_place(tmp_path / "file", VideoError, "a.mp4")
    check_place(tmp_path / "new", VideoError, "a.mp4")


def test_torch_is_not_imported() -> None:
    code = "import sys, vidtok.files; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
