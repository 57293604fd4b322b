"""Facts as text in the prompt: retrieval-augmented generation."""

from engram_transformers.memories.text.config import TextConfig
from engram_transformers.memories.text.memory import Text

__all__ = ["Text", "TextConfig"]
