"""Options of the text memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engram_transformers.memories.shared.encoders import EncoderName


@dataclass(frozen=True)
class TextConfig:
    """Which facts a text memory puts into a prompt, and how."""

    mode: Literal["retrieval", "examples", "oracle"] = "retrieval"
    "The nearest facts as context, the nearest as solved examples, or just the one asked for."
    top_k: int = 3
    "How many facts are put into a prompt, at most."
    least: float = 0.0
    "Similarity below which a fact is not put into a prompt."
    encoder: EncoderName = "minilm"
    "What turns a question into a vector: a sentence encoder, or the host's hidden states."
    encoder_print: str | None = None
    "Which encoder wrote the vectors; filled in when the memory is created."
