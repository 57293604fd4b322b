"""engram gate: a gate from the command line, and a memory behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engram_transformers.training.gate_prompts import held_out_prompts, training_prompts


def test_a_gate_is_trained_scored_drawn_and_used(
    engram: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = engram("gate", "-o", "gate", "--save-plot", "curve.png", "--json")
    found = ran.json
    assert ran.status == 0 and found["held_out"]["n"] == len(held_out_prompts())
    assert found["trained"] + found["calibrated"] == len(training_prompts())
    assert set(found["by_kind"]) == {one.kind for one in held_out_prompts()}
    assert Path("curve.png").read_bytes().startswith(b"\x89PNG")
    options = ("--set", "route=learned", "--set", "route_gate=gate", "--set", "layout=span")
    Path("ports.jsonl").write_text('{"prompt": "PORT:SSH", "answer": "22"}')
    taught = engram("teach", "ports.jsonl", "-M", "m", "--kind", "engram", *options)
    assert taught.status in (0, 1)  # a random host need not open for it
    monkeypatch.chdir("gate")  # the gate is found from any directory
    assert engram("ask", "PORT:SSH", "-M", "../m", "--max-new-tokens", "1").status == 0


def test_people_see_the_score_and_how_to_use_it(engram: Any) -> None:
    ran = engram("gate", "-o", "gate", "--net", "-l", "0")
    assert "precision" in ran.out and "behind block 0" in ran.out and "mention" in ran.out
    assert "--set route_gate=gate" in ran.err


def test_what_cannot_be_kept_is_told_at_once(engram: Any) -> None:
    ran = engram("gate", "-o", "gate", "--save-plot", "nowhere/c.png", "-m", "./no-model")
    assert ran.status == 1 and "its directory does not exist" in ran.err
    assert not Path("gate").exists()
    Path("gate").mkdir()
    Path("gate/gate.json").write_text("{}")
    ran = engram("gate", "-o", "gate", "-m", "./no-model")
    assert ran.status == 1 and "name another" in ran.err
    assert Path("gate/gate.json").read_text() == "{}"


def test_a_block_that_is_not_there(engram: Any) -> None:
    ran = engram("gate", "-o", "gate", "-l", "9")
    assert ran.status == 2 and "layer 9" in ran.err
