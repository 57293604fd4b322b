"""Values of options, held against what the fields of a dataclass are declared to be."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from math import isfinite
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from engram_transformers.errors import BadInput

_TAKEN: dict[Any, type] = {bool: bool, int: Integral, float: Real, str: str}
_CALLED = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
_CALLED[NoneType] = "None"


def hint(name: str, known: Iterable[str]) -> str:
    """What to say to somebody who gave a name that is none of these."""
    near = difflib.get_close_matches(name, known := list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"


def as_declared(options: type[Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Values that were given for fields of a dataclass, in the types that it declares for them.

    An int will do for a float, and a list, or what it would hold alone, for a tuple.

    Raises:
        BadInput: a value is of another type.
    """
    declared = get_type_hints(options)
    found = {}
    for name, value in given.items():
        try:
            found[name] = _as(declared[name], value)
        except (TypeError, OverflowError) as error:
            raise BadInput(f"{name} is {value!r}; use {_words(declared[name])}") from error
    return found


def _as(wanted: Any, value: Any) -> Any:
    """A value in a type; `TypeError` where it is of another."""
    kind, parts = get_origin(wanted), get_args(wanted)
    if kind in (Union, UnionType):
        [one] = (part for part in parts if part is not NoneType)
        return None if value is None else _as(one, value)
    if kind is tuple:
        single = isinstance(value, str) or not isinstance(value, Iterable)
        return tuple(_as(parts[0], each) for each in ([value] if single else value))
    if kind is Literal:
        return _checked(value, value in parts)
    fits = isinstance(value, _TAKEN[wanted]) and (wanted is bool or not isinstance(value, bool))
    return wanted(_checked(value, fits and (wanted is not float or isfinite(value))))


def _checked(value: Any, fits: bool) -> Any:
    if not fits:
        raise TypeError(type(value).__name__)
    return value


def _words(wanted: Any) -> str:
    kind, parts = get_origin(wanted), get_args(wanted)
    if kind in (Union, UnionType):
        return " or ".join(map(_words, parts))
    if kind is tuple:
        return f"a list of {_words(parts[0]).removeprefix('a ')}s"
    return f"one of {', '.join(parts)}" if kind is Literal else _CALLED[wanted]
