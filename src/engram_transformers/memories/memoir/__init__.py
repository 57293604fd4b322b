"""Lifelong editing by masked residual columns: the parts of MEMOIR."""

from engram_transformers.memories.memoir.block import MEMOIRTransformerBlock
from engram_transformers.memories.memoir.fingerprint import TopHashFingerprinter
from engram_transformers.memories.memoir.layer import ResidualMemoryLayer
from engram_transformers.memories.memoir.masks import EditMaskDatabase

__all__ = [
    "EditMaskDatabase",
    "MEMOIRTransformerBlock",
    "ResidualMemoryLayer",
    "TopHashFingerprinter",
]
