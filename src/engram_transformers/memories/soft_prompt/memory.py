"""The soft-prompt memory: vectors that were trained to make an answer come behind its questions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor

from engram_transformers.attaching import silenced
from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.address import QuestionAddress, open_meaning
from engram_transformers.memories.shared.behind import Steps
from engram_transformers.memories.shared.injecting import Board, Injecting
from engram_transformers.memories.shared.soft import Lesson, start, train
from engram_transformers.memories.soft_prompt.config import SoftPromptConfig
from engram_transformers.memory import Tensors
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.modes import evaluating
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact


class SoftPrompt(Injecting):
    """A few vectors for each fact, trained on its question and its paraphrases in turn."""

    Config = SoftPromptConfig

    def __init__(
        self,
        config: SoftPromptConfig,
        *,
        adapter: Adapter,
        tokens: HostTokens,
        address: QuestionAddress,
    ) -> None:
        for name in ("slots", "steps"):
            if getattr(config, name) < 1:
                raise BadInput(f"{name} is {getattr(config, name)}; it has to be at least 1")
        if not config.learning_rate > 0:
            raise BadInput(f"learning_rate is {config.learning_rate}; it has to be above 0")
        super().__init__(Board(adapter, tokens, address, act="slots"))
        self.config, self.adapter = config, adapter

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: SoftPromptConfig) -> Self:
        """An empty memory for a host, with the encoder that its configuration names.

        Raises:
            BadInput: an option out of bounds, or nothing that could stand in slots.
        """
        config, meaning = open_meaning(config, adapter=adapter, tokens=tokens)
        return cls(config, adapter=adapter, tokens=tokens, address=QuestionAddress(meaning))

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """The deltas of these facts; changes nothing of the host.

        Vectors are trained whether or not `refine` is wanted: there is no other way to write them.

        Raises:
            TrainingDiverged: a loss is no number.
        """
        model = self.adapter.model
        with silenced(model), evaluating(model), torch.enable_grad():
            states = [self._vectors(fact) for fact in facts]
        vectors = self.board.address.vectors(facts)
        return [
            {"states": one[None].cpu(), "vectors": each}
            for one, each in zip(states, vectors, strict=True)
        ]

    def _vectors(self, fact: Fact) -> Tensor:
        config, board = self.config, self.board
        assert board.slots is not None
        given = board.slots.text * config.slots
        heads, tails = zip(*(board.parts(q, given) for q in fact.questions), strict=True)
        lessons = [
            Lesson(tuple(tail), tuple(self._answer(question, fact)))
            for question, tail in zip(fact.questions, tails, strict=True)
        ]
        begin = start(
            self.adapter, f"{fact.prompt}\n{fact.answer}", slots=config.slots, seed=config.seed
        )
        steps = Steps(config.steps, config.learning_rate, config.enough)
        return train(
            self.adapter,
            lessons,
            begin=begin,
            steps=steps,
            past=self._past(heads[0]),
            placeholder=board.slots.id,
        ).vectors

    def _answer(self, question: str, fact: Fact) -> list[int]:
        tokens = self.board.tokens
        return tokens.answer_ids(question, fact.answer, form=tokens.ask_form)

    @torch.no_grad()
    def _past(self, head: Sequence[int]) -> Any:
        """The cache of what stands before the slots."""
        if not head:
            return None
        ids = torch.tensor([list(head)], device=self.adapter.device)
        return self.adapter.decoder(input_ids=ids, use_cache=True).past_key_values
