"""Memories that do one thing on purpose, so that tests see whether the scorers notice."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from engram_transformers.memories.shared.rows import OutputRows
from engram_transformers.memory import Row, Signal, Tensors
from engram_transformers.types import Fact, Firing


@dataclass(frozen=True)
class Nothing:
    """No options."""


class Planted(nn.Module):
    """Takes facts and forgets them; what it does to the host is up to `forward`."""

    Config = Nothing
    place = ("final", None)

    def __init__(self, adapter: Any, config: Nothing) -> None:
        super().__init__()
        self.config, self.rows, self.ids = config, OutputRows(adapter), set[str]()

    @classmethod
    def open(cls, adapter: Any, tokens: Any, config: Nothing) -> Self:
        return cls(adapter, config)

    def __contains__(self, id: str) -> bool:
        return id in self.ids

    def places(self, adapter: Any) -> Mapping[Any, nn.Module]:
        name, layer = self.place
        return {adapter.place(name, layer): self}

    def write(self, facts: Sequence[Fact], *, refine: bool = True) -> list[Tensors]:
        return [{} for _ in facts]

    def add(self, facts: Iterable[tuple[str, Fact, Tensors]]) -> None:
        self.ids |= {id for id, _, _ in facts}

    def remove(self, ids: Iterable[str]) -> None:
        self.ids -= set(ids)

    def explain(self, text: str) -> Firing:
        return Firing(True, None, None, 1.0, "planted")


class AtRandom(Planted):
    """Answers with whatever comes: the state before the output is replaced by noise."""

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        generator = torch.Generator().manual_seed(int(signal.rows[0].ids.sum()))
        return torch.randn(y.shape, generator=generator) * y.std()


class Echo(Planted):
    """Answers every question with the question: it holds the answer wherever the question does."""

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        y = y.clone()
        for b, row in enumerate(signal.rows):
            for column, token in self._said(row):
                y[b, column] = self.rows.closed_form(token)
        return y

    def _said(self, row: Row) -> Iterable[tuple[int, int]]:
        end = row.prompt_end or len(row.ids)
        asked = row.ids[:end].tolist()
        for at, column in enumerate(row.columns.tolist()):
            behind = row.start + at - (end - 1)
            if 0 <= behind < len(asked):
                yield column, asked[behind]


class Harmful(Planted):
    """Disturbs every token in the middle of the host."""

    place = ("block_out", 0)

    def forward(self, x: Tensor, y: Tensor, signal: Signal) -> Tensor:
        return y + 2.0 * y.roll(1, dims=-1)


class PlantedStates:
    """Makes a block of a host give states of our choosing behind texts of our choosing.

    Args:
        state_of: the state (hidden,) behind a text, or None to leave what the block gives.
    """

    def __init__(self, host: Any, layer: int, state_of: Callable[[str], Tensor | None]) -> None:
        self.tokens, self.state_of, self.ids = host.tokens, state_of, torch.empty(0, 0)
        host.adapter.decoder.register_forward_pre_hook(self._see, with_kwargs=True)
        host.adapter.layers[layer].register_forward_hook(self._plant)

    def _see(self, module: Any, args: Any, kwargs: Any) -> None:
        self.ids = kwargs["input_ids"]

    def _plant(self, module: Any, args: Any, output: Any) -> Any:
        states = (output[0] if isinstance(output, tuple) else output).clone()
        for row, ids in enumerate(self.ids.tolist()):
            for column in range(len(ids)):
                planted = self.state_of(self.tokens.decode(ids[: column + 1]))
                if planted is not None:
                    states[row, column] = planted
        return (states, *output[1:]) if isinstance(output, tuple) else states


def mixed(host: Any, layer: int, parts: Mapping[Callable[[str, str], object], float]) -> None:
    """States of `a*b=` that share a direction with all facts of which a part says the same.

    Args:
        parts: by what it says of a and b, the share of a state's squared length; the rest is own.
    """
    generator, directions = torch.Generator().manual_seed(0), dict[object, Tensor]()

    def direction(name: object) -> Tensor:
        if name not in directions:
            directions[name] = torch.randn(host.adapter.hidden_size, generator=generator)
        return directions[name]

    def state(text: str) -> Tensor | None:
        match = re.fullmatch(r"(\d)\*(\d)=", text)
        if match is None:
            return None
        shared = [
            share**0.5 * direction((part, part(*match.groups()))) for part, share in parts.items()
        ]
        return sum(shared, start=max(0.0, 1 - sum(parts.values())) ** 0.5 * direction(text))

    PlantedStates(host, layer, state)


def loud(host: Any) -> Any:
    """The same host with larger logits, so that what is planted is said with certainty."""
    with torch.no_grad():
        host.adapter.head.weight.mul_(10)
    return host


def saying(host: Any, token: int) -> Tensor:
    """(hidden,): an output of the last block behind which the host says this token."""
    return OutputRows(host.adapter).closed_form(token) / host.adapter.norm_gain()


class Recalling:
    """A host of three blocks that recalls answers in a known way.

    The first block puts what it has of the subject's last token, if that is undisturbed, at that
    token; the second brings it to the end of the prompt and says the answer; the third only passes
    on.
    """

    def __init__(self, host: Any, answers: Mapping[str, str]) -> None:
        self.host, self.ids = loud(host), torch.empty(0, 0)
        tokens = host.tokens
        self.prompts = [tuple(tokens.prompt_ids(prompt, form="plain")) for prompt in answers]
        self.answers = [tokens.encode(f" {a}") for a in answers.values()]
        generator = torch.Generator().manual_seed(0)
        self.keys = torch.randn(len(answers), host.adapter.hidden_size, generator=generator)
        embedded = [host.adapter.input_embeddings(torch.tensor([p])) for p in self.prompts]
        self.clean = torch.stack([each[0, -2].detach() for each in embedded])
        host.adapter.decoder.register_forward_pre_hook(self._see, with_kwargs=True)
        for layer, act in enumerate((self._know, self._say, self._pass)):
            host.adapter.layers[layer].register_forward_hook(act)

    def _see(self, module: Any, args: Any, kwargs: Any) -> None:
        self.ids = kwargs["input_ids"]

    def _know(self, module: Any, args: Any, output: Tensor) -> Tensor:
        return self._at_subject(args[0], output, self.clean, lambda found: self.keys[found])

    def _at_subject(self, read: Tensor, output: Tensor, known: Tensor, act: Any) -> Tensor:
        output = output.clone()
        for row in range(len(read)):
            column = len(self.prompts[0]) - 2
            near = (read[row, column] - known).norm(dim=1) / known.norm(dim=1)
            if near.min() < 0.1:
                output[row, column] = act(int(near.argmin()))
        return output

    def _say(self, module: Any, args: Any, output: Tensor) -> Tensor:
        output, end = output.clone(), len(self.prompts[0]) - 1
        for row, ids in enumerate(self.ids.tolist()):
            near = (args[0][row, end - 1] - self.keys).norm(dim=1) / self.keys.norm(dim=1)
            if near.min() < 0.1:
                said = [*self.answers[int(near.argmin())], self.host.tokens.stop]
                for column in range(end, len(ids)):
                    output[row, column] = saying(self.host, said[min(column - end, len(said) - 1)])
        return output

    def _pass(self, module: Any, args: Any, output: Tensor) -> Tensor:
        return args[0]  # type: ignore[no-any-return]
