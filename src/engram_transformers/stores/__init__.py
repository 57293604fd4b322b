"""How a memory stays: a directory with `config.json`, `ledger.sqlite`, `memory.safetensors`."""

from engram_transformers.stores.directory import Directory, Stats, is_memory
from engram_transformers.stores.records import Act, Inverse, Stored, Write

__all__ = ["Act", "Directory", "Inverse", "Stats", "Stored", "Write", "is_memory"]
