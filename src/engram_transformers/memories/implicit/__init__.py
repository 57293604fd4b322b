"""Implicit memory: slots that a sequence writes as it is read, and reads from the next chunk on."""

from engram_transformers.memories.implicit.config import ImplicitConfig
from engram_transformers.memories.implicit.layer import ImplicitLayer
from engram_transformers.memories.implicit.memory import Implicit
from engram_transformers.memories.implicit.slots import Slots

__all__ = ["Implicit", "ImplicitConfig", "ImplicitLayer", "Slots"]
