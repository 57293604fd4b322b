"""`introspect`: the seed's options, sections and keys, planted hosts, bad input, plots."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engram_transformers import api
from engram_transformers.introspection import pictures
from engram_transformers.introspection.retrieval import Retrieval
from engram_transformers.types import HostIdentity
from hosts import HIDDEN, tiny, tiny_tokenizer
from planted import PlantedStates

FACTS = [
    {"query": "The capital of France is", "answer": "Paris", "category": "south"},
    {"query": "The capital of Italy is", "answer": "Rome", "category": "south"},
    {"query": "The owner is", "answer": "Ada Lovelace", "category": "people"},
    {"query": "The author is", "answer": "Grace Hopper", "category": "people"},
    {"query": "The door is", "answer": "Green", "category": "things"},
]


@pytest.fixture
def own(tmp_path: Path) -> str:
    (tmp_path / "own.json").write_text(json.dumps(FACTS))
    return "@own.json"


def test_the_sections_and_keys_are_those_of_the_seed(engram: Any) -> None:
    ran = engram("introspect", "memory", "--facts", "multiplication", "--top-k", "3",
                 "-o", "memory.json", "--classify")  # fmt: skip
    assert ran.status == 0
    for title in ("MEMORY NEIGHBORHOOD ANALYSIS", "MEMORY ORGANIZATION", "ASYMMETRY ANALYSIS",
                  "ATTRACTOR NODES", "RETRIEVAL", "DIFFICULTY"):  # fmt: skip
        assert f"{'=' * 70}\n{title}\n{'=' * 70}" in ran.out
    assert re.search(r"Analyzing 64 multiplication facts at layer \d", ran.out)
    assert "Query: 2*2=\nExpected: 4\nTop 3 neighbors:\n  1. " in ran.out
    assert re.search(r"\d\. \d\*\d= \(sim: -?\d\.\d{3}\) \[same row\]", ran.out)
    lines = (
        r"Same-row similarity: +-?\d\.\d{3} ± \d\.\d{3}",
        r"Same-column similarity:",
        r"Cross similarity:",
        r"Organization: [A-Z-]+",
        r"Asymmetry score: 0\.\d{3}",
    )
    for line in lines:
        assert re.search(line, ran.out)
    found = json.loads(Path("memory.json").read_text())
    schema = {
        "model_id": str, "layer": int, "fact_type": str, "num_facts": int, "organization": dict,
        "asymmetry": float, "attractors": list, "neighborhoods": dict,
    }  # fmt: skip
    assert all(isinstance(found[name], kind) for name, kind in schema.items())
    assert {"type", "same_row_sim", "same_col_sim", "cross_sim"} <= found["organization"].keys()
    assert found["num_facts"] == len(found["neighborhoods"]) == 64
    one = found["neighborhoods"]["7*8="]
    assert one["expected"] == "56" and len(one["neighbors"]) == 3
    assert {"fact", "similarity", "relation"} <= one["neighbors"][0].keys()
    for hub in found["attractors"]:
        assert {"fact", "strength"} <= hub.keys()
    assert len(found["retrieval"]["facts"]) == 64


@pytest.mark.parametrize(
    "line",
    [
        "lazarus introspect memory -m MODEL --facts multiplication",
        "lazarus introspect memory -m MODEL --facts capitals -l 1 -o capital_memory.json",
        "lazarus introspect memory -m MODEL --facts multiplication --top-k 10 -o memory.json",
    ],
)
def test_the_examples_of_the_seed_run(engram: Any, host_folder: Path, line: str) -> None:
    ran = engram(*line.replace("MODEL", str(host_folder)).split()[1:])
    assert ran.status == 0 and "MEMORY NEIGHBORHOOD ANALYSIS" in ran.out
    for name in re.findall(r"-o (\S+)", line):
        assert json.loads(Path(name).read_text())["neighborhoods"]


def test_lazarus_is_the_same_program() -> None:
    text = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    programs = tomllib.loads(text)["project"]["scripts"]
    assert programs["lazarus"] == programs["engram"]


def organised_by(key: Callable[[str, str], object]) -> api.Host:
    """A tiny host whose second block's states of `a*b=` share what `key` says of a and b."""
    host = api.Host(tiny("llama"), tiny_tokenizer(), HostIdentity("planted", "0"))
    generator, shared = torch.Generator().manual_seed(0), dict[object, torch.Tensor]()

    def state(text: str) -> torch.Tensor | None:
        match = re.fullmatch(r"(\d)\*(\d)=", text)
        if match is None:
            return None
        for name in (key(*match.groups()), ("own", text)):
            if name not in shared:
                shared[name] = torch.randn(HIDDEN, generator=generator)
        return 2 * shared[key(*match.groups())] + shared["own", text]

    PlantedStates(host, 1, state)
    return host


