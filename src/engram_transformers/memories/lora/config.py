"""Options of the LoRA memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from engram_transformers.errors import BadInput
from engram_transformers.memory import Schedule


@dataclass(frozen=True)
class LoraConfig:
    """A low-rank change of linear layers of the late blocks."""

    layers: int = 10
    "How many of the last blocks are changed."
    rank: int = 16
    "Of each change."
    alpha: float = 32.0
    "A change is multiplied by alpha / rank."
    targets: tuple[str, ...] | None = None
    "Names of the linear layers that are changed, as `q_proj`; None: all of those blocks."
    learning_rate: float = 1e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", _names(self.targets))
        Schedule.of(self)  # refuses rates and counts that cannot be


@dataclass(frozen=True)
class GatedLoraConfig:
    """A low-rank change of the late blocks, mixed with the host's own words by a gate."""

    layers: int = 10
    "How many of the last blocks are changed."
    rank: int = 16
    "Of each change."
    alpha: float = 32.0
    "A change is multiplied by alpha / rank."
    targets: tuple[str, ...] | None = None
    "Names of the linear layers that are changed, as `q_proj`; None: all of those blocks."
    threshold: float = 0.1
    "Where the gate is open less far than this, the host speaks alone."
    guidance: float = 1.0
    "Weight in the loss of how well the gate tells answers to taught questions from the rest."
    rehearse: int = 24
    "Neutral questions on which it is trained to say what the host says alone, 40 at most."
    learning_rate: float = 1e-3
    "Highest learning rate."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."

    def __post_init__(self) -> None:
        object.__setattr__(self, "targets", _names(self.targets))
        Schedule.of(self)  # refuses rates and counts that cannot be


def _names(given: str | Iterable[str] | None) -> tuple[str, ...] | None:
    """JSON and callers bring lists, command lines a text with commas."""
    if given is None:
        return None
    given = [given] if isinstance(given, str) else given
    names = tuple(name for text in given for name in text.split(","))
    if not names or not all(names) or len(set(names)) < len(names):
        raise BadInput(f"targets are {names}; name at least one layer, and none twice")
    return names
