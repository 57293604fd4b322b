"""Laws for a memory behind a route: closed is the bare host, bit for bit, row by row."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from test_engram_laws import close, padded
from torch import Tensor
from transformers import DynamicCache

from cases import ARCHITECTURES, FACTS, FEW, disturb, fresh, host_of, teach
from conftest import traces
from engram_transformers.api import Host
from engram_transformers.attaching import attach, attached, detach, prompt_ends, silenced
from engram_transformers.errors import BadInput, UnsupportedCall
from engram_transformers.evaluation import generate
from engram_transformers.evaluation.silence import bit_equal
from engram_transformers.memories.lookup import Lookup, LookupConfig
from engram_transformers.memories.shared.bare import SilencedHost
from engram_transformers.memories.shared.routed import Routed
from engram_transformers.routing.learned import LearnedGate, LearnedRoute
from engram_transformers.routing.route import Ids, Routing
from engram_transformers.routing.rules import RuleRoute
from engram_transformers.routing.sure import UnsureRoute
from engram_transformers.training.fit import fit

OPEN = ("PORT:SSH", "What is the capital of Rome?", "[Q937] place of birth")
CLOSED = ("Write about the harbour.", "How far is the station? Seven miles, I hope.")
MEMORIES: dict[str, tuple[str, dict[str, Any]]] = {
    "engram": ("engram", {}),
    "engram+conv": ("engram+conv", {}),
    "bottleneck": ("bottleneck", {}),
}
MIXED_BITS = [name for name in ARCHITECTURES if name != "mixtral"]
"Hosts whose rows do not share a matrix product of a shape that depends on the others."
few = pytest.mark.parametrize("architecture", FEW, indirect=True)


@dataclass
class Cell:
    """A memory behind a rule, attached to its host."""

    host: Host
    memory: Any

    @property
    def model(self) -> Any:
        return self.host.model

    def ids(self, text: str) -> Tensor:
        return torch.tensor([self.host.tokens.prompt_ids(text, form="chat")])

    @torch.no_grad()
    def logits(self, ids: Tensor, **options: Any) -> Tensor:
        with prompt_ends(self.model, [ids.shape[1]]):
            out: Tensor = self.model(input_ids=ids, **options).logits
        return out

    def bare(self, ids: Tensor, **options: Any) -> Tensor:
        with silenced(self.model):
            return self.logits(ids, **options)

    def write(self, ids: Tensor, **options: Any) -> list[list[int]]:
        options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, **options}
        options.setdefault("attention_mask", torch.ones_like(ids))
        out: Tensor = self.model.generate(input_ids=ids, **options)
        return out[:, ids.shape[1] :].tolist()


@pytest.fixture(params=ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=MEMORIES)
def cell(architecture: str, request: pytest.FixtureRequest) -> Iterator[Cell]:
    """Afterwards the host is as it was."""
    host, (kind, options) = host_of(architecture), MEMORIES[request.param]
    before = traces(host.model)
    inner = disturb(fresh(kind, host, **options))
    memory = Routed(inner, RuleRoute(host.tokens))
    attach(host.model, memory)
    yield Cell(host, memory)
    detach(host.model)
    assert traces(host.model) == before


def test_a_closed_route_is_the_bare_host_and_an_open_one_the_memory(cell: Cell) -> None:
    for text in CLOSED:
        assert torch.equal(cell.logits(cell.ids(text)), cell.bare(cell.ids(text)))
    routed = [cell.logits(cell.ids(text)) for text in OPEN]
    detach(cell.model)
    with attach(cell.model, cell.memory.memory):
        for text, found in zip(OPEN, routed, strict=True):
            ids = cell.ids(text)
            assert torch.equal(found, cell.logits(ids)) and not torch.equal(found, cell.bare(ids))


def test_what_is_written_behind_a_closed_prompt_is_the_bare_hosts(cell: Cell) -> None:
    for options in ({}, {"num_beams": 3}, {"prefill_chunk_size": 4}):
        for text in CLOSED:
            ids = cell.ids(text)
            said = cell.write(ids, **options)
            with silenced(cell.model):
                assert cell.write(ids, **options) == said


def test_rows_of_a_batch_are_decided_on_one_by_one(cell: Cell, architecture: str) -> None:
    texts = [cell.ids(text) for text in (OPEN[0], CLOSED[0], OPEN[1], CLOSED[1])]
    rows, mask = padded(texts, left=False, value=9)
    with torch.no_grad(), prompt_ends(cell.model, [ids.shape[1] for ids in texts]):
        batch = cell.model(input_ids=rows, attention_mask=mask).logits
        with silenced(cell.model):
            bare = cell.model(input_ids=rows, attention_mask=mask).logits
    for i, ids in enumerate(texts):
        assert close(batch[i, : ids.shape[1]], cell.logits(ids)[0])
        if i % 2 and architecture in MIXED_BITS:
            assert torch.equal(batch[i], bare[i])


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"prefill_chunk_size": 5}])
def test_a_batch_padded_on_the_left_equals_each_prompt_alone(
    cell: Cell, options: dict[str, Any]
) -> None:
    texts = [cell.ids(text) for text in (CLOSED[1], OPEN[0], CLOSED[0], OPEN[2])]
    plain = {name: value for name, value in options.items() if name != "prefill_chunk_size"}
    alone = [cell.write(ids, **plain)[0] for ids in texts]
    rows, mask = padded(texts, left=True, value=9)
    for one, other in zip(alone, cell.write(rows, attention_mask=mask, **options), strict=True):
        assert other[: len(one)] == one and set(other[len(one) :]) <= {0, 1}


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}])
def test_cache_on_equals_cache_off(cell: Cell, options: dict[str, Any]) -> None:
    for text in (OPEN[0], CLOSED[0]):
        ids = cell.ids(text)
        assert cell.write(ids, **options) == cell.write(ids, **options, use_cache=False)


@pytest.mark.parametrize("size", [1, 5])
def test_prefilling_in_chunks_equals_one_prefill(cell: Cell, size: int) -> None:
    for text in (OPEN[1], CLOSED[0]):
        assert cell.write(cell.ids(text), prefill_chunk_size=size) == cell.write(cell.ids(text))


@few
@torch.no_grad()
def test_what_follows_a_prompt_is_read_as_the_prompt_was(cell: Cell) -> None:
    for text in (OPEN[0], CLOSED[0]):
        ids, rest = cell.ids(text), torch.tensor([[40, 41, 42, 43]])
        with prompt_ends(cell.model, [ids.shape[1]]):
            whole = cell.model(input_ids=torch.cat([ids, rest], 1)).logits[:, ids.shape[1] :]
            past = cell.model(input_ids=ids, use_cache=True).past_key_values
        steps = [
            cell.model(input_ids=token.view(1, 1), past_key_values=past).logits for token in rest[0]
        ]
        assert close(torch.cat(steps, 1), whole)


@few
@torch.no_grad()
def test_where_nobody_says_that_a_prompt_ends_the_route_is_closed(cell: Cell) -> None:
    ids = cell.ids(OPEN[0])
    with silenced(cell.model):
        bare = cell.model(input_ids=ids).logits
    assert torch.equal(cell.model(input_ids=ids).logits, bare)


@few
@torch.no_grad()
def test_a_prompt_in_parts_of_which_not_all_is_known_is_refused(cell: Cell) -> None:
    ids = cell.ids(OPEN[0])
    with prompt_ends(cell.model, [ids.shape[1]]), pytest.raises(UnsupportedCall, match="in parts"):
        cell.model(input_ids=ids[:, :3])


@few
@torch.no_grad()
def test_a_cache_that_was_read_otherwise_is_refused(cell: Cell) -> None:
    one, other = cell.ids(OPEN[0]), cell.ids(CLOSED[0])
    for first, second in ((one, other), (other, one)):
        past = DynamicCache(config=cell.model.config)
        cell.logits(first, past_key_values=past)
        more = torch.cat([first, second], 1)
        with (
            prompt_ends(cell.model, [more.shape[1]]),
            pytest.raises(UnsupportedCall, match="empty cache"),
        ):
            cell.model(input_ids=second, past_key_values=past)


@few
def test_prompts_that_share_their_beginning_are_answered_as_alone(
    cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [cell.ids(text)[0].tolist() for text in (*OPEN, *CLOSED)]
    alone = [cell.host.generate([p], max_new_tokens=8)[0] for p in prompts]
    monkeypatch.setattr(generate, "WORTH_SHARING", 2)
    assert cell.host.generate(prompts, max_new_tokens=8) == alone
    assert bit_equal(cell.host.adapter, prompts) == [False] * len(OPEN) + [True] * len(CLOSED)


@few
def test_a_deep_copy_decides_for_itself(cell: Cell) -> None:
    ids, other = cell.ids(OPEN[0]), cell.ids(CLOSED[0])
    twin = copy.deepcopy(cell.model)
    attached(twin)[0].switch.route = Never()
    said, here = cell.logits(ids), Cell(cell.host, cell.memory)
    attached(twin)[0].switch._remembered.clear()
    there = Cell(Host(twin, cell.host.tokenizer, cell.host.identity), attached(twin)[0])
    assert torch.equal(there.logits(ids), cell.bare(ids)) and torch.equal(here.logits(ids), said)
    assert torch.equal(there.logits(other), cell.bare(other))


class Never:
    """A route that is always closed."""

    def decide(self, prompt: Ids) -> Routing:
        return Routing(False, 0.0, 0.5, "never")


def routes(host: Host) -> dict[str, Any]:
    """Routes that read states of the host, so set that they differ between prompts."""
    states, texts = SilencedHost(host.adapter), (*OPEN, *CLOSED)
    prompts = [np.array(host.tokens.prompt_ids(text, form="chat")) for text in texts]
    gate = LearnedGate(host.adapter.hidden_size, layer=0, host="")
    with torch.no_grad():
        found = gate.scores(torch.stack([states.state(p, 0) for p in prompts]))
        gate.calibration[1] = -found.median()
    unsure = UnsureRoute(states)
    tops = sorted(unsure.sureness(prompt) for prompt in prompts)
    return {
        "learned": LearnedRoute(gate, states),
        "unsure": UnsureRoute(states, (tops[2] + tops[3]) / 2),
    }


def test_what_the_bare_host_writes_is_what_it_would_without_a_cache(architecture: str) -> None:
    host = host_of(architecture)
    ids = host.tokens.prompt_ids(OPEN[0], form="chat")
    with attach(host.model, disturb(fresh("engram", host))):
        found = SilencedHost(host.adapter).written(np.array(ids), tokens=6, stop=None)
    expected, stop = [], 0
    for _ in range(6):
        logits = host.model(torch.tensor([ids]), use_cache=False).logits[0, -1].detach()
        top = torch.softmax(logits.float(), -1).max(dim=0)
        expected.append(float(top.values))
        ids = [*ids, stop := int(top.indices)]
    assert found == pytest.approx(expected, rel=1e-3)
    bare, prompt = SilencedHost(host.adapter), np.array(ids[:-6])
    assert len(bare.written(prompt, tokens=6, stop=stop)) == ids[-6:].index(stop) + 1


@pytest.mark.parametrize("name", ["learned", "unsure"])
def test_routes_by_the_hosts_own_states(architecture: str, name: str) -> None:
    host = host_of(architecture)
    memory = Routed(disturb(fresh("engram", host)), routes(host)[name])
    with attach(host.model, memory):
        cell, opened = Cell(host, memory), []
        for text in (*OPEN, *CLOSED):
            ids = cell.ids(text)
            opened.append(not torch.equal(cell.logits(ids), cell.bare(ids)))
            assert opened[-1] == memory.decide(ids[0].numpy()).open
            assert cell.write(ids) == cell.write(ids, use_cache=False)
            assert cell.write(ids, prefill_chunk_size=3) == cell.write(ids)
        assert any(opened) and not all(opened)
        texts = [cell.ids(text) for text in (*OPEN, *CLOSED)]
        alone = [cell.write(ids)[0] for ids in texts]
        rows, mask = padded(texts, left=True, value=9)
        for one, other in zip(alone, cell.write(rows, attention_mask=mask), strict=True):
            assert other[: len(one)] == one


def test_lookup_behind_a_route() -> None:
    host = host_of("llama")
    inner = Lookup(LookupConfig(address="exact"), adapter=host.adapter, tokens=host.tokens)
    teach(inner)
    shown = [torch.tensor([host.tokens.prompt_ids(f.prompt, form="chat")]) for f in FACTS]
    with attach(host.model, Routed(inner, RuleRoute(host.tokens))) as routed:
        cell = Cell(host, routed.memory)
        said = [host.tokens.decode_answer(cell.write(ids)[0]) for ids in shown]
        # `Which port does` asks for a fact by the rules, the others do not.
        assert said[0] == FACTS[0].answer and not {f.answer for f in FACTS[1:]} & set(said)


def test_no_route_stands_before_what_acts_at_no_place() -> None:
    host = host_of("llama")
    with pytest.raises(BadInput, match="no place"):
        Routed(fresh("lora", host), Never())


def test_an_option_of_the_engram_kind_trained_open_and_then_routed() -> None:
    host = host_of("llama")
    memory = fresh("engram", host, route="rules", learning_rate=1e-2, epochs=200, rows=200)
    with attach(host.model, memory):
        assert fit(host.adapter, host.tokens, memory, FACTS).exact == 1
        cell = Cell(host, memory)
        door, port = cell.ids(FACTS[3].prompt), cell.ids(FACTS[0].prompt)
        assert torch.equal(cell.logits(door), cell.bare(door))
        assert not torch.equal(cell.logits(port), cell.bare(port))
