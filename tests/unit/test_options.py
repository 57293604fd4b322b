"""Values of options are held against the types that their fields declare."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from engram_transformers.cli.eval import option
from engram_transformers.errors import BadInput
from engram_transformers.options import as_declared
from engram_transformers.registry import KINDS, config_of


@dataclass(frozen=True)
class Several:
    """One field of each type that options have."""

    whole: int = 1
    real: float = 1.0
    switch: bool = False
    text: str = "x"
    choice: Literal["one", "other"] | None = None
    numbers: tuple[int, ...] | None = None
    names: tuple[str, ...] = ()


def test_what_fits_is_given_in_the_type_that_is_declared() -> None:
    given = {"real": 2, "numbers": [1, 2], "names": "ab", "choice": "one", "switch": True}
    found = as_declared(Several, given)
    assert found == {**given, "numbers": (1, 2), "names": ("ab",)}
    assert type(found["real"]) is float
    assert as_declared(Several, {"numbers": 3}) == {"numbers": (3,)}
    assert as_declared(Several, {"numbers": None}) == {"numbers": None}


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("whole", 2.5, "whole is 2.5; use a whole number"),
        ("whole", True, "use a whole number"),
        ("whole", None, "use a whole number"),
        ("real", "1", "real is '1'; use a number"),
        ("real", float("nan"), "use a number"),
        ("real", 10**400, "use a number"),
        ("switch", 1, "use true or false"),
        ("switch", "maybe", "use true or false"),
        ("text", 5, "use a text"),
        ("choice", "third", "use one of one, other or None"),
        ("numbers", [0.5], "use a list of whole numbers or None"),
        ("numbers", "23", "use a list of whole numbers or None"),
        ("names", [None], "use a list of texts"),
    ],
)
def test_what_does_not_fit_is_named_with_what_does(name: str, value: Any, wanted: str) -> None:
    with pytest.raises(BadInput, match=wanted):
        as_declared(Several, {name: value})


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_takes_its_own_defaults_back(kind: str) -> None:
    usual = config_of(kind, {})
    assert config_of(kind, json.loads(json.dumps(dataclasses.asdict(usual)))) == usual


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("engram", {"rows": True}),
        ("engram", {"gate_value": "a"}),
        ("engram", {"table_rate": -1}),
        ("engram", {"learning_rate": "x"}),
        ("engram", {"epochs": 0}),
        ("engram", {"hash_seed": -1}),
        ("engram", {"seed": -1}),
        ("lora", {"epochs": 0}),
        ("gated_lora", {"batch": 0}),
        ("bias", {"learning_rate": 0}),
        ("fine_tune", {"epochs": 0}),
        ("bottleneck", {"batch": -1}),
        ("implicit", {"epochs": 0}),
        ("rank_one", {"layers": "last"}),
        ("lookup", {"candidates": "many"}),
    ],
)
def test_no_kind_is_made_with_what_cannot_be(kind: str, wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=next(iter(wrong))):
        config_of(kind, wrong)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("conv=False", False),
        ("conv=false", False),
        ("conv=True", True),
        ("layers=None", None),
        ("layers=[1,2]", [1, 2]),
        ("layout=span", "span"),
    ],
)
def test_the_command_line_reads_values_as_json_or_as_python_spells_them(
    text: str, value: Any
) -> None:
    assert option(text)[1] is value or option(text)[1] == value
