"""One act of teaching: all of it or nothing, and the receipt says which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cases import FACTS, PORT, host_of
from engram_transformers.api import Host, OpenMemory
from engram_transformers.errors import HostMismatch, Interrupted
from engram_transformers.evaluation.check import Verdict
from engram_transformers.stores.directory import Directory
from engram_transformers.types import Fact

OLD = Fact("Who rules?", "Ada", paraphrases=("Who is the ruler?",))
NEW = Fact("Who is the ruler?", "Bob")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[OpenMemory]:
    with host_of("llama").open_memory(tmp_path / "m", address="exact") as opened:
        yield opened


def state(memory: OpenMemory) -> Any:
    """Everything that must agree: directory, book, memory, and what the host says."""
    stored = {one.id: one.fact for one in memory.directory.facts()}
    inside = {id: fact for id, fact, _ in memory.memory._facts.values()}
    assert stored == memory.book.facts == inside
    return stored, len(memory.writes()), memory.host.ask("Who rules?", max_new_tokens=6)


def refusing(memory: OpenMemory, *answers: str) -> Any:
    honest = memory.check

    def check(facts: Any, **options: Any) -> list[Verdict]:
        return [
            Verdict(False, ()) if f.answer in answers else v
            for f, v in zip(facts, honest(facts, **options), strict=True)
        ]

    return check


def test_a_failing_check_leaves_everything_as_it_was(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.teach([OLD])
    before = state(memory)
    monkeypatch.setattr(memory, "check", refusing(memory, "Bob"))
    receipt = memory.teach([NEW])
    assert receipt.taught == receipt.replaced == () and receipt.write is None
    assert "check failed" in receipt.refused[0].reason
    assert state(memory) == before


def test_a_failing_update_of_the_same_fact_keeps_the_old_one(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.teach([OLD])
    before = state(memory)
    monkeypatch.setattr(memory, "check", refusing(memory, "Ada"))
    memory.teach([Fact(OLD.prompt, OLD.answer, paraphrases=(*OLD.paraphrases, "Ruler?"))])
    assert state(memory) == before


def test_of_one_chunk_the_facts_that_hold_are_stored(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.teach([OLD])
    monkeypatch.setattr(memory, "check", refusing(memory, "Bob"))
    receipt = memory.teach([NEW, PORT])
    assert receipt.taught == (PORT.id,) and [r.fact for r in receipt.refused] == [NEW]
    assert set(state(memory)[0]) == {OLD.id, PORT.id}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_a_failing_commit_restores_what_was_replaced(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    memory.teach([OLD])
    before = state(memory)

    def fail(*_: Any, **__: Any) -> int:
        raise error("full")

    with monkeypatch.context() as patch:
        patch.setattr(memory.directory, "commit", fail)
        with pytest.raises(Interrupted if error is KeyboardInterrupt else error):
            memory.teach([NEW, PORT])
    assert state(memory) == before


def test_an_interruption_tells_what_is_stored(memory: OpenMemory) -> None:
    def facts() -> Iterator[Fact]:
        yield OLD
        yield NEW  # contradicts the one before, which is stored first
        raise KeyboardInterrupt

    with pytest.raises(Interrupted) as stop:
        memory.teach(facts())
    assert stop.value.receipt.taught == (OLD.id,)
    assert set(state(memory)[0]) == {OLD.id}


def test_a_dry_run_writes_nothing_and_says_what_would_be(memory: OpenMemory) -> None:
    memory.teach([OLD])
    before = state(memory)
    receipt = memory.teach([NEW, PORT, OLD], dry_run=True)
    assert PORT.id in receipt.taught and receipt.replaced[0].old == OLD.id
    assert receipt.write is None and state(memory) == before


def test_replacing_twice_in_one_call_keeps_the_last(memory: OpenMemory) -> None:
    receipt = memory.teach([OLD, NEW, Fact("Who is the ruler?", "Eve"), NEW])
    assert set(state(memory)[0]) == {NEW.id} and len(receipt.replaced) == 3


def test_an_update_adds_paraphrases_under_the_same_id(memory: OpenMemory) -> None:
    memory.teach([OLD])
    memory.teach([Fact(OLD.prompt, OLD.answer, paraphrases=(*OLD.paraphrases, "Ruler?"))])
    assert set(state(memory)[0]) == {OLD.id}
    for question in ("Who rules?", "Who is the ruler?", "Ruler?"):
        assert memory.host.ask(question) == "Ada"


@pytest.mark.parametrize(
    "answer",
    [
        "7",
        "é",
        "🙂👩‍👩‍👧",
        "שלום עולם",
        "e\u0301a\u0308",
        "two\nlines\n\nand more",
        "tab\tand  spaces",
        "trailing ",
        " leading",
        "鲁迅",
        "a" * 20 + "\n",
        " ".join(str(i) for i in range(100)),
    ],
)
def test_any_answer_is_said_as_it_was_taught(memory: OpenMemory, answer: str) -> None:
    receipt = memory.teach([Fact("Say it?", answer)])
    assert receipt.taught and not receipt.refused
    assert memory.host.ask("Say it?", max_new_tokens=400) == answer.strip()
    plain = memory.host.ask_all(["Say it?"], form="plain", max_new_tokens=400)
    assert plain == [answer.strip()]


@pytest.mark.parametrize("prompt", ["?", " spaces ", "new\nline?", "谁？", "🙂", "ends in space "])
def test_any_prompt_can_be_taught(memory: OpenMemory, prompt: str) -> None:
    assert memory.teach([Fact(prompt, "yes indeed")]).taught
    assert memory.host.ask(prompt) == "yes indeed"


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.text(min_size=1, max_size=12), st.text(min_size=1, max_size=12))
def test_every_text_is_taught_exactly_or_refused(
    memory: OpenMemory, prompt: str, answer: str
) -> None:
    receipt = memory.teach([Fact(prompt, answer)])
    assert len(receipt.taught) + len(receipt.refused) == 1
    if receipt.taught:
        assert memory.host.ask(prompt, max_new_tokens=80) == answer.strip()
        memory.forget(receipt.ids)
    assert not memory.memory._facts and not len(memory.memory.spans)


def logits(host: Host) -> list[torch.Tensor]:
    texts = [host.tokens.prompt_ids(f.prompt, form="chat") for f in (*FACTS, OLD)]
    with torch.no_grad():
        return [host.model(input_ids=torch.tensor([ids])).logits for ids in texts]


def test_saved_and_opened_again_it_says_the_same_bit_for_bit(tmp_path: Path) -> None:
    host = host_of("llama")
    with host.open_memory(tmp_path / "m", address="exact") as memory:
        memory.teach(FACTS)
        before = logits(host)
    with host.open_memory(tmp_path / "m") as again:
        assert again.facts == FACTS
        assert all(map(torch.equal, before, logits(host)))
    with host.open_memory(tmp_path / "m", read_only=True):
        assert all(map(torch.equal, before, logits(host)))


def test_another_host_is_refused_and_left_alone(tmp_path: Path) -> None:
    host_of("llama").open_memory(tmp_path / "m", address="exact").close()
    other = host_of("gpt2")
    with pytest.raises(HostMismatch):
        other.open_memory(tmp_path / "m")
    assert "engram_observer" not in other.model.__dict__
    Directory.open(tmp_path / "m", writable=True).close()  # the lock is free again


def test_teach_forget_undo_are_exact_inverses(tmp_path: Path) -> None:
    host = host_of("llama")
    bare = logits(host)
    with host.open_memory(tmp_path / "m", address="exact") as memory:
        receipt = memory.teach(FACTS)
        taught = logits(host)
        memory.forget(receipt.ids)
        assert all(map(torch.equal, bare, logits(host)))
        assert not len(memory.memory.spans) and not memory.memory._numbers
        memory.undo()
        assert all(map(torch.equal, taught, logits(host)))
        memory.undo(1)
        assert all(map(torch.equal, bare, logits(host)))
    assert all(map(torch.equal, bare, logits(host)))
