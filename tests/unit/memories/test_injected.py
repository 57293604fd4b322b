"""Memories of vectors: bad input, what is composed, and what a text leaves in the host."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import DOOR, PORT, REPORT, host_of, injected, teach
from engram_transformers.api import Host
from engram_transformers.attaching import attach, detach, prompt_ends
from engram_transformers.errors import BadInput, PlaceNotFound
from engram_transformers.memories.shared.slots import Placeholder, question_in
from engram_transformers.models.tokens import HostTokens
from engram_transformers.models.trace import block_inputs
from engram_transformers.types import Fact
from hosts import tiny_tokenizer


@pytest.fixture
def host() -> Any:
    found = host_of("llama")
    yield found
    detach(found.model)


def opened(host: Host, path: Path, kind: str = "activation", **options: Any) -> Any:
    return host.open_memory(path / "m", kind=kind, address="exact", **options)


@pytest.mark.parametrize(
    "kind, options, error, words",
    [
        ("activation", {"layer": 7}, PlaceNotFound, "has 2 blocks"),
        ("activation", {"way": "telepathy"}, BadInput, "use one of keys_values"),
        ("activation", {"slots": 0}, BadInput, "above 0"),
        ("activation", {"scale": -1.0}, BadInput, "above 0"),
        ("soft_prompt", {"slots": 0}, BadInput, "at least 1"),
        ("soft_prompt", {"learning_rate": 0.0}, BadInput, "above 0"),
    ],
)
def test_options_out_of_bounds(
    host: Host, tmp_path: Path, kind: str, options: dict, error: type, words: str
) -> None:
    with pytest.raises(error, match=words):
        opened(host, tmp_path, kind, **options)


def test_a_fact_longer_than_the_host_reads_changes_nothing(host: Host, tmp_path: Path) -> None:
    long = Fact("Which port? " * 99, "8443")
    with opened(host, tmp_path) as memory:
        with pytest.raises(BadInput, match="this host reads 512"):
            memory.teach([long], check=False)
        assert len(memory) == 0


def test_a_text_shorter_than_its_slots_has_as_many_as_it_has_tokens(host: Host) -> None:
    memory = injected("chunks", host)
    memory.config = type(memory.config)(way="chunks", layer=0, slots=500)
    [delta] = memory.write([PORT])
    assert torch.isfinite(delta["states"]).all() and 1 < delta["states"].shape[1] < 100


def test_states_that_are_no_numbers_are_refused() -> None:
    host = copy.deepcopy(host_of("llama"))
    with torch.no_grad():
        host.model.get_input_embeddings().weight.fill_(float("nan"))
    for variant in ("keys_values", "mean", "patch"):
        with pytest.raises(BadInput, match="NaN"):
            injected(variant, host).write([PORT])


def test_slots_stand_before_the_question_and_hold_no_text(host: Host) -> None:
    memory = injected("chunks", host)
    attach(host.model, memory)
    teach(memory)
    [ids] = host.prompts([PORT.prompt], form="chat")
    runs = list(memory.board.slots.runs(np.asarray(ids)))
    assert [end - begin for begin, end in runs] == [3]
    assert PORT.answer not in host.tokens.decode(ids)
    assert question_in(host.tokens.user_message(np.asarray(ids), len(ids))) == PORT.prompt


def test_slots_of_another_size_or_another_fact_are_left_alone(host: Host) -> None:
    memory = injected("chunks", host)
    attach(host.model, memory)
    teach(memory, [PORT])
    [ids] = host.prompts([PORT.prompt], form="chat")
    spare = memory.board.slots.id
    for changed in ([*ids[: ids.index(spare)], *ids[ids.index(spare) + 1 :]], ids):
        with torch.no_grad(), prompt_ends(host.model, [len(changed)]):
            acts = host.model(input_ids=torch.tensor([changed])).logits
        with torch.no_grad(), host.bare():
            bare = host.model(input_ids=torch.tensor([changed])).logits
        assert torch.equal(acts, bare) == (changed is not ids)


def test_a_second_turn_has_slots_of_its_own(host: Host) -> None:
    memory = injected("chunks", host)
    attach(host.model, memory)
    teach(memory)
    first = host.talk([("user", PORT.prompt)])
    talk = [("user", PORT.prompt), ("assistant", PORT.answer), ("user", REPORT.prompt)]
    second = host.talk(talk)
    runs = list(memory.board.slots.runs(np.asarray(second)))
    assert len(runs) == 1 and first != second
    assert not host.explain("How far is the station?").fired


def test_a_copy_is_taught_by_itself(host: Host) -> None:
    memory = injected("mean", host)
    teach(memory, [PORT])
    other = copy.deepcopy(memory)
    teach(other, [DOOR])
    assert len(memory) == 1 and len(other) == 2 and DOOR.id not in memory


def test_a_tokenizer_without_a_spare_token_is_named() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = "<|im_end|>"
    spare = HostTokens(tokenizer, stop=1)
    if 0 in spare.special:
        assert Placeholder(spare).id == 0
    else:
        with pytest.raises(BadInput, match="no special token besides"):
            Placeholder(spare)


def test_what_blocks_are_given_is_what_those_before_them_gave(host: Host) -> None:
    ids = torch.tensor([[5, 9, 30, 41]])
    inputs = block_inputs(host.adapter, ids, 1)
    with torch.no_grad():
        states = host.model(input_ids=ids, output_hidden_states=True).hidden_states
    assert inputs.shape == (2, 3, host.adapter.hidden_size)
    for layer, found in enumerate(inputs):
        assert torch.equal(found, states[layer][0, 1:])
