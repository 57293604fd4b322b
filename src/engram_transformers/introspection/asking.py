"""Facts in token ids: what is run, and which answers are scored behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engram_transformers.errors import BadInput
from engram_transformers.introspection.facts import FactSet, Known
from engram_transformers.introspection.reading import Ask, Ids, Wanted, rows_of
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import Form, HostTokens

MOST_ROWS = 6000
"Texts up to which every answer of a set is tried behind every prompt."


@dataclass(frozen=True)
class Asked:
    """A set of facts as a host reads it."""

    asks: tuple[Ask, ...]
    own: tuple[Wanted, ...]
    "The right answer of each fact, with its end."
    others: tuple[tuple[Wanted, ...], ...] | None
    """Every different answer of the set behind every prompt, in the set's order. An answer that
    another goes on from (4, 42) counts as far as it ends; so no two are ever said at once. None
    where they are not tried."""


def asked(tokens: HostTokens, facts: Sequence[Known], *, form: Form) -> Asked:
    """Every prompt with its right answer."""
    own = [wanted(tokens, i, f.prompt, f.answer, form=form) for i, f in enumerate(facts)]
    return Asked(
        tuple(Ask(prompt_ids(tokens, facts[one.ask], form), (one.read,), one.read) for one in own),
        tuple(own),
        None,
    )


def asked_all(tokens: HostTokens, facts: FactSet, *, form: Form) -> Asked:
    """Every prompt with every answer of the set; only with its own where that is too much."""
    alone = asked(tokens, facts.facts, form=form)
    others = [_others(tokens, i, facts, form) for i in range(len(facts.facts))]
    if len(facts.answers) < 2 or any(len({one.ids for one in row}) < len(row) for row in others):
        return alone
    asks = tuple(
        Ask(ask.prompt, (*ask.behind, *(one.read for one in row)), ask.followed)
        for ask, row in zip(alone.asks, others, strict=True)
    )
    if len(rows_of(asks)) > MOST_ROWS:
        return alone
    return Asked(asks, alone.own, tuple(others))


def prompt_ids(tokens: HostTokens, fact: Known, form: Form) -> Ids:
    """The ids that the host reads for a fact's prompt."""
    return tuple(tokens.prompt_ids(fact.prompt, form=form))


def answer_ids(tokens: HostTokens, prompt: str, answer: str, *, form: Form) -> Ids:
    """The ids of a whole answer as it continues its prompt, without an end.

    An answer stands behind a space, but for `7*8=`, which is written without any.
    """
    if form == "chat":
        return tuple(tokens.encode(answer.strip()))
    spaced = tokens.needs_space(prompt)
    return tuple(tokens.encode(tokens.spaced(answer) if spaced else answer.lstrip()))


def check_prompt(adapter: Adapter, prompt: str, ids: Ids) -> None:
    """`BadInput` for what cannot be asked: nothing at all, or more than the host reads."""
    if not prompt.strip():
        raise BadInput("a prompt is empty; there is nothing to ask")
    limit = adapter.max_length()
    if limit and len(ids) > limit:
        begin = prompt if len(prompt) <= 40 else f"{prompt[:37]}..."
        raise BadInput(f"{begin!r} has {len(ids):,} tokens; the host reads {limit:,} at once")


def joining(adapter: Adapter, tokens: HostTokens) -> Tensor:
    """(vocab,): which tokens go on with a word or a number; a host's head may know more tokens."""
    found = torch.zeros(adapter.vocab_size, dtype=torch.bool)
    known = torch.from_numpy(tokens.joining)[: adapter.vocab_size]
    found[: len(known)] = known
    return found


def wanted(tokens: HostTokens, index: int, prompt: str, answer: str, *, form: Form) -> Wanted:
    """An answer with its end, as it continues the prompt that is asked as number `index`."""
    ids = answer_ids(tokens, prompt, answer, form=form)
    if not ids:
        raise BadInput(f"the answer to {prompt!r} is empty")
    # What ends in a sign, or in a script without spaces, has no end to be seen.
    return Wanted(index, ids, answer[-1:].isascii() and answer[-1:].isalnum())


def _others(tokens: HostTokens, index: int, facts: FactSet, form: Form) -> tuple[Wanted, ...]:
    prompt = facts.facts[index].prompt
    every = [answer_ids(tokens, prompt, answer, form=form) for answer in facts.answers]
    begun = {ids[:size] for ids in every for size in range(1, len(ids))}
    return tuple(Wanted(index, ids, ids in begun) for ids in every)
