"""Options of the lookup memory."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.memories.shared.address import AddressConfig


@dataclass(frozen=True)
class LookupConfig(AddressConfig):
    """How a lookup memory finds the fact that is asked for."""
