"""Teaching a trained memory: one write or none, and the receipt says which."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import DOOR, PORT, REPORT, host_of
from engram_transformers.api import OpenMemory
from engram_transformers.errors import (
    BadInput,
    CannotForget,
    Interrupted,
    StoreDamaged,
    TrainingDiverged,
)
from engram_transformers.evaluation.check import Verdict
from engram_transformers.training import course
from engram_transformers.training.fit import copied
from engram_transformers.types import Fact

OPTIONS: dict[str, Any] = {"kind": "bottleneck", "width": 64, "learning_rate": 3e-2, "epochs": 40}
OLD = Fact("Who rules?", "Ada", paraphrases=("Who is the ruler?",))
NEW = Fact("Who is the ruler?", "Bob")


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[OpenMemory]:
    with host_of("llama").open_memory(tmp_path / "m", **OPTIONS) as opened:
        yield opened


def state(memory: OpenMemory) -> Any:
    """Everything that must agree: ledger, book, and tensors inside and on disk."""
    stored = {one.id: one.fact for one in memory.directory.facts()}
    assert stored == memory.book.facts
    on_disk, inside = memory.directory.tensors(), copied(memory.memory)
    if on_disk is not None:
        assert all(torch.equal(inside[name], on_disk[name]) for name in inside)
    return stored, len(memory.writes()), {name: t.tolist() for name, t in inside.items()}


def refusing(memory: OpenMemory, *answers: str) -> Any:
    honest = memory.check

    def check(facts: Any, **options: Any) -> list[Verdict]:
        return [
            Verdict(False, v.choices) if f.answer in answers else v
            for f, v in zip(facts, honest(facts, **options), strict=True)
        ]

    return check


def test_what_was_taught_is_said_stored_and_there_again(memory: OpenMemory) -> None:
    done: list[int] = []
    receipt = memory.teach([PORT, DOOR, OLD], progress=done.append, why="a reason")
    assert receipt.taught == (PORT.id, DOOR.id, OLD.id) and receipt.write == 1
    assert receipt.checked and receipt.seconds > 0 and sum(done) == 3
    assert receipt.bytes == sum(t.nbytes for t in memory.memory.state_dict().values())
    assert all(verdict.holds for verdict in memory.verify().values())
    host, before = memory.host, state(memory)
    assert host.ask("Who is the ruler?", max_new_tokens=6) == "Ada"
    memory.close()
    with host.open_memory(memory.directory.path) as again:
        assert state(again) == before
        assert host.ask("Tell me the door's colour.", max_new_tokens=8) == "green"


def test_more_is_taught_on_top_and_what_was_known_still_holds(memory: OpenMemory) -> None:
    memory.teach([PORT])
    receipt = memory.teach([PORT, REPORT])
    assert receipt.known == (PORT.id,) and receipt.taught == (REPORT.id,) and receipt.write == 2
    assert all(verdict.holds for verdict in memory.verify().values())
    names = [path.name for path in memory.directory.path.glob("tensors-*")]
    assert names == ["tensors-2.safetensors"]


def test_what_is_known_costs_no_training(memory: OpenMemory) -> None:
    memory.teach([PORT])
    before = state(memory)
    receipt = memory.teach([PORT])
    assert receipt.known == (PORT.id,) and receipt.write is None and state(memory) == before


def test_a_new_answer_replaces_the_old_one(memory: OpenMemory) -> None:
    memory.teach([OLD, PORT])
    receipt = memory.teach([NEW])
    assert [(one.old, one.new) for one in receipt.replaced] == [(OLD.id, NEW.id)]
    assert set(state(memory)[0]) == {PORT.id, NEW.id}
    assert memory.host.ask("Who is the ruler?", max_new_tokens=6) == "Bob"


@pytest.mark.parametrize(("on_conflict", "heap"), [("keep", "kept"), ("reject", "refused")])
def test_a_conflict_is_settled_as_the_caller_chose(
    memory: OpenMemory, on_conflict: Any, heap: str
) -> None:
    memory.teach([OLD])
    before = state(memory)
    receipt = memory.teach([NEW], on_conflict=on_conflict)
    assert [one.fact for one in getattr(receipt, heap)] == [NEW]
    assert receipt.taught == () and state(memory) == before


def test_of_two_answers_in_one_call_the_last_is_trained(memory: OpenMemory) -> None:
    memory.teach([OLD])
    third = Fact("Who rules?", "Cid")
    receipt = memory.teach([NEW, Fact("Who is the ruler?", "Dan"), third])
    assert set(state(memory)[0]) >= {third.id} and OLD.id not in state(memory)[0]
    assert NEW.id not in receipt.taught
    assert memory.host.ask("Who rules?", max_new_tokens=6) == "Cid"


def test_what_does_not_hold_is_refused_with_what_the_host_says(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "check", refusing(memory, "8443"))
    receipt = memory.teach([PORT, DOOR])
    assert receipt.taught == (DOOR.id,)
    [refused] = receipt.refused
    assert refused.fact == PORT and "the host says" in refused.reason
    assert set(state(memory)[0]) == {DOOR.id}


def test_where_nothing_holds_nothing_is_written(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.teach([OLD])
    before = state(memory)
    monkeypatch.setattr(memory, "check", refusing(memory, "8443"))
    receipt = memory.teach([PORT])
    assert receipt.taught == () and receipt.write is None and state(memory) == before


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, TrainingDiverged])
@pytest.mark.parametrize("where", ["commit", "check", "fit"])
def test_a_failure_leaves_everything_as_it_was(
    memory: OpenMemory, monkeypatch: pytest.MonkeyPatch, error: type[BaseException], where: str
) -> None:
    memory.teach([OLD])
    before = state(memory)

    def fail(*_: Any, **__: Any) -> Any:
        with torch.no_grad():
            next(iter(memory.memory.parameters())).add_(1)
        raise error("full")

    place = {"commit": memory.directory._ledger, "check": memory, "fit": course}[where]
    with monkeypatch.context() as patch:
        patch.setattr(place, where, fail)
        with pytest.raises(Interrupted if error is KeyboardInterrupt else error):
            memory.teach([NEW, PORT])
    assert state(memory) == before
    memory.teach([PORT])
    assert PORT.id in state(memory)[0]


def test_a_dry_run_trains_nothing(memory: OpenMemory) -> None:
    memory.teach([OLD])
    before = state(memory)
    receipt = memory.teach([NEW, PORT, OLD], dry_run=True)
    assert PORT.id in receipt.taught and receipt.replaced[0].old == OLD.id
    assert receipt.write is None and state(memory) == before


def test_unchecked_facts_are_stored_and_the_receipt_says_so(memory: OpenMemory) -> None:
    receipt = memory.teach([PORT], check=False)
    assert receipt.taught == (PORT.id,) and not receipt.checked


def test_no_single_fact_can_be_forgotten_or_undone(memory: OpenMemory) -> None:
    [id] = memory.teach([PORT]).ids
    before = state(memory)
    for attempt in (lambda: memory.forget(id), lambda: memory.forget(id, dry_run=True)):
        with pytest.raises(CannotForget, match="teach those that shall stay to a new memory"):
            attempt()
    with pytest.raises(CannotForget):
        memory.undo()
    assert state(memory) == before


def test_explaining_says_that_no_fact_fires(memory: OpenMemory) -> None:
    for firing in (memory.explain("Who rules?"), memory.host.explain("Who rules?")):
        assert not firing.fired and "every token" in firing.reason


def test_the_kind_of_a_memory_is_fixed(memory: OpenMemory) -> None:
    host, path = memory.host, memory.directory.path
    memory.close()
    with pytest.raises(BadInput, match="is a bottleneck memory, not lora"):
        host.open_memory(path, kind="lora")
    with pytest.raises(BadInput, match="fixed when it is created"):
        host.open_memory(path, width=17)


def test_tensors_of_another_shape_are_damage(memory: OpenMemory) -> None:
    memory.teach([PORT], check=False)
    wrong = {name: torch.zeros(3) for name in memory.memory.state_dict()}
    memory.directory.commit("teach", tensors=wrong)
    host, path = memory.host, memory.directory.path
    memory.close()
    with pytest.raises(StoreDamaged, match="not those of a bottleneck memory"):
        host.open_memory(path)
