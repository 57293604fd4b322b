"""Training the learned gate: on a tiny host, and its score on numbers made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from cases import fresh, host_of
from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput, HostMismatch, PlaceNotFound
from engram_transformers.memories.engram import Engram
from engram_transformers.memories.shared.bare import SilencedHost
from engram_transformers.models.fingerprint import fingerprint
from engram_transformers.routing.learned import LearnedGate
from engram_transformers.training import gate_prompts
from engram_transformers.training.gate import end_states, score, train_gate
from engram_transformers.training.gate_prompts import Labelled

HOST = host_of("llama")
PROMPTS = [
    *(Labelled(f"KEY:{word}", True, "key") for word in "abcdefghij"),
    *(Labelled(f"Tell me of {word}.", False, "talk") for word in "abcdefghij"),
]
OTHERS = [
    *(Labelled(f"KEY:{word}", True, "key") for word in "uvwxyz"),
    *(Labelled(f"Tell me of {word}.", False, "talk") for word in "uvwxyz"),
]


def train(**options):
    return train_gate(HOST.adapter, HOST.tokens, prompts=PROMPTS, held_out=OTHERS, **options)


@pytest.mark.parametrize("width", [None, 0])
def test_it_learns_what_can_be_told_from_the_states(width: int | None) -> None:
    done = train(width=width)
    assert (done.trained, done.calibrated) == (16, 4)
    held = done.held_out
    assert held.n == 12 and held.lookups == 6
    assert held.precision.value == 1 and held.recall.value == 1 and held.recall.low < 1
    assert done.by_kind["key"].n == 6 and done.by_kind["talk"].value == 1


def test_the_same_seed_gives_the_same_gate_and_memories_do_not_matter() -> None:
    told: list[int] = []
    one, before = train(progress=told.append).gate, torch.random.get_rng_state()
    with attach(HOST.model, fresh("bottleneck", HOST)):
        other = train().gate
    assert sum(told) == len(PROMPTS) + len(OTHERS)
    assert torch.equal(torch.random.get_rng_state(), before)
    texts = [each.text for each in (*PROMPTS, *OTHERS)]
    states = end_states(HOST.adapter, HOST.tokens, texts, layer=one.layer)
    read = train(states=states, progress=told.append).gate
    assert sum(told) == len(texts)
    for name, tensor in read.state_dict().items():
        assert torch.equal(tensor, one.state_dict()[name])
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])


def test_a_gate_goes_from_training_to_disk_to_a_memory(tmp_path: Path) -> None:
    done = train(layer=0)
    done.gate.save(tmp_path, about=done.about())
    options = {"route": "learned", "route_gate": str(tmp_path)}
    memory: Engram = fresh("engram", HOST, **options)
    assert memory.switch is not None
    states = SilencedHost(HOST.adapter)
    for one in OTHERS:
        ids = np.array(HOST.tokens.prompt_ids(one.text, form="chat"))
        found = memory.switch.decide(ids)
        assert found.open is one.lookup
        assert found.score == pytest.approx(float(done.gate(states.state(ids, 0)[None]).detach()))
    with pytest.raises(HostMismatch):
        fresh("engram", host_of("qwen3"), **options)
    with pytest.raises(BadInput, match="needs a trained gate"):
        fresh("engram", HOST, route="learned")
    host = fingerprint(HOST.model, HOST.tokenizer)
    assert LearnedGate.load(tmp_path, host=host).layer == 0


def test_what_cannot_be_trained_on_is_refused() -> None:
    with pytest.raises(BadInput, match="look-ups and others"):
        train_gate(HOST.adapter, HOST.tokens, prompts=PROMPTS[:10], held_out=OTHERS)
    with pytest.raises(BadInput, match="held out"):
        train_gate(HOST.adapter, HOST.tokens, prompts=PROMPTS, held_out=PROMPTS[:2])
    with pytest.raises(PlaceNotFound):
        train(layer=9)


def test_held_out_prompts_share_no_kind_and_no_text_with_those_for_training() -> None:
    known, others = gate_prompts.training_prompts(), gate_prompts.held_out_prompts()
    assert known == gate_prompts.training_prompts()
    assert not {one.kind for one in known} & {one.kind for one in others}
    for some in (known, others):
        texts = [one.text for one in some]
        assert len(set(texts)) == len(texts)
        assert 0.4 < sum(one.lookup for one in some) / len(some) < 0.6
    assert not {one.text for one in known} & {one.text for one in others}
    keys = {one.text.partition(":")[0] for one in known if one.lookup and ":" in one.text}
    assert not keys & {one.text.partition(":")[0] for one in others if ":" in one.text}


def test_scores_by_hand() -> None:
    found = score([0.95, 0.85, 0.65, 0.3, 0.05, 0.05], [True, True, False, True, False, False])
    assert (found.n, found.lookups) == (6, 3)
    assert (found.precision.value, found.precision.n) == (pytest.approx(2 / 3), 3)
    assert (found.recall.value, found.recall.n) == (pytest.approx(2 / 3), 3)
    gaps = 0.05 + 0.15 + 0.65 + 0.7 + 0.1
    assert found.error.value == pytest.approx(gaps / 6)
    assert found.error.low <= found.error.value <= found.error.high
    assert [one.n for one in found.bins] == [2, 1, 1, 1, 1]
    assert found.bins[0].said == pytest.approx(0.05) and found.bins[0].found.value == 0


def test_a_perfect_probability_has_no_error_and_nothing_has_no_score() -> None:
    assert score([1.0, 0.0], [True, False]).error.value == 0
    nothing = score([], [])
    assert nothing.n == 0 and not nothing.bins and nothing.precision.low == 0
