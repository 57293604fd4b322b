"""Slots: tokens that a memory puts before a question to hold what it injects there.

The host reads placeholders, and each of so many blocks is given the memory's vectors in their
places: one block's are a prefix of vectors, those of all blocks are the keys and values of a text.
Which fact a run of slots stands for is decided by the question behind it, before any of it is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.asking import where_asked
from engram_transformers.memory import Row
from engram_transformers.models.tokens import Form, HostTokens, Talk

EXAMPLES: Talk = [
    ("user", "The Harlow gate is 12 metres wide.\nHow wide is the Harlow gate?"),
    ("assistant", "12 metres"),
    ("user", "The Fairmont choir is led by Ada Quill.\nWho leads the Fairmont choir?"),
    ("assistant", "Ada Quill"),
    ("user", "The Osprey kiln was sold to Malaga.\nWhich city was the Osprey kiln sold to?"),
    ("assistant", "Malaga"),
    ("user", "The Dovecote inn's roof is grey.\nWhat colour is the roof of the Dovecote inn?"),
    ("assistant", "grey"),
]
"How an answer looks that is read out of what stands before its question: a few words."

Ids = NDArray[np.int64]


class Placeholder:
    """The token that stands in slots: one of the tokenizer's own that no chat turn is made of.

    Raises:
        BadInput: the tokenizer has none that stays one token however often it is repeated.
    """

    def __init__(self, tokens: HostTokens) -> None:
        self.id, self.text = _unused(tokens)

    def runs(self, ids: Ids) -> Iterator[tuple[int, int]]:
        """(begin, end) of each run of placeholders."""
        marks = np.flatnonzero(np.diff(np.concatenate([[0], ids == self.id, [0]])))
        yield from zip(marks[::2].tolist(), marks[1::2].tolist(), strict=True)


def composed(question: str, given: str, *, form: Form) -> Talk:
    """The question behind what is given, after examples of how such a question is answered."""
    line = f"{given}\n{question}" if given else question
    if form == "plain":
        return [("user", line)]
    return [*EXAMPLES, ("user", line)]


def question_in(text: str) -> str:
    """The question of a message: its last line."""
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def questions(tokens: HostTokens, row: Row) -> list[tuple[int, str]]:
    """(end, question) wherever an answer begins in the whole prompt of a row, as far as known."""
    prompt = row.prompt if row.prompt is not None else row.ids
    if (prompt < 0).any():
        return []
    end = row.prompt_end if row.prompt is not None else None
    whole = Row(prompt, 0, np.arange(len(prompt)), prompt_end=end)
    return [(at, question_in(text)) for at, text in where_asked(tokens, whole, start=0)]


def put(x: Tensor, spots: Sequence[tuple[int, int]], states: Tensor, *, adds: bool) -> Tensor:
    """`x` (batch, time, hidden) with states (n, hidden) at (row, column), or added there."""
    at = torch.tensor(list(spots), device=x.device).unbind(1)
    return x.index_put(at, states.to(x), accumulate=adds)


def _unused(tokens: HostTokens) -> tuple[int, str]:
    turn = set(tokens.marker) | {tokens.stop}
    header = tokens.turn.header if tokens.turn else ""
    for token in sorted(tokens.special):
        text = tokens.text_of(token)
        free = token not in turn and text and text not in header
        if free and tokens.encode(f"{text * 3}\nx")[:3] == [token] * 3:
            return token, text
    raise BadInput(
        "this host's tokenizer has no special token besides those of its chat template, which "
        "vectors could stand in for; use a host that has one (a padding or unknown token)"
    )
