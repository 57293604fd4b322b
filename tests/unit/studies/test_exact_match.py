"""Exact match: ways are trained and asked, controls say nothing, whole keys change nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cases import FACTS, fresh, host_of
from engram_transformers.attach import attach
from engram_transformers.errors import BadInput
from engram_transformers.studies.exact_match import training
from engram_transformers.studies.exact_match.options import Options
from engram_transformers.studies.exact_match.study import conclude, measure, plan
from engram_transformers.studies.study import Done
from engram_transformers.training.fit import copied, fit
from engram_transformers.training.together import Together
from hosts import tiny, tiny_tokenizer

WAYS = ("bare host", "engram, whole keys", "engram and lora")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


def test_ways_are_trained_asked_and_controlled(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = training.taught

    def few(options: Options, *, seed: int) -> tuple[list, list]:
        facts, unseen = honest(options, seed=seed)
        return [*facts[:4], facts[-1]], unseen[:5]

    monkeypatch.setattr(training, "taught", few)
    options = Options(ways=WAYS, facts=170, late=1, epochs=60, host=str(folder))
    units = plan(options)
    done = [Done(unit, measure(unit, lambda *_: None), 1.0, {}) for unit in units]
    bare, spans, both = (one.measured for one in done)
    assert sum(right for right, _ in bare["taught"].values()) == 0
    assert bare["talk"][0] == bare["talk"][2]
    assert sum(right for right, _ in spans["taught"].values()) == 5
    assert spans["tables zeroed"][0] == 0 and spans["talk"][0] == spans["talk"][2]
    assert spans["other keys"][0] == 5 > both["other keys"][0]
    found = conclude(options, done)
    assert found.tables[0].title.startswith("170 keys")
    assert {row.name for row in found.tables[1].rows} >= {"bare host, CAPITAL", "bare host, SYN"}


def test_all_real_keys_are_taught_and_the_rest_is_drawn() -> None:
    facts, unseen = training.taught(Options(facts=300), seed=1)
    assert len(facts) == 300 == len({fact.prompt for fact in facts})
    assert sum(fact.relation != "SYN" for fact in facts) == 165
    assert not {fact.prompt for fact in facts} & set(unseen)
    again, _ = training.taught(Options(facts=300), seed=2)
    assert again != facts


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


@pytest.mark.parametrize("wrong", [{"facts": 10}, {"seeds": 0}, {"asked": 0}])
def test_options_make_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(BadInput):
        Options(**wrong)
    with pytest.raises(BadInput, match="there are bare host"):
        plan(replace(Options(), ways=("magic",)))
