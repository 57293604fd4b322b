"""Every route: what stands before a question, and what is injected with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from engram_transformers.api import Host
from engram_transformers.memories.shared.address import QuestionAddress
from engram_transformers.memories.shared.encoders import open_encoder
from engram_transformers.memories.shared.soft import usual_norm
from engram_transformers.memories.shared.vectors import POOLED, to_norm
from engram_transformers.models.trace import block_inputs, place_states
from engram_transformers.routing.meaning import MeaningAddress
from engram_transformers.studies.injection.asking import Asking, Case, Heard, Injected
from engram_transformers.studies.injection.facts import MadeUp
from engram_transformers.studies.injection.format import Form

PLACEHOLDER = 0
"Id of the token that stands in slots; what is injected stands in its place from block 0 on."


@dataclass(frozen=True)
class Given:
    """What a route gives the host with a question."""

    ids: tuple[int, ...] = ()
    injected: Injected = field(default_factory=Injected)
    behind: bool = False


Route = Callable[[MadeUp], Given]


class Bench:
    """A host, the form in which it is asked, and what it made of statements."""

    def __init__(self, host: Host) -> None:
        self.host, self.adapter, self.tokens = host, host.adapter, host.tokens
        self.form = Form.of(host.tokens)
        self.asking = Asking(self.adapter, self.tokens, self.form.head)
        self.norm = usual_norm(self.adapter)
        self._read: dict[str, Tensor] = {}
        self._bare: dict[str, str] = {}

    def case(
        self,
        fact: MadeUp,
        question: str,
        given: Given,
        answer: str | None = None,
        *,
        read: bool = False,
    ) -> Case:
        """A question with what a route gives.

        Args:
            answer: the one that is wanted; the fact's unless given.
            read: whether something was read before it already, as a real cache has.
        """
        before = read or (bool(given.ids) and not given.behind)
        return Case(
            given.ids,
            self.form.question(question, given=before),
            self.form.answer(fact.answer if answer is None else answer),
            given.injected,
            behind=given.behind,
            close=len(self.form.close),
        )

    def ask(self, facts: Sequence[MadeUp], route: Route, wording: Wording) -> list[Heard]:
        """What the host says to a wording of each fact."""
        return self.asking.ask([self.case(f, wording(f), route(f)) for f in facts])

    def address(self, facts: Sequence[MadeUp]) -> QuestionAddress:
        """Leads from questions to the facts' places in the list."""
        encoder = open_encoder("minilm", adapter=self.adapter, tokens=self.tokens, written_by=None)
        address = QuestionAddress(MeaningAddress(encoder))
        taught = [fact.taught() for fact in facts]
        for number, (fact, vectors) in enumerate(zip(taught, address.vectors(taught), strict=True)):
            address.add(number, fact, vectors)
        return address

    def bare(self, questions: Sequence[str]) -> list[str]:
        """What the host says to questions when nothing is given; each is asked once."""
        new = [question for question in questions if question not in self._bare]
        cases = [
            # No answer is wanted: what is wanted must not be what is said.
            Case((), self.form.question(q, given=False), self.form.answer(q))
            for q in new
        ]
        self._bare |= {q: one.said for q, one in zip(new, self.asking.ask(cases), strict=True)}
        return [self._bare[question] for question in questions]

    def inputs(self, statement: str) -> Tensor:
        """(blocks, tokens, hidden) that each block is given for a statement, in its place."""
        if statement not in self._read:
            ids = torch.tensor([[*self.form.head, *self.form.text(statement)]])
            with torch.no_grad():
                self._read[statement] = block_inputs(self.adapter, ids, len(self.form.head))
        return self._read[statement]

    def behind(self, statement: str, layer: int) -> Tensor:
        """(tokens, hidden) that block `layer` gives for a statement."""
        inputs = self.inputs(statement)
        if layer + 1 < len(inputs):
            return inputs[layer + 1]
        return self._last(statement)

    def _last(self, statement: str) -> Tensor:
        key = f"{statement}\n"
        if key not in self._read:
            ids = torch.tensor([[*self.form.head, *self.form.text(statement)]])
            place = self.adapter.place("block_out", -1)
            [states] = place_states(self.adapter, ids, torch.ones_like(ids), [place])
            self._read[key] = states[0, len(self.form.head) :]
        return self._read[key]


