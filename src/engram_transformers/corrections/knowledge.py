"""Taught facts by what they are about, to hold answers and claims against."""

from __future__ import annotations

from collections.abc import Iterable

from engram_transformers.corrections.claims import Claim, claim_of, fold, question_of
from engram_transformers.stores.text import normalise
from engram_transformers.types import Fact


class Knowledge:
    """Facts found by their wordings, and by subject and relation where these are known."""

    def __init__(self, facts: Iterable[Fact]) -> None:
        self._by_text: dict[str, Fact] = {}
        self._by_key: dict[tuple[str, str], Fact] = {}
        for fact in facts:
            self._by_text |= dict.fromkeys(map(_plain, fact.questions), fact)
            self._by_key |= dict.fromkeys(_keys(fact), fact)

    def about(self, question: str) -> Fact | None:
        """The fact that answers a question, if one is known to."""
        fact = self._by_text.get(_plain(question))
        if fact is not None:
            return fact
        key = question_of(question)
        return self._by_key.get(key) if key else None

    def against(self, claim: Claim) -> Fact | None:
        """The fact that a claim contradicts, if there is one."""
        fact = self._by_key.get(claim.key) or self._by_text.get(_plain(claim.question))
        return fact if fact is not None and not says(claim.value, fact.answer) else None


def says(text: str, answer: str) -> bool:
    """Whether a text gives this answer: as whole words, whatever their case."""
    words, wanted = f" {_words(text)} ", _words(answer)
    return bool(wanted) and f" {wanted} " in words


def _keys(fact: Fact) -> set[tuple[str, str]]:
    """All pairs of subject and relation by which a fact can be found."""
    asked = {key for text in fact.questions if (key := question_of(text))}
    said = claim_of(f"{fact.prompt} {fact.answer}")
    keys = asked | ({said.key} if said else set())
    if fact.subject and fact.relation:
        keys.add((fold(fact.subject), fold(fact.relation)))
    return keys


def _plain(text: str) -> str:
    return normalise(text).casefold().rstrip(" ?.!:")


def _words(text: str) -> str:
    return " ".join("".join(c if c.isalnum() else " " for c in text.casefold()).split())
