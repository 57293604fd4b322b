"""A few trained vectors for each fact, put before the questions that ask for it."""

from engram_transformers.memories.soft_prompt.config import SoftPromptConfig
from engram_transformers.memories.soft_prompt.memory import SoftPrompt

__all__ = ["SoftPrompt", "SoftPromptConfig"]
