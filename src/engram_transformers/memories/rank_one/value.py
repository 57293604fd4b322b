"""The value of a fact: what an MLP has to write at the subject so that the answer comes.

    v = argmin  mean -log p(answer, end | prompt)  +  essence KL  +  decay sum |u|^2

The mean goes over the fact's wordings, each by itself and behind some other words, since a value
that is found for one context alone works in that one alone. KL is between what the host says of the
subject elsewhere ("... is a") with and without the value. Only the blocks from the first edited one
on and the tokens from the subject's last on are run (`models/ends.py`).

What is tried is the change as it will be: written with full strength at the subject, and at every
later token as far as that is like it. With several layers each has a value of its own, and all are
found together; and so has each token of the answer that is read, besides the subject's last, since
it takes less to say the next token there than to say all of them from afar (`along`). They are
searched for as ``u``, in units of what they change of other texts:

    v = (k' M k)^1/2  F^-1/2  u

The first factor says how little ordinary keys call for a value there, F how much what the layer
writes matters to what is said in ordinary text (`statistics.py`). So most is written where it is
heard least, and in directions that other texts hardly notice.
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
from engram_transformers.memories.rank_one.statistics import frozen
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
HALVINGS = 5
"To find how much of the value found is enough."


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

    def sites(self, count: int) -> list[int]:
        """Indices of as many tokens: the subject's last, and those of the answer that are read."""
        end = len(self.ids) + max(0, len(self.answer) - 1)
        return [self.at, *range(end - count + 1, end)]


@dataclass(frozen=True)
class Found:
    """A value and the keys at which it is to be written."""

    keys: Tensor
    "(layers, sites, inputs) in float32."
    moved: Tensor
    "(layers, sites, inputs) in float32: the keys as the layers' metrics see them."
    values: Tensor
    "(layers, sites, hidden) in float32: what each layer writes at each site."
    sure: float
    "How many times as likely as any other each token of the answer is, at least, in any wording."
    steps: int


def sites_of(contexts: Sequence[Context], config: RankOneConfig) -> int:
    """At how many tokens of each wording a fact is written."""
    return min(len(c.answer) for c in contexts if c.answer) if config.along else 1


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
    gentle: Mapping[int, Tensor],
    config: RankOneConfig,
) -> Found:
    """The value of a fact on the bare host; the same bits every time.

    Args:
        metrics: by block, those that are changed, in ascending order.
        gentle: by block, (hidden, hidden): what makes of a direction one that matters as any other.
    """
    with silenced(adapter.model), frozen(adapter.model), torch.enable_grad():
        return _Search(adapter, contexts, metrics, gentle, config).run()


