"""A growing matrix of unit vectors with their owners, searched by inner product."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Vectors:
    """Rows of one matrix by integer key; adding and removing take constant time a row."""

    def __init__(self) -> None:
        self._matrix: Array = np.zeros((0, 0), np.float32)
        self._keys: list[int] = []
        self._place: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __getitem__(self, key: int) -> Array:
        row: Array = self._matrix[self._place[key]]
        return row

    def add(self, keys: Sequence[int], rows: Array) -> None:
        """Store one row (size,) under each key."""
        needed = len(self._keys) + len(keys)
        if needed > len(self._matrix):
            grown = np.zeros((max(needed, 2 * len(self._matrix)), rows.shape[1]), np.float32)
            grown[: len(self._keys)] = self._matrix[: len(self._keys)] if len(self._keys) else 0
            self._matrix = grown
        self._matrix[len(self._keys) : needed] = rows
        for key in keys:
            self._place[key] = len(self._keys)
            self._keys.append(key)

    def remove(self, key: int) -> None:
        """Drop a row; the last one moves into its place."""
        place, last = self._place.pop(key), self._keys.pop()
        if last != key:
            self._matrix[place] = self._matrix[len(self._keys)]
            self._keys[place] = last
            self._place[last] = place

    def nearest(
        self, queries: Array, count: int, *, among: Sequence[int] | None = None
    ) -> list[list[tuple[int, float]]]:
        """For each query (n, size), the keys of the nearest rows with their inner products.

        Equal products are ordered by key, so the result does not depend on what was added and
        removed in between.

        Args:
            among: the keys that count; all, unless given.
        """
        keys = self._keys if among is None else among
        size = len(keys)
        if not size:
            return [[] for _ in queries]
        rows = slice(size) if among is None else [self._place[key] for key in among]
        products = queries @ self._matrix[rows].T
        count = min(count, size)
        if count < size:
            floor = np.partition(products, size - count, axis=1)[:, size - count]
        else:
            floor = products.min(axis=1)
        return [
            _ranked(row, keys, at=np.flatnonzero(row >= low), count=count)
            for row, low in zip(products, floor, strict=True)
        ]


def _ranked(
    row: Array, keys: Sequence[int], *, at: NDArray[np.intp], count: int
) -> list[tuple[int, float]]:
    found = [(keys[i], float(row[i])) for i in at]
    return sorted(found, key=lambda pair: (-pair[1], pair[0]))[:count]
