"""The laws for memories of vectors, which act on what `Host.prompts` composes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cases import DOOR, FACTS, INJECTED, PORT, REPORT, SILENT, host_of, injected, teach
from conftest import traces
from engram_transformers.api import Host
from engram_transformers.attaching import attach, detach, prompt_ends
from engram_transformers.evaluation.silence import bare, bit_equal
from engram_transformers.memories.shared.statements import told

HOSTS = ("llama", "gemma2", "gpt2")
ASKED = tuple(fact.prompt for fact in FACTS)


@pytest.fixture(params=HOSTS)
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    found = host_of(request.param)
    before = traces(found.model)
    yield found
    detach(found.model)
    assert traces(found.model) == before


@pytest.fixture(params=INJECTED)
def memory(request: pytest.FixtureRequest, host: Host) -> Any:
    made = injected(request.param, host)
    made.variant = request.param
    return made


def prompts(host: Host, questions: tuple[str, ...]) -> list[list[int]]:
    return host.prompts(questions, form=host.tokens.ask_form)


@torch.no_grad()
def logits(host: Host, ids: list[int], behind: tuple[int, ...] = (5, 9)) -> Tensor:
    """Of a prompt with some tokens behind it."""
    with prompt_ends(host.model, [len(ids)]):
        return host.model(input_ids=torch.tensor([[*ids, *behind]])).logits


def test_fresh_silent_taught_and_forgotten(host: Host, memory: Any) -> None:
    quiet, asked = prompts(host, SILENT), prompts(host, ASKED)
    before = [logits(host, ids) for ids in (*quiet, *asked)]
    attach(host.model, memory)
    assert prompts(host, (*SILENT, *ASKED)) == [*quiet, *asked]
    assert all(map(torch.equal, before, (logits(host, ids) for ids in (*quiet, *asked))))
    ids = teach(memory)
    assert prompts(host, SILENT) == quiet
    assert bit_equal(host.adapter, quiet) == [True] * len(quiet)
    composed = prompts(host, ASKED)
    assert all(a != b for a, b in zip(composed, asked, strict=True))
    assert bit_equal(host.adapter, composed) == [False] * len(composed)
    memory.remove(ids)
    assert len(memory) == 0 and prompts(host, ASKED) == asked
    assert all(map(torch.equal, before, (logits(host, ids) for ids in (*quiet, *asked))))
    assert bit_equal(host.adapter, composed) == [True] * len(composed)


def test_other_wordings_find_the_fact_and_forgetting_one_leaves_the_others(
    host: Host, memory: Any
) -> None:
    attach(host.model, memory)
    teach(memory)
    assert memory.explain("which port does BILLING use").fact == PORT.id
    assert memory.explain(DOOR.paraphrases[0]).address == "exact"
    [report] = prompts(host, (REPORT.prompt,))
    before = logits(host, report)
    memory.remove([PORT.id])
    assert not memory.explain(PORT.prompt).fired and memory.explain(REPORT.prompt).fired
    assert torch.equal(logits(host, report), before)


def test_cached_chunked_and_batched_say_the_same(host: Host, memory: Any) -> None:
    attach(host.model, memory)
    teach(memory)
    asked = prompts(host, ASKED[:3])
    alone = [host.generate([ids], max_new_tokens=8)[0] for ids in asked]
    assert host.generate(asked, max_new_tokens=8) == alone
    ids = torch.tensor([asked[0]])
    options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    options["attention_mask"] = torch.ones_like(ids)
    cached = host.model.generate(input_ids=ids, **options)
    assert torch.equal(cached, host.model.generate(input_ids=ids, **options, use_cache=False))
    if host.model.config.model_type != "gemma2":  # its window takes no chunks
        chunked = host.model.generate(input_ids=ids, **options, prefill_chunk_size=7)
        assert torch.equal(cached, chunked)


def test_detaching_restores_the_host(host: Host, memory: Any) -> None:
    trace, composed = traces(host.model), []
    teach(memory)
    with attach(host.model, memory):
        composed = prompts(host, ASKED[:2])
        spoken = [logits(host, ids) for ids in composed]
        assert sorted(host.model.state_dict()) == trace[2]
    assert traces(host.model) == trace
    assert not any(
        torch.equal(a, logits(host, ids)) for a, ids in zip(spoken, composed, strict=True)
    )


def test_what_is_stored_acts_as_what_was_written(host: Host, tmp_path: Path) -> None:
    options = {"way": "keys_values", "address": "exact"}
    with host.open_memory(tmp_path / "m", kind="activation", **options) as memory:
        receipt = memory.teach([PORT, REPORT], check=False)
        before = [logits(host, ids) for ids in prompts(host, ASKED[:2])]
    with host.open_memory(tmp_path / "m") as memory:
        assert all(
            map(torch.equal, before, (logits(host, ids) for ids in prompts(host, ASKED[:2])))
        )
        memory.undo()
        assert len(memory) == 0 and receipt.ids


def test_keys_and_values_are_those_of_the_text(host: Host) -> None:
    memory = injected("keys_values", host)
    teach(memory)
    board = memory.board
    for fact in (PORT, REPORT):
        states = board.facts[board.numbers[fact.id]][2]
        given = board.given(states)
        head, tail = board.parts(fact.prompt, given)
        text = [*head, *host.tokens.encode(told(fact)), *tail]
        expected = logits(host, text)[0, -len(tail) - 2 :]
        with attach(host.model, memory):
            [composed] = prompts(host, (fact.prompt,))
            found = logits(host, composed)[0, -len(tail) - 2 :]
        assert torch.allclose(found, expected, atol=2e-4, rtol=1e-4)


def test_what_is_not_said_then_is_refused(tmp_path: Path) -> None:
    host = host_of("llama")
    options = {"address": "exact", "slots": 3, "steps": 3}
    with host.open_memory(tmp_path / "m", kind="soft_prompt", **options) as memory:
        receipt = memory.teach([PORT, DOOR])
        # A random host hardly looks at what stands before a question.
        assert not receipt.ids and len(memory) == 0
        assert {one.fact.id for one in receipt.refused} == {PORT.id, DOOR.id}
    quiet = prompts(host, SILENT)
    assert bare(host.adapter, quiet, stop=host.tokens.stop).prompts == tuple(map(tuple, quiet))
