"""Inputs: folders, patterns, lists, shards, URLs; stamps and columns."""

from __future__ import annotations

import functools
import io
import json
import os
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vidtok.datasets.inputs import Input, Listing
from vidtok.datasets.remote import fetch
from vidtok.errors import CollectionError


def write(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"content of {name}")
    return folder


def write_tar(path: Path, **members: str) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content.encode())
            archive.addfile(member, io.BytesIO(content.encode()))
    return path


def names(*words: str | Path, **options: Any) -> list[str]:
    """The names of the inputs that `words` lead to; absent ones have a `!` in front."""
    listing = Listing(words=tuple(map(str, words)), **options)
    return [each.name if isinstance(each, Input) else f"!{each.name}" for each in listing.inputs()]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """The URL at which a server of this machine serves `tmp_path`."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            """Parts of files too, which the base class does not give."""
            asked, path = self.headers.get("Range", ""), Path(self.translate_path(self.path))
            if not asked or not path.is_file():
                super().do_GET()
                return
            first, last = asked.removeprefix("bytes=").split("-")
            content = path.read_bytes()
            part = content[int(first) : int(last or len(content)) + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)

        def end_headers(self) -> None:
            self.send_header("Accept-Ranges", "bytes")
            super().end_headers()

    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{served.server_port}"
    finally:
        served.shutdown()
        served.server_close()


def test_folders_patterns_and_ranges(tmp_path: Path) -> None:
    write(tmp_path, "a/1.mp4", "a/b/2.mkv", "a/3.png", "a/4.txt", "a/.5.mp4", "07.mp4", "08.mp4", "09.mp4")
    here = str(tmp_path)
    assert names(tmp_path / "a") == [f"{here}/a/1.mp4", f"{here}/a/3.png", f"{here}/a/b/2.mkv"]
    assert names(tmp_path / "a", pictures=False) == [f"{here}/a/1.mp4", f"{here}/a/b/2.mkv"]
    assert names(f"{here}/**/*.mkv") == [f"{here}/a/b/2.mkv"]
    assert names(f"{here}/0{{7..8}}.mp4") == [f"{here}/07.mp4", f"{here}/08.mp4"]
    for nothing in (f"{here}/x.mp4", f"{here}/*.avi"):
        with pytest.raises(CollectionError, match="there is no input"):
            names(nothing)


def test_stamps_follow_changes(tmp_path: Path) -> None:
    write(tmp_path, "1.mp4", "2.mp4")

    def stamps(content: bool) -> list[str]:
        listing = Listing(words=(str(tmp_path),), content=content)
        return [each.stamp for each in listing.inputs() if isinstance(each, Input)]

    before, hashes = stamps(False), stamps(True)
    os.utime(tmp_path / "1.mp4", ns=(5, 5))
    assert [a == b for a, b in zip(before, stamps(False), strict=True)] == [False, True]
    assert stamps(True) == hashes
    (tmp_path / "2.mp4").write_text("other")
    assert [a == b for a, b in zip(hashes, stamps(True), strict=True)] == [True, False]


def test_lists_of_every_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pyarrow
    import pyarrow.parquet

    write(tmp_path, "v/1.mp4", "v/ü 2.mp4")
    paths = [str(tmp_path / "v/1.mp4"), str(tmp_path / "v/ü 2.mp4")]
    rows = [{"videos": "v/1.mp4", "caption": "one, two"}, {"videos": paths[1], "caption": "drei"}]
    (tmp_path / "l.txt").write_text(f"# videos\n\nv/1.mp4\n{paths[1]}\n")
    (tmp_path / "l.csv").write_text(f'videos,caption\nv/1.mp4,"one, two"\n{paths[1]},drei\n')
    (tmp_path / "l.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "l.parquet")
    for suffix in ("txt", "csv", "jsonl", "parquet"):
        found = list(Listing(words=(str(tmp_path / f"l.{suffix}"),)).inputs())
        assert [each.name for each in found] == paths
        if suffix != "txt":
            assert [each.columns for each in found if isinstance(each, Input)] == [
                {"caption": "one, two"}, {"caption": "drei"}
            ]  # fmt: skip
    (tmp_path / "other.csv").write_text("path\n1.mp4\n")
    assert names(tmp_path / "other.csv", column="path", root=str(tmp_path / "v")) == paths[:1]
    with pytest.raises(CollectionError, match=r"no column video, but path; give the column of paths \(--column\)"):
        names(tmp_path / "other.csv", column="video")
    monkeypatch.setattr(sys, "stdin", io.StringIO("v/1.mp4\nv/gone.mp4\n"))
    assert names("-", root=str(tmp_path)) == [paths[0], f"!{tmp_path}/v/gone.mp4"]


@pytest.mark.parametrize(
    ("name", "text"),
    [("l.jsonl", "{"), ("l.jsonl", "[1]"), ("l.jsonl", '{"videos": 3}'), ("l.csv", "videos\n \n"), ("l.parquet", "x")],
)
def test_damaged_lists_are_named(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CollectionError, match=name):
        names(tmp_path / name)


def test_tars_give_members_captions_and_columns(tmp_path: Path) -> None:
    path = write_tar(
        tmp_path / "s-00.tar",
        **{"a.mp4": "first", "a.txt": "a caption ", "a.json": '{"score": 3}', "b.mkv": "second", ".c.mp4": "x"},
    )
    found = [each for each in Listing(words=(str(tmp_path / "s-{00..00}.tar"),)).inputs() if isinstance(each, Input)]
    assert [each.name for each in found] == [f"{path}/a.mp4", f"{path}/b.mkv"]
    assert [each.columns for each in found] == [{"caption": "a caption", "score": 3}, {}]
    assert [path.read_bytes()[each.offset :][: each.size] for each in found] == [b"first", b"second"]
    assert names(tmp_path) == [each.name for each in found]
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(CollectionError, match=r"s-00.tar cannot be read as a .tar"):
        names(path)


def test_one_bad_shard_or_caption_does_not_end_a_listing(tmp_path: Path) -> None:
    write_tar(tmp_path / "s-0.tar", **{"a.mp4": "x", "a.json": "{", "b.mp4": "y"})
    write_tar(tmp_path / "s-1.tar", **{"c.mp4": "z" * 2000})
    (tmp_path / "s-1.tar").write_bytes((tmp_path / "s-1.tar").read_bytes()[:900])
    expected = [f"!{tmp_path}/s-0.tar/a.mp4", f"{tmp_path}/s-0.tar/b.mp4", f"!{tmp_path}/s-1.tar"]
    (tmp_path / "l.lst").write_text("s-0.tar\ns-1.tar\n")
    for word in (tmp_path, tmp_path / "s-{0..1}.tar", tmp_path / "s-*.tar", tmp_path / "l.lst"):
        assert names(word) == expected
    found = [each for each in Listing(words=(str(tmp_path),)).inputs() if not isinstance(each, Input)]
    assert found[0].reason.startswith("a.json beside it is no JSON")
    assert "s-1.tar cannot be read as a .tar" in found[1].reason


def test_urls(tmp_path: Path, server: str) -> None:
    write(tmp_path, "v/1.mp4", "v/2.mp4", "v/x.txt")
    write_tar(tmp_path / "s.tar", **{"a.mp4": "first", "b.mp4": "second", "b.txt": "words"})
    (tmp_path / "l.txt").write_text("v/1.mp4\nv/gone.mp4\ns.tar\n")
    assert names(f"{server}/v/{{1..2}}.mp4") == [f"{server}/v/1.mp4", f"{server}/v/2.mp4"]
    assert names(f"{server}/v/") == [f"{server}/v/1.mp4", f"{server}/v/2.mp4"]
    assert names(f"{server}/v/*.mp4") == [f"{server}/v/1.mp4", f"{server}/v/2.mp4"]
    listed = [f"{server}/v/1.mp4", f"!{server}/v/gone.mp4", f"{server}/s.tar/a.mp4", f"{server}/s.tar/b.mp4"]
    assert names(f"{server}/l.txt") == listed
    found = [each for each in Listing(words=(f"{server}/s.tar",)).inputs() if isinstance(each, Input)]
    assert [each.columns for each in found] == [{}, {"caption": "words"}]
    out = tmp_path / "out"
    out.mkdir()
    assert fetch(f"{server}/v/2.mp4", out).read_text() == "content of v/2.mp4"
    part = fetch(found[1].source, out, (found[1].offset, found[1].size), found[1].member)
    assert (part.name, part.read_text()) == ("b.mp4", "second")
    for url in (f"{server}/gone.mp4", "nosuchthing://x/a.mp4"):
        with pytest.raises(CollectionError, match=url.partition("?")[0]):
            names(url)


def test_memory_is_a_store_too(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://bucket/a/1.mp4", "wb") as file:
        file.write(b"one")
    with fsspec.open("memory://bucket/a/2.txt", "wb") as file:
        file.write(b"two")
    assert names("memory://bucket/a") == ["memory:///bucket/a/1.mp4"]
    assert names("memory://bucket/**/*.mp4") == ["memory:///bucket/a/1.mp4"]
    assert fetch("memory://bucket/a/1.mp4", tmp_path).read_bytes() == b"one"
