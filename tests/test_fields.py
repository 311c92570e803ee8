"""Configurations from plain values: types, bounds, places, and errors that name the value at fault."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from fractions import Fraction
from typing import Annotated, Any, Literal

import pytest

from vidtok.errors import ConfigError, TokenFileError
from vidtok.fields import Check, Within, build, check, plain, read, require, shown

Width = Annotated[int, Within(1, 4096)]
Share = Annotated[float, Within(0, below=1)]


@dataclass(frozen=True, kw_only=True)
class Part:
    width: Width = 8
    names: tuple[str, ...] = ()
    place: InitVar[str] = "part"

    def __post_init__(self, place: str) -> None:
        check(self, place)


@dataclass(frozen=True, kw_only=True)
class Whole:
    size: Width
    factors: Annotated[tuple[Width, ...], Check("one to four factors", lambda factors: 1 <= len(factors) <= 4)] = (1, 2)
    kind: Literal["plain", "wide"] = "plain"
    mode: Literal["a", "b", "c", "d"] = "a"
    share: Share = 0.5
    rate: Annotated[float, Within(above=0)] | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    ratio: Fraction = Fraction(1, 2)
    corner: tuple[int, int] | None = None
    flag: bool = False
    paths: str | tuple[str, ...] | None = None
    part: Part = field(default_factory=Part)
    anything: Any = None
    place: InitVar[str] = ""

    def __post_init__(self, place: str) -> None:
        rule = check(self, place, names={"share": f"{place}.video.share"})
        rule("size", self.kind == "plain" or self.size % 2 == 0, "an even number for kind wide")


def test_plain_values_make_it_and_it_makes_plain_values() -> None:
    whole = Whole(size=4, factors=(3,), ratio=Fraction(3, 7), corner=(1, 2), part=Part(width=2, names=("x",)), share=0)
    values = plain(whole)
    assert json.loads(json.dumps(values)) == values
    assert values["factors"] == [3]
    assert (values["ratio"], values["part"]) == ([3, 7], {"width": 2, "names": ["x"]})
    assert build(Whole, values) == whole


def test_values_take_their_plain_form_however_it_is_made() -> None:
    whole = Whole(size=4, factors=[3, 4], share=0, weights={"a": 1})  # type: ignore[arg-type]
    assert (whole.factors, type(whole.share), type(whole.weights["a"])) == ((3, 4), float, float)
    weights = {"a": 1.0}
    whole = Whole(size=4, weights=weights)
    weights["a"] = 5.0
    assert whole.weights == {"a": 1.0}
    assert dataclasses.replace(whole, size=2).size == 2


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "top.size is missing; expected a whole number from 1 to 4096"),
        ({"siz": 1}, "top.siz is not known (did you mean size?)"),
        ({"qqq": 1, "size": 1}, "top.qqq is not known; expected some of size, factors, kind, mode"),
        ({"size": 0}, "top.size is 0; expected a whole number of at least 1"),
        ({"size": True}, "top.size is True; expected a whole number of at least 1"),
        ({"size": 10**30}, f"top.size is {10**30}; expected at most 4096"),
        ({"size": 10**5000}, "top.size is a number of thousands of digits; expected at most 4096"),
        ({"size": 3, "kind": "wide"}, "top.size is 3; expected an even number for kind wide"),
        ({"factors": 3}, "top.factors is 3; expected one to four factors"),
        ({"factors": []}, "top.factors is []; expected one to four factors"),
        ({"factors": [1] * 400}, f"top.factors is {str([1] * 400)[:77]}...; expected one to four factors"),
        ({"kind": "odd"}, "top.kind is 'odd'; expected plain or wide"),
        ({"mode": 1}, "top.mode is 1; expected one of a, b, c, d"),
        ({"share": 1}, "top.video.share is 1; expected a number from 0 to less than 1"),
        ({"share": float("nan")}, "top.video.share is nan; expected a number from 0 to less than 1"),
        ({"rate": 0}, "top.rate is 0; expected a number above 0, or null"),
        ({"rate": 10**400}, f"top.rate is {str(10**400)[:77]}...; expected a number above 0, or null"),
        ({"weights": {"a": "1"}}, "top.weights is {'a': '1'}; expected a mapping of names to numbers"),
        ({"ratio": [1, 0]}, "top.ratio is [1, 0]; expected [numerator, denominator]"),
        ({"corner": [1, 2, 3]}, "top.corner is [1, 2, 3]; expected two whole numbers, or null"),
        ({"flag": 1}, "top.flag is 1; expected true or false"),
        ({"paths": 3}, "top.paths is 3; expected text or a list of texts, or null"),
        ({"part": 3}, "top.part is 3; expected a mapping"),
        ({"part": {"widht": 3}}, "top.part.widht is not known (did you mean width?)"),
        ({"part": {"width": 0}}, "top.part.width is 0; expected a whole number of at least 1"),
    ],
)
def test_errors_name_the_value_at_fault(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Whole, {"size": 4, **values} if values else {}, "top")
    assert str(caught.value).startswith(message)


def test_what_python_makes_is_checked_at_its_own_place() -> None:
    with pytest.raises(ConfigError, match=r"^part\.width is 0; expected a whole number of at least 1$"):
        Part(width=0)
    with pytest.raises(ConfigError, match=r"^part\.names is \[3\]; expected a list of texts$"):
        Part(names=(3,))  # type: ignore[arg-type]


def test_the_error_is_of_the_callers_class() -> None:
    with pytest.raises(TokenFileError, match="top is 3; expected a mapping"):
        build(Whole, 3, "top", error=TokenFileError)
    with pytest.raises(TokenFileError, match="a is 3; expected less"):
        require(False, "a", 3, "less", TokenFileError)
    assert build(Whole, {"size": 1, "later": 2}, ignore_unknown=True) == Whole(size=1)


def test_mappings_are_read_by_hints_alone() -> None:
    hints = {"a": Width, "b": tuple[Share, Share]}
    assert read({"b": [0, 0.5]}, hints) == {"b": (0.0, 0.5)}
    with pytest.raises(ConfigError, match=r"^x\.c is not known; expected some of a, b$"):
        read({"c": 1}, hints, "x")
    with pytest.raises(ConfigError, match=r"^x\.b is \[1, 0\]; expected two numbers, each a number from 0 to less"):
        read({"b": [1, 0]}, hints, "x")


def test_long_values_are_shortened() -> None:
    assert shown("x" * 100) == "'" + "x" * 76 + "..."
    assert shown((1, 2)) == "[1, 2]"
    assert shown([10**5000]) == "too long to show"
