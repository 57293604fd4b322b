"""Options of the soft-prompt memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SoftPromptConfig:
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
    address: Literal["meaning", "exact"] = "meaning"
    "`meaning` finds other wordings too; `exact` fires on taught wordings only."
    encoder: Literal["minilm", "host"] = "minilm"
    "What turns a question into a vector: a sentence encoder, or the host's hidden states."
    candidates: int = 5
    "How many of the nearest stored questions are judged."
    threshold: float | None = None
    "Probability from which the best candidate fires; None takes the calibrated one."
    encoder_print: str | None = None
    "Which encoder wrote the vectors; filled in when the memory is created."
