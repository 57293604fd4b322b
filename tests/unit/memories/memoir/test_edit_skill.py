"""The edit skill: it drives an open memory, and success is what the host then says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cases import host_of
from engram_transformers.errors import BadInput
from engram_transformers.memories.memoir import SAM_UIF, MEMOIR_EditSkill
from engram_transformers.types import Fact, Receipt

PORT = "Which port does billing use?"


def request(**changes: Any) -> SAM_UIF:
    data = {
        "edit_prompt": PORT,
        "correct_answer": "8443",
        "edit_context": "Infrastructure correction",
        "confidence_score": 0.95,
    }
    return SAM_UIF(input_query="Factual correction", intermediate_data={**data, **changes})


class Stub:
    """A memory that says what it is told to, and remembers what was done to it."""

    def __init__(self, *said: str, taught: bool = True) -> None:
        self.said, self.taught, self.undone = list(said), taught, 0
        self.memory, self.host = self, self
        self.pace: dict[str, float] = {}

    def ask(self, question: str) -> str:
        one = self.said.pop(0)
        if one == "raise":
            raise RuntimeError("the host broke")
        return one

    def teach(self, facts: list[Fact], **note: Any) -> Receipt:
        return Receipt(taught=tuple(f.id for f in facts) if self.taught else (), write=7)

    def undo(self, write: int | None = None) -> Receipt:
        assert write == 7
        self.undone += 1
        return Receipt()

    def mask_of(self, edit_id: str) -> torch.Tensor:
        return torch.ones(4)

    def set_pace(self, *, learning_rate: float, steps: int) -> None:
        self.pace = {"learning_rate": learning_rate, "steps": steps}


def test_the_calls_of_the_seed_work_and_are_honest_without_a_memory() -> None:
    edit_skill = MEMOIR_EditSkill(hidden_size=4096, learning_rate=1e-4, max_training_steps=10)
    edit_uif = SAM_UIF(
        input_query="Factual correction",
        intermediate_data={
            "edit_prompt": "What is the capital of Australia?",
            "correct_answer": "Canberra",
            "edit_context": "Geography correction",
            "confidence_score": 0.95,
        },
    )
    result_uif = edit_skill.execute(edit_uif)
    assert result_uif.intermediate_data["edit_success"] is False
    assert "no memory is open" in result_uif.intermediate_data["edit_reason"]
    assert result_uif.intermediate_data["edit_id"] is None
    assert result_uif.intermediate_data["edit_prompt"] == "What is the capital of Australia?"


def test_an_edit_of_a_real_memory_changes_what_its_host_says(tmp_path: Path) -> None:
    host = host_of("llama")
    with host.open_memory(tmp_path / "m", address="exact") as memory:
        before = host.ask(PORT, max_new_tokens=8)
        skill = MEMOIR_EditSkill(hidden_size=host.adapter.hidden_size, memory=memory)
        done = skill.execute(request()).intermediate_data
        assert done["edit_success"] and done["edit_id"] == Fact(PORT, "8443").id
        assert host.ask(PORT) == done["metrics"]["answer_after"] == "8443" != before
        assert memory.get(done["edit_id"]).fact.answer == "8443"
        assert done["edit_mask"] is None  # a lookup memory has no masks
        again = skill.execute(request()).intermediate_data
        assert not again["edit_success"] and "already known" in again["edit_reason"]
        new = skill.execute(request(correct_answer="9000")).intermediate_data
        assert new["metrics"]["replaced"] == [done["edit_id"]] and host.ask(PORT) == "9000"
        memory.forget(new["edit_id"])
        assert host.ask(PORT, max_new_tokens=8) == before
    assert skill.get_statistics() == {
        "attempts": 3,
        "successes": 2,
        "success_rate": pytest.approx(2 / 3),
    }


def test_success_is_what_the_host_says_afterwards_and_not_what_was_written() -> None:
    """Seed 4.4 (2): it reported success for an edit that had written nothing."""
    memory = Stub("443", "443")
    done = MEMOIR_EditSkill(memory=memory).execute(request()).intermediate_data
    assert not done["edit_success"] and done["edit_id"] is None and memory.undone == 1
    assert "still answers '443'" in done["edit_reason"]


def test_a_host_that_breaks_after_teaching_leaves_no_edit() -> None:
    memory = Stub("443", "raise")
    with pytest.raises(RuntimeError, match="broke"):
        MEMOIR_EditSkill(memory=memory).execute(request())
    assert memory.undone == 1


def test_an_edit_that_the_memory_refuses_has_no_id() -> None:
    done = MEMOIR_EditSkill(memory=Stub("443", taught=False)).execute(request()).intermediate_data
    assert not done["edit_success"] and "did not store" in done["edit_reason"]


def test_masks_and_pace_go_to_memories_that_have_them() -> None:
    memory = Stub("443", "8443.")
    skill = MEMOIR_EditSkill(learning_rate=0.5, max_training_steps=3, memory=memory)
    done = skill.execute(request()).intermediate_data
    assert done["edit_success"] and done["edit_mask"].sum() == 4
    assert memory.pace == {"learning_rate": 0.5, "steps": 3} and done["metrics"]["paced"]


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"correct_answer": " "}, "correct_answer is ' '"),
        ({"edit_prompt": None}, "edit_prompt is None"),
        ({"confidence_score": 1.5}, "from 0 to 1"),
        ({"confidence_score": "high"}, "from 0 to 1"),
        ({"confidence_score": 0.2}, "below 0.5"),
    ],
)
def test_requests_that_cannot_be_carried_out(changes: dict[str, Any], reason: str) -> None:
    done = MEMOIR_EditSkill(memory=Stub()).execute(request(**changes)).intermediate_data
    assert not done["edit_success"] and reason in done["edit_reason"]


def test_a_host_of_another_size_is_refused(tmp_path: Path) -> None:
    with (
        host_of("llama").open_memory(tmp_path / "m", address="exact") as memory,
        pytest.raises(BadInput, match="hidden_size is 4096, but the host"),
    ):
        MEMOIR_EditSkill(hidden_size=4096, memory=memory)
    with pytest.raises(BadInput, match="above 0"):
        MEMOIR_EditSkill(learning_rate=0)
