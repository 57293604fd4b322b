"""What the host makes of a fact's text, kept and given back to it when the fact is asked for."""

from engram_transformers.memories.activation.config import ActivationConfig
from engram_transformers.memories.activation.memory import Activation

__all__ = ["Activation", "ActivationConfig"]
