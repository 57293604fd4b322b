"""Is an answer what taught facts, or given sources, say? If not, which edit would make it so?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from engram_transformers.corrections.claims import Claim, claims_of, question_of
from engram_transformers.corrections.feedback import ProposedEdit
from engram_transformers.corrections.knowledge import Knowledge, says
from engram_transformers.types import Fact

Status = Literal["agrees", "contradicted", "disputed", "unknown"]

TAUGHT, READ = 0.95, 0.8
"Confidence of a proposal from a taught fact, and from a source that was read."


@dataclass(frozen=True)
class Passage:
    """A piece of text from a source, as a retrieval store gives it."""

    text: str
    source: str


@dataclass(frozen=True)
class Finding:
    """What checking one answer came to."""

    status: Status
    reason: str
    proposal: ProposedEdit | None = None
    "The edit that would put it right, where it is contradicted."
    fact: str | None = None
    "Id of the taught fact that decided."


def check_answer(
    question: str,
    answer: str,
    *,
    facts: Iterable[Fact] = (),
    sources: Callable[[str], Sequence[Passage]] | None = None,
) -> Finding:
    """Hold an answer against the taught facts and then against sources; nothing is written.

    What neither knows is `unknown`: without a source there is nothing to correct an answer by.

    Args:
        sources: from a question to passages that may answer it, such as a retrieval store.
    """
    fact = Knowledge(facts).about(question)
    if fact is not None:
        return _by_fact(question, answer, fact)
    key = question_of(question)
    if sources is None or key is None:
        return Finding("unknown", "no taught fact answers this question, and no source was read")
    found = [
        (claim, passage)
        for passage in sources(question)
        for claim in claims_of(passage.text)
        if claim.key == key
    ]
    return _by_sources(question, answer, found)


def _by_fact(question: str, answer: str, fact: Fact) -> Finding:
    if says(answer, fact.answer):
        return Finding("agrees", f"it is what fact {fact.id} says", fact=fact.id)
    proposal = ProposedEdit(
        question=question,
        answer=fact.answer,
        subject=fact.subject,
        relation=fact.relation,
        confidence=TAUGHT,
        contradicts=answer,
        evidence=f"{fact.prompt} {fact.answer}",
        source=fact.source or f"fact {fact.id}",
    )
    return Finding("contradicted", f"fact {fact.id} says {fact.answer!r}", proposal, fact.id)


def _by_sources(question: str, answer: str, found: Sequence[tuple[Claim, Passage]]) -> Finding:
    if not found:
        return Finding("unknown", "no source says anything about it")
    claim, passage = found[0]
    names = ", ".join(dict.fromkeys(each.source for _, each in found))
    if any(not (says(c.value, claim.value) or says(claim.value, c.value)) for c, _ in found):
        return Finding("disputed", f"sources contradict each other: {names}")
    if any(says(answer, c.value) for c, _ in found):
        return Finding("agrees", f"it is what {names} says")
    proposal = ProposedEdit(
        question=question,
        answer=claim.value,
        subject=claim.subject,
        relation=claim.relation,
        confidence=READ,
        contradicts=answer,
        evidence=passage.text,
        source=passage.source,
    )
    return Finding("contradicted", f"{names} says {claim.value!r}", proposal)
