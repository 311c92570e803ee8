"""Configurations that multiply, by bases, aliases and interpolations: refused before memory is taken."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidtok.config import budget
from vidtok.config.layers import from_overrides, merge, read_layers, resolve
from vidtok.errors import ConfigError


def filled(tmp_path: Path, text: str) -> dict[str, object]:
    path = tmp_path / "top.yaml"
    path.write_text(text)
    return resolve(read_layers(path), "top.yaml")


def multiplied(name: str, times: int, levels: int, first: str) -> str:
    """A mapping whose texts have `times` the one before, for as many `levels`."""
    lines = [f"  {name}0: '{first}'"]
    lines += [f"  {name}{i + 1}: '{f'${{m.{name}{i}}}' * times}'" for i in range(levels)]
    return "m:\n" + "\n".join(lines) + "\n"


VALUES = "top.yaml: its interpolations come to more than 10,000 values; expected a short configuration"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (multiplied("a", 10, 10, "xxxxxxxxxx"), VALUES),
        (multiplied("a", 2, 30, ""), VALUES),  # nothing is long, all of it is computed
        ("x0: {a: 1, b: 2}\n" + "".join(f"x{i + 1}: [" + f"'${{x{i}}}'," * 10 + "]\n" for i in range(9)), VALUES),
        ("a: '" + "x" * 100_000 + "'\nb: '" + "${a}" * 20 + "'\n", "come to more than 1,048,576 characters"),
        ("a: ${b}${b}\nb: ${a}${a}\n", "interpolations lead to one another in a circle, or too often; expected a few"),
        ("a: ${a}\n", "interpolations lead to one another in a circle"),
        ("a: {b: '${a}'}\n", "interpolations lead to one another in a circle"),
        ("a: '${.b.c}'\nb: '${.a.c}'\n", "interpolations lead to one another in a circle"),
        ("a0: 1\n" + "".join(f"a{i + 1}: '${{a{i}}}'\n" for i in range(900)), VALUES),
    ],
)
def test_interpolations_that_multiply(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        filled(tmp_path, text)
    assert expected in str(caught.value)
    assert str(caught.value).startswith("top.yaml: ")


def test_interpolations_of_every_kind_are_filled_in(tmp_path: Path) -> None:
    text = """
        a: {b: [1, {c: two}], d: '${.b[0]}', e: '${..f}', g: {h: '${..b}'}}
        f: '${a.b[1].c} and ${a.b.0}'
        whole: ${a}
        through: ${whole.g.h[1].c}
    """
    a = {"b": [1, {"c": "two"}], "d": 1, "e": "two and 1", "g": {"h": [1, {"c": "two"}]}}
    assert filled(tmp_path, text) == {"a": a, "f": "two and 1", "whole": a, "through": "two"}


def test_bases_that_multiply(tmp_path: Path) -> None:
    for i in range(15):
        (tmp_path / f"f{i}.yaml").write_text(f"base: [f{i + 1}.yaml, f{i + 1}.yaml, f{i + 1}.yaml]\n")
    (tmp_path / "f15.yaml").write_text("a: 1\n")
    with pytest.raises(
        ConfigError, match=r"f15\.yaml: the bases of one configuration lead to more than 64 files; expected a few"
    ):
        read_layers(tmp_path / "f0.yaml")
    assert resolve(read_layers(tmp_path / "f12.yaml"), "f12") == {"a": 1}


def test_bases_that_are_long(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("# " + "x" * 900 + "\na: 1\n")
    (tmp_path / "two.yaml").write_text("base: [one.yaml, one.yaml]\n")
    assert resolve(read_layers(tmp_path / "two.yaml"), "two") == {"a": 1}
    with pytest.raises(ConfigError, match=r"one\.yaml: the bases of one configuration hold more than 262,144 bytes"):
        read_layers(tmp_path / "two.yaml", budget.Budget(bytes=1000))


def test_what_is_merged_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "low.yaml").write_text("big: {" + ", ".join(f"k{i}: {i}" for i in range(900)) + "}\n")
    keys = ", ".join(f"c{i}: '${{big}}'" for i in range(60))
    over = ", ".join(f"c{i}: {{}}" for i in range(60))
    (tmp_path / "mid.yaml").write_text(f"base: low.yaml\nmany: {{{keys}}}\n")
    (tmp_path / "top.yaml").write_text(f"base: mid.yaml\nmany: {{{over}}}\n")
    with pytest.raises(ConfigError, match=r"top\.yaml: its bases come to more than 50,000 values"):
        read_layers(tmp_path / "top.yaml")
    merged = merge(read_layers(tmp_path / "mid.yaml"), from_overrides(["many.c1.k1=7"]), "top")
    assert merged.many.c1.k1 == 7
    assert merged.many.c1.k2 == 2
    assert merged.big.k1 == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: " + "[" * 40 + "]" * 40, "top.yaml has mappings and lists more than 32 deep; expected fewer"),
        (
            "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
            + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdef", "bcdefg", strict=True)),
            "top.yaml is not valid YAML: it has more values than any configuration, line 1",
        ),
        ("a: &a [*a]", "top.yaml is not valid YAML: found an alias that leads nowhere, back, or to too much"),
        ("a: [" + "1," * 25_000 + "]", "top.yaml is not valid YAML: it has more values than any configuration"),
        ("a: " + "9" * 5000, "top.yaml is not valid YAML: a number in it has thousands of digits"),
        ("a: " + "[" * 4000, "top.yaml is not valid YAML: "),
    ],
)
def test_files_that_are_too_much_by_themselves(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        filled(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/{expected}")