@pytest.mark.parametrize(
    "key, type",
    [
        (lambda a, b: a, "row-dominant"),
        (lambda a, b: b, "column-dominant"),
        (lambda a, b: int(a) * int(b), "answer-dominant"),
        (lambda a, b: frozenset((a, b)), "commutative-dominant"),
        (lambda a, b: (a, b), "none"),
    ],
)
def test_a_planted_organisation_is_named(
    engram: Any, monkeypatch: pytest.MonkeyPatch, key: Callable[[str, str], object], type: str
) -> None:
    monkeypatch.setattr(api, "load", lambda id: organised_by(key))
    argv = ("introspect", "memory", "-l", "1", "--view", "neighbours")
    ran = engram(*argv)
    assert ran.status == 0 and f"Organization: {type.upper()}" in ran.out
    row, column = "(6*2, 6*3, 6*4...)", "(2*6, 3*6, 4*6...)"
    shown = {"row-dominant": [row, column], "column-dominant": [column, row]}.get(type, [])
    assert re.findall(r"\(\d\*.*\)$", ran.out.partition(type.upper())[2], re.M) == shown
    found = engram(*argv, "--json").json
    relations = found["organization"]["relations"]
    sure = {name for name, one in relations.items() if one["p"] < 0.05}
    expected = {
        "row-dominant": {"same_row"},
        "column-dominant": {"same_column"},
        "answer-dominant": {"same_answer", "commutative"},
        "commutative-dominant": {"commutative"},
        "none": set(),
    }
    assert found["organization"]["type"] == type and sure == expected[type]
    assert found["retrieval"] is None and found["layer"] == 1


