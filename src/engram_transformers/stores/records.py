"""Plain data that a memory directory is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from engram_transformers.types import Fact

if TYPE_CHECKING:  # reading a ledger's text must not cost an import of torch
    from torch import Tensor

    Tensors = dict[str, Tensor]

Act = Literal["teach", "forget", "undo"]


@dataclass(frozen=True)
class Stored:
    """An active fact as the directory keeps it."""

    id: str
    fact: Fact
    write: int
    "Number of the write that stored it."
    delta: Tensors
    "Empty where deltas were not asked for."


@dataclass(frozen=True)
class Head:
    """The last write: its number, and a random stamp that no other history shares."""

    number: int
    stamp: str


@dataclass(frozen=True)
class Packed:
    """A delta as bytes: what its tensors are, in safetensors' words, and their data."""

    header: str
    data: bytes


@dataclass(frozen=True)
class Row:
    """One row of the ledger: a fact, and the writes between which it was active."""

    row: int
    id: str
    fact: Fact
    added: int
    removed: int | None


@dataclass(frozen=True)
class Note:
    """What is recorded about a write besides the facts."""

    act: Act
    who: str | None = None
    why: str | None = None
    source: str | None = None
    receipt: Mapping[str, Any] | None = None
    undoes: int | None = None
    "Number of the write that this one takes back."


@dataclass(frozen=True)
class Write:
    """One entry of the ledger's history."""

    number: int
    at: str
    "UTC, ISO 8601."
    act: Act
    who: str | None
    why: str | None
    source: str | None
    receipt: Mapping[str, Any] | None
    undoes: int | None
    added: tuple[str, ...]
    "Ids of the facts that it stored."
    removed: tuple[str, ...]
    undone: bool
    "Whether a later write took it back, and was not itself taken back."


@dataclass(frozen=True)
class Inverse:
    """What takes a write back: pass all three to `Directory.commit`."""

    undoes: int
    add: tuple[tuple[Fact, Tensors], ...]
    remove: tuple[str, ...]


def undone(undoes: Iterable[tuple[int, int]]) -> set[int]:
    """Writes that are not in effect, given (number, number of the write it takes back)."""
    gone: set[int] = set()
    for number, target in sorted(undoes, reverse=True):
        # Newest first: what was itself taken back takes nothing back.
        if number not in gone:
            gone.add(target)
    return gone
