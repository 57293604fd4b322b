"""Options of the soft-prompt memory."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.memories.shared.address import AddressConfig


@dataclass(frozen=True)
class SoftPromptConfig(AddressConfig):
    """Trained vectors before the questions that ask for a fact."""

    slots: int = 4
    "Vectors of a fact."
    steps: int = 60
    "Steps of Adam on a fact's vectors at most, a wording a step in turn."
    enough: float = 0.9
    "Probability of every token of the answer, in every wording, at which training stops early."
    learning_rate: float = 0.3
    "Of these steps, in usual sizes of an embedding's numbers."
    seed: int = 0
    "Decides where vectors start."
