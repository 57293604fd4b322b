"""Before anything is written: what is new, what is known already, what contradicts what."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from engram_transformers.errors import FactRefused
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact, OnConflict

Key = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """What is to be done about one fact."""

    fact: Fact
    act: Literal["write", "known", "keep", "reject"]
    rivals: tuple[str, ...] = ()
    "Ids of stored facts that give way to it, or stand against it."
    reason: str = ""


class Book:
    """The stored facts by everything that two of them must not share with different answers."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.facts: dict[str, Fact] = {}
        self._holders: dict[Key, list[str]] = defaultdict(list)
        for fact in facts:
            self.add(fact)

    def add(self, fact: Fact) -> None:
        self.facts[fact.id] = fact
        for key in _keys(fact):
            self._holders[key].append(fact.id)

    def remove(self, id: str) -> Fact:
        fact = self.facts.pop(id)
        for key in _keys(fact):
            self._holders[key].remove(id)
            if not self._holders[key]:
                del self._holders[key]
        return fact

    def rivals(self, fact: Fact) -> tuple[str, ...]:
        """Ids of the stored facts that share a question, or subject and relation, with it."""
        ids = (id for key in _keys(fact) for id in self._holders.get(key, ()))
        return tuple(dict.fromkeys(ids))

    def settle(self, fact: Fact, *, on_conflict: OnConflict) -> Step:
        """What to do about a fact, given what is stored."""
        rivals = self.rivals(fact)
        if any(_covers(self.facts[id], fact) for id in rivals):
            return Step(fact, "known", rivals)
        against = [id for id in rivals if self.facts[id].answer.strip() != fact.answer.strip()]
        if not against:
            return Step(_united(fact, [self.facts[id] for id in rivals]), "write", rivals)
        if on_conflict == "replace":
            return Step(fact, "write", rivals)
        stored = self.facts[against[0]]
        reason = f"{stored.prompt!r} is taught with the answer {_short(stored.answer)}"
        return Step(fact, "keep" if on_conflict == "keep" else "reject", rivals, reason)


def check_fact(fact: Fact, tokens: HostTokens, *, longest: int | None) -> None:
    """Raise `FactRefused` for a fact that cannot be taught to this host as it stands."""
    parts = [("prompt", fact.prompt), ("answer", fact.answer)]
    for name, text in (*parts, *(("paraphrase", text) for text in fact.paraphrases)):
        if not text.strip():
            raise FactRefused(f"the {name} is empty")
    for text in (*fact.questions, fact.answer):
        _check_text(text, longest=longest)
    answer = tokens.encode(fact.answer.strip())
    if not answer:
        raise FactRefused("the answer has no token in this host's vocabulary")
    if _squeeze(tokens.decode_answer(answer)) != _squeeze(fact.answer):
        written = _short(tokens.decode_answer(answer))
        raise FactRefused(f"this host cannot write the answer: it would write {written}")
    for question in fact.questions:
        # No token is shorter than a byte, so what is short in bytes need not be encoded.
        size = tokens.frame + len(question.encode()) + len(answer) + 1
        if longest is not None and size > longest:
            size = len(tokens.prompt_ids(question, form=tokens.ask_form)) + len(answer) + 1
        if longest is not None and size > longest:
            raise FactRefused(
                f"prompt and answer take {size} tokens, but this host reads at most {longest}"
            )


def _check_text(text: str, *, longest: int | None) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise FactRefused("the text holds a lone surrogate, which is no character") from error
    # Encoding millions of characters takes minutes; no token holds a hundred on average.
    if longest is not None and len(text) > 100 * longest:
        raise FactRefused(
            f"{len(text):,} characters cannot fit in the {longest} tokens that this host reads"
        )


def _keys(fact: Fact) -> Iterator[Key]:
    for question in dict.fromkeys(map(_squeeze, fact.questions)):
        yield ("question", question)
    if fact.subject and fact.relation:
        yield ("pair", _squeeze(fact.subject), _squeeze(fact.relation))


def _covers(stored: Fact, fact: Fact) -> bool:
    """Whether teaching the fact would add nothing to the stored one."""
    return (
        stored.answer.strip() == fact.answer.strip()
        and set(map(_squeeze, fact.questions)) <= set(map(_squeeze, stored.questions))
        and fact.subject in (None, stored.subject)
        and fact.relation in (None, stored.relation)
    )


def _united(fact: Fact, stored: Sequence[Fact]) -> Fact:
    """The fact with the wordings, subject and relation of stored ones that have its answer."""
    questions = (q for one in (fact, *stored) for q in one.questions)
    return replace(
        fact,
        paraphrases=tuple(q for q in dict.fromkeys(questions) if q != fact.prompt),
        subject=fact.subject or next((one.subject for one in stored if one.subject), None),
        relation=fact.relation or next((one.relation for one in stored if one.relation), None),
    )


def _squeeze(text: str) -> str:
    """Composed characters, and one space wherever there is white space."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:57]}...")
