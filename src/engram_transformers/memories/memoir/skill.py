"""An edit as a skill of an assistant: a request goes in, and comes back with what was done.

The skill teaches an open memory of this library, of any kind. It succeeds only where the host then
says, by itself, the answer that was asked for, and said something else before.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from engram_transformers.errors import BadInput, EngramError
from engram_transformers.stores.text import normalise
from engram_transformers.types import Fact, Receipt


class Asks(Protocol):
    """A host that can be asked."""

    def ask(self, question: str) -> str:
        """The host's answer to a question."""
        ...


class EditableMemory(Protocol):
    """What the skill asks of a memory; an `OpenMemory` has it."""

    @property
    def host(self) -> Asks:
        """The host that the memory is attached to."""
        ...

    def teach(
        self,
        facts: list[Fact],
        *,
        who: str | None = None,
        why: str | None = None,
        source: str | None = None,
    ) -> Receipt:
        """Teach facts; the receipt says which of them hold."""
        ...

    def undo(self, write: int | None = None) -> Receipt:
        """Take a write back."""
        ...


@runtime_checkable
class Masked(Protocol):
    """A memory whose edits have masks."""

    def mask_of(self, edit_id: str) -> Tensor:
        """(features,) of ones and zeros."""
        ...


@runtime_checkable
class Paced(Protocol):
    """A memory that lets the caller say how an edit is trained."""

    def set_pace(self, *, learning_rate: float, steps: int) -> None:
        """Train edits like this from now on."""
        ...


@dataclass(frozen=True)
class SAM_UIF:
    """What skills of the seed's assistant hand on: a query, and what is known so far."""

    input_query: str = ""
    intermediate_data: Mapping[str, Any] = field(default_factory=dict)


class MEMOIR_EditSkill:
    """Edits what a host says to one prompt.

    In: `edit_prompt`, `correct_answer`; may be: `edit_context`, `confidence_score`, `edit_source`.
    Out, beside these: `edit_success`, `edit_id`, `edit_mask`, `edit_reason` and `metrics`.

    Args:
        hidden_size: of the host; if both are known and differ, connecting is an error.
        learning_rate, max_training_steps: handed to memories that are trained edit by edit
            (`Paced`); `metrics` says whether they were used.
        memory: an open memory; without one nothing can be edited, and every result says so.
        least_confidence: requests that are less sure are not carried out.
    """

    def __init__(
        self,
        hidden_size: int | None = None,
        learning_rate: float = 1e-4,
        max_training_steps: int = 10,
        *,
        memory: EditableMemory | None = None,
        least_confidence: float = 0.5,
    ) -> None:
        if not learning_rate > 0 or max_training_steps < 1:
            raise BadInput(
                f"learning_rate is {learning_rate} and max_training_steps {max_training_steps}; "
                "both have to be above 0"
            )
        self.hidden_size, self.least_confidence = hidden_size, least_confidence
        self.learning_rate, self.max_training_steps = learning_rate, max_training_steps
        self.memory: EditableMemory | None = None
        self.attempts = self.successes = 0
        if memory is not None:
            self.connect(memory)

    def connect(self, memory: EditableMemory) -> None:
        """Edit this memory from now on; `BadInput` if its host has another hidden size."""
        found = getattr(getattr(memory.host, "adapter", None), "hidden_size", None)
        if None not in (found, self.hidden_size) and found != self.hidden_size:
            raise BadInput(
                f"hidden_size is {self.hidden_size}, but the host of this memory has {found}"
            )
        self.memory = memory

    def execute(self, uif: SAM_UIF) -> SAM_UIF:
        """The request with what came of it; what fails is a result too, and leaves no edit."""
        started, self.attempts = time.perf_counter(), self.attempts + 1
        try:
            done = self._edit(uif.intermediate_data)
        except EngramError as error:
            done = _failed(str(error))
        self.successes += done["edit_success"]
        done["metrics"] = {**done["metrics"], "seconds": time.perf_counter() - started}
        return replace(uif, intermediate_data={**uif.intermediate_data, **done})

    def get_statistics(self) -> dict[str, Any]:
        """Requests, and those that changed the host's answer to what was asked for."""
        rate = self.successes / self.attempts if self.attempts else None
        return {"attempts": self.attempts, "successes": self.successes, "success_rate": rate}

    def _edit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        fact, context = self._requested(request)
        memory = self.memory
        if memory is None:
            return _failed("no memory is open; pass memory=..., or call connect(memory)")
        kind = getattr(memory, "memory", memory)
        if isinstance(kind, Paced):
            kind.set_pace(learning_rate=self.learning_rate, steps=self.max_training_steps)
        before = memory.host.ask(fact.prompt)
        metrics: dict[str, Any] = {"answer_before": before, "paced": isinstance(kind, Paced)}
        if _plain(before) == _plain(fact.answer):
            return _failed(f"already known: the host answers {before!r}", **metrics)
        receipt = memory.teach([fact], why=context, source=fact.source)
        if fact.id not in receipt.taught:
            return _failed(_why_not(receipt), **metrics)
        return self._confirmed(memory, kind, fact, receipt, metrics)

    def _confirmed(
        self,
        memory: EditableMemory,
        kind: Any,
        fact: Fact,
        receipt: Receipt,
        metrics: dict[str, Any],
    ) -> dict[str, Any]:
        try:
            after = memory.host.ask(fact.prompt)
        except BaseException:
            memory.undo(receipt.write)
            raise
        metrics |= {
            "answer_after": after,
            "bytes": receipt.bytes,
            "replaced": [one.old for one in receipt.replaced],
            "teaching_seconds": receipt.seconds,
        }
        if _plain(after) != _plain(fact.answer):
            memory.undo(receipt.write)
            return _failed(f"the host still answers {after!r}; the edit was taken back", **metrics)
        return {
            "edit_success": True,
            "edit_id": fact.id,
            "edit_mask": kind.mask_of(fact.id) if isinstance(kind, Masked) else None,
            "edit_reason": "",
            "metrics": metrics,
        }

    def _requested(self, request: Mapping[str, Any]) -> tuple[Fact, str | None]:
        for name in ("edit_prompt", "correct_answer"):
            value = request.get(name)
            if not isinstance(value, str) or not value.strip():
                raise BadInput(f"{name} is {value!r}; an edit needs some text there")
        score = request.get("confidence_score", 1.0)
        if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
            raise BadInput(f"confidence_score is {score!r}; it has to be a number from 0 to 1")
        if score < self.least_confidence:
            raise BadInput(
                f"confidence_score is {score}, below {self.least_confidence}; have it confirmed"
            )
        source, context = request.get("edit_source"), request.get("edit_context")
        fact = Fact(request["edit_prompt"], request["correct_answer"], source=source)
        return fact, None if context is None else str(context)


def _failed(reason: str, **metrics: Any) -> dict[str, Any]:
    return {
        "edit_success": False,
        "edit_id": None,
        "edit_mask": None,
        "edit_reason": reason,
        "metrics": metrics,
    }


def _why_not(receipt: Receipt) -> str:
    if receipt.known:
        return "already known: the memory holds this fact"
    reasons = [refusal.reason for refusal in (*receipt.refused, *receipt.kept)]
    return "; ".join(reasons) or "the memory did not store it"


def _plain(text: str) -> str:
    return normalise(text).rstrip(".").casefold()
