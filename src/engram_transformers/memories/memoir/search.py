"""Two ways to find the masks nearest to another one, with the same answers: numpy and faiss.

Both count how many features masks share, in whole numbers; how alike that makes them is computed
once, in `bits.alike`, so that ties are ties in both. Among equals, the mask that was added first
comes first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from engram_transformers.errors import MissingExtra
from engram_transformers.memories.memoir.bits import Counts, Words, alike, ones, popcount

Found = list[tuple[int, float]]
"Keys with how alike they are, best first."


class Search(Protocol):
    """Masks by a key that grows as they are added."""

    def add(self, key: int, words: Words) -> None:
        """Add one mask (words,)."""
        ...

    def remove(self, key: int) -> None:
        """Take one mask out."""
        ...

    def nearest(self, words: Words, *, threshold: float, top_k: int) -> Found:
        """The keys nearest to a mask (words,) that are at least `threshold` alike."""
        ...


def best(keys: Counts, scores: NDArray[np.float64], *, threshold: float, top_k: int) -> Found:
    """The best of candidates: most alike first, then oldest."""
    if len(scores) > top_k:
        # Sorting few is cheaper; everything as good as the last one that counts stays in.
        last = len(scores) - top_k
        threshold = max(threshold, float(np.partition(scores, last)[last]))
    able = np.flatnonzero(scores >= threshold)
    able = able[np.lexsort((keys[able], -scores[able]))[:top_k]]
    return list(zip(keys[able].tolist(), scores[able].tolist(), strict=True))


class PlainSearch:
    """All masks side by side: one pass of bitwise and, and of counting ones."""

    def __init__(self, words: int, metric: str) -> None:
        self.metric, self.count = metric, 0
        # One line a word: what is added up lies side by side then.
        self.columns: Words = np.zeros((words, 64), np.uint64)
        self.sizes: Counts = np.zeros(64, np.int64)
        self.keys: Counts = np.zeros(64, np.int64)
        self.at: dict[int, int] = {}

    def add(self, key: int, words: Words) -> None:
        if self.count == self.columns.shape[1]:
            self._grow()
        at = self.at[key] = self.count
        self.columns[:, at], self.sizes[at], self.keys[at] = words, ones(words[None])[0], key
        self.count += 1

    def remove(self, key: int) -> None:
        # The last one moves into the gap.
        at, last = self.at.pop(key), self.count - 1
        if at != last:
            self.columns[:, at] = self.columns[:, last]
            self.sizes[at], self.keys[at] = self.sizes[last], self.keys[last]
            self.at[int(self.keys[at])] = at
        self.count = last

    def nearest(self, words: Words, *, threshold: float, top_k: int) -> Found:
        n, shared = self.count, np.zeros(self.count, np.int32)
        for column, word in zip(self.columns, words, strict=True):
            if word:
                shared += popcount(column[:n] & word)
        scores = alike(self.metric, shared, self.sizes[:n], ones(words[None])[0])
        return best(self.keys[:n], scores, threshold=threshold, top_k=top_k)

    def _grow(self) -> None:
        self.columns = np.concatenate([self.columns, np.zeros_like(self.columns)], axis=1)
        self.sizes = np.concatenate([self.sizes, np.zeros_like(self.sizes)])
        self.keys = np.concatenate([self.keys, np.zeros_like(self.keys)])


class FaissSearch:
    """faiss's flat binary index, one for each number of ones.

    The index ranks by the features in which masks differ. Among masks with equally many ones that
    is the order of every metric of ours; among others it is not.
    """

    def __init__(self, words: int, metric: str) -> None:
        self.metric, self.bits = metric, words * 64
        self.faiss = _faiss()
        self.indices: dict[int, Any] = {}
        self.size_of: dict[int, int] = {}

    def add(self, key: int, words: Words) -> None:
        size = int(ones(words[None])[0])
        if size not in self.indices:
            flat = self.faiss.IndexBinaryFlat(self.bits)
            self.indices[size] = self.faiss.IndexBinaryIDMap2(flat)
        self.indices[size].add_with_ids(_bytes(words), np.array([key], np.int64))
        self.size_of[key] = size

    def remove(self, key: int) -> None:
        size = self.size_of.pop(key)
        self.indices[size].remove_ids(np.array([key], np.int64))
        if not self.indices[size].ntotal:
            del self.indices[size]

    def nearest(self, words: Words, *, threshold: float, top_k: int) -> Found:
        asked = int(ones(words[None])[0])
        keys, scores = [np.zeros(0, np.int64)], [np.zeros(0)]
        for size, index in self.indices.items():
            distances, found = _within(index, _bytes(words), top_k)
            shared = (size + asked - distances.astype(np.int64)) // 2
            keys.append(found)
            scores.append(alike(self.metric, shared, size, asked))
        return best(np.concatenate(keys), np.concatenate(scores), threshold=threshold, top_k=top_k)


def _within(index: Any, query: NDArray[np.uint8], top_k: int) -> tuple[Any, Any]:
    """Distances and keys of the nearest masks, with all that are as near as the last of them."""
    distances, keys = index.search(query, min(top_k, index.ntotal))
    if top_k < index.ntotal:
        # Which of several equals the index gives is its own affair: take all of them.
        _, distances, keys = index.range_search(query, int(distances[0, -1]) + 1)
    return distances.reshape(-1), keys.reshape(-1)


def _bytes(words: Words) -> NDArray[np.uint8]:
    return np.ascontiguousarray(words[None]).view(np.uint8)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra(
            "backend='faiss' needs faiss, which is not installed. Use backend='plain', or run: "
            "pip install 'engram-transformers[text]'"
        ) from error
    return faiss


def open_search(backend: str, *, words: int, metric: str) -> Search:
    """An empty back end by its name."""
    return BACKENDS[backend](words, metric)


BACKENDS: dict[str, Callable[[int, str], Search]] = {"plain": PlainSearch, "faiss": FaissSearch}


def filled(search: Search, rows: Iterable[tuple[int, Words]]) -> Search:
    """The back end with masks (key, words) added."""
    for key, words in rows:
        search.add(key, words)
    return search
