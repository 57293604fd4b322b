"""What edits add to the layer: values of each edit's own, or one matrix for all."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from engram_transformers.memory import Tensors


class Payload(Protocol):
    """What all edits wrote, by their numbers."""

    def add(self, edit: int, columns: Tensor, delta: Tensors) -> None:
        """Take in what an edit wrote; `columns` (n,) are those of its mask."""
        ...

    def remove(self, edit: int) -> None:
        """Take it out again."""
        ...

    def added(self, edit: int, x: Tensor, slots: slice) -> Tensor:
        """(tokens, hidden) where an edit acts.

        Args:
            x: (tokens, features) what goes into the layer.
            slots: of the answer's tokens that come next.
        """
        ...


class OwnValues:
    """Each edit has a value for every token of its answer, which no other edit can change."""

    def __init__(self) -> None:
        self._edits: dict[int, Tensor] = {}

    def add(self, edit: int, columns: Tensor, delta: Tensors) -> None:
        self._edits[edit] = delta["values"]

    def remove(self, edit: int) -> None:
        del self._edits[edit]

    def added(self, edit: int, x: Tensor, slots: slice) -> Tensor:
        return self._edits[edit][slots].to(x.device)


class SharedMatrix:
    """One matrix that all edits write to, each in the columns of its mask, as in the paper.

    What each wrote is kept beside it. Without an edit it is what the others make in their order;
    but those that were written later were written with that one in place.
    """

    def __init__(self, hidden: int, features: int) -> None:
        self.weight = torch.zeros(hidden, features)
        self._edits: dict[int, tuple[Tensor, Tensor, float]] = {}

    def add(self, edit: int, columns: Tensor, delta: Tensors) -> None:
        self._edits[edit] = (columns, delta["written"], float(delta["decay"]))
        self._write(self.weight, edit)

    def remove(self, edit: int) -> None:
        del self._edits[edit]
        self.weight = torch.zeros_like(self.weight)
        for other in self._edits:
            self._write(self.weight, other)

    def added(self, edit: int, x: Tensor, slots: slice) -> Tensor:
        columns = self._edits[edit][0].to(x.device)
        return x[:, columns].float() @ self.weight.to(x.device)[:, columns].T

    def _write(self, weight: Tensor, edit: int) -> None:
        columns, written, decay = self._edits[edit]
        if decay != 1:
            weight *= decay
        weight[:, columns] += written
