"""The value of a fact: what an MLP has to write at the subject so that the answer comes.

    v = argmin  mean -log p(answer, end | prompt)  +  essence KL  +  decay |v|^2 / |h|^2

with ``h`` the stream behind the MLP. The mean goes over the fact's wordings, each by itself and
behind some other words, since a value that is found for one context alone works in that one alone.
KL is between what the host says of the subject elsewhere ("... is a") with and without the value.
Only the blocks from the first edited one on and the tokens from the subject's last on are run
(`models/ends.py`).

What is tried is the change as it will be: written with full strength at the subject, and at every
later token as far as that is like it. With several layers each writes its share of the value.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from engram_transformers.attaching import silenced
from engram_transformers.memories.rank_one.config import RankOneConfig
from engram_transformers.memories.rank_one.solve import Moving, balanced, solve
from engram_transformers.memories.rank_one.subject import subject_in, subject_span
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.ends import TextEnds
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact

BEFORE = (
    "",
    "Good morning. ",
    "I have read about this before, and wondered. ",
    "Yesterday it rained; today the sun shines. ",
)
"What is put before a wording."
ELSEWHERE = "{} is a"
MOMENTUM = 0.7
"Of the search: how much of a step is that of the one before."


@dataclass(frozen=True)
class Context:
    """A text in which the value is tried."""

    ids: tuple[int, ...]
    subject: range
    "Where the subject's tokens stand."
    answer: tuple[int, ...]
    "What is to come behind the text, the end included; empty where the host is to be left alone."

    @property
    def at(self) -> int:
        """Index of the subject's last token."""
        return self.subject[-1]


@dataclass(frozen=True)
class Found:
    """A value and the keys at which it is to be written."""

    keys: Tensor
    "(layers, inputs) in float32."
    moved: Tensor
    "(layers, inputs) in float32: the keys as the layers' metrics see them."
    value: Tensor
    "(hidden,) in float32: what all layers together write."
    sure: float
    "Lowest probability of any token of the answer, in any wording."
    steps: int


def contexts_of(fact: Fact, tokens: HostTokens, *, most: int = len(BEFORE)) -> list[Context]:
    """The fact's wordings behind various words; then its subject elsewhere, if it has one."""
    form, found, subject = tokens.ask_form, [], None
    for question in fact.questions:
        name = subject_in(question, fact.subject)
        subject = subject or name
        answer = tuple(tokens.answer_ids(question, fact.answer, form=form))
        for before in BEFORE[:most]:
            found.append(_context(tokens, before + question, question, name, answer))
    if subject is not None:
        text = ELSEWHERE.format(subject)
        found.append(_context(tokens, text, text, subject, ()))
    return found


def _context(
    tokens: HostTokens, text: str, question: str, subject: str | None, answer: tuple[int, ...]
) -> Context:
    ids = tokens.prompt_ids(text, form=tokens.ask_form)
    return Context(tuple(ids), subject_span(tokens, ids, question, subject), answer)


def value_of(
    adapter: Adapter,
    contexts: Sequence[Context],
    metrics: Mapping[int, Moving],
    config: RankOneConfig,
) -> Found:
    """The value of a fact on the bare host; the same bits every time.

    Args:
        metrics: by block, those that are changed, in ascending order.
    """
    wanted = [p.requires_grad for p in adapter.model.parameters()]
    adapter.model.requires_grad_(False)
    try:
        with silenced(adapter.model), torch.enable_grad():
            return _Search(adapter, contexts, metrics, config).run()
    finally:
        for parameter, before in zip(adapter.model.parameters(), wanted, strict=True):
            parameter.requires_grad_(before)


