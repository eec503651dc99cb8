"""Options: what each field of a dataclass may hold, stated beside the field and checked here.

    levels: Annotated[int, Range(1, 64)] = 8

Understood are bool, int, float, str, Literal, ``X | None``, tuples, ``dict[str, X]`` and dataclasses of these; numbers
are finite, and True is none. :func:`check` holds an object against its class, :func:`build` makes one of JSON values.
"""

from __future__ import annotations

import dataclasses
import math
import re
import reprlib
import types
from collections.abc import Callable, Mapping, Sized
from functools import cache
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")


class Range(NamedTuple):
    """The numbers from ``low`` to ``high``; without ``low`` itself if it lies ``above`` it."""

    low: float
    high: float = math.inf
    above: bool = False

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and (self.low < value if self.above else self.low <= value <= self.high)

    def __str__(self) -> str:
        if self.above:
            return f"> {self.low}"
        return f">= {self.low}" if self.high == math.inf else f"in {self.low}..{self.high}"


class Length(NamedTuple):
    """Lists of ``low`` to ``high`` values."""

    low: int
    high: int

    def __contains__(self, value: object) -> bool:
        return isinstance(value, Sized) and self.low <= len(value) <= self.high

    def __str__(self) -> str:
        return f"with {self.low} to {self.high} of them"


class Pattern(NamedTuple):
    """Text that matches ``regex`` as a whole; ``words`` say what that means."""

    regex: str
    words: str

    def __contains__(self, value: object) -> bool:
        return isinstance(value, str) and re.fullmatch(self.regex, value) is not None

    def __str__(self) -> str:
        return self.words


_LIMITS = (Range, Length, Pattern)  # what else an annotation carries are marks of others

Count = Annotated[int, Range(0, 10**9)]
Positive = Annotated[int, Range(1, 10**9)]
Share = Annotated[float, Range(0, 1)]
Factor = Annotated[float, Range(0)]
Rate = Annotated[float, Range(0, above=True)]


def check(options: Any, spell: Callable[[str], str] = str) -> None:
    """Hold every field of a dataclass object, and of those inside it, against its annotation.

    Args:
        options: the object.
        spell: how the user writes the name of a field; fields of inner objects are ``outer.inner``.

    Raises:
        ValueError: the first field that does not fit: its name, what it must be, what came.
    """
    for name, hint in _hints(type(options)).items():
        value = getattr(options, name)
        if dataclasses.is_dataclass(value):
            check(value, lambda inner, outer=name: spell(f"{outer}.{inner}"))
        elif not _fits(value, hint):
            raise ValueError(f"{spell(name)} must be {_words(hint)}, got {reprlib.repr(value)}")


def build(cls: type[T], data: Any, where: str) -> T:
    """Make a ``cls`` of a JSON object, and check it.

    Raises:
        ValueError: no object, an unknown or missing key, or a value that does not fit; ``where`` names the place.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"{where} must be an object with keys, got {reprlib.repr(data)}")
    hints = _hints(cls)
    unknown = sorted(str(key) for key in data.keys() - hints.keys())
    if unknown:
        raise ValueError(f"{where}: unknown keys {reprlib.repr(unknown)}; known keys are {sorted(hints)}")
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType] - T has no bound that means a dataclass
    needed = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    missing = sorted(needed - data.keys())
    if missing:
        raise ValueError(f"{where} must have the keys {missing}")
    built = cls(**{key: _built(hints[key], value, f"{where}.{key}") for key, value in data.items()})
    check(built, lambda name: f"{where}.{name}")
    return built


def spelled(field: str) -> str:
    """The command line's name of a field."""
    return "--" + field.replace("_", "-")


def marked(cls: type, mark: str) -> set[str]:
    """Names of the fields of ``cls`` whose annotation carries ``mark``."""
    return {name for name, hint in _hints(cls).items() if get_origin(hint) is Annotated and mark in get_args(hint)[1:]}


def _built(hint: Any, value: Any, where: str) -> Any:
    hint = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    kinds = get_args(hint)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, where)  # pyright: ignore[reportArgumentType] - a hint is a class, not an object
    if get_origin(hint) is dict and isinstance(value, Mapping):
        return {key: _built(kinds[1], item, f"{where}.{key}") for key, item in value.items()}
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_built(kinds[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    return value


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _fits(value: Any, hint: Any) -> bool:
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _fits(value, kinds[0]) and all(value in limit for limit in kinds[1:] if isinstance(limit, _LIMITS))
    if origin is Literal:
        return any(type(value) is type(choice) and value == choice for choice in kinds)
    if origin in (Union, types.UnionType):
        return any(_fits(value, kind) for kind in kinds)
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if kinds[-1] is Ellipsis:
            return all(_fits(item, kinds[0]) for item in value)
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if origin is dict:
        return isinstance(value, dict) and all(isinstance(k, str) and _fits(v, kinds[1]) for k, v in value.items())
    if dataclasses.is_dataclass(hint):
        return isinstance(value, hint)  # pyright: ignore[reportArgumentType] - likewise
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is hint


def _words(hint: Any) -> str:
    """What ``hint`` allows, as it follows "must be"."""
    origin, kinds = get_origin(hint), get_args(hint)
    if origin is Annotated:
        limits = [str(limit) for limit in kinds[1:] if isinstance(limit, _LIMITS)]
        return " ".join(limits if kinds[0] is str and limits else [_words(kinds[0]), *limits])  # a pattern says it all
    if origin is Literal:
        return f"one of {', '.join(map(str, kinds))}"
    if origin in (Union, types.UnionType):
        return " or ".join(_words(kind) for kind in kinds)
    if origin is tuple:
        number = "" if kinds[-1] is Ellipsis else f"{len(kinds)} "
        return f"a list of {number}values, each {_words(kinds[0])}"
    if origin is dict:
        return f"an object whose values are {_words(kinds[1])}"
    return _SPOKEN.get(hint, getattr(hint, "__name__", str(hint)))


_SPOKEN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", type(None): "nothing"}
