"""Engram (DeepSeek 2026): rows looked up by the last tokens, gated, added before attention."""

from engram_transformers.memories.engram.address import Layout, lay_out
from engram_transformers.memories.engram.compress import Compression, compression
from engram_transformers.memories.engram.conditional import (
    ConditionalEngram,
    ConditionalEngramLayer,
    ConditionalEngramWrapper,
    create_conditional_engram,
)
from engram_transformers.memories.engram.config import EngramConfig
from engram_transformers.memories.engram.memory import Engram
from engram_transformers.memories.engram.occupancy import Occupancy, occupancy
from engram_transformers.routing.rules import LookupPatternDetector

__all__ = [
    "Compression",
    "ConditionalEngram",
    "ConditionalEngramLayer",
    "ConditionalEngramWrapper",
    "Engram",
    "EngramConfig",
    "Layout",
    "LookupPatternDetector",
    "Occupancy",
    "compression",
    "create_conditional_engram",
    "lay_out",
    "occupancy",
]
