"""How an edit is written: pure, from what the bare host computes to a delta.

An edit has a *slot* for every token of its answer, and for each slot a value ``V`` (slots, hidden):
what is added to the layer where that token comes next. In closed form a value is what the stream is
missing to point where the head reads the token, in the last block; by gradient it is whatever makes
the token likely, anywhere.

A delta holds

* ``masks`` int64 (questions, words): the fingerprints of the prompt and its paraphrases, as bits;
* ``labels`` int32 (slots,): the tokens of each way to write the answer, one after another;
* ``sizes`` int32 (ways,): how many of them each way has, and ``spaced`` uint8 (ways,): whether it
  is for prompts that an answer continues after a space;
* ``values`` float32 (slots, hidden);
* ``vectors`` float16 (questions, size), where a sentence encoder compares questions.

For the shared matrix of the paper it holds ``written`` float32 (hidden, columns) in place of the
values, and ``decay`` (1,), by which everything written before was multiplied.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from engram_transformers.errors import StoreDamaged
from engram_transformers.memories.memoir.passes import Batch, Passes
from engram_transformers.memories.memoir.reading import Answer
from engram_transformers.memories.shared.rows import OutputRows
from engram_transformers.memory import Tensors
from engram_transformers.models.tokens import HostTokens

REACH = 3.0
"Size of what is put in the place of the stream, relative to the stream."
ENOUGH = 1.0
"Logits of advantage over every other token below which a value is refined."
STEPS_REFINING = 30
DECAY = 1e-5
"Of the released optimiser, a step."


@dataclass(frozen=True)
class Pace:
    """How long and how fast an edit is trained."""

    steps: int
    learning_rate: float
    "Relative to the size of the stream."
    target: float = 0.99
    "How likely every token of the answer has to be before training stops."


@dataclass(frozen=True)
class Slots:
    """What an edit has to say, and where the texts of a batch need it."""

    answers: tuple[Answer, ...]
    "Each way to write the answer, once."
    of: Tensor
    "(n,): the slot of each token of the batch."

    @property
    def labels(self) -> list[int]:
        """The token of each slot."""
        return [token for answer in self.answers for token in answer.tokens]

    @staticmethod
    def in_batch(batch: Batch, tokens: HostTokens) -> Slots:
        """One slot for each token of each way to write the answer."""
        found: dict[tuple[int, ...], Answer] = {}
        of: list[int] = []
        for text in batch.texts:
            if text.answer not in found:
                spaced = tokens.continues_with_space(np.array(text.prompt), len(text.prompt))
                first = sum(map(len, found))
                found[text.answer] = Answer(text.answer, first, spaced)
            first = found[text.answer].first
            of += range(first, first + len(text.answer))
        return Slots(tuple(found.values()), torch.tensor(of, device=batch.rows.device))

    def packed(self) -> Tensors:
        """As part of a delta."""
        return {
            "labels": torch.tensor(self.labels, dtype=torch.int32),
            "sizes": torch.tensor([len(one.tokens) for one in self.answers], dtype=torch.int32),
            "spaced": torch.tensor([one.spaced for one in self.answers], dtype=torch.uint8),
        }


def answers_in(delta: Tensors) -> tuple[Answer, ...]:
    """What `Slots.packed` put into a delta; `StoreDamaged` where some of it is missing."""
    missing = {"labels", "sizes", "spaced"} - delta.keys()
    if missing:
        raise StoreDamaged(
            f"an edit lacks its {', '.join(sorted(missing))}; restore the memory from a copy, or "
            "export its facts and teach them to a new one"
        )
    labels, sizes, spaced = (delta[name].tolist() for name in ("labels", "sizes", "spaced"))
    ends = itertools.accumulate(sizes)
    return tuple(
        Answer(tuple(labels[end - size : end]), end - size, bool(space))
        for end, size, space in zip(ends, sizes, spaced, strict=True)
    )


class ClosedForm:
    """Values that the head reads as the tokens wanted, for a layer whose output it reads."""

    def __init__(self, passes: Passes) -> None:
        self.passes, self.rows = passes, OutputRows(passes.adapter)
        self.gain = passes.adapter.norm_gain()
        self._known: dict[int, Tensor] = {}
        "By token, what the head reads as it, mended where a near twin beats it."

    def values(self, stream: Tensor, slots: Slots) -> Tensor:
        """(slots, hidden) to be added to the stream (n, hidden) where a batch needs the tokens."""
        present = _by_slot(stream, slots)
        sizes: Tensor = present.norm(dim=1, keepdim=True)
        return self._directions(slots.labels) * (REACH * sizes) - present

    def refined(self, batch: Batch, slots: Slots, values: Tensor) -> Tensor:
        """The values, mended where they do not lift their token far enough."""

        def far(logits: Tensor) -> bool:
            return bool(lead(logits.detach(), batch.wanted).min() >= ENOUGH)

        pace = Pace(steps=STEPS_REFINING, learning_rate=0.1)
        return trained(
            self.passes, batch, lambda it: it[slots.of], start=values, pace=pace, good=far
        )

    def _directions(self, labels: list[int]) -> Tensor:
        """(slots, hidden) of length one: streams that the final norm turns into rows of tokens."""
        new = [token for token in dict.fromkeys(labels) if token not in self._known]
        if new:
            better = self.rows.refined(new)
            self._known |= {t: better.get(t, self.rows.closed_form(t)) for t in new}
        rows = torch.stack([self._known[token] for token in labels])
        return nn.functional.normalize(rows / self.gain.to(rows), dim=1)


def by_gradient(passes: Passes, batch: Batch, slots: Slots, pace: Pace) -> Tensor:
    """(slots, hidden) trained from zero until every token is likely enough, or steps run out."""
    start = batch.stream.new_zeros(len(slots.labels), passes.adapter.hidden_size)
    good = _likely(batch, pace.target)
    return trained(passes, batch, lambda it: it[slots.of], start=start, pace=pace, good=good)


def in_matrix(passes: Passes, batch: Batch, start: Tensor, keys: Tensor, pace: Pace) -> Tensor:
    """Columns (hidden, columns) of a shared matrix, trained for their activations (n, columns)."""
    size = float(keys.abs().sum(dim=1).mean())
    return trained(
        passes,
        batch,
        lambda it: keys @ it.T,
        start=start,
        pace=pace,
        good=_likely(batch, pace.target),
        spread=size,
    )


def trained(
    passes: Passes,
    batch: Batch,
    added: Callable[[Tensor], Tensor],
    *,
    start: Tensor,
    pace: Pace,
    good: Callable[[Tensor], bool],
    spread: float = 1.0,
) -> Tensor:
    """What `start` becomes by Adam on the mean loss of all tokens of a batch.

    Steps are of the size of the stream, so that a learning rate fits every host.

    Args:
        added: from what is trained to what the layer puts out more (n, hidden).
        spread: by how much that changes where everything that is trained changes by one.
    """
    unit = passes.size(batch) / passes.adapter.hidden_size**0.5 / spread
    moved = nn.Parameter(torch.zeros_like(start))
    optimizer = torch.optim.Adam([moved], lr=pace.learning_rate)
    for step in range(pace.steps + 1):
        with torch.enable_grad():
            logits = passes.logits(batch, added(start + unit * moved))
            if good(logits) or step == pace.steps:
                break
            loss = nn.functional.cross_entropy(logits, batch.wanted)
            # The host's own weights get no gradient, not even one that is thrown away.
            (moved.grad,) = torch.autograd.grad(loss, [moved])
        optimizer.step()
    found: Tensor = start + unit * moved.detach()
    return found


def as_published(
    passes: Passes, batch: Batch, start: Tensor, keys: Tensor, pace: Pace
) -> tuple[Tensor, float]:
    """The released training of a shared matrix: its columns (hidden, columns), and their decay.

    Plain gradient steps of rate 1 with the gradient clipped to 1 and a decay of 1e-5 a step, until
    the loss is low and stands still. What the decay leaves of the columns is part of what is given;
    that of all others is for the caller to apply.
    """
    weight = nn.Parameter(start.clone())
    optimizer = torch.optim.SGD([weight], lr=1.0, weight_decay=DECAY)
    before, steps = torch.inf, 0
    for _ in range(pace.steps):
        with torch.enable_grad():
            logits = passes.logits(batch, keys @ weight.T)
            loss = nn.functional.cross_entropy(logits, batch.wanted)
            (weight.grad,) = torch.autograd.grad(loss, [weight])
        nn.utils.clip_grad_norm_([weight], 1.0)
        optimizer.step()
        steps += 1
        now = float(loss.detach())
        if abs(before - now) <= 1e-4 and now <= 0.02:
            break
        before = now
    return weight.detach(), (1 - DECAY) ** steps


def lead(logits: Tensor, wanted: Tensor) -> Tensor:
    """(n,): each wanted token's logit less the highest other one."""
    own = logits.gather(1, wanted[:, None])[:, 0]
    others = logits.scatter(1, wanted[:, None], -torch.inf)
    return own - others.max(dim=1).values


def _likely(batch: Batch, target: float) -> Callable[[Tensor], bool]:
    """Whether every token of a batch is as likely as that."""

    def good(logits: Tensor) -> bool:
        chances = logits.detach().log_softmax(dim=-1).gather(1, batch.wanted[:, None])
        return bool(chances.min().exp() >= target)

    return good


def _by_slot(rows: Tensor, slots: Slots) -> Tensor:
    """(slots, width): the mean of the rows (n, width) of each slot."""
    count = len(slots.labels)
    sums = rows.new_zeros(count, rows.shape[1]).index_add(0, slots.of, rows)
    return sums / torch.bincount(slots.of, minlength=count)[:, None]
