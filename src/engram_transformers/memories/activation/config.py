"""Options of the activation memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engram_transformers.memories.shared.address import AddressConfig

Way = Literal["keys_values", "raw", "chunks", "last", "mean", "add", "patch"]


@dataclass(frozen=True)
class ActivationConfig(AddressConfig):
    """What is kept of a fact's text, and how it is given back."""

    way: Way = "keys_values"
    "All blocks' inputs, one block's states as a prefix (four ways), or added or put behind one."
    layer: int = -1
    "Block whose states are kept, from the end if negative; `keys_values` keeps all."
    slots: int = 8
    "Vectors of `chunks`; a shorter text has as many as it has tokens."
    scale: float = 1.0
    "Length of vectors in a prefix, in lengths of an embedding; of what is added, in its own."
