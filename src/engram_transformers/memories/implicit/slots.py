"""What a sequence has in its slots: plain tensors that are replaced and never changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Slots:
    """The slots of some sequences, after a number of chunks."""

    keys: Tensor
    "(rows, slots, key width)"
    values: Tensor
    "(rows, slots, value width)"
    strength: Tensor
    "(rows, slots): 1 just written, towards 0 with time; 0 exactly where nothing ever was."
    tail: Tensor
    "(rows, taps, hidden): the last normalised states, which go on into the next chunk."
    chunks: int = 0
    "How many chunks were written."

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, and the number of chunks as one of them."""
        named = {name: getattr(self, name) for name in _TENSORS}
        return {**named, "chunks": torch.tensor(self.chunks)}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Slots:
        """What `tensors` gave."""
        return cls(**{name: tensors[name] for name in _TENSORS}, chunks=int(tensors["chunks"]))

    def detached(self) -> Slots:
        """The same without what gradients flow back through."""
        return replace(self, **{name: getattr(self, name).detach() for name in _TENSORS})

    def to(self, device: torch.device) -> Slots:
        """The same on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in _TENSORS})

    def rows(self, count: int) -> Slots:
        """So many sequences that begin with what one sequence has."""
        return replace(
            self,
            **{n: getattr(self, n).expand(count, *getattr(self, n).shape[1:]) for n in _TENSORS},
        )

    def rolled(self, by: int) -> Slots:
        """Each sequence with the slots of another one, so many rows away."""
        return replace(self, **{name: getattr(self, name).roll(by, 0) for name in _TENSORS})


_TENSORS = tuple(field.name for field in fields(Slots) if field.name != "chunks")


@dataclass(frozen=True)
class Kept:
    """What a layer remembers of one sequence: enough to go back to any of its tokens."""

    slots: tuple[Slots | None, ...]
    "At the beginning of each chunk; None while nothing was written."
    states: tuple[Tensor, ...]
    "(tokens, hidden) of each chunk; the last one is not complete."

    def cut(self, tokens: int) -> Kept:
        """The same after the sequence's first `tokens` tokens."""
        for index, states in enumerate(self.states):
            if tokens < len(states) or index == len(self.states) - 1:
                rest = (*self.states[:index], states[:tokens])
                return Kept(self.slots[: index + 1], rest)
            tokens -= len(states)
        raise AssertionError("a sequence has at least the beginning of a chunk")


def finite(tensors: Sequence[Tensor]) -> bool:
    """Whether all numbers are numbers."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)
