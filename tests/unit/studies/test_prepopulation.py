"""Rows that were written rather than trained: the closed form is read, the seed's way is not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engram_transformers.api import Host, load
from engram_transformers.errors import BadInput
from engram_transformers.studies.prepopulation.options import Options
from engram_transformers.studies.prepopulation.study import conclude, facts_of, measure, plan
from engram_transformers.studies.prepopulation.writing import WAYS, Bench, open_memory, targets
from engram_transformers.studies.study import Done
from hosts import tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def host(folder: Path) -> Host:
    return load(str(folder))


def small(folder: Path, **changes: object) -> Options:
    given = {"layers": (-1,), "facts": 6, "seeds": 1, "epochs": 40, "scale": 40.0}
    return Options(host=str(folder), **{**given, **changes})


def test_facts_and_others_are_apart() -> None:
    facts, others = facts_of("real", 30, seed=1)
    assert len(facts) == len(others) == 30 and facts_of("real", 30, seed=1) == (facts, others)
    assert not {f.prompt for f in facts} & {f.prompt for f in others}
    assert all(fact.prompt.startswith("SYN:") for fact in facts_of("random", 9, seed=0)[0])


def test_every_token_of_every_answer_has_a_row_and_the_end_has_one(
    host: Host, folder: Path
) -> None:
    options = small(folder)
    facts, others = facts_of("real", 3, seed=0)
    memory = open_memory(host, -1, options, seed=0)
    memory.expect(facts)
    found = targets(Bench(host, memory, -1, facts, others, options, 0), facts)
    rows = [row for row, _, _ in found]
    assert len(set(rows)) == len(rows) and set(rows) <= set(range(memory.spans.rows))
    for fact in facts:
        wanted = host.tokens.answer_ids(fact.prompt, fact.answer, form="chat")
        assert [token for _, token, own in found if own == fact] == wanted


def test_ways_are_told_apart(folder: Path) -> None:
    options = small(folder, sets=("random",))
    units = plan(options)
    assert len(units) == len(WAYS) and len({unit.file for unit in units}) == len(units)
    done = [Done(unit, measure(unit, lambda *_: None), 1.0, {}) for unit in units]
    right = {one.unit.settings["way"]: one.measured["right"] for one in done}
    assert right["bare host"] == 0 and right["random projection, answer embeddings"] == 0
    assert right["closed form"] >= 5 and right["trained"] >= 5
    [table] = conclude(options, done).tables
    assert [row.n for row in table.rows] == [6] * len(WAYS)


def test_it_is_repeatable_and_leaves_the_host_alone(host: Host, folder: Path) -> None:
    [unit] = plan(small(folder, ways=("closed form",), sets=("real",)))
    assert measure(unit, lambda *_: None) == measure(unit, lambda *_: None)
    ids = torch.tensor([[5, 9, 7]])
    with torch.no_grad():
        assert torch.equal(host.model(ids).logits, load(str(folder)).model(ids).logits)


@pytest.mark.parametrize("wrong", [{"sets": ("odd",)}, {"facts": 0}, {"scale": 0.0}])
def test_options_make_sense(folder: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(BadInput):
        small(folder, **wrong)
    with pytest.raises(BadInput, match="there are bare host"):
        plan(replace(small(folder), ways=("magic",)))
