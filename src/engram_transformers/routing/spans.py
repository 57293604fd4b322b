"""The exact address: taught spans of tokens, found as text streams by.

A span is looked up by all of its tokens, so nothing can collide. Where the newest token ends no
stored span, one look-up settles it; elsewhere there is one look-up for each length that occurs
with that last token. The cost of a token depends on neither the number of stored spans nor the
length of the text before it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


@dataclass(frozen=True)
class Hit:
    """A stored span that occurs in a text, as tokens [start, end)."""

    start: int
    end: int
    values: tuple[int, ...]


class SpanIndex:
    """A multimap from spans of tokens to integers that is searched along a text."""

    def __init__(self) -> None:
        self._values: dict[bytes, list[int]] = {}
        self._lengths: dict[int, Counter[int]] = defaultdict(Counter)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, span: Sequence[int], value: int) -> None:
        """Store a value under a span of at least one token."""
        key = _key(span)
        if key not in self._values:
            self._values[key] = []
            self._lengths[int(span[-1])][len(span)] += 1
        self._values[key].append(value)

    def discard(self, span: Sequence[int], value: int) -> None:
        """Remove one value from under a span; the span goes with its last value."""
        key, last = _key(span), int(span[-1])
        self._values[key].remove(value)
        if self._values[key]:
            return
        del self._values[key]
        self._lengths[last][len(span)] -= 1
        self._lengths[last] += Counter()  # drops lengths whose count is zero
        if not self._lengths[last]:
            del self._lengths[last]

    def find(self, ids: Ids, *, start: int = 0) -> list[Hit]:
        """Every stored span that ends at token `start` or later, by end, longest first.

        Args:
            ids: (tokens,) the text from its beginning.
            start: index of the first token that may be the last one of a span.
        """
        hits = []
        for at, token in enumerate(ids[start:].tolist(), start):
            for length in sorted(self._lengths.get(token, ()), reverse=True):
                begin = at + 1 - length
                values = begin >= 0 and self._values.get(ids[begin : at + 1].tobytes())
                if values:
                    hits.append(Hit(begin, at + 1, tuple(values)))
        return hits


def _key(span: Sequence[int]) -> bytes:
    return np.asarray(span, np.int64).tobytes()
