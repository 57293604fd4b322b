"""Which fact a question asks for: by its wording, and by its meaning where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from engram_transformers.memories.shared.encoders import open_encoder
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.meaning import Decision, Judged, MeaningAddress
from engram_transformers.types import Fact


@dataclass(frozen=True)
class AddressConfig:
    """How a memory finds the fact that is asked for: options of every kind that has an address."""

    address: Literal["meaning", "exact"] = "meaning"
    "`meaning` finds other wordings too; `exact` fires on taught wordings only."
    encoder: Literal["minilm", "host"] = "minilm"
    "What turns a question into a vector: a sentence encoder, or the host's hidden states."
    candidates: int = 5
    "How many of the nearest stored questions are judged."
    threshold: float | None = None
    "Probability from which the best candidate fires; None takes the calibrated one."
    encoder_print: str | None = None
    "Which encoder wrote the vectors; filled in when the memory is created."


C = TypeVar("C", bound=AddressConfig)


def open_meaning(
    config: C, *, adapter: Adapter, tokens: HostTokens
) -> tuple[C, MeaningAddress | None]:
    """The address by meaning that a configuration asks for, and the configuration with its print.

    None where only taught wordings count (`address="exact"`).

    Raises:
        HostMismatch: the vectors come from another encoder than the one that is installed.
    """
    if config.address == "exact":
        return config, None
    encoder = open_encoder(
        config.encoder, adapter=adapter, tokens=tokens, written_by=config.encoder_print
    )
    meaning = MeaningAddress(encoder, threshold=config.threshold, candidates=config.candidates)
    return replace(config, encoder_print=encoder.fingerprint), meaning


class QuestionAddress:
    """Questions that lead to facts, each by an integer: taught wordings first, then by meaning."""

    def __init__(self, meaning: MeaningAddress | None) -> None:
        self.meaning = meaning
        self._taught: dict[str, list[int]] = {}

    def vectors(self, facts: Sequence[Fact]) -> list[Tensor]:
        """For each fact (questions, views, size): where the meaning finds it; else of no size."""
        if self.meaning is None:
            return [torch.zeros(len(fact.questions), 0).half() for fact in facts]
        return [torch.from_numpy(v).half() for v in self.meaning.encode_facts(facts)]

    def add(self, number: int, fact: Fact, vectors: Tensor) -> None:
        """Let the questions of a fact lead to a number."""
        for question in fact.questions:
            self._taught.setdefault(_plain(question), []).append(number)
        if self.meaning is not None:
            self.meaning.add(number, fact, vectors.float().numpy())

    def remove(self, number: int, fact: Fact) -> None:
        """Let a number be led to no more."""
        for question in fact.questions:
            left = [one for one in self._taught[_plain(question)] if one != number]
            if left:
                self._taught[_plain(question)] = left
            else:
                del self._taught[_plain(question)]
        if self.meaning is not None:
            self.meaning.remove(number)

    def decide(self, question: str) -> Decision:
        """What a question asks for."""
        numbers = self._taught.get(_plain(question))
        if numbers:
            ranking = (Judged(numbers[-1], question, 1.0, 1.0),)
            return Decision(numbers[-1], "the question is worded as it was taught", ranking)
        if self.meaning is None:
            return Decision(None, "no taught question is worded so")
        return self.meaning.decide([question])[question]


def _plain(question: str) -> str:
    return " ".join(question.split())
