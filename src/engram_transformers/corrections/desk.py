"""Where feedback waits: proposals are kept until somebody confirms or rejects them."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from engram_transformers.corrections.feedback import ProposedEdit, Read, read_feedback
from engram_transformers.corrections.knowledge import Knowledge, says
from engram_transformers.corrections.protocol import Teachable
from engram_transformers.errors import CannotForget, UnknownFact
from engram_transformers.types import Receipt, Replacement


@dataclass(frozen=True)
class Heard:
    """What became of one piece of feedback."""

    proposals: tuple[ProposedEdit, ...]
    reason: str
    "Why there are none; empty otherwise."
    receipts: tuple[Receipt, ...] = ()
    "What was written at once, since the source is trusted."


class FeedbackDesk:
    """Turns feedback into proposals for one memory, and writes those that are confirmed.

    Args:
        trusted: sources whose corrections are written without asking, by name. It is the caller
            who says where feedback comes from; what the feedback says of itself does not count.
        least: confidence below which not even a trusted source's is.
    """

    def __init__(
        self, memory: Teachable, *, trusted: Iterable[str] = (), least: float = 0.7
    ) -> None:
        self.memory, self.trusted, self.least = memory, frozenset(trusted), least
        self.pending: dict[str, ProposedEdit] = {}

    def hear(
        self,
        text: str,
        *,
        question: str | None = None,
        said: str | None = None,
        source: str | None = None,
    ) -> Heard:
        """Read feedback and keep what it proposes; see `read_feedback`.

        Args:
            source: who gives it.
        """
        read: Read = read_feedback(text, question=question, said=said)
        return self.offer(read.proposals, reason=read.reason, source=source)

    def offer(
        self, proposals: Iterable[ProposedEdit], *, reason: str = "", source: str | None = None
    ) -> Heard:
        """Keep proposals from elsewhere, as from `check_answer`."""
        knowledge, receipts, new = Knowledge(self.memory.facts), [], []
        for one in proposals:
            known = knowledge.about(one.question)
            if known is not None and says(known.answer, one.answer):
                reason = f"it is taught already, as fact {known.id}"
                continue
            proposal = replace(one, replaces=(known.id,) if known else ())
            self.pending[proposal.id] = proposal
            new.append(proposal)
            if source in self.trusted and proposal.confidence >= self.least:
                receipts.append(self.confirm(proposal.id, who=source))
        return Heard(tuple(new), "" if new else reason, tuple(receipts))

    def confirm(self, id: str, *, who: str | None = None) -> Receipt:
        """Write a proposal; the receipt says whether the host answers so now.

        A fact with another answer to the same question gives way, which the receipt says too, also
        where it was taught in other words. A trained memory cannot forget one, and keeps it.
        """
        proposal = self._get(id)
        why = f"feedback: {proposal.evidence}"
        receipt = self.memory.teach([proposal.fact], who=who, why=why, source=proposal.source)
        # One that the memory refuses stays, so that it can be put otherwise.
        if not (receipt.taught or receipt.known):
            return receipt
        del self.pending[id]
        new = proposal.fact.id
        rivals = {fact.id for fact in self.memory.facts} & set(proposal.replaces) - {new}
        with suppress(CannotForget):
            gone = self.memory.forget(sorted(rivals), who=who, why=why) if rivals else ()
            replaced = (*receipt.replaced, *(Replacement(fact.id, new) for fact in gone))
            receipt = replace(receipt, replaced=replaced)
        return receipt

    def reject(self, id: str) -> ProposedEdit:
        """Drop a proposal."""
        proposal = self._get(id)
        del self.pending[id]
        return proposal

    def _get(self, id: str) -> ProposedEdit:
        if id not in self.pending:
            raise UnknownFact(f"no proposal {id!r} waits; there are {len(self.pending)}")
        return self.pending[id]
