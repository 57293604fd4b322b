"""Options of the codebooks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Values = Literal["one", "each"]


@dataclass(frozen=True)
class CodebookConfig:
    """What every codebook can be told: where it edits, and how a value is trained."""

    layer: int | None = None
    "Block whose feed-forward is edited, from the end if negative; None: at 7/8 of the depth."
    values: Values = "one"
    "`one` stands at the last token of the prompt; `each` adds one for every token of the answer."
    end: bool = False
    "Whether the end of the answer is trained too."
    steps: int = 50
    "Steps of Adam on a value."
    enough: float | None = None
    "Probability of every token from which training stops early; None: never."
    learning_rate: float = 1.0
    "Of these steps."
    seed: int = 0
    "Decides where values start."


@dataclass(frozen=True)
class GraceConfig(CodebookConfig):
    """A codebook of balls around states, after GRACE."""

    radius: float = 1.0
    "How far from its key an edit fires at first, in the units of the host's states."


@dataclass(frozen=True)
class HorenConfig(CodebookConfig):
    """A codebook of directions, after HoReN."""

    share: float = 0.6
    "How much of the prompt, counted from its end, is averaged to a query."
    threshold: float = 0.9
    "Cosine to a key above which its edit fires."
    alpha: float = 0.1
    "How far a query moves towards what the keys make of it, in a step."
    beta: float = 20.0
    "How sharply the keys near a query outweigh the others."
    iterations: int = 1
    "Steps of a query towards the keys."
