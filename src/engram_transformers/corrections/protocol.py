"""What this room asks of a memory; an `OpenMemory` of any kind has it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from engram_transformers.types import Fact, Firing, Receipt


class Explains(Protocol):
    """A memory that can be looked into."""

    @property
    def facts(self) -> tuple[Fact, ...]:
        """The facts that it knows, oldest first."""
        ...

    def explain(self, question: str) -> Firing:
        """Which fact fires on a question."""
        ...


class Teachable(Explains, Protocol):
    """A memory that can be taught, and forget."""

    def teach(
        self,
        facts: Iterable[Fact],
        *,
        who: str | None = None,
        why: str | None = None,
        source: str | None = None,
    ) -> Receipt:
        """Teach facts; the receipt says which of them hold."""
        ...

    def forget(
        self, ids: Iterable[str], *, who: str | None = None, why: str | None = None
    ) -> tuple[Fact, ...]:
        """Forget facts by id; `CannotForget` where they share what they are written in."""
        ...