def test_an_attractor_is_named(engram: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    host = api.Host(tiny("llama"), tiny_tokenizer(), HostIdentity("planted", "0"))
    generator = torch.Generator().manual_seed(0)

    def state(text: str) -> torch.Tensor | None:
        if re.fullmatch(r"\d\*\d=", text) is None:
            return None
        # In the middle of all, and so near to each.
        return torch.ones(HIDDEN) + (text != "5*5=") * 2 * torch.randn(HIDDEN, generator=generator)

    PlantedStates(host, 1, state)
    monkeypatch.setattr(api, "load", lambda id: host)
    argv = ("introspect", "memory", "-l", "1", "--view", "neighbours", "--similarity", "raw")
    ran = engram(*argv)
    assert re.search(r"5\*5= appears in \d\d/64 neighborhoods \(attractor strength: 0\.\d", ran.out)


def test_facts_of_ones_own_have_categories(engram: Any, own: str) -> None:
    ran = engram("introspect", "memory", "--facts", own, "-l", "all", "--permutations", "99")
    assert ran.status == 0 and "Same-category similarity" in ran.out
    assert "Same-row" not in ran.out and "ASYMMETRY" not in ran.out
    found = engram("introspect", "memory", "--facts", own, "-l", "-1", "--json", "--chat").json
    assert found["organization"]["same_row_sim"] is None and found["asymmetry"] is None
    assert found["fact_type"] == "own.json" and found["layer"] == 1


def test_operands_are_read_from_csv_and_from_prompts(engram: Any, tmp_path: Path) -> None:
    rows = [f"{a}+{b}=,{a + b}" for a in (1, 2, 3) for b in (1, 2, 3)]
    (tmp_path / "sums.csv").write_text("prompt,answer\n" + "\n".join(rows))
    argv = ("introspect", "memory", "--facts", "@sums.csv", "--view", "neighbours", "-l", "0")
    found = engram(*argv, "--json").json
    assert found["asymmetry"] is not None and found["organization"]["same_row_sim"] is not None


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("wrong.csv", "town,mayor\nBonn,Ada\n", "need the columns prompt and answer"),
        ("empty.json", "[]", "holds no facts"),
        ("few.json", json.dumps(FACTS[:2]), "neighbourhoods need 4"),
        ("twice.json", json.dumps([*FACTS, FACTS[1]]), "facts 2 and 6 have the same prompt"),
        ("half.json", json.dumps([*FACTS, {**FACTS[0], "operand_a": 1}]), "one operand is missing"),
        (
            "some.json",
            json.dumps([*FACTS, {"query": "x", "answer": "y", "operand_a": 1, "operand_b": 2}]),
            "1 of 6 facts have operands",
        ),
        ("blank.json", json.dumps([*FACTS, {"query": "who?", "answer": " "}]), "answer is empty"),
    ],
)
def test_bad_fact_files(engram: Any, tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    ran = engram("introspect", "memory", "--facts", f"@{name}")
    assert ran.status == 2 and words in ran.err


@pytest.mark.parametrize(
    "argv, words",
    [
        (["memory", "-l", "7"], "2 blocks, 0 to 1"),
        (["memory", "-l", "middle"], "a number, auto or all"),
        (["memory", "--facts", "primes"], "multiplication, addition, capitals, elements or @FILE"),
        (["memory", "--facts", "@nowhere.json"], "no file nowhere.json"),
        (["memory", "--top-k", "0"], "whole number from 1"),
        (["memroy"], "did you mean 'introspect memory'"),
        (["commutativity", "--facts", "capitals"], "no two facts"),
        (["patch", "--source", "a", "--target", "b", "-l", "x"], "numbers such as"),
        (["patch", "--source", "a", "--target", "b", "-l", "9"], "2 blocks"),
        (["patch", "--source", "a", "--target", "b", "--blend", "2"], "from 0 to 1"),
        (["arithmetic", "--operations", "roots"], "no operation is called 'roots'"),
        (["trace", "--prompt", "The door is", "--subject", "window"], "not in the prompt"),
    ],
)
def test_bad_input(engram: Any, argv: list[str], words: str) -> None:
    ran = engram("introspect", *argv)
    assert ran.status == 2 and words in ran.err


def test_the_family_is_listed(engram: Any) -> None:
    for argv in (["introspect"], ["introspect", "--help"]):
        ran = engram(*argv)
        assert ran.status == 0 and "introspect trace" in ran.out and "teach" not in ran.out
    assert "usage: engram introspect memory" in engram("introspect", "memory", "--help").out


NEIGHBOURS = {
    "commutativity": ["--permutations", "99"],
    "patch": ["--source", "The capital of France is", "--target", "The capital of Italy is",
              "--source-answer", "Paris", "--target-answer", "Rome"],
    "arithmetic": ["--n", "2", "--shots", "1"],
    "trace": ["--prompt", "The capital of France is", "--subject", "France", "--answer", "Paris",
              "--samples", "2"],
}  # fmt: skip


@pytest.mark.parametrize("name", NEIGHBOURS)
def test_neighbouring_commands_print_keep_and_draw(engram: Any, name: str) -> None:
    pytest.importorskip("matplotlib")
    ran = engram("introspect", name, *NEIGHBOURS[name], "-o", "x.json", "--save-plot", "x.png")
    assert ran.status == 0 and ran.out.startswith("=" * 70)
    assert json.loads(Path("x.json").read_text())["model_id"]
    assert Path("x.png").read_bytes().startswith(b"\x89PNG")
    assert engram("introspect", name, *NEIGHBOURS[name], "--json").json["model_id"]


@pytest.mark.parametrize("argv", [[], ["-l", "0", "--view", "neighbours"], ["--view", "retrieval"]])
def test_every_view_can_be_drawn(engram: Any, own: str, argv: list[str]) -> None:
    pytest.importorskip("matplotlib")
    ran = engram("introspect", "memory", "--facts", own, *argv, "--save-plot", "x.png")
    assert ran.status == 0 and Path("x.png").read_bytes().startswith(b"\x89PNG")


def test_titles_name_the_layer_axes_the_operands_and_names_stand_at_their_lines(
    engram: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    drawn: list[Any] = []
    monkeypatch.setattr(pictures, "_save", lambda figure, path: drawn.append(figure))
    plot = ("--permutations", "99", "-l", "0", "--save-plot", "x.png")
    engram("introspect", "memory", *plot)
    ran = engram("introspect", "commutativity", *plot)
    assert re.search(r"^At layer 0 A\*B and B\*A are ", ran.out, re.M)
    engram("introspect", "arithmetic", "--n", "2", "--save-plot", "x.png")
    titles = [figure.texts[0].get_text() for figure in drawn]
    assert all("at layer 0" in title for title in titles[:2])
    assert max(map(len, titles[1].splitlines())) <= 470 / 7.8  # one panel's width
    labels = [(axes.get_xlabel(), axes.get_ylabel()) for axes in drawn[0].axes]
    assert ("second operand", "first operand") in labels
    named = [note for axes in drawn[2].axes for note in axes.texts]
    assert len(named) == 3 and all(abs(one.xyann[1] - one.xy[1]) < 0.1 for one in named)


def test_a_single_fact_of_a_class_has_a_mark(engram: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = {"memorised": 1, "partial": 0, "weak": 0, "not known": 63}
    monkeypatch.setattr(Retrieval, "classes", lambda seen: drawn)
    ran = engram("introspect", "memory", "--view", "retrieval")
    assert re.search(r"memorised +1  #\n  partial +0 +\n", ran.out)


def test_a_place_for_results_that_is_not_there_is_told_first(engram: Any) -> None:
    ran = engram("introspect", "memory", "-o", "nowhere/x.json")
    assert ran.status == 1 and "does not exist" in ran.err
    Path("made").mkdir()
    for option in ("-o", "--save-plot"):
        ran = engram("introspect", "memory", option, "made")
        assert ran.status == 1 and "is a directory" in ran.err
