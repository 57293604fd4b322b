"""Whole keys as addresses: a taught question, and each beginning of its answer, has its own row.

A key is found by all of its tokens, so that nothing collides and a miss reads nothing. It counts
only where a question may begin (`HostTokens.opens_a_span`). What follows a key is addressed by the
key and all that was said since, so that every token of an answer has a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.memory import Row
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.spans import SpanIndex
from engram_transformers.types import Fact

Span = tuple[int, ...]


class KeySpans:
    """Spans of tokens with the number of the row that each of them reads."""

    def __init__(self, tokens: HostTokens) -> None:
        self.tokens = tokens
        self.clear()

    def clear(self) -> None:
        """Know nothing."""
        self.index, self.row_of, self.rows = SpanIndex(), dict[Span, int](), 0

    def expect(self, facts: Sequence[Fact]) -> None:
        """Give the keys of these facts rows, unless they have some."""
        for fact in facts:
            for bare, keys in self._keys(fact).items():
                self._follow(keys, self._answer(fact, bare=bare))

    def find(self, row: Row) -> NDArray[np.int64]:
        """(new tokens,): the row that each reads: the one of the longest key that ends there."""
        found = np.full(len(row.ids) - row.start, -1, np.int64)
        for hit in self.index.find(row.ids, start=row.start):  # by end, longest first
            at = hit.end - 1 - row.start
            if found[at] < 0 and self._opens(row, hit.start):
                found[at] = hit.values[0]
        return found

    def tensors(self) -> dict[str, Tensor]:
        """Everything that has to be stored."""
        spans = list(self.row_of)
        return {
            "span_ids": torch.tensor([token for span in spans for token in span]).long(),
            "span_sizes": torch.tensor([len(span) for span in spans]).long(),
            "span_rows": torch.tensor(list(self.row_of.values())).long(),
        }

    def take(self, tensors: Mapping[str, Tensor]) -> None:
        """Know what was stored, and nothing else."""
        self.clear()
        ids = tensors["span_ids"].tolist()
        at = 0
        for size, row in zip(
            tensors["span_sizes"].tolist(), tensors["span_rows"].tolist(), strict=True
        ):
            self._add(tuple(ids[at : at + size]), row)
            at += size
        self.rows = max(self.row_of.values(), default=-1) + 1

    def _keys(self, fact: Fact) -> dict[bool, list[Span]]:
        """Keys of a fact by whether the answer behind them is written without a space."""
        keys: dict[bool, list[Span]] = {True: [], False: []}
        for question in fact.questions:
            for text in (question, f" {question}"):
                span = tuple(self.tokens.encode(text))
                keys[not self.tokens.needs_space(question)].append(span)
                if self.tokens.marker:
                    keys[True].append(span + self.tokens.marker)
        return keys

    def _answer(self, fact: Fact, *, bare: bool) -> list[int]:
        return self.tokens.encode(fact.answer.lstrip() if bare else self.tokens.spaced(fact.answer))

    def _follow(self, keys: Sequence[Span], answer: Sequence[int]) -> None:
        """One row for each position of the answer, whichever of the keys came before it."""
        for said in _beginnings(answer):
            spans = [key + said for key in keys]
            row = next((self.row_of[span] for span in spans if span in self.row_of), self.rows)
            for span in spans:
                if span not in self.row_of:
                    self._add(span, row)
            self.rows = max(self.rows, row + 1 if spans else 0)

    def _add(self, span: Span, row: int) -> None:
        self.row_of[span] = row
        self.index.add(span, row)

    def _opens(self, row: Row, start: int) -> bool:
        begin = 0 if row.begins is None else int(row.begins[min(start, len(row.ids) - 1)])
        return start == begin or self.tokens.opens_a_span(int(row.ids[start - 1]))


def _beginnings(answer: Sequence[int]) -> Iterator[Span]:
    """Nothing, its first token, its first two, and so on up to the whole answer."""
    return (tuple(answer[:n]) for n in range(len(answer) + 1))
