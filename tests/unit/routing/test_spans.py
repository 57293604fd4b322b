from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from engram_transformers.routing.spans import SpanIndex

token = st.integers(0, 3)
spans = st.lists(st.tuples(st.lists(token, min_size=1, max_size=4).map(tuple), st.integers(0, 2)))


def filled(*entries: tuple[tuple[int, ...], int]) -> SpanIndex:
    index = SpanIndex()
    for span, value in entries:
        index.add(span, value)
    return index


def test_overlapping_and_nested_spans_are_all_found_by_end_then_longest_first() -> None:
    index = filled(((1, 2), 1), ((2, 3), 2), ((1, 2, 3), 3), ((3,), 4))
    hits = index.find(np.array([1, 2, 3]))
    assert [(h.start, h.end, h.values) for h in hits] == [
        (0, 2, (1,)),
        (0, 3, (3,)),
        (1, 3, (2,)),
        (2, 3, (4,)),
    ]


def test_a_span_that_is_held_twice_goes_with_its_last_value() -> None:
    index = filled(((1, 2), 1), ((1, 2), 2))
    assert index.find(np.array([1, 2]))[0].values == (1, 2)
    index.discard((1, 2), 1)
    assert index.find(np.array([1, 2]))[0].values == (2,)
    index.discard((1, 2), 2)
    assert index.find(np.array([1, 2])) == [] and len(index) == 0


def test_unknown_tokens_and_texts_shorter_than_a_span_find_nothing() -> None:
    assert filled(((1, 2, 3), 1)).find(np.array([-1, 2, 3])) == []
    assert filled(((1, 2, 3), 1)).find(np.array([2, 3])) == []
    assert filled(((1, 2, 3), 1)).find(np.array([], np.int64)) == []


@given(spans, spans, st.lists(token, max_size=12), st.integers(0, 12))
def test_find_equals_trying_everything(kept: list, gone: list, text: list[int], start: int) -> None:
    index = filled(*gone, *kept)
    for span, value in gone:
        index.discard(span, value)
    found = {
        (h.start, h.end, tuple(sorted(h.values)))
        for h in index.find(np.array(text, np.int64), start=start)
    }
    expected = set()
    for end in range(start + 1, len(text) + 1):
        for begin in range(end):
            values = sorted(v for span, v in kept if span == tuple(text[begin:end]))
            if values:
                expected.add((begin, end, tuple(values)))
    assert found == expected


@given(spans)
def test_removing_everything_leaves_nothing(entries: list) -> None:
    index = filled(*entries)
    for span, value in reversed(entries):
        index.discard(span, value)
    assert len(index) == 0 and not index._values and not index._lengths
