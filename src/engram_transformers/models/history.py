"""What a key-value cache has read: token ids kept with the cache, and re-ordered with it.

A memory addressed by tokens needs the whole history of a sequence, but a cached decoding step
shows it one token. The history therefore lives where the keys and values live. Beam search
permutes a cache and batch expansion repeats its rows, so the cache's class is replaced by a
subclass that does the same to the history. Cropping needs nothing: the cache knows its length,
and the history is cut to it when it is next read.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engram_transformers.errors import UnsupportedCall

ATTRIBUTE = "engram_history"


@dataclass
class History:
    """Tokens that a cache has read, padding included, and what memories carry with them."""

    ids: NDArray[np.int64]
    "(batch, columns)"
    real: NDArray[np.bool_]
    "(batch, columns): False where the column is padding."
    carried: dict[Hashable, list[Any]] = field(default_factory=dict)
    "By key of the memory that keeps it, one state a row."

    @staticmethod
    def empty(batch: int) -> History:
        return History(np.zeros((batch, 0), np.int64), np.zeros((batch, 0), bool))

    @property
    def length(self) -> int:
        return int(self.ids.shape[1])

    def cut(self, length: int) -> History:
        """The first `length` columns; carried state that cannot be cut is dropped."""
        if length == self.length:
            return self
        real = self.real[:, :length]
        tokens = real.sum(axis=1).tolist()
        carried = {
            key: [state.cut(count) for state, count in zip(states, tokens, strict=True)]
            for key, states in self.carried.items()
            if all(hasattr(state, "cut") for state in states)
        }
        return History(self.ids[:, :length], real, carried)

    def take(self, rows: NDArray[np.int64]) -> History:
        """The history of a batch made of these rows, in this order."""
        carried = {key: [states[r] for r in rows] for key, states in self.carried.items()}
        return History(self.ids[rows], self.real[rows], carried)


def history_of(past: Any, batch: int) -> History:
    """The history of a cache; empty for an empty cache or none.

    Raises:
        UnsupportedCall: the cache holds tokens that were read while no memory was watching.
    """
    if past is None:
        return History.empty(batch)
    if not hasattr(past, "get_seq_length"):
        raise UnsupportedCall(
            f"a cache of type {type(past).__name__} cannot tell how much it has read; "
            "pass use_cache=False or a cache class of transformers"
        )
    length = int(past.get_seq_length())
    if length == 0:
        return History.empty(batch)
    history: History | None = getattr(past, ATTRIBUTE, None)
    if history is None or history.length < length or len(history.ids) != batch:
        raise UnsupportedCall(
            f"the cache holds {length} tokens that were read before a memory was attached; "
            "start from an empty cache"
        )
    return history.cut(length)


def keep_history(past: Any, history: History) -> None:
    """Store the history in the cache, and make the cache carry it along."""
    if past is None or not hasattr(past, "reorder_cache"):
        return
    if not getattr(type(past), "keeps_history", False):
        past.__class__ = _watched(cast(Hashable, type(past)))
    setattr(past, ATTRIBUTE, history)


def forget_history(past: Any) -> None:
    """Drop a cache's history: it is about to read what no memory sees."""
    if getattr(past, ATTRIBUTE, None) is not None:
        setattr(past, ATTRIBUTE, None)


@cache
def _watched(base: type) -> type:
    """A subclass of a cache class that treats the history as it treats keys and values."""

    def reorder_cache(self: Any, beam_idx: Any) -> Any:
        _take(self, beam_idx.cpu().numpy())
        return base.reorder_cache(self, beam_idx)  # type: ignore[attr-defined]

    def batch_select_indices(self: Any, indices: Any) -> Any:
        rows = np.arange(_rows(self))[indices.cpu().numpy()]
        _take(self, rows)
        return base.batch_select_indices(self, indices)  # type: ignore[attr-defined]

    def batch_repeat_interleave(self: Any, repeats: int) -> Any:
        _take(self, np.repeat(np.arange(_rows(self)), repeats))
        return base.batch_repeat_interleave(self, repeats)  # type: ignore[attr-defined]

    methods = {
        f.__name__: f for f in (reorder_cache, batch_select_indices, batch_repeat_interleave)
    }
    known = {name: f for name, f in methods.items() if hasattr(base, name)}
    return type(base.__name__, (base,), {**known, "keeps_history": True, "__module__": __name__})


def _rows(past: Any) -> int:
    history = getattr(past, ATTRIBUTE, None)
    return 0 if history is None else len(history.ids)


def _take(past: Any, rows: NDArray[np.int64]) -> None:
    history = getattr(past, ATTRIBUTE, None)
    if history is not None:
        setattr(past, ATTRIBUTE, history.take(rows))
