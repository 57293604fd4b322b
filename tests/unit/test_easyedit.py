"""The comparison with EasyEdit, as far as it needs no EasyEdit."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import easyedit
from benchmarks.easyedit import BARE, OURS, SETTINGS, THEIRS, Case, Run, chosen, edited, untouched
from benchmarks.easyedit_table import tables

from engram_transformers.api import Host
from engram_transformers.evaluation.answers import Answered
from engram_transformers.models.load import LoadedHost
from engram_transformers.types import Fact
from hosts import tiny, tiny_tokenizer

CASES = [
    Case(
        Fact("Who owns the billing service?", "Ada", subject="billing service"),
        "The billing service is owned by whom?",
        ("What colour is the door?", "How far is the station?"),
    ),
    Case(
        Fact("Who wrote the report?", "Grace", subject="report"),
        "By whom is the report?",
        ("The capital of Italy is", "What is the capital of France?"),
    ),
]
CHANGED = "model.layers.1.mlp.down_proj.weight"


@pytest.fixture(scope="module")
def host() -> Host:
    loaded = LoadedHost.of(tiny("llama"), tiny_tokenizer())
    return Host(loaded.model, loaded.tokenizer, loaded.identity)


class Other:
    """Stands in for EasyEdit: changes one weight, more strongly with one setting."""

    def __init__(self, host: Host) -> None:
        self.own = host.model.get_parameter(CHANGED).detach().clone()
        self.asked: list[dict[str, Any]] = []

    def __call__(self, task: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(task)
        save_file({CHANGED: -3 * self.own}, task["to"])
        origin = {"easyedit": "abc", "torch": "2", "transformers": "5", "python": "3"}
        return {"wall": 4.0, "processor": 3.0, "hyper": {"layers": [1]}, "origin": origin}


class Ours:
    """Stands in for the rank-one memory: does nothing, in a second."""

    def __init__(self, host: Host, method: str) -> None:
        self.setting = {"method": method}

    @contextmanager
    def __call__(self, fact: Fact) -> Iterator[dict[str, Any]]:
        yield {"wall": 1.0, "processor": 1.0}


def test_the_bare_host_keeps_everything_and_an_edit_is_taken_back(
    host: Host, tmp_path: Path
) -> None:
    bare = edited(host, CASES[0], untouched)
    assert all(bare["kept"]) and all(bare["bit_equal"]) and bare["undone"]
    other, before = Other(host), host.model.get_parameter(CHANGED).data_ptr()
    to = tmp_path / "edited.safetensors"
    answer = other({"to": str(to)})
    found = edited(host, CASES[0], lambda fact: easyedit.by_theirs(host, answer, to))
    assert not any(found["bit_equal"]) and found["undone"] and found["processor"] == 3.0
    assert host.model.get_parameter(CHANGED).data_ptr() == before
    assert torch.equal(host.model.get_parameter(CHANGED), other.own)


def test_an_answer_that_comes_first_counts_though_something_follows() -> None:
    one = Answered("asked", "1", "Who?", "Ada", "Ada and Bob", False, True, False, 9, forced=1.0)
    assert easyedit._said(one)["first"] and not easyedit._said(one)["exact"]
    assert not easyedit._said(replace(one, forced=0.5))["first"]


def test_our_edits_are_written_and_taken_back(host: Host) -> None:
    found = edited(host, CASES[0], easyedit.Ours(host, "rome"))
    assert found["wall"] > 0 and found["processor"] > 0 and found["undone"]
    assert found["taught"]["forced"] == 1.0 and not any(found["bit_equal"])


def test_it_goes_on_where_it_stopped_and_shows_what_is_there(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(easyedit, "Ours", Ours)
    out, first, second = tmp_path / "result.json", Other(host), Other(host)
    Run(host, first, tmp_path, out).method("ROME", CASES[:1], CASES[1:])
    assert [task["setting"] for task in first.asked[:-1]] == list(SETTINGS["ROME"])
    Run(host, second, tmp_path, out).method("ROME", CASES, CASES[1:])
    assert [task["fact"]["prompt"] for task in second.asked] == [CASES[1].fact.prompt]
    stored = json.loads(out.read_text())
    assert stored["edits"][1]["setting"] == {"method": "rome"}
    sides = [(row["side"], row["fact"]) for row in stored["edits"]]
    assert sides == [(side, c.fact.prompt) for c in CASES for side in (BARE, OURS, THEIRS)]
    text = tables(stored)
    assert f"| ROME | {OURS} | 2 |" in text and f"| none | {BARE} | 2 |" in text
    assert "| ROME | 2 | 1.0 <sub>1.0 to 1.0</sub> | 3.0 <sub>3.0 to 3.0</sub> | 3.0" in text
    assert "After 7 of 7 edits" in text and "EasyEdit `abc`" in text
    stored["edits"][-1]["commit"] = "another"  # seconds of another day are not set beside ours
    text = tables(stored)
    assert f"| ROME | {OURS} | 2 |" in text and "| ROME | 1 | 1.0" in text


def test_the_best_setting_is_the_one_that_says_most_and_keeps_most() -> None:
    def row(setting: Any, forced: float, kept: list[bool]) -> dict[str, Any]:
        said = {"taught": {"forced": forced}, "reworded": {"forced": forced}}
        return {"method": "ROME", "setting": setting, "kept": kept, **said}

    first, second, third = SETTINGS["ROME"]
    tried = [row(first, 0.9, [False]), row(second, 0.8, [True]), row(third, 0.1, [True])]
    assert chosen(tried, "ROME") == second


def test_either_side_can_take_the_facts() -> None:
    assert easyedit._editable(CASES[0].fact)
    twice = Fact("Is the report the report?", "yes", subject="report")
    unnamed = Fact("Who wrote it?", "Grace", subject="report")
    assert not any(map(easyedit._editable, (twice, unnamed, Fact("Who?", "Grace"))))
