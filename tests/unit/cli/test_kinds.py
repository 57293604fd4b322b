"""Trained memories from the command line."""

from __future__ import annotations

import json

import pytest

FACT = ("--prompt", "Who rules?", "--answer", "Ada")


@pytest.fixture
def trained(engram) -> str:
    assert engram("teach", *FACT, "-M", "mem", "--kind", "bias", "--no-check").status == 0
    return "mem"


def test_the_kind_of_a_new_memory(engram, trained):
    found = engram("stats", "-M", trained, "--json").json
    assert found["kind"] == "bias" and found["active"] == 1
    assert found["files"]["tensors-1.safetensors"] > 0


def test_a_misspelt_kind_is_refused_before_anything_is_loaded(engram, tmp_path):
    ran = engram("teach", *FACT, "-M", "mem", "--kind", "botleneck")
    assert ran.status == 2 and "bottleneck" in ran.err
    assert not (tmp_path / "mem").exists()


def test_another_kind_for_an_existing_memory_is_refused(engram, trained):
    ran = engram("teach", *FACT, "-M", trained, "--kind", "lookup")
    assert ran.status == 2 and "is a bias memory, not lookup" in ran.err


def test_options_of_lookup_are_no_options_of_others(engram):
    ran = engram("teach", *FACT, "-M", "mem", "--kind", "bias", "--address", "exact")
    assert ran.status == 2 and "no option 'address'" in ran.err


def test_what_does_not_hold_is_refused_and_the_status_says_so(engram):
    # A bias in a tiny host holds nothing for long.
    long = ("--prompt", "Who?", "--answer", "Ada of a b c d e f g h i j k l m n o p q r s t u")
    ran = engram("teach", *long, "-M", "mem", "--kind", "bias", "--json")
    assert ran.status == 1 and ran.json["taught"] == [] and ran.json["write"] is None
    assert "the host says" in ran.json["refused"][0]["reason"]


@pytest.mark.parametrize(
    "argv", [("forget", "--all", "-y"), ("forget", "--all", "--dry-run"), ("undo",)]
)
def test_forgetting_and_undoing_say_what_to_do_instead(engram, trained, argv):
    ran = engram(*argv, "-M", trained)
    assert ran.status == 2 and "to a new memory" in ran.err
    assert engram("list", "-M", trained, "--json").json["total"] == 1


def test_the_other_commands_work(engram, trained, tmp_path):
    [fact] = engram("list", "-M", trained, "--json").json["facts"]
    assert engram("show", fact["id"], "-M", trained, "--spans", "--json").json["spans"] == []
    assert engram("verify", "-M", trained, "--json").status in (0, 1)
    assert engram("export", "out.jsonl", "-M", trained).status == 0
    assert json.loads((tmp_path / "out.jsonl").read_text())["answer"] == "Ada"
    asked = engram("ask", "Who rules?", "-M", trained, "--explain")
    assert asked.status == 0 and "acts on every token" in asked.out
    assert engram("undo", "--list", "-M", trained).status == 0
