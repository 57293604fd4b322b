"""Exact match: ways are trained and asked, controls say nothing, whole keys change nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cases import FACTS, fresh, host_of
from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput
from engram_transformers.evaluation.task import Question
from engram_transformers.studies.exact_match import study
from engram_transformers.studies.exact_match.options import Options
from engram_transformers.studies.exact_match.sets import Taught, taught
from engram_transformers.studies.exact_match.study import conclude, measure, plan
from engram_transformers.studies.study import Done
from engram_transformers.studies.trained import host_named
from engram_transformers.training.fit import copied, fit
from engram_transformers.training.together import Together
from engram_transformers.types import Fact
from hosts import tiny, tiny_tokenizer

WAYS = ("bare host", "engram, whole keys", "engram and lora")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def few(name: str, options: Options, *, seed: int) -> Taught:
    """A few of the keys, and patterns that need no data."""
    if name == "lookup":
        one = taught(name, options, seed=seed)
        return replace(one, facts=[*one.facts[:4], one.facts[-1]], others=one.others[:5])
    facts = [Fact(f"The port of {i} is", f"80{i}", relation="ports") for i in range(4)]
    held_out = [Question("The port of 9 is", ("809",), facts[0].id)]
    besides = {"held out": held_out, "other prefixes": [Question.about(facts[0], "Tell me: 0")]}
    kinds = {fact.id: "facts" for fact in facts}
    return Taught(facts, kinds, ["The port of 9 is"], besides, form="plain")


def test_ways_are_trained_asked_and_controlled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "taught", few)
    options = Options(ways=WAYS, sets=("lookup",), facts=170, late=1, epochs=60, host=str(folder))
    units = plan(options)
    done = [Done(unit, measure(unit, lambda *_: None), 1.0, {}) for unit in units]
    bare, spans, both = (one.measured for one in done)
    assert sum(count[0] for count in bare["taught"].values()) == 0
    assert bare["talk"][0] == bare["talk"][2]
    assert sum(count[0] for count in spans["taught"].values()) == 5
    assert spans["tables zeroed"][0] == 0 and spans["talk"][0] == spans["talk"][2]
    assert spans["not taught"][0] == 5 > both["not taught"][0]
    found = conclude(options, done)
    assert found.tables[0].title.startswith("170 keys")
    assert {row.name for row in found.tables[1].rows} >= {"bare host, CAPITAL", "bare host, SYN"}


def test_seeds_add_trainings_and_no_questions() -> None:
    options = Options(ways=("engram, n-grams", "engram, unigram"), sets=("lookup",), seeds=2)
    runs = [
        {"taught": {"A": [hits, hits, 4], "B": [2, 2, 2]}, "epochs": epochs, "loss": 0.5,
         "parameters": size, "besides": {}, "not taught": [3, 3, 4], "talk": [5, 5, 5]}
        for hits, epochs, size in ((4, 20, 900), (3, 5, 900), (4, 7, 100), (4, 7, 100))
    ]  # fmt: skip
    units = plan(options)
    found = conclude(options, [Done(u, r, 1.0, {}) for u, r in zip(units, runs, strict=True)])
    overall, parts, _ = found.tables
    n_grams, unigram = overall.rows
    assert (n_grams.n, n_grams.seeds) == (6, 2) and n_grams.value == pytest.approx(11 / 12)
    assert n_grams.more == {
        "parameters": 900, "epochs": 12.5, "last loss": 0.5, "seeds at the cap": 1,
    }  # fmt: skip
    assert unigram.more["seeds at the cap"] == 0 and unigram.value == 1
    assert (parts.rows[0].n, parts.rows[0].value) == (4, 0.875)
    assert "900 numbers, `engram, unigram` 100" in found.notes[-1]


def test_patterns_are_completed_as_plain_text(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "taught", few)
    options = Options(
        ways=("engram, n-grams",), sets=("patterns",), epochs=80, rows=50, host=str(folder)
    )
    (unit,) = plan(options)
    one = Done(unit, measure(unit, lambda *_: None), 1.0, {})
    assert one.measured["taught"] == {"facts": [4, 4, 4]}
    assert one.measured["besides"]["held out"] == [0, 0, 1]
    assert host_named(str(folder)).tokens.form is None
    titles = [table.title for table in conclude(options, [one]).tables]
    assert titles[0] == "patterns: answers said exactly" and len(titles) == 5


def test_a_control_is_of_the_size_of_the_engram_on_the_same_facts(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "taught", few)
    options = Options(facts=170, late=1, epochs=2, asked=1, host=str(folder))
    options = replace(options, ways=("engram, whole keys", "bottleneck, same size", "bottleneck"))
    for units in (plan(replace(options, sets=(name,))) for name in options.sets):
        engram, same, usual = (measure(unit, lambda *_: None)["parameters"] for unit in units)
        assert abs(same - engram) < 0.01 * engram < abs(usual - engram)


@pytest.mark.parametrize("way", ["engram, content", "engram, n-grams and content"])
def test_rows_are_found_by_content(way: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "taught", few)
    options = Options(ways=(way,), sets=("patterns",), epochs=120, rows=50, host=str(folder))
    (unit,) = plan(options)
    found = measure(unit, lambda *_: None)
    assert found["taught"]["facts"][0] >= 2 and found["tables zeroed"][0] == 0
    # It reads something on every token.
    assert found["talk"][0] == 0


def test_a_set_has_settings_of_its_own() -> None:
    options = Options(ways=("lora",))
    keys, patterns = plan(options)
    more_keys, same = plan(replace(options, facts=5000))
    assert patterns.digest == same.digest and keys.digest != more_keys.digest


def test_all_real_keys_are_taught_and_the_rest_is_drawn() -> None:
    one = taught("lookup", Options(facts=300), seed=1)
    assert len(one.facts) == 300 == len({fact.prompt for fact in one.facts})
    assert sum(fact.relation != "SYN" for fact in one.facts) == 165
    assert not {fact.prompt for fact in one.facts} & set(one.others)
    assert taught("lookup", Options(facts=300), seed=2).facts != one.facts


def test_memories_are_trained_together_and_come_back_together() -> None:
    host = host_of("llama")
    memories = [fresh("engram", host), fresh("lora", host)]
    with attach(host.model, memories[0]), attach(host.model, memories[1]):
        together = Together(memories)
        before = copied(together)
        fit(host.adapter, host.tokens, together, FACTS)
        after = copied(together)
        moved = {n.partition(".")[0] for n in after if not before[n].equal(after[n])}
        assert moved == {"0", "1"}
        together.load_state_dict(before)
        assert all(before[n].equal(t) for n, t in together.state_dict().items())


@pytest.mark.parametrize("wrong", [{"facts": 10}, {"seeds": 0}, {"asked": 0}, {"sets": ("x",)}])
def test_options_make_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Options(**wrong)
    with pytest.raises(BadInput, match="there are bare host"):
        plan(replace(Options(), ways=("magic",)))
