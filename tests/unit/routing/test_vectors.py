from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engram_transformers.routing.vectors import Vectors


@given(st.integers(1, 40), st.sets(st.integers(0, 39)), st.integers(1, 8), st.integers(0, 9))
def test_nearest_equals_sorting_everything_after_any_removals(
    size: int, gone: set[int], count: int, seed: int
) -> None:
    # Small whole numbers: many ties, and no rounding.
    rng = np.random.default_rng(seed)
    rows = rng.integers(-2, 3, (size, 4)).astype(np.float32)
    queries = rng.integers(-2, 3, (3, 4)).astype(np.float32)
    vectors = Vectors()
    for key in range(size):
        vectors.add([key], rows[key : key + 1])
    for key in gone:
        if key < size:
            vectors.remove(key)
    left = [key for key in range(size) if key not in gone]
    assert len(vectors) == len(left)
    assert all(np.array_equal(vectors[key], rows[key]) for key in left)
    for query, found in zip(queries, vectors.nearest(queries, count), strict=True):
        ranked = sorted(((k, float(rows[k] @ query)) for k in left), key=lambda p: (-p[1], p[0]))
        assert found == ranked[:count]


def test_an_emptied_index_takes_rows_again() -> None:
    vectors = Vectors()
    vectors.add([7], np.ones((1, 2), np.float32))
    vectors.remove(7)
    assert vectors.nearest(np.ones((1, 2), np.float32), 3) == [[]]
    vectors.add([8, 9], np.eye(2, dtype=np.float32))
    assert vectors.nearest(np.array([[0, 1]], np.float32), 1) == [[(9, 1.0)]]
