"""How the lookup memory learns a fact: token spans to recognise, tokens to say, rows to say them.

Pure: a fact goes in, a delta comes out. A delta holds

* ``ids`` int32: the taught spans one after another, then the two ways to write the answer
  (after a space, and at the start of a line), each closed by the stop token;
* ``sizes`` int32: tokens of each of these pieces; ``bare`` uint8: for each span, whether the
  answer after it is written without a space;
* ``vectors`` float16 (questions, views, size): where the address by meaning finds it;
* ``rows`` float32 (n, hidden) and ``rows_for`` int32 (n,): refined rows and their tokens. A
  token without one is said by the closed form, which needs no storing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from engram_transformers.memory import Tensors
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact


@dataclass(frozen=True)
class Written:
    """A delta unpacked: what the memory looks for and what it says."""

    spans: tuple[tuple[int, ...], ...]
    bare: tuple[bool, ...]
    "For each span, whether the answer after it starts without a space."
    answers: tuple[tuple[int, ...], tuple[int, ...]]
    "After a space, and without one; each ends in the stop token if the host has one."
    vectors: Tensor | None = None
    rows: dict[int, Tensor] = field(default_factory=dict)


def encode_facts(facts: Sequence[Fact], tokens: HostTokens) -> list[Written]:
    """Token spans and answers of many facts; the tokenizer is called once for all."""
    texts: list[str] = []
    for fact in facts:
        texts += [tokens.spaced(fact.answer), fact.answer.lstrip()]
        for question in fact.questions:
            texts += [question, f" {question}"]
    ids = iter(tokens.encode_all(texts))
    return [_encoded(fact, tokens, ids=ids) for fact in facts]


def _encoded(fact: Fact, tokens: HostTokens, *, ids: Iterator[list[int]]) -> Written:
    stop = () if tokens.stop is None else (tokens.stop,)
    answers = ((*next(ids), *stop), (*next(ids), *stop))
    spans: dict[tuple[int, ...], bool] = {}
    for question in fact.questions:
        for span in (tuple(next(ids)), tuple(next(ids))):
            # A span that a chat turn closes is longer, so it cannot be mistaken for the other.
            spans[span] = not tokens.needs_space(question)
            if tokens.marker:
                spans[span + tokens.marker] = True
    return Written(tuple(spans), tuple(spans.values()), answers)


def pack(written: Written) -> Tensors:
    """The delta of a fact."""
    pieces = [*written.spans, *written.answers]
    delta = {
        "ids": torch.from_numpy(np.concatenate(pieces).astype(np.int32)),
        "sizes": torch.tensor([len(piece) for piece in pieces], dtype=torch.int32),
        "bare": torch.tensor(written.bare, dtype=torch.uint8),
    }
    if written.vectors is not None:
        delta["vectors"] = written.vectors
    if written.rows:
        delta["rows"] = torch.stack(list(written.rows.values()))
        delta["rows_for"] = torch.tensor(list(written.rows), dtype=torch.int32)
    return delta


def unpack(delta: Tensors) -> Written:
    """What `pack` put together."""
    ids, sizes = delta["ids"].tolist(), delta["sizes"].tolist()
    ends = np.cumsum(sizes).tolist()
    pieces = [tuple(ids[end - size : end]) for size, end in zip(sizes, ends, strict=True)]
    rows = {}
    if "rows" in delta:
        rows = dict(zip(delta["rows_for"].tolist(), delta["rows"], strict=True))
    return Written(
        spans=tuple(pieces[:-2]),
        bare=tuple(bool(flag) for flag in delta["bare"].tolist()),
        answers=(pieces[-2], pieces[-1]),
        vectors=delta.get("vectors"),
        rows=rows,
    )
