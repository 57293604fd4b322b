"""Proposals wait; checking answers and watching steps propose, and none of them writes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cases import host_of
from engram_transformers.corrections import (
    FeedbackDesk,
    Passage,
    ReasoningWatch,
    Step,
    check_answer,
)
from engram_transformers.errors import CannotForget, UnknownFact
from engram_transformers.types import Fact, Firing, Receipt, Refusal, Replacement

CAPITAL = Fact("What is the capital of Australia?", "Canberra", source="atlas")
WRONG = "No, the capital of Australia is Canberra, not Sydney"


class Stub:
    """A memory that stores what it is taught and fires on the prompts that it knows."""

    def __init__(self, *facts: Fact, refuses: bool = False, shares: bool = False) -> None:
        self.facts, self.refuses, self.shares = facts, refuses, shares
        self.notes: list[dict[str, Any]] = []

    def explain(self, question: str) -> Firing:
        found = [fact for fact in self.facts if question in fact.questions]
        id = found[0].id if found else None
        return Firing(bool(found), id, "exact" if found else None, 1.0 if found else 0.0, "")

    def teach(self, facts: Iterable[Fact], **note: Any) -> Receipt:
        new = tuple(facts)
        if self.refuses:
            return Receipt(refused=tuple(Refusal(fact, "no") for fact in new))
        self.facts, self.notes = (*self.facts, *new), [*self.notes, note]
        return Receipt(taught=tuple(fact.id for fact in new))

    def forget(self, ids: Iterable[str], **note: Any) -> tuple[Fact, ...]:
        if self.shares:
            raise CannotForget("they share their tensors")
        gone = tuple(fact for fact in self.facts if fact.id in set(ids))
        self.facts = tuple(fact for fact in self.facts if fact not in gone)
        return gone


def test_nothing_is_written_before_it_is_confirmed() -> None:
    memory = Stub()
    desk = FeedbackDesk(memory)
    (proposal,) = desk.hear(WRONG, source="a stranger").proposals
    assert not memory.facts and list(desk.pending) == [proposal.id]
    receipt = desk.confirm(proposal.id, who="ada")
    assert receipt.taught == (proposal.fact.id,) and not desk.pending
    assert memory.facts[0].answer == "Canberra"
    assert memory.notes == [{"who": "ada", "why": f"feedback: {WRONG}", "source": None}]


def test_a_trusted_source_is_written_at_once_if_it_is_sure() -> None:
    memory = Stub()
    desk = FeedbackDesk(memory, trusted=["cmdb"])
    assert desk.hear(WRONG, source="cmdb").receipts and len(memory.facts) == 1
    unsure = FeedbackDesk(Stub(), trusted=["cmdb"], least=0.9)
    assert not unsure.hear(WRONG, source="cmdb").receipts and len(unsure.pending) == 1


def test_what_feedback_says_of_its_own_source_does_not_make_it_trusted() -> None:
    memory = Stub()
    desk = FeedbackDesk(memory, trusted=["Wikipedia"])
    heard = desk.hear("No, according to Wikipedia, the capital of Australia is Sydney.")
    assert heard.proposals[0].source == "Wikipedia" and not heard.receipts and not memory.facts


def test_what_is_taught_already_is_no_proposal_and_what_gives_way_is_named() -> None:
    desk = FeedbackDesk(Stub(CAPITAL))
    heard = desk.hear(WRONG)
    assert not heard.proposals and CAPITAL.id in heard.reason
    (other,) = desk.hear("No, the capital of Australia is Melbourne.").proposals
    assert other.replaces == (CAPITAL.id,)


def test_an_answer_taught_in_other_words_gives_way() -> None:
    old = Fact("What is Australia's capital?", "Sydney")
    memory = Stub(old)
    desk = FeedbackDesk(memory)
    (proposal,) = desk.hear(WRONG).proposals
    receipt = desk.confirm(proposal.id)
    assert receipt.replaced == (Replacement(old.id, proposal.fact.id),)
    assert [fact.answer for fact in memory.facts] == ["Canberra"]
    trained = Stub(old, shares=True)
    desk = FeedbackDesk(trained)
    desk.hear(WRONG)
    assert not desk.confirm(proposal.id).replaced and len(trained.facts) == 2


def test_rejecting_and_refusing() -> None:
    desk = FeedbackDesk(Stub(refuses=True))
    (proposal,) = desk.hear(WRONG).proposals
    assert not desk.confirm(proposal.id).taught and proposal.id in desk.pending
    assert desk.reject(proposal.id) == proposal
    with pytest.raises(UnknownFact, match="there are 0"):
        desk.confirm(proposal.id)


def test_feedback_without_a_proposal_says_why() -> None:
    heard = FeedbackDesk(Stub()).hear("Try again.")
    assert not heard.proposals and heard.reason


def test_feedback_teaches_a_real_memory_and_can_be_taken_back(tmp_path: Path) -> None:
    host = host_of("llama")
    with host.open_memory(tmp_path / "m", address="exact") as memory:
        (old,) = memory.teach([Fact("What is Redis's port?", "80")]).ids
        desk = FeedbackDesk(memory)
        (proposal,) = desk.hear("No, the port of Redis is 6379.").proposals
        receipt = desk.confirm(proposal.id, who="ada")
        assert host.ask(proposal.question) == "6379"
        assert [one.old for one in receipt.replaced] == [old] and len(memory) == 1
        write = memory.writes()[1]
        assert write.who == "ada" and write.why == "feedback: No, the port of Redis is 6379."
        memory.forget(receipt.ids)
        assert not memory.facts


def test_an_answer_is_held_against_the_taught_facts() -> None:
    asked = "What is Australia's capital?"
    wrong = check_answer(asked, "It is Sydney.", facts=[CAPITAL])
    assert wrong.status == "contradicted" and wrong.fact == CAPITAL.id and wrong.proposal
    assert (wrong.proposal.question, wrong.proposal.answer) == (asked, "Canberra")
    assert wrong.proposal.source == "atlas" and wrong.proposal.contradicts == "It is Sydney."
    right = check_answer(asked, "It is canberra, of course.", facts=[CAPITAL])
    assert right.status == "agrees" and right.proposal is None
    assert check_answer("Who owns Acme?", "Bo", facts=[CAPITAL]).status == "unknown"


def test_an_answer_is_held_against_a_source() -> None:
    def store(*texts: str) -> Any:
        return lambda question: [Passage(text, f"page {i}") for i, text in enumerate(texts)]

    asked = CAPITAL.prompt
    found = check_answer(
        asked, "Sydney", sources=store("Hills. Canberra is the capital of Australia.")
    )
    assert found.status == "contradicted" and found.proposal and found.proposal.source == "page 0"
    assert found.proposal.answer == "Canberra"
    two = store("The capital of Australia is Canberra.", "Australia's capital is Sydney.")
    assert check_answer(asked, "Sydney", sources=two).status == "disputed"
    assert check_answer(asked, "Canberra!", sources=store("The capital of Australia is Canberra.")
                        ).status == "agrees"  # fmt: skip
    assert check_answer(asked, "Sydney", sources=store("The capital of Austria is Vienna.")
                        ).status == "unknown"  # fmt: skip


def test_without_a_source_nothing_is_made_up() -> None:
    """Seed 4.4 (8): its "correction" was a placeholder, which would have been taught as truth."""
    found = check_answer("What is the capital of Mars?", "Olympus")
    assert found.status == "unknown" and found.proposal is None


def test_each_stage_of_a_step_is_watched() -> None:
    memory, told = Stub(CAPITAL), list[Step]()
    watch = ReasoningWatch(memory, notify=told.append)
    assert watch.before(CAPITAL.prompt).fired[0].fact == CAPITAL.id
    assert not watch.before("Who are you?").fired
    step = "Let me think. The capital of Australia is Sydney"
    assert not watch.during(step).contradictions  # it may go on
    (found,) = watch.during(f"{step}.").contradictions
    assert found.fact == CAPITAL and found.claim.value == "Sydney"
    assert (found.proposal.answer, found.proposal.contradicts) == ("Canberra", "Sydney")
    assert not watch.during(f"{step}. So").contradictions  # told once
    done = watch.after(f"{step}. {CAPITAL.prompt}")
    assert len(done.contradictions) == 1 and done.fired[0].fact == CAPITAL.id
    assert told == watch.steps and [one.stage for one in told[-2:]] == ["during", "after"]
    assert memory.facts == (CAPITAL,)


def test_a_step_that_agrees_is_left_alone() -> None:
    watch = ReasoningWatch(Stub(CAPITAL))
    assert not watch.after("Canberra is the capital of Australia. It is nice.").contradictions
