"""The rooms of the package and the one direction of its imports (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

import vidtok

ROOT = Path(vidtok.__file__).parent

FLOORS = (
    ("errors", "fields", "files", "text", "device"),
    ("video", "metrics", "sequence"),
    ("synthetic", "models"),
    ("tokens", "runtime", "config"),
    ("jobs", "zoo"),
    ("tokenizer",),
    ("evaluation", "interop", "datasets"),
    ("training",),
    ("cli",),
    ("__main__",),
)
"""Rooms from the ground up. A room imports rooms on lower floors, and its neighbours where that makes no circle."""

FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}
LOOSE_FILES = 8
LINES = 420


class Arrow(NamedTuple):
    """One import: `file` imports `target` in `line`."""

    file: str
    target: str
    line: int

    @property
    def rooms(self) -> tuple[str, str]:
        return room_of(self.file), room_of(self.target)

    def __str__(self) -> str:
        return f"{self.file}:{self.line} imports {self.target}"


def room_of(file: str) -> str:
    """The first part of a path relative to the package, without its suffix: a folder, or a loose file's stem."""
    return Path(file).parts[0].removesuffix(".py")


def files_of(root: Path) -> list[str]:
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))


class Resolver:
    """Module names of the package at `root` to its files."""

    def __init__(self, root: Path, faces: Mapping[str, str]) -> None:
        self.package = root.name
        self.faces = faces
        self.files = {self._module(file): file for file in files_of(root)}

    def _module(self, file: str) -> str:
        parts = [self.package, *Path(file).with_suffix("").parts]
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def module(self, name: str) -> str | None:
        """The file of module `name`; None if it is no module of the package."""
        return self.files.get(name)

    def member(self, module: str, name: str) -> str | None:
        """The file that `from module import name` reads: a submodule's, a lazy name's home, or the module's own."""
        if module == self.package and name in self.faces:
            return self.files[self.faces[name]]
        return self.files.get(f"{module}.{name}") or self.files.get(module)


def arrows_of(root: Path, faces: Mapping[str, str]) -> list[Arrow]:
    """All imports inside the package at `root`, once a pair of files.

    Imports in functions and under TYPE_CHECKING count, as do literal names given to `import_module`. The package's own
    `__init__.py` is left out: it loads the public names lazily, and `faces` says from which module each comes.
    """
    resolver = Resolver(root, faces)
    found: dict[tuple[str, str], Arrow] = {}
    for file in files_of(root):
        if file == "__init__.py":
            continue
        for target, line in imports_in(ast.parse((root / file).read_text(encoding="utf-8")), file, resolver):
            if target != file:
                found.setdefault((file, target), Arrow(file, target, line))
    return list(found.values())