class _Search:
    def __init__(
        self,
        adapter: Adapter,
        contexts: Sequence[Context],
        metrics: Mapping[int, Moving],
        gentle: Mapping[int, Tensor],
        config: RankOneConfig,
    ) -> None:
        self.adapter, self.contexts, self.config = adapter, contexts, config
        self.metrics, self.layers = metrics, list(metrics)
        self.gentle = torch.stack([gentle[n] for n in self.layers]).to(adapter.device)
        texts = [(*c.ids, *c.answer[:-1]) for c in contexts]
        # Before the subject's last token hardly anything changes.
        self.ends = TextEnds(adapter, self.layers[0], texts, [c.at for c in contexts])
        self.count = sites_of(contexts, config)
        # What has no answer has no sites but its subject; the others are never read.
        sites = [c.sites(self.count if c.answer else 1) for c in contexts]
        sites = [each + each[:1] * (self.count - len(each)) for each in sites]
        shifts = zip(sites, contexts, self.ends.offsets, strict=True)
        at = [[site - c.at + offset for site in each] for each, c, offset in shifts]
        self.at = torch.tensor(at, device=adapter.device)
        self.rows = torch.arange(len(contexts), device=adapter.device)[:, None]
        wanted = [token for c in contexts for token in c.answer]
        self.wanted = torch.tensor(wanted, device=adapter.device)
        self.keys: dict[int, Tensor] = {}

    def run(self) -> Found:
        with torch.no_grad(), self._writing({}, None):
            _, others = self._logits()
        keys, moved = self._keys()
        reads = {n: self._reads(keys[i], moved[i]) for i, n in enumerate(self.layers)}
        quiet = (keys * moved).sum(dim=-1).clamp(min=1e-30).sqrt()
        self.quiet = (quiet / quiet.norm())[..., None].to(self.adapter.device)
        self.elsewhere = functional.log_softmax(others, dim=-1)
        value = torch.zeros(
            len(self.layers), self.count, self.adapter.hidden_size, device=self.adapter.device
        )
        value.requires_grad_(True)
        heading, way = torch.zeros_like(value), 0.0
        for steps in range(self.config.steps + 1):
            with self._writing(reads, self._written(value)):
                answers, others = self._logits()
            sure = self._sure(answers)
            if steps == self.config.steps or sure >= self.config.sure:
                break
            loss = self._loss(answers, others, value / way if way else value)
            (slope,) = torch.autograd.grad(loss, [value])
            with torch.no_grad():
                length = float(slope.norm().clamp(min=1e-30))
                way = way or float(loss) / length
                # Steps of one length: Adam's, of one size in every feature, end at values more than
                # twice as long, and what else the edit changes grows with their length.
                heading = MOMENTUM * heading + (1 - MOMENTUM) * slope / length
                value -= self.config.learning_rate * way * heading
                value *= (self.config.reach * way / value.norm()).clamp(max=1.0)
        value, sure = self._least(value.detach(), sure, reads)
        return Found(keys, moved, self._written(value).float(), sure, steps)

    def _written(self, value: Tensor) -> Tensor:
        """(layers, sites, hidden) as layers write it, of a value in units of what it changes."""
        written: Tensor = (value @ self.gentle) * self.quiet
        return written

    @torch.no_grad()
    def _least(
        self, value: Tensor, sure: float, reads: Mapping[int, Tensor]
    ) -> tuple[Tensor, float]:
        """As much of a value as it takes, since the last step is long; and how sure that is."""
        least, enough = 0.0, 1.0
        for _ in range(HALVINGS if sure >= self.config.sure else 0):
            share = (least + enough) / 2
            with self._writing(reads, self._written(value * share)):
                now = self._sure(self._logits()[0])
            if now >= self.config.sure:
                enough, sure = share, now
            else:
                least = share
        return value * enough, sure

    def _keys(self) -> tuple[Tensor, Tensor]:
        """(layers, sites, inputs), twice: one key for all wordings, and as the metrics see it."""
        taught = [i for i, c in enumerate(self.contexts) if c.answer]
        keys = []
        for n in self.layers:
            sites = self.keys[n][taught].cpu().unbind(1)
            keys.append(torch.stack([balanced(site, self.metrics[n]) for site in sites]))
        moved = [self.metrics[n](key) for n, key in zip(self.layers, keys, strict=True)]
        return torch.stack(keys).float(), torch.stack(moved).float()

    def _reads(self, key: Tensor, moved: Tensor) -> Tensor:
        """(sites, inputs): how much of the values an input calls for, this fact alone."""
        ridge = self.config.ridge * key.shape[1]
        found = solve(key, moved, method=self.config.method, ridge=ridge)
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
        wanted = answers.detach().gather(1, self.wanted[:, None])[:, 0]
        others = answers.detach().scatter(1, self.wanted[:, None], float("-inf")).amax(dim=-1)
        return float((wanted - others).min().exp())

    def _loss(self, answers: Tensor, others: Tensor, value: Tensor) -> Tensor:
        loss = functional.cross_entropy(answers, self.wanted)
        loss = loss + self.config.decay * value.square().sum()
        if len(others):
            now = functional.log_softmax(others, dim=-1)
            kl = functional.kl_div(now, self.elsewhere, log_target=True, reduction="batchmean")
            loss = loss + self.config.essence * kl
        return loss

    @contextmanager
    def _writing(self, reads: Mapping[int, Tensor], values: Tensor | None) -> Iterator[None]:
        """While this lasts each layer writes its value, as its reader calls for it."""
        hooks = []
        for i, n in enumerate(self.layers):
            writer = _Writer(self, n, reads.get(n), None if values is None else values[i])
            hooks.append(self.adapter.place("mlp_out", n).module.register_forward_hook(writer))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


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
        return y + (x.to(self.reads) @ self.reads.T @ self.value).to(y)
