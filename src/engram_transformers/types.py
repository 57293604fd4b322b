"""Plain data that every room of the library shares."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

Progress = Callable[[int], None]
"Is told how much more is done."
Told = Callable[[str, int, int | None], None]
"Is told what is under way, how much more of it is done, and how much there is."
OnConflict = Literal["replace", "keep", "reject"]


@dataclass(frozen=True)
class Fact:
    """A prompt, the answer to it, and what helps to recognise other wordings of the prompt."""

    prompt: str
    answer: str
    paraphrases: tuple[str, ...] = ()
    subject: str | None = None
    relation: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        # Callers naturally pass lists; a fact has to be hashable.
        object.__setattr__(self, "paraphrases", tuple(self.paraphrases))

    @cached_property
    def id(self) -> str:
        """Twelve hexadecimal digits that depend on nothing but the prompt and the answer."""
        text = json.dumps([self.prompt, self.answer], ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @cached_property
    def questions(self) -> tuple[str, ...]:
        """The prompt and its paraphrases, without repeats, in order."""
        return tuple(dict.fromkeys((self.prompt, *self.paraphrases)))

    def as_dict(self) -> dict[str, Any]:
        """The fact as JSON-ready data, without the fields that are empty."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value not in (None, ())
        }


@dataclass(frozen=True)
class Refusal:
    """A fact that was not stored, and why."""

    fact: Fact
    reason: str


@dataclass(frozen=True)
class Replacement:
    """A stored fact that gave way to a new one."""

    old: str
    new: str


@dataclass(frozen=True)
class Receipt:
    """What one act of teaching did: written, how it was checked, what it cost."""

    taught: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    kept: tuple[Refusal, ...] = ()
    replaced: tuple[Replacement, ...] = ()
    refused: tuple[Refusal, ...] = ()
    forgotten: tuple[str, ...] = ()
    "Facts that an undo took out again."
    checked: bool = True
    seconds: float = 0.0
    bytes: int = 0
    write: int | None = None
    "Number of this write in the ledger; None when nothing was written."

    @property
    def ids(self) -> tuple[str, ...]:
        """Ids of the facts that this act wrote."""
        return self.taught


@dataclass(frozen=True)
class HostIdentity:
    """Which host a memory belongs to: a readable id and a fingerprint that decides."""

    id: str
    fingerprint: str
    weights: str = field(default="", compare=False)
    "The fingerprint without the tokenizer, which tells what differs; empty where it is not known."


@dataclass(frozen=True)
class Candidate:
    """One stored fact that was considered for a question."""

    fact: str
    question: str
    similarity: float
    probability: float


@dataclass(frozen=True)
class Firing:
    """One decision of a memory about one question: fired or silent, and why."""

    fired: bool
    fact: str | None
    address: str | None
    "`exact`, `meaning` or, for codebooks, `states`; None when silent."
    score: float
    reason: str
    candidates: tuple[Candidate, ...] = field(default=())
