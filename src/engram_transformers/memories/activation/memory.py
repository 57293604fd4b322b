"""The activation memory: a fact's text is read once, and what it left in the host is injected."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import Self, get_args

import torch
from torch import Tensor

from engram_transformers.attaching import silenced
from engram_transformers.errors import BadInput
from engram_transformers.memories.activation.config import ActivationConfig, Way
from engram_transformers.memories.shared.address import QuestionAddress, open_meaning
from engram_transformers.memories.shared.injecting import Act, Board, Injecting
from engram_transformers.memories.shared.soft import usual_norm
from engram_transformers.memories.shared.statements import told
from engram_transformers.memories.shared.vectors import POOLED, mean, to_norm
from engram_transformers.memory import Tensors
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.modes import evaluating
from engram_transformers.models.tokens import HostTokens
from engram_transformers.models.trace import block_inputs, place_states
from engram_transformers.types import Fact

ACTS: dict[str, Act] = {"add": "add", "patch": "patch"}
"How a way acts, if not in slots."


class Activation(Injecting):
    """States of a fact's text, given back to the host when the fact is asked for."""

    Config = ActivationConfig

    def __init__(
        self,
        config: ActivationConfig,
        *,
        adapter: Adapter,
        tokens: HostTokens,
        address: QuestionAddress,
    ) -> None:
        if config.way not in get_args(Way):
            raise BadInput(f"way is {config.way!r}; use {', '.join(get_args(Way))}")
        if config.slots < 1 or not config.scale > 0:
            raise BadInput(f"slots={config.slots} and scale={config.scale} have to be above 0")
        place = adapter.place("block_out", config.layer)
        self.config, self.adapter = config, adapter
        board = Board(
            adapter, tokens, address,
            act=ACTS.get(config.way, "slots"),
            layer=place.layer or 0,
            depth=len(adapter.layers) if config.way == "keys_values" else 1,
        )  # fmt: skip
        super().__init__(board)
        self.place = place

    @classmethod
    def open(cls, adapter: Adapter, tokens: HostTokens, config: ActivationConfig) -> Self:
        """An empty memory for a host, with the encoder that its configuration names.

        Raises:
            BadInput: an unknown way, or nothing that could stand in slots.
            PlaceNotFound: the host has no such block.
        """
        config, meaning = open_meaning(config, adapter=adapter, tokens=tokens)
        return cls(config, adapter=adapter, tokens=tokens, address=QuestionAddress(meaning))

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        """The deltas of these facts; changes nothing, and trains nothing.

        Raises:
            BadInput: a fact's text is longer than what the host reads, or its states are NaN.
        """
        model = self.adapter.model
        with silenced(model), evaluating(model), torch.no_grad():
            states = [self._states(fact) for fact in facts]
        vectors = self.board.address.vectors(facts)
        return [
            {"states": one.float().cpu(), "vectors": each}
            for one, each in zip(states, vectors, strict=True)
        ]

    def _states(self, fact: Fact) -> Tensor:
        """(blocks, n, hidden) of a fact."""
        if self.config.way == "patch":
            return self._answering(fact)[None]
        head, text = self._head(fact), self.board.tokens.encode(told(fact))
        ids = self._fitting(fact, [*head, *text])
        if self.config.way == "keys_values":
            return _finite(block_inputs(self.adapter, ids, len(head)))
        kept = place_states(self.adapter, ids, torch.ones_like(ids), [self.place])[0]
        return self._few(kept[0, len(head) :].float())[None]

    def _few(self, states: Tensor) -> Tensor:
        config = self.config
        if config.way == "add":
            return config.scale * mean(states, 1)
        found = POOLED[config.way](states, min(config.slots, len(states)))
        return to_norm(found, config.scale * usual_norm(self.adapter))

    def _answering(self, fact: Fact) -> Tensor:
        """(answer, hidden): states where the host that reads the fact has to choose its answer."""
        tokens = self.board.tokens
        prompt, _ = self.board.parts(fact.prompt, told(fact))
        answer = tokens.answer_ids(fact.prompt, fact.answer, form=tokens.ask_form)
        ids = self._fitting(fact, [*prompt, *answer[:-1]])
        kept = place_states(self.adapter, ids, torch.ones_like(ids), [self.place])[0]
        return _finite(kept[0, -len(answer) :])

    def _head(self, fact: Fact) -> list[int]:
        """Token ids of a prompt up to where a fact's text stands."""
        if self.board.slots is not None:
            return self.board.parts(fact.prompt, self.board.slots.text)[0]
        both = [self.board.parts(fact.prompt, given)[0] for given in ("", told(fact))]
        pairs = enumerate(zip(*both, strict=False))
        return both[0][: next((i for i, (a, b) in pairs if a != b), len(both[0]))]

    def _fitting(self, fact: Fact, ids: list[int]) -> Tensor:
        """(1, tokens), where the host can read so many."""
        longest = self.adapter.max_length()
        if longest is not None and len(ids) > longest:
            raise BadInput(
                f"{shorten(fact.prompt, 60)!r} and what stands before it are {len(ids)} tokens, "
                f"and this host reads {longest}; shorten the fact"
            )
        return torch.tensor([ids], device=self.adapter.device)


def _finite(states: Tensor) -> Tensor:
    if not torch.isfinite(states).all():
        raise BadInput("the states of this text are no numbers (NaN); check the host's weights")
    return states
