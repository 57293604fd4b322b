"""Several memories trained as one: a LoRA beside an Engram, each with the tensors that it has."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from engram_transformers.memories.shared.touched import Touched
from engram_transformers.memory import Expecting, Rehearsing, Routable, Schedule
from engram_transformers.models.tokens import HostTokens
from engram_transformers.training.rowwise import Tabled
from engram_transformers.types import Fact


class Together:
    """Attached memories, trained side by side as the first one's schedule says."""

    def __init__(self, memories: Sequence[Any]) -> None:
        self.memories = list(memories)

    @property
    def schedule(self) -> Schedule:
        """That of the first memory."""
        found: Schedule = self.memories[0].schedule
        return found

    @property
    def first_block(self) -> int:
        """The first block that any of them changes."""
        return min(int(memory.first_block) for memory in self.memories)

    @property
    def table_rate(self) -> float:
        """That of the first memory with tables."""
        rates = [memory.table_rate for memory in self.memories if isinstance(memory, Tabled)]
        return rates[0] if rates else 1.0

    def parameters(self) -> Iterable[nn.Parameter]:
        """The tensors of all."""
        return (p for memory in self.memories for p in memory.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """The tensors of all, by the number of their memory and their name."""
        return {
            f"{i}.{name}": tensor
            for i, memory in enumerate(self.memories)
            for name, tensor in memory.state_dict().items()
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """Take tensors that `state_dict` gave."""
        for i, memory in enumerate(self.memories):
            own = {n.partition(".")[2]: t for n, t in state_dict.items() if n.startswith(f"{i}.")}
            memory.load_state_dict(own)

    def expect(self, facts: Sequence[Fact]) -> None:
        """Let each make the room that it needs."""
        for memory in self.memories:
            if isinstance(memory, Expecting):
                memory.expect(facts)

    def rehearsal(
        self, tokens: HostTokens, *, besides: Collection[tuple[int, ...]]
    ) -> Sequence[tuple[tuple[int, ...], tuple[int, ...]]]:
        """What any of them is trained to leave as it is."""
        some = [memory for memory in self.memories if isinstance(memory, Rehearsing)]
        return [pair for memory in some for pair in memory.rehearsal(tokens, besides=besides)]

    def penalty(self) -> Tensor:
        """The sum of what they add to the loss."""
        some = [memory for memory in self.memories if isinstance(memory, Rehearsing)]
        return sum((memory.penalty() for memory in some), start=torch.zeros(()))

    @property
    def routed(self) -> bool:
        """Whether a route stands before any of them."""
        return any(isinstance(memory, Routable) and memory.routed for memory in self.memories)

    @contextmanager
    def unrouted(self) -> Iterator[None]:
        """While this lasts, all act on every prompt."""
        with ExitStack() as stack:
            for memory in self.memories:
                if isinstance(memory, Routable):
                    stack.enter_context(memory.unrouted())
            yield

    @contextmanager
    def by_rows(self) -> Iterator[list[tuple[nn.Parameter, Touched]]]:
        """While this lasts, the gradients of all tables are kept by row."""
        with ExitStack() as stack:
            yield [
                pair
                for memory in self.memories
                if isinstance(memory, Tabled)
                for pair in stack.enter_context(memory.by_rows())
            ]
