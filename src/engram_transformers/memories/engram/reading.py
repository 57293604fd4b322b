"""From the rows of a batch to addresses: whole histories in, addresses of the new tokens out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.attach import UNKNOWN_TOKEN
from engram_transformers.memories.engram.address import Layout
from engram_transformers.memories.engram.compress import Compression
from engram_transformers.memories.engram.spans import KeySpans
from engram_transformers.memory import Row

Ids = NDArray[np.int64]
NOWHERE = -1
"In place of an address: the token reads nothing."


class Reader(Protocol):
    """Gives every new token of a batch its addresses."""

    def read(self, rows: Sequence[Row]) -> Tensor:
        """(new tokens of all rows, slots) int64; a token that reads nothing has `NOWHERE` only."""
        ...


@dataclass(frozen=True)
class NGramReader:
    """Addresses by the last few tokens, hashed; no more of the history than these is looked at."""

    layout: Layout
    compress: Compression | None
    fill: int
    "The id, compressed where ids are, that stands for what is before a text."
    end: int | None
    "The token behind which another text begins; None: texts are not told apart by tokens."

    def read(self, rows: Sequence[Row]) -> Tensor:
        """(new tokens of all rows, slots) int64."""
        windows = torch.from_numpy(np.concatenate([self._windows(row) for row in rows]))
        addresses = self.layout.rows_of(windows)
        unknown = [row.ids[row.start :] == UNKNOWN_TOKEN for row in rows]
        if any(each.any() for each in unknown):
            addresses[torch.from_numpy(np.concatenate(unknown))] = NOWHERE
        return addresses

    def _windows(self, row: Row) -> Ids:
        """(new tokens, longest): each token and those before it in its text, newest first."""
        most = self.layout.longest - 1
        ids = row.ids[max(0, row.start - most) :]
        known = ids if self.compress is None else self.compress(ids)
        missing = most - min(row.start, most)
        padded = np.concatenate([np.full(missing, self.fill), known])
        depth = depths(row, most=most, end=self.end)
        windows = np.lib.stride_tricks.sliding_window_view(padded, most + 1)[:, ::-1]
        if len(depth) and depth[-1] == most and depth.min() == most:
            return np.ascontiguousarray(windows)
        return np.where(np.arange(most + 1) <= depth[:, None], windows, self.fill)


@dataclass(frozen=True)
class SpanReader:
    """Addresses by the whole key: a row of its own for each taught key and what follows it."""

    spans: KeySpans

    def read(self, rows: Sequence[Row]) -> Tensor:
        """(new tokens of all rows, 1) int64."""
        found = [self.spans.find(row) for row in rows]
        return torch.from_numpy(np.concatenate(found))[:, None]


def depths(row: Row, *, most: int, end: int | None) -> Ids:
    """(new tokens,): how many tokens of its text stand before each, `most` at most.

    A text begins with a row, where a packed row says so, behind an `end` token, and behind a token
    that nobody knows.
    """
    first = max(0, row.start - most)
    ids = row.ids[first:]
    at = np.arange(len(ids))
    opens = np.zeros(len(ids), bool)
    opens[1:] = ids[:-1] == UNKNOWN_TOKEN
    if end is not None:
        opens[1:] |= ids[:-1] == end
    if row.begins is not None:
        opens |= row.begins[first:] == at + first
    begin = np.maximum.accumulate(np.where(opens, at, 0))
    found: Ids = np.minimum(at - begin, most)[row.start - first :]
    return found