Wording = Callable[[MadeUp], str]


def asked(fact: MadeUp) -> str:
    return fact.question


def held(number: int) -> Wording:
    """A held-out wording."""
    return lambda fact: fact.held_out[number]


def nothing(fact: MadeUp) -> Given:
    return Given()


def slots(vectors: Tensor, *, behind: bool = False) -> Given:
    """Vectors (n, hidden) that the first block is given before the question, or behind it."""
    return Given((PLACEHOLDER,) * len(vectors), Injected(slots=vectors[None]), behind=behind)


def text(bench: Bench) -> Route:
    return lambda fact: Given(bench.form.text(fact.statement))


def empty_slots(bench: Bench) -> Route:
    """As many placeholders as the statement has tokens, and nothing in them."""
    return lambda fact: Given((PLACEHOLDER,) * len(bench.form.text(fact.statement)))


def random_vectors(bench: Bench, *, count: int, seed: int) -> Route:
    """Gaussian vectors of an embedding's length, others for each fact."""

    def route(fact: MadeUp) -> Given:
        draw = torch.Generator().manual_seed(seed * 100_003 + sum(fact.statement.encode()))
        noise = torch.randn(count, bench.adapter.hidden_size, generator=draw)
        return slots(to_norm(noise, bench.norm))

    return route


def keys_and_values(bench: Bench) -> Route:
    """What every block is given at the statement's tokens, so that its keys and values return."""

    def route(fact: MadeUp) -> Given:
        states = bench.inputs(fact.statement)
        return Given((PLACEHOLDER,) * states.shape[1], Injected(slots=states))

    return route


def of_another(facts: Sequence[MadeUp], route: Route) -> Route:
    """What the route gives for the fact after the one that is asked for."""
    after = dict(zip(facts, [*facts[1:], *facts[:1]], strict=True))
    return lambda fact: route(after[fact])


def found(
    bench: Bench, facts: Sequence[MadeUp], route: Route, wording: Wording
) -> tuple[Route, dict[str, str | None]]:
    """What the route gives for the fact that the address finds, and which that was, by subject.

    The address is that of the lookup memory, taught the questions and the wordings for training.
    """
    address = bench.address(facts)
    fired = {fact.subject: address.decide(wording(fact)).value for fact in facts}

    def chosen(fact: MadeUp) -> Given:
        number = fired[fact.subject]
        return Given() if number is None else route(facts[number])

    return chosen, {
        name: None if number is None else facts[number].subject for name, number in fired.items()
    }


def pooled(bench: Bench, name: str, *, layer: int, scale: float, count: int, behind: bool) -> Route:
    """Few vectors of a statement's states behind a block, as a prefix."""

    def route(fact: MadeUp) -> Given:
        states = bench.behind(fact.statement, layer)
        found = POOLED[name](states, min(count, len(states)))
        return slots(to_norm(found, scale * bench.norm), behind=behind)

    return route


def added(bench: Bench, *, layer: int, scale: float, everywhere: bool) -> Route:
    """The mean of a statement's states behind a block, added there."""

    def route(fact: MadeUp) -> Given:
        states = bench.behind(fact.statement, layer)
        one = Injected(added=scale * states.mean(0), layer=layer, everywhere=everywhere)
        return Given(injected=one)

    return route


def with_late(given: Given, states: Tensor, layer: int) -> Given:
    """A route's gift with states put behind a block where the answer's tokens are chosen."""
    return replace(given, injected=replace(given.injected, late=states, layer=layer))


@torch.no_grad()
def answer_states(bench: Bench, case: Case, layers: Sequence[int]) -> dict[int, Tensor]:
    """By block, (answer, hidden): what it gives where each token of a case's answer is due."""
    ids = torch.tensor([[*case.ids, *case.answer[:-1]]], device=bench.adapter.device)
    kept: dict[int, Any] = {}

    def keep(layer: int) -> Callable[[Any, Any, Any], None]:
        def hook(_: Any, __: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple) else output
            kept[layer] = states[0, -len(case.answer) :]

        return hook

    hooks = [bench.adapter.layers[i].register_forward_hook(keep(i)) for i in layers]
    try:
        bench.adapter.decoder(input_ids=ids, past_key_values=bench.asking.past(1), use_cache=True)
    finally:
        for hook in hooks:
            hook.remove()
    return kept
