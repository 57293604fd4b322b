"""Which blocks of a host a trained memory acts in."""

from __future__ import annotations

from engram_transformers.errors import BadInput
from engram_transformers.models.adapter import Adapter


def last_blocks(adapter: Adapter, count: int) -> range:
    """Indices of the last `count` blocks, of all where the host has fewer."""
    if count < 1:
        raise BadInput(f"layers is {count}; it has to be at least 1")
    total = len(adapter.layers)
    return range(max(0, total - count), total)
