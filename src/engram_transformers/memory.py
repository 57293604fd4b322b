"""What a memory is: the protocol, and the capabilities that drivers ask for by type."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from engram_transformers.errors import BadInput
from engram_transformers.models.adapter import Adapter, Place
from engram_transformers.models.tokens import Form, HostTokens, Talk
from engram_transformers.types import Fact, Firing

Tensors = dict[str, Tensor]
SEEDS = 2**32
"How many seeds of a training there are, as NumPy has it."


@dataclass(frozen=True)
class Row:
    """One sequence of the batch as a memory sees it: real tokens only, never padding."""

    ids: NDArray[np.int64]
    "(tokens so far,): everything that this sequence has read, the current chunk included."
    start: int
    "Index in `ids` of the first token of the current chunk."
    columns: NDArray[np.int64]
    "(tokens in this chunk,): where each of them stands in the chunk's tensors."
    prompt_end: int | None = None
    "How many tokens the prompt has, where the caller said so; None where nobody did."
    begins: NDArray[np.int64] | None = None
    """(tokens so far,): where the text that each token belongs to begins in `ids`.

    None where all of them are one text, as they are unless several are packed into one row.
    """
    ahead: NDArray[np.int64] | None = None
    "What of the prompt comes after `ids`, where the caller of `generate` gave it; None elsewhere."

    @property
    def prompt(self) -> NDArray[np.int64] | None:
        """(prompt_end,): the whole prompt, what is yet to be read included; None if unknown."""
        if self.prompt_end is None or self.prompt_end <= len(self.ids):
            return None if self.prompt_end is None else self.ids[: self.prompt_end]
        if self.ahead is None:
            return None
        return np.concatenate([self.ids, self.ahead])[: self.prompt_end]


@dataclass(frozen=True)
class Signal:
    """What a memory is told about the tokens of one forward pass."""

    rows: tuple[Row, ...]
    carried: dict[Hashable, list[Any]] = field(default_factory=dict)
    """State that memories keep from chunk to chunk, each under a key of its own, one entry a row.

    Entries are never changed, only replaced: rows of beams share them. What has a method
    `cut(tokens)` is asked for its state after so many tokens when a cache is cropped; what has
    none is dropped then.
    """


class Memory(Protocol):
    """Something attached to a host that changes what it knows.

    A memory is an ``nn.Module``. At every place that it names, it is called with the module's
    input and output and returns the output to use instead. Returning ``y`` itself is how a
    memory stays silent: nothing is computed on the stream, so the logits stay bit-equal.
    """

    def places(self, adapter: Adapter) -> Mapping[Place, nn.Module]:
        """The places where this memory acts, each with the module that acts there.

        Each module is called as ``module(x, y, signal)``.
        """
        ...


@runtime_checkable
class Writable(Protocol):
    """A memory that learns single facts, each with a delta of its own that can be removed."""

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """The deltas that would teach these facts; changes nothing.

        Args:
            refine: spend the time to make sure that each of them will hold.
        """
        ...

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        """Add facts (id, fact, delta) to what the memory knows."""
        ...

    def remove(self, ids: Iterable[str]) -> None:
        """Take facts out again, exactly."""
        ...

    def __contains__(self, id: str) -> bool:
        """Whether the memory knows a fact of this id."""
        ...

    def explain(self, text: str) -> Firing:
        """Which fact would fire on this prompt, by which address, and what came second."""
        ...


@runtime_checkable
class Textual(Protocol):
    """A memory that acts by what the host is given to read."""

    def compose(self, questions: Sequence[str], *, form: Form) -> list[Talk]:
        """Each question with what the memory puts before it, in its message or as turns."""
        ...


@runtime_checkable
class Resident(Protocol):
    """A memory that has no places: it moves into the host's modules by itself, and out again."""

    def enter(self, adapter: Adapter, muted: Callable[[], bool]) -> None:
        """Move in; all or nothing.

        Args:
            muted: whether the host has to compute as if the memory were not there, in this
                thread and at this moment.
        """
        ...

    def leave(self) -> None:
        """Move out; the host's modules are those that it had before."""
        ...


@dataclass(frozen=True)
class Schedule:
    """How long and how fast a memory is trained."""

    learning_rate: float
    "Of AdamW at its highest, between warming up and cooling down."
    epochs: int
    "Times that every question is trained at most."
    batch: int
    "Questions in one step."
    seed: int
    "Decides the order of the steps."

    @classmethod
    def of(cls, config: Any) -> Schedule:
        """As a kind's configuration says."""
        return cls(config.learning_rate, config.epochs, config.batch, config.seed)

    def __post_init__(self) -> None:
        if not self.learning_rate > 0:
            raise BadInput(f"learning_rate is {self.learning_rate}; it has to be above 0")
        for name in ("epochs", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if not 0 <= self.seed < SEEDS:
            raise BadInput(f"seed is {self.seed}; use 0 to {SEEDS - 1}")


@runtime_checkable
class Trainable(Protocol):
    """A memory whose tensors an optimiser changes; all its facts share them."""

    @property
    def schedule(self) -> Schedule:
        """How it is trained, unless the caller says otherwise."""
        ...

    @property
    def first_block(self) -> int:
        """Index of the first block that computes otherwise once the tensors have changed.

        The number of blocks where not even the last one does.
        """
        ...

    def parameters(self) -> Iterable[nn.Parameter]:
        """The tensors to train; what else is stored does not change in training."""
        ...

    def state_dict(self) -> Tensors:
        """Everything that has to be stored, by name."""
        ...

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take stored tensors; `RuntimeError` where names or shapes are not those of this one."""
        ...


@runtime_checkable
class Expecting(Protocol):
    """A trained memory that makes room for facts before it is trained on them."""

    def expect(self, facts: Sequence[Fact]) -> None:
        """Make the tensors that these facts need, changing nothing that the host says."""
        ...


@runtime_checkable
class Routable(Protocol):
    """A memory that a route may stand before: it acts on a whole prompt, or on none of it."""

    @property
    def routed(self) -> bool:
        """Whether a route stands before it now.

        Nothing of a prompt can be read then before all of it is known.
        """
        ...

    def unrouted(self) -> AbstractContextManager[None]:
        """While this lasts it acts on every prompt, as it has to while it is trained."""
        ...


@runtime_checkable
class Rehearsing(Protocol):
    """A trained memory that is trained, beside its facts, to leave something as it is."""

    def rehearsal(
        self, tokens: HostTokens, *, besides: Collection[tuple[int, ...]]
    ) -> Sequence[tuple[tuple[int, ...], tuple[int, ...]]]:
        """Prompts with the answers that shall stay, in token ids, `besides` those being taught."""
        ...

    def penalty(self) -> Tensor:
        """What is added to the loss of the passes since this was asked last."""
        ...
