"""Hosts that keep and recall facts in a known way: the commands' functions say in which."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from engram_transformers.api import Host
from engram_transformers.errors import BadInput
from engram_transformers.introspection.arithmetic import arithmetic, problems
from engram_transformers.introspection.commutativity import commutativity
from engram_transformers.introspection.facts import fact_set
from engram_transformers.introspection.memory import look
from engram_transformers.introspection.patching import patch
from engram_transformers.introspection.tracing import trace
from engram_transformers.types import HostIdentity
from hosts import HIDDEN, tiny, tiny_tokenizer
from planted import PlantedStates, Recalling, loud, mixed, saying

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


def tiny_host(layers: int = 3) -> Host:
    model = tiny("llama", num_hidden_layers=layers)
    return Host(model, tiny_tokenizer(), HostIdentity("tiny", "0"))


def knowing(answer_of: dict[str, str]) -> Host:
    """A host whose last block says these answers behind these prompts."""
    host = loud(tiny_host(2))

    def state(text: str) -> torch.Tensor | None:
        prompt, found, said = text.partition("=")
        answer = answer_of.get(prompt + found)
        if not found or answer is None or not answer.startswith(said):
            return None
        rest = answer[len(said) :]
        return saying(host, host.tokens.encode(rest)[0] if rest else host.tokens.stop or 0)

    PlantedStates(host, 1, state)
    return host


def test_recall_difficulty_and_emergence_are_those_planted() -> None:
    facts = fact_set("multiplication")
    known = {f.prompt: f.answer for f in facts.facts if f.operands and f.operands[0] == "7"}
    host = knowing(known)
    found = look(host.adapter, host.tokens, facts, view="retrieval").retrieval
    assert found is not None
    right = {f.prompt for f, one in zip(facts.facts, found.facts, strict=True) if one.rank == 1}
    assert right == set(known) and found.top(1) == 8 / 64
    for fact, one in zip(facts.facts, found.facts, strict=True):
        if fact.prompt in known:
            assert one.difficulty == "memorised" and one.emerges == 1
            assert one.rank_among_answers == 1 and one.probability > 0.5
    assert found.classes()["memorised"] == 8


def test_a_direction_that_is_planted_in_the_answers_is_found() -> None:
    facts = fact_set("multiplication")
    known = {
        f.prompt: f.answer for f in facts.facts if f.operands and f.operands[0] < f.operands[1]
    }
    host = knowing(known)
    found = look(host.adapter, host.tokens, facts, layer=0, others=False).asymmetry
    assert found is not None and found.logprob_shift is not None and found.logprob_p is not None
    assert found.logprob_shift > 1 and found.logprob_p < 0.001


def test_the_layer_is_the_one_at_which_answers_appear() -> None:
    facts = fact_set("addition")
    host = knowing({f.prompt: f.answer for f in facts.facts})
    found = look(host.adapter, host.tokens, facts, others=False)
    assert found.layer == 1 and "half its way" in found.selected
    bare = tiny_host()
    found = look(bare.adapter, bare.tokens, facts, others=False)
    assert found.layer == 2 and "80% of the depth" in found.selected


def test_arithmetic_finds_what_is_planted() -> None:
    asks = problems(("addition",), each=5)
    host = knowing({one.prompt: str(one.result) for one in asks if one.difficulty == "easy"})
    found = arithmetic(host.adapter, host.tokens, asks)
    easy, medium, hard = found.groups(lambda one: one.difficulty)
    assert (easy.right, medium.right, hard.right) == (5, 0, 0)
    assert easy.emerges == 1 and hard.emerges is None and easy.rises == 1


def test_problems_are_different_and_bad_ones_are_refused() -> None:
    asks = problems(each=20)
    assert len({one.prompt for one in asks}) == len(asks) == 180
    assert all(one.result >= 0 for one in asks)
    with_shots = problems(("addition",), each=3, shots=2)[0]
    assert with_shots.prompt.count("\n") == 2 and with_shots.prompt.endswith("=")
    for wrong in ({"operations": ("division",)}, {"template": "{a}="}, {"template": "{a}{c}{b}"}):
        with pytest.raises(BadInput):
            problems(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "answer", "type"),
    [(0.3, 0.15, "commutative-dominant"), (0.1, 0.35, "answer-dominant")],
)
def test_answers_dominate_only_if_their_own_pairs_do(row: float, answer: float, type: str) -> None:
    host, facts = tiny_host(), fact_set("multiplication")
    parts = {lambda a, b: frozenset((a, b)): 0.5, lambda a, b: a: row}
    mixed(host, 1, parts | {lambda a, b: int(a) * int(b): answer})
    found = look(host.adapter, host.tokens, facts, layer=1, view="neighbours").organisation
    assert found is not None
    swapped, same = found.effect("commutative"), found.effect("same_answer")
    assert swapped is not None and same is not None and swapped.shift > same.shift
    assert same.significant and found.type == type


def test_commutativity_tells_one_state_from_two() -> None:
    facts, directions = fact_set("multiplication"), dict[object, torch.Tensor]()
    generator = torch.Generator().manual_seed(0)

    def drawn(_: object) -> torch.Tensor:
        return torch.randn(HIDDEN, generator=generator)

    for key, alike in ((frozenset, True), (tuple, False)):
        host = tiny_host()

        def state(text: str, key: type = key) -> torch.Tensor | None:
            match = re.fullmatch(r"(\d)\*(\d)=", text)
            if match is None:
                return None
            name = (key.__name__, key(match.groups()))
            if name not in directions:
                directions[name] = drawn(name)
            return directions[name]

        PlantedStates(host, 1, state)
        found = commutativity(host.adapter, host.tokens, facts, layer=1)
        effect = found.organisation.effect("commutative")
        assert effect is not None and effect.significant == alike
        assert (found.nearest == 1.0) == alike
        assert ("not" not in found.verdict) == alike
    with pytest.raises(BadInput, match="no two facts"):
        commutativity(host.adapter, host.tokens, fact_set("capitals"))


def test_a_patch_transfers_where_the_answer_is_and_not_before() -> None:
    host = tiny_host()
    Recalling(host, {FRANCE: "Paris", ITALY: "Rome"})
    at_end = patch(host.adapter, host.tokens, FRANCE, ITALY, layers=range(3))
    assert (at_end.source_answer, at_end.target_answer) == ("Paris", "Rome")
    assert [one.effect for one in at_end.layers[:1]] == ["no_change"]
    assert at_end.layers[0].target_logprob > -1 > at_end.layers[0].source_logprob
    at_subject = patch(host.adapter, host.tokens, FRANCE, ITALY, layers=range(3), position="-2")
    assert [one.effect for one in at_subject.layers] == ["transferred", "no_change", "no_change"]
    assert not any(one.effect == "transferred" for one in at_subject.control)
    assert at_subject.critical is None
    everywhere = patch(host.adapter, host.tokens, FRANCE, ITALY, layers=[0], position="all")
    assert everywhere.critical == 0
    none = patch(host.adapter, host.tokens, FRANCE, ITALY, layers=[0], position="-2", blend=0.0)
    assert none.layers[0].effect == "no_change"


@pytest.mark.parametrize(
    "source, position, words",
    [
        (ITALY, "last", "both prompts are answered"),
        ("The capital of Frances is", "all", "as many tokens"),
        (FRANCE, "99", "no token 99"),
        (FRANCE, "first", "not last, all"),
    ],
)
def test_patches_that_cannot_be(source: str, position: str, words: str) -> None:
    host = tiny_host()
    with pytest.raises(BadInput, match=words):
        patch(host.adapter, host.tokens, source, ITALY, layers=[0], position=position)


def test_a_trace_finds_where_a_fact_is_recalled() -> None:
    host = tiny_host()
    Recalling(host, {FRANCE: "Paris", ITALY: "Rome"})
    found = trace(host.adapter, host.tokens, FRANCE, "France", samples=3)
    assert found.answer == "Paris" and found.traceable
    assert found.clean > 0.5 and found.corrupted < 0.01
    end = len(found.tokens) - 1
    share = found.effect / (found.clean - found.corrupted)
    brought_back = [(0, end - 1)]  # what the second block reads
    for at in brought_back:
        assert share[at] == pytest.approx(1.0, abs=0.01)
    assert np.abs(share[:, : min(found.disturbed)]).max() == 0.0
    assert np.abs(share[1:, end - 1]).max() < 0.01 and abs(share[0, end]) < 0.01
    with pytest.raises(BadInput, match="not in the prompt"):
        trace(host.adapter, host.tokens, FRANCE, "Spain")


def test_feed_forwards_can_be_traced_in_windows() -> None:
    host = tiny_host()
    found = trace(
        host.adapter, host.tokens, FRANCE, "France", answer="Paris", kind="mlp", window=3, samples=2
    )
    assert found.window == 3 and found.effect.shape == (3, len(found.tokens))
