"""The texts: read, split, and encoded by a tokenizer that has seen the training part only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor

from engram_transformers.errors import BadInput
from engram_transformers.evaluation import data
from engram_transformers.models.fresh import fast_tokenizer

FILES = {"tinyshakespeare": "text/tinyshakespeare.txt", "wikitext2": "text/wikitext2_valid.txt"}
PAD, END = "<|pad|>", "<|end|>"


@dataclass(frozen=True)
class Corpus:
    """One text, encoded."""

    tokenizer: Any
    "As transformers has it."
    train: Tensor
    "(tokens,)"
    held_out: Tensor
    "(tokens,)"
    digest: str
    "Of tokenizer and tokens: equal for runs that learnt the same."

    def batches(self, *, rows: int, context: int, steps: int, seed: int) -> Iterator[Tensor]:
        """(rows, context + 1) a step: pieces of the text, each once before any comes again.

        Pieces begin elsewhere in every pass over the text.
        """
        draw = torch.Generator().manual_seed(seed)
        left: list[Tensor] = []
        for _ in range(steps):
            while len(left) < rows:
                left += self._pieces(context, draw)
            yield torch.stack(left[:rows])
            left = left[rows:]

    def rows(self, context: int) -> Tensor:
        """(rows, context + 1): the held-out text, each token predicted once."""
        return _rows(self.held_out, context)

    def _pieces(self, context: int, draw: torch.Generator) -> list[Tensor]:
        spare = len(self.train) - context - 1
        first = int(torch.randint(0, max(1, min(context, spare)), (1,), generator=draw))
        rows = _rows(self.train[first:], context)
        return list(rows[torch.randperm(len(rows), generator=draw)])


def file_of(text: str) -> str:
    """The file of a text among the evaluation sets; `DataMissing` where it is not there."""
    name = FILES.get(text, text)
    data.data_file(name)
    return name


def corpus(text: str, *, vocab: int, held_out: float, context: int) -> Corpus:
    """A text as tokens.

    Raises:
        DataMissing: it is not on this machine.
        BadInput: it is too short.
    """
    whole = data.text(file_of(text))
    cut = int(len(whole) * (1 - held_out))
    tokenizer = _trained(whole[:cut], vocab)
    train, rest = (torch.tensor(tokenizer.encode(part).ids) for part in (whole[:cut], whole[cut:]))
    if min(len(train), len(rest)) <= context:
        raise BadInput(
            f"{text} has {len(train):,} tokens to learn and {len(rest):,} held out; either has to "
            f"be more than a row of {context}. Use a longer text or a shorter context."
        )
    digest = hashlib.sha256(tokenizer.to_str().encode() + train.numpy().tobytes()).hexdigest()[:12]
    return Corpus(fast_tokenizer(tokenizer, pad=PAD, end=END), train, rest, digest)


def _trained(text: str, vocab: int) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def _rows(tokens: Tensor, context: int) -> Tensor:
    """(rows, context + 1): the last token of a row, which is predicted only, begins the next."""
    count = (len(tokens) - 1) // context
    return tokens[: count * context + 1].unfold(0, context + 1, context)
