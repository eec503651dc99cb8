"""What fields may hold, told beside them: each kind of annotation, and the words of each refusal."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from mmif.options import Count, Factor, Length, Pattern, Positive, Range, Rate, Share, build, check, marked, spelled


@dataclass(frozen=True)
class Inner:
    side: Annotated[int, Range(2, 8)] = 4


@dataclass(frozen=True)
class Options:
    name: str = "x"
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    order: Literal[1, 2] = 1
    count: Count = 0
    steps: Positive = 1
    share: Share = 0.5
    factor: Factor = 0.0
    rate: Rate = 0.1
    free: float = -1.0
    maybe: Annotated[int, Range(1, 3)] | None = None
    pair: tuple[float, Share] = (0.0, 1.0)
    sides: Annotated[tuple[Annotated[int, Range(1, 9)], ...], Length(1, 3)] = (1,)
    digest: Annotated[str, Pattern("[0-9a-f]{4}", "four hexadecimal digits")] = "00ff"
    table: dict[str, int] = field(default_factory=dict)
    inner: Inner = field(default_factory=Inner)
    inners: tuple[Inner, ...] = ()
    by_name: dict[str, Inner] = field(default_factory=dict)


FITS: list[tuple[str, Any]] = [
    ("name", ""),
    ("flag", True),
    ("kind", "b"),
    ("order", 2),
    ("count", 0),
    ("count", 10**9),
    ("steps", 1),
    ("share", 0),
    ("share", 1.0),
    ("factor", 0),
    ("factor", 1e300),
    ("rate", 1e-300),
    ("free", -5),
    ("maybe", None),
    ("maybe", 3),
    ("pair", (5, 0.0)),
    ("sides", (9, 1, 2)),
    ("digest", "beef"),
    ("table", {"a": 1}),
    ("inners", (Inner(), Inner())),
    ("by_name", {"a": Inner()}),
]


@pytest.mark.parametrize(("name", "value"), FITS)
def test_what_fits(name: str, value: Any):
    check(Options(**{name: value}))


REFUSED: list[tuple[str, Any, str]] = [
    ("name", 5, "a text, got 5"),
    ("flag", 1, "true or false, got 1"),
    ("flag", "true", "true or false, got 'true'"),
    ("kind", "c", "one of a, b, got 'c'"),
    ("order", True, "one of 1, 2, got True"),
    ("order", 3, "one of 1, 2, got 3"),
    ("count", -1, "a whole number in 0..1000000000, got -1"),
    ("count", 10**9 + 1, "a whole number in 0..1000000000, got 1000000001"),
    ("count", 1.0, "a whole number in 0..1000000000, got 1.0"),
    ("count", True, "a whole number in 0..1000000000, got True"),
    ("steps", 0, "a whole number in 1..1000000000, got 0"),
    ("share", -0.1, "a number in 0..1, got -0.1"),
    ("share", 1.1, "a number in 0..1, got 1.1"),
    ("share", math.nan, "a number in 0..1, got nan"),
    ("factor", -1, "a number >= 0, got -1"),
    ("factor", math.inf, "a number >= 0, got inf"),
    ("factor", "1", "a number >= 0, got '1'"),
    ("rate", 0, "a number > 0, got 0"),
    ("rate", math.inf, "a number > 0, got inf"),
    ("free", True, "a number, got True"),
    ("free", math.nan, "a number, got nan"),
    ("maybe", 0, "a whole number in 1..3 or nothing, got 0"),
    ("pair", (1.0,), "a list of 2 values, each a number, got (1.0,)"),
    ("pair", (1.0, 2.0), "a list of 2 values, each a number, got (1.0, 2.0)"),
    ("pair", [1.0, 1.0], "a list of 2 values, each a number, got [1.0, 1.0]"),
    ("sides", (), "a list of values, each a whole number in 1..9 with 1 to 3 of them, got ()"),
    ("sides", (1, 2, 3, 4), "a list of values, each a whole number in 1..9 with 1 to 3 of them, got (1, 2, 3, 4)"),
    ("sides", (0,), "a list of values, each a whole number in 1..9 with 1 to 3 of them, got (0,)"),
    ("sides", 5, "a list of values, each a whole number in 1..9 with 1 to 3 of them, got 5"),
    ("digest", "00ff0", "four hexadecimal digits, got '00ff0'"),
    ("digest", "00ff\n", "four hexadecimal digits, got '00ff\\n'"),
    ("digest", 1234, "four hexadecimal digits, got 1234"),
    ("table", {"a": "b"}, "an object whose values are a whole number, got {'a': 'b'}"),
    ("table", {1: 1}, "an object whose values are a whole number, got {1: 1}"),
    ("table", [], "an object whose values are a whole number, got []"),
    ("inners", (5,), "a list of values, each Inner, got (5,)"),
]


@pytest.mark.parametrize(("name", "value", "words"), REFUSED)
def test_what_does_not_fit(name: str, value: Any, words: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole line is compared
        check(Options(**{name: value}), lambda field: f"--{field}")
    assert str(refused.value) == f"--{name} must be {words}"


@dataclass(frozen=True)
class Marked:
    plain: int = 0
    bounded: Count = 0
    both: Annotated[Count, "may change"] = 0
    bare: Annotated[str, "may change"] = ""
    other: Annotated[str, "something else"] = ""


def test_fields_may_carry_marks_which_bound_nothing():
    assert marked(Marked, "may change") == {"both", "bare"}
    check(Marked(other="any"))
    with pytest.raises(ValueError, match=r"^--bare must be a text, got 5$"):
        check(Marked(bare=5), spelled)  # pyright: ignore[reportArgumentType]
    assert spelled("log_every") == "--log-every"


def test_a_long_value_is_shortened():
    with pytest.raises(ValueError, match=r"^flag must be true or false, got 'x{12,14}\.\.\.x{12,14}'$"):
        check(Options(flag="x" * 1000))  # pyright: ignore[reportArgumentType]


def test_inner_objects_are_checked_under_their_place():
    with pytest.raises(ValueError, match=r"^<inner.side> must be a whole number in 2\.\.8, got 9$"):
        check(Options(inner=Inner(9)), "<{}>".format)


def test_json_becomes_objects():
    data = {"sides": [1, 2], "inner": {"side": 3}, "inners": [{"side": 5}, {}], "by_name": {"a": {"side": 6}}}
    built = build(Options, data, "here")
    assert built == Options(sides=(1, 2), inner=Inner(3), inners=(Inner(5), Inner()), by_name={"a": Inner(6)})


@dataclass(frozen=True)
class Needy:
    must: int
    may: int = 0


@pytest.mark.parametrize(
    ("cls", "data", "words"),
    [
        (Options, [], r"^here must be an object with keys, got \[\]$"),
        (Options, None, "^here must be an object with keys, got None$"),
        (Options, {"x": 1}, r"^here: unknown keys \['x'\]; known keys are \['by_name', 'count', .*\]$"),
        (Options, {"inner": {"x": 1}}, r"^here\.inner: unknown keys \['x'\]; known keys are \['side'\]$"),
        (Options, {"inner": {"side": 1}}, r"^here\.inner\.side must be a whole number in 2\.\.8, got 1$"),
        (Options, {"inner": 5}, r"^here\.inner must be an object with keys, got 5$"),
        (Options, {"inners": [{}, {"side": 1}]}, r"^here\.inners\[1\]\.side must be a whole number"),
        (Options, {"by_name": {"a": {"side": 1}}}, r"^here\.by_name\.a\.side must be a whole number"),
        (Options, {"inners": 5}, r"^here\.inners must be a list of values"),
        (Options, {"by_name": 5}, r"^here\.by_name must be an object whose values"),
        (Options, {"steps": 0}, r"^here\.steps must be a whole number in 1\.\."),
        (Needy, {"may": 1}, r"^here must have the keys \['must'\]$"),
    ],
)
def test_json_that_is_refused(cls: type, data: Any, words: str):
    with pytest.raises(ValueError, match=words):
        build(cls, data, "here")
