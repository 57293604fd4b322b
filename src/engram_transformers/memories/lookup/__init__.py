"""The lookup memory: facts found by exact wording or by meaning, written in closed form."""

from engram_transformers.memories.lookup.config import LookupConfig
from engram_transformers.memories.lookup.memory import Lookup

__all__ = ["Lookup", "LookupConfig"]