def imports_in(tree: ast.AST, file: str, resolver: Resolver) -> Iterator[tuple[str, int]]:
    """The package's files that `tree` imports, each with its line."""
    for node in ast.walk(tree):
        targets: Iterable[str | None] = ()
        if isinstance(node, ast.Import):
            targets = [resolver.module(alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            module = absolute(node, file, resolver.package)
            targets = [resolver.member(module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", None)
            if called in ("import_module", "__import__"):
                targets = [resolver.module(str(node.args[0].value))]
        for target in targets:
            if target is not None:
                yield target, node.lineno


def absolute(node: ast.ImportFrom, file: str, package: str) -> str:
    """The full name of the module that `node`, in `file`, imports from."""
    if not node.level:
        return node.module or ""
    here = [package, *Path(file).parts[:-1]]
    return ".".join(here[: len(here) + 1 - node.level] + ([node.module] if node.module else []))


def circles(edges: Iterable[tuple[str, str]]) -> list[set[str]]:
    """The sets of nodes that reach each other along `edges`."""
    following: dict[str, set[str]] = defaultdict(set)
    for start, end in edges:
        following[start].add(end)
    reached = {node: reach(node, following) for node in list(following)}
    loops = {frozenset(other for other in seen if node in reached.get(other, ())) for node, seen in reached.items()}
    return [set(loop) for loop in sorted(loops, key=sorted) if loop]


def reach(start: str, following: Mapping[str, set[str]]) -> set[str]:
    """Nodes at the end of at least one edge from `start`."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for node in following.get(waiting.pop(), ()):
            if node not in seen:
                seen.add(node)
                waiting.append(node)
    return seen


def file_circles(arrows: list[Arrow]) -> list[str]:
    """One message a circle of files, with its arrows."""
    return [
        f"{len(loop)} files import each other:\n  "
        + "\n  ".join(str(arrow) for arrow in arrows if arrow.file in loop and arrow.target in loop)
        for loop in circles((arrow.file, arrow.target) for arrow in arrows)
    ]


def upward(arrows: list[Arrow]) -> list[str]:
    """One message an import of a room on a higher floor."""
    return [
        f"{arrow}, but {target} stands above {room}"
        for arrow in arrows
        for room, target in [arrow.rooms]
        if target in FLOOR_OF and FLOOR_OF.get(room, len(FLOORS)) < FLOOR_OF[target]
    ]


def room_circles(arrows: list[Arrow]) -> list[str]:
    """One message a circle of rooms on one floor, with its arrows."""
    between = [
        arrow
        for arrow in arrows
        for room, target in [arrow.rooms]
        if room != target and FLOOR_OF.get(room) == FLOOR_OF.get(target)
    ]
    return [
        f"the rooms {', '.join(sorted(loop))} import each other:\n  "
        + "\n  ".join(str(arrow) for arrow in between if loop.issuperset(arrow.rooms))
        for loop in circles(arrow.rooms for arrow in between)
    ]


@pytest.fixture(scope="module")
def arrows() -> list[Arrow]:
    return arrows_of(ROOT, vidtok._HOME_OF)


def refuse(messages: list[str]) -> None:
    assert not messages, "\n" + "\n".join(messages)


def test_no_files_import_each_other(arrows: list[Arrow]) -> None:
    refuse(file_circles(arrows))


def test_imports_go_down_only(arrows: list[Arrow]) -> None:
    refuse(upward(arrows))


def test_no_neighbouring_rooms_import_each_other(arrows: list[Arrow]) -> None:
    refuse(room_circles(arrows))


def test_every_room_has_its_floor() -> None:
    rooms = {room_of(file) for file in files_of(ROOT)} - {"__init__"}
    refuse([f"src/vidtok/{room} has no floor; give it a place in FLOORS" for room in sorted(rooms - FLOOR_OF.keys())])
    refuse([f"there is no src/vidtok/{room}; take it out of FLOORS" for room in sorted(FLOOR_OF.keys() - rooms)])


def test_few_loose_files() -> None:
    loose = [file for file in files_of(ROOT) if "/" not in file]
    assert len(loose) <= LOOSE_FILES, f"{len(loose)} loose files in src/vidtok, at most {LOOSE_FILES}: {loose}"


def test_no_long_files() -> None:
    lengths = {file: len((ROOT / file).read_text(encoding="utf-8").splitlines()) for file in files_of(ROOT)}
    refuse([f"{file} has {lines} lines, at most {LINES}" for file, lines in lengths.items() if lines > LINES])


def house(folder: Path, files: Mapping[str, str]) -> list[Arrow]:
    """The imports of a package called `vidtok` that consists of `files`."""
    for name, text in {"__init__.py": "", **files}.items():
        path = folder / "vidtok" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return arrows_of(folder / "vidtok", {"load": "vidtok.tokenizer"})


@pytest.mark.parametrize(
    "statement",
    [
        "import vidtok.tokenizer",
        "from vidtok import tokenizer",
        "from vidtok import load",
        "from vidtok.tokenizer import load as other",
        "from .. import tokenizer",
        "from ..tokenizer import load",
        "def later():\n    from vidtok.tokenizer import load",
        "if TYPE_CHECKING:\n    from vidtok.tokenizer import load",
        "import_module('vidtok.tokenizer')",
        "importlib.import_module('vidtok.tokenizer')",
    ],
)
def test_every_kind_of_import_is_seen(tmp_path: Path, statement: str) -> None:
    arrows = house(tmp_path, {"video/__init__.py": "", "video/reader.py": statement, "tokenizer.py": "import torch"})
    line = statement.count("\n") + 1
    assert arrows == [("video/reader.py", "tokenizer.py", line)]
    assert upward(arrows) == [
        f"video/reader.py:{line} imports tokenizer.py, but tokenizer stands above video",
    ]


def test_circles_are_named_arrow_by_arrow(tmp_path: Path) -> None:
    files = {
        "jobs/encode.py": "from vidtok.zoo.hub import fetch",
        "zoo/hub.py": "from vidtok.zoo import folder",
        "zoo/folder.py": "\nfrom vidtok.jobs.encode import encode",
        "zoo/int8.py": "from vidtok.zoo import folder",
    }
    arrows = house(tmp_path, files)
    assert file_circles(arrows) == [
        "3 files import each other:\n  jobs/encode.py:1 imports zoo/hub.py\n"
        "  zoo/folder.py:2 imports jobs/encode.py\n  zoo/hub.py:1 imports zoo/folder.py"
    ]
    assert room_circles(arrows) == [
        "the rooms jobs, zoo import each other:\n  jobs/encode.py:1 imports zoo/hub.py\n"
        "  zoo/folder.py:2 imports jobs/encode.py"
    ]
    assert upward(arrows) == []


def test_neighbours_may_import_each_other_one_way(tmp_path: Path) -> None:
    arrows = house(tmp_path, {"jobs/encode.py": "from vidtok.zoo.hub import fetch", "zoo/hub.py": ""})
    assert room_circles(arrows) == file_circles(arrows) == []
