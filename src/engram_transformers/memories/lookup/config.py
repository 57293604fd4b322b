"""Options of the lookup memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LookupConfig:
    """How a lookup memory finds the fact that is asked for."""

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
