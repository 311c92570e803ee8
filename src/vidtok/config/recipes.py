"""The recipes for training that come with the package: short configurations, whole ones and parts over a model's."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vidtok.config.registry import package_folder

_OVER = re.compile(r"Over the configuration of a model(?P<which>[^:]*): ")
"""The beginning of the first comment of a recipe that is merged over a model's configuration."""


@dataclass(frozen=True)
class Recipe:
    """A recipe, as its file describes itself in its first comment."""

    name: str
    path: Path
    about: str
    """What it is for, in one sentence."""
    whole: bool
    """True if it is trained as it is; False if it is named behind a model."""

    @property
    def usage(self) -> str:
        """The words that follow `vidtok train`."""
        return self.name if self.whole else f"MODEL {self.name}"


@cache
def recipes() -> dict[str, Recipe]:
    """All recipes by name: whole ones first, each kind in alphabetical order."""
    folder = package_folder() / "configs" / "training"
    found = [_read(path) for path in sorted(folder.glob("*.yaml"))]
    return {recipe.name: recipe for recipe in sorted(found, key=lambda recipe: not recipe.whole)}


def _read(path: Path) -> Recipe:
    lines = path.read_text(encoding="utf-8").splitlines()
    comment: list[str] = []
    for line in lines:
        if not line.startswith("#"):
            break
        comment.append(line.removeprefix("#").strip())
    text = " ".join(comment)
    over = _OVER.match(text)
    which = over["which"].strip() if over else ""
    about = _OVER.sub("", text).partition(". ")[0].rstrip(".").replace("`", "")
    about = f"{about[:1].upper()}{about[1:]}" + (f" ({which})" if which else "")
    return Recipe(path.stem, path, about, over is None)