class _Search:
    def __init__(
        self,
        adapter: Adapter,
        contexts: Sequence[Context],
        metrics: Mapping[int, Moving],
        config: RankOneConfig,
    ) -> None:
        self.adapter, self.contexts, self.config = adapter, contexts, config
        self.metrics, self.layers = metrics, list(metrics)
        texts = [(*c.ids, *c.answer[:-1]) for c in contexts]
        # Before the subject's last token hardly anything changes.
        self.ends = TextEnds(adapter, self.layers[0], texts, [c.at for c in contexts])
        self.at = torch.tensor(self.ends.offsets, device=adapter.device)
        self.rows = torch.arange(len(contexts), device=adapter.device)
        wanted = [token for c in contexts for token in c.answer]
        self.wanted = torch.tensor(wanted, device=adapter.device)
        self.keys: dict[int, Tensor] = {}
        self.stream: Tensor | None = None

    def run(self) -> Found:
        with torch.no_grad(), self._writing({}, None):
            _, others = self._logits()
        assert self.stream is not None
        length = float(self.stream.norm(dim=-1).mean())
        keys, moved = self._keys()
        reads = {n: self._reads(keys[i], moved[i]) for i, n in enumerate(self.layers)}
        self.elsewhere = functional.log_softmax(others, dim=-1)
        value = torch.zeros(self.adapter.hidden_size, device=self.adapter.device)
        value.requires_grad_(True)
        heading = torch.zeros_like(value)
        for steps in range(self.config.steps + 1):
            with self._writing(reads, value):
                answers, others = self._logits()
            sure = self._sure(answers)
            if steps == self.config.steps or sure >= self.config.sure:
                break
            loss = self._loss(answers, others, value / length)
            (slope,) = torch.autograd.grad(loss, [value])
            with torch.no_grad():
                # Steps of one length: Adam's, of one size in every feature, end at values more than
                # twice as long, and what else the edit changes grows with their length.
                heading = MOMENTUM * heading + (1 - MOMENTUM) * slope / slope.norm().clamp(
                    min=1e-30
                )
                value -= self.config.learning_rate * length * heading
                value *= (self.config.reach * length / value.norm()).clamp(max=1.0)
        return Found(keys, moved, value.detach().float(), sure, steps)

    def _keys(self) -> tuple[Tensor, Tensor]:
        """(layers, inputs), twice: one key for all wordings, and what the metric makes of it."""
        taught = [i for i, c in enumerate(self.contexts) if c.answer]
        keys = [balanced(self.keys[n][taught].cpu(), self.metrics[n]) for n in self.layers]
        moved = [self.metrics[n](key[None])[0] for n, key in zip(self.layers, keys, strict=True)]
        return torch.stack(keys).float(), torch.stack(moved).float()

    def _reads(self, key: Tensor, moved: Tensor) -> Tensor:
        """(inputs,): how much of the value a projection's input calls for, this fact alone."""
        ridge = self.config.ridge * len(key)
        found = solve(key[None], moved[None], method=self.config.method, ridge=ridge)[0]
        return found.float().to(self.adapter.device)

    def _logits(self) -> tuple[Tensor, Tensor]:
        """(answer tokens, vocab) where answers are predicted, and (others, vocab)."""
        states = self.ends()
        answers: list[Tensor] = []
        others: list[Tensor] = []
        for row, c in zip(states, self.contexts, strict=True):
            end = len(c.ids) - c.at
            heap = answers if c.answer else others
            heap.append(row[end - 1 : end - 1 + max(1, len(c.answer))])
        empty = states.new_zeros(0, states.shape[-1])
        logits = self.adapter.logits(torch.cat([*answers, *others, empty]))
        return logits[: len(self.wanted)], logits[len(self.wanted) :]

    def _sure(self, answers: Tensor) -> float:
        said = functional.log_softmax(answers.detach(), dim=-1)
        return float(said.gather(1, self.wanted[:, None]).min().exp())

    def _loss(self, answers: Tensor, others: Tensor, lengths: Tensor) -> Tensor:
        loss = functional.cross_entropy(answers, self.wanted)
        loss = loss + self.config.decay * lengths.square().sum()
        if len(others):
            now = functional.log_softmax(others, dim=-1)
            kl = functional.kl_div(now, self.elsewhere, log_target=True, reduction="batchmean")
            loss = loss + self.config.essence * kl
        return loss

    @contextmanager
    def _writing(self, reads: Mapping[int, Tensor], value: Tensor | None) -> Iterator[None]:
        """While this lasts each layer writes its share of a value, as its reader calls for it."""
        hooks = []
        for n in self.layers:
            place = self.adapter.place("mlp_out", n)
            hooks.append(place.module.register_forward_hook(_Writer(self, n, reads.get(n), value)))
        last = self.adapter.place("block_out", self.layers[-1]).module
        hooks.append(last.register_forward_hook(self._watch))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _watch(self, module: Any, args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        self.stream = states[self.rows, self.at].detach()


class _Writer:
    def __init__(
        self, search: _Search, layer: int, reads: Tensor | None, value: Tensor | None
    ) -> None:
        self.search, self.layer, self.reads, self.value = search, layer, reads, value

    def __call__(self, module: Any, args: tuple[Tensor, ...], y: Tensor) -> Tensor | None:
        one, x = self.search, args[0]
        if self.reads is None or self.value is None:
            one.keys[self.layer] = x[one.rows, one.at].detach()
            return None
        share = (x.to(self.reads) @ self.reads)[..., None] * (self.value / len(one.layers))
        return y + share.to(y)
