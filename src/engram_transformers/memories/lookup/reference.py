"""The reader's slow twin: what is said after every token, straight from the definition.

Tests alone import it. Nothing is carried and nothing is indexed: for every token of a text, every
place where an answer could have begun is tried with every fact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engram_transformers.models.tokens import HostTokens


@dataclass(frozen=True)
class Taught:
    """One fact as the definition sees it."""

    spans: dict[tuple[int, ...], bool]
    "The taught wordings; whether the answer behind each is written without a space."
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    "After a space, and without one."


@dataclass(frozen=True)
class _Begun:
    """An answer that begins at `end`, found by `size` tokens (0: by its meaning)."""

    end: int
    size: int
    fact: int
    bare: bool


def says(
    ids: Sequence[int],
    taught: Sequence[Taught],
    tokens: HostTokens,
    *,
    prompt_end: int | None = None,
    meaning: Callable[[str], int | None] | None = None,
) -> list[int | None]:
    """What is said after each token of a text: a token, or None for silence.

    Args:
        ids: the text, from its beginning.
        taught: the facts, oldest first.
        prompt_end: how many of the tokens are the prompt, where that is known.
        meaning: from a question to the index of the fact that it means, or None.
    """
    begun = [
        one
        for end in range(1, len(ids) + 1)
        for one in _begun(ids, end, taught, tokens, prompt_end=prompt_end, meaning=meaning)
    ]
    return [_said(ids[:read], begun, taught, tokens, prompt_end) for read in _lengths(ids)]


def _lengths(ids: Sequence[int]) -> range:
    return range(1, len(ids) + 1)


def _begun(
    ids: Sequence[int],
    end: int,
    taught: Sequence[Taught],
    tokens: HostTokens,
    *,
    prompt_end: int | None,
    meaning: Callable[[str], int | None] | None,
) -> Iterator[_Begun]:
    """The answers that may begin after `end` tokens."""
    exact = list(_exact(ids, end, taught, tokens))
    yield from exact
    if exact or meaning is None:
        return
    text = np.asarray(ids, np.int64)
    if tokens.ends_with_marker(text, end):
        question = tokens.user_message(text, end)
    elif end == prompt_end:
        question = tokens.last_question(text, end)
    else:
        return
    fact = meaning(question)
    if fact is not None:
        yield _Begun(end, 0, fact, not tokens.continues_with_space(text, end))


def _exact(
    ids: Sequence[int], end: int, taught: Sequence[Taught], tokens: HostTokens
) -> Iterator[_Begun]:
    for start in range(end):
        if start and not tokens.opens_a_span(ids[start - 1]):
            continue
        span = tuple(ids[start:end])
        holders = [i for i, fact in enumerate(taught) if span in fact.spans]
        if holders:
            yield _Begun(end, end - start, holders[0], taught[holders[0]].spans[span])


def _said(
    text: Sequence[int],
    begun: Sequence[_Begun],
    taught: Sequence[Taught],
    tokens: HostTokens,
    prompt_end: int | None,
) -> int | None:
    """The next token of the answer that the text is in: exact, then latest, then longest."""
    speaking = []
    for one in begun:
        answer = taught[one.fact].answers[one.bare]
        if prompt_end is not None and one.end > prompt_end and answer[-1] == tokens.stop:
            answer = answer[:-1]  # amid the host's own text an answer does not end the text
        followed = tuple(text[one.end :])
        unfinished = one.end <= len(text) and len(followed) < len(answer)
        if unfinished and answer[: len(followed)] == followed:
            speaking.append((one.size > 0, one.end, one.size, answer[len(followed)]))
    return max(speaking, key=lambda each: each[:3])[3] if speaking else None
