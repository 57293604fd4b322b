"""Engram (DeepSeek 2026): rows looked up by the last tokens, gated, added before attention."""

from engram_transformers.memories.engram.address import Layout, lay_out
from engram_transformers.memories.engram.compress import Compression, compression
from engram_transformers.memories.engram.config import EngramConfig
from engram_transformers.memories.engram.memory import Engram
from engram_transformers.memories.engram.occupancy import Occupancy, occupancy

__all__ = [
    "Compression",
    "Engram",
    "EngramConfig",
    "Layout",
    "Occupancy",
    "compression",
    "lay_out",
    "occupancy",
]
