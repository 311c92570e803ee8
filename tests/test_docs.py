"""README, CONTRIBUTING and docs/ name what is there."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from support import TESTS

ROOT = TESTS.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)")
FILE = re.compile(r"`((?:src|tests|docs|scripts|benchmarks|configs|vidtwin)/[\w./-]+)`")
PLACEHOLDER = re.compile(r"NAME|ROOM|FILE")
"""Stands for a name of the reader's own."""


def is_there(module: ModuleType, name: str) -> bool:
    """Whether `from module import name` works: of a name, or of a submodule."""
    return hasattr(module, name) or find_spec(f"{module.__name__}.{name}") is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_imports_of_python_blocks_exist(page: Path) -> None:
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vidtok":
                module = import_module(node.module or "")
                missing = [alias.name for alias in node.names if not is_there(module, alias.name)]
                assert not missing, f"{page.name}: {node.module} has no {', '.join(missing)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = [(page.parent, path) for path in LINK.findall(text)]
    named += [(ROOT, path) for path in FILE.findall(text) if not PLACEHOLDER.search(path)]
    missing = [path for folder, path in named if not (folder / path).exists()]
    assert not missing, f"{page.name} names {', '.join(missing)}"
