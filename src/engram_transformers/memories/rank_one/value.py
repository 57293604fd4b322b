"""The value of a fact: what an MLP has to write at the subject so that the answer comes.

    v = argmin  mean -log p(answer, end | prompt)  +  decay sum |u|^2

The mean goes over the fact's wordings, each by itself and put in some other way, since a value that
is found for one context alone works in that one alone. Only the blocks from the first edited one on
and the tokens from the subject on are run (`models/ends.py`). The search ends as soon as each token
of the answer is likelier than any other. If only the rest should change as little as can be, the
value is then replaced by the shortest one that keeps it so, as far as slopes tell, again and again
while that holds (`short`); other wordings pay for that.

What is tried is the change as it will be: written with full strength at the subject, and at every
later token as far as that is like it. With several layers each has a value of its own, and all are
found together. So has each token of the subject, not only its last, since many hints disturb less
than a loud one; and each token of the answer that is read, since it takes less to say the next
token there than to say all of them from afar (`along`). They are searched for as ``u``, in units of
what they change of other texts:

    v = (k' M k)^1/2  F^-1/2  u

The first factor says how little ordinary keys call for a value there, F how much what the layer
writes matters to what is said in ordinary text (`statistics.py`). So most is written where it is
heard least, and in directions that other texts hardly notice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from engram_transformers.attaching import silenced
from engram_transformers.memories.rank_one.config import RankOneConfig
from engram_transformers.memories.rank_one.solve import Moving, balanced, shortest, solve
from engram_transformers.memories.rank_one.statistics import frozen
from engram_transformers.memories.rank_one.subject import subject_in, subject_span
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.ends import TextEnds
from engram_transformers.models.tokens import HostTokens
from engram_transformers.types import Fact

ASKED = (
    "{}",
    "{} Answer:",
    "I have read about this before, and wondered. {}",
    "Question: {} It is",
)
"How a question is put: what stands between the subject and the answer differs as well."
BEGUN = (
    "{}",
    "Good morning. {}",
    "I have read about this before, and wondered. {}",
    "Yesterday it rained; today the sun shines. {}",
)
"How a beginning is put, behind which the answer has to follow."
MOMENTUM = 0.7
"Of the search: how much of a step is that of the one before."
HALVINGS = 5
"To find how much of the value found is enough."
NEARLY = 3
"The first of these, which one question spares where less of a short value is too little."
PARTS = (1.0, 0.5)
"Of what may be written beyond what is enough."
SHORTER = 14
"Values that are tried for a shorter one."
HOLD = 16.0
"How much staying weighs against shortness to begin with: slopes tell of the neighbourhood only."
SPARE = 1.04
"Times as sure as has to be, aimed at there."
SHARP = 4.0
"How much the likeliest other token counts more than the next ones, where one is to be beaten."
SLACK = 3.0
"Nats beyond what has to be at which a margin is no concern of the next step."


class Sites(NamedTuple):
    """At how many tokens of a fact something is written."""

    subject: int
    answer: int


@dataclass(frozen=True)
class Context:
    """A text in which the value is tried."""

    ids: tuple[int, ...]
    subject: range
    "Where the subject's tokens stand."
    answer: tuple[int, ...]
    "What is to come behind the text, the end included; empty where that is not asked."

    @property
    def begins(self) -> int:
        """Index of the subject's first token."""
        return self.subject[0]

    def sites(self, count: Sites) -> list[int]:
        """Indices of the subject's last tokens, and of the last of the answer that are read."""
        end = len(self.ids) + max(0, len(self.answer) - 1)
        return [*self.subject[-count.subject :], *range(end - count.answer, end)]


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


def sites_of(contexts: Sequence[Context], config: RankOneConfig) -> Sites:
    """At how many tokens of each wording a fact is written."""
    if not config.along:
        return Sites(1, 0)
    return Sites(min(len(c.subject) for c in contexts), min(len(c.answer) for c in contexts) - 1)


def contexts_of(fact: Fact, tokens: HostTokens, *, most: int = len(ASKED)) -> list[Context]:
    """The fact's wordings, each put in so many ways."""
    form, found = tokens.ask_form, []
    for question in fact.questions:
        name = subject_in(question, fact.subject)
        answer = tuple(tokens.answer_ids(question, fact.answer, form=form))
        frames = ASKED if question.rstrip().endswith("?") else BEGUN
        for frame in frames[:most]:
            found.append(_context(tokens, frame.format(question), question, name, answer))
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
        self.adapter, self.config = adapter, config
        self.metrics, self.layers = metrics, list(metrics)
        self.gentle = torch.stack([gentle[n] for n in self.layers]).to(adapter.device)
        self.count = sites_of(contexts, config)
        self.texts = _Texts(adapter, self.layers[0], contexts)
        wanted = [token for c in contexts for token in c.answer]
        self.wanted = torch.tensor(wanted, device=adapter.device)

    def run(self) -> Found:
        keys, moved = self._keys()
        reads = {n: self._reads(keys[i], moved[i]) for i, n in enumerate(self.layers)}
        quiet = (keys * moved).sum(dim=-1).clamp(min=1e-30).sqrt()
        self.quiet = (quiet / quiet.norm())[..., None].to(self.adapter.device)
        value, sure, steps = self._enough(reads)
        if sure >= self.config.sure:
            if self.config.short:
                value = self._shortened(value, reads)
            value, sure = self._beyond(*self._least(value, sure, reads), reads)
        return Found(keys, moved, self._written(value).float(), sure, steps)

    def _enough(self, reads: Mapping[int, Tensor]) -> tuple[Tensor, float, int]:
        """A value, found by its slope; how sure the answer is with it, and after how many steps."""
        value = torch.zeros(
            len(self.layers), sum(self.count), self.adapter.hidden_size, device=self.adapter.device
        )
        value.requires_grad_(True)
        heading, way = torch.zeros_like(value), 0.0
        for steps in range(self.config.steps + 1):
            answers = self._answers(value, reads)
            sure = self._sure(answers)
            if steps == self.config.steps or sure >= self.config.sure:
                break
            loss = functional.cross_entropy(answers, self.wanted)
            (slope,) = torch.autograd.grad(loss, [value])
            with torch.no_grad():
                way = way or float(loss) / float(slope.norm().clamp(min=1e-30))
                slope += 2 * self.config.decay / way**2 * value
                # Steps of one length: Adam's, of one size in every feature, end at values more than
                # twice as long, and what else the edit changes grows with their length.
                slope /= slope.norm().clamp(min=1e-30)
                heading = MOMENTUM * heading + (1 - MOMENTUM) * slope
                value -= self.config.learning_rate * way * heading
                value *= (self.config.reach * way / value.norm()).clamp(max=1.0)
        return value.detach(), sure, steps

    def _shortened(self, value: Tensor, reads: Mapping[int, Tensor]) -> Tensor:
        """A shorter value that is enough as well, of one that is."""
        goal, hold = math.log(SPARE * self.config.sure), HOLD
        kept: Tensor | None = None
        for _ in range(SHORTER):
            tried = value.detach().requires_grad_(True)
            answers = self._answers(tried, reads)
            good = self._sure(answers) >= self.config.sure
            if kept is None or (good and tried.norm() < kept.norm()):
                margins = self._margins(answers)
                margins = margins[margins <= margins.min().clamp(min=goal + SLACK)]
                slopes = _slopes(margins, tried)
                kept, gap, hold = tried.detach(), goal - margins.detach(), hold / 2
            else:
                hold *= 4
            stays = kept.flatten() * hold / (1 + hold)
            need = gap + slopes @ (kept.flatten() - stays)
            value = (stays + shortest(slopes, need)).view_as(kept)
        return value if kept is None else kept

    def _written(self, value: Tensor) -> Tensor:
        """(layers, sites, hidden) as layers write it, of a value in units of what it changes."""
        written: Tensor = (value @ self.gentle) * self.quiet
        return written

    @torch.no_grad()
    def _least(
        self, value: Tensor, sure: float, reads: Mapping[int, Tensor]
    ) -> tuple[Tensor, float]:
        """As much of a value as it takes, since the last step is long; and how sure that is."""

        def sure_of(share: float) -> float:
            return self._sure(self._answers(value * share, reads))

        nearly = 1 - 0.5**NEARLY
        skipped = NEARLY if self.config.short and sure_of(nearly) < self.config.sure else 0
        least, enough = nearly if skipped else 0.0, 1.0
        for _ in range(HALVINGS - skipped):
            share = (least + enough) / 2
            now = sure_of(share)
            if now >= self.config.sure:
                enough, sure = share, now
            else:
                least = share
        return value * enough, sure

    @torch.no_grad()
    def _beyond(
        self, value: Tensor, sure: float, reads: Mapping[int, Tensor]
    ) -> tuple[Tensor, float]:
        """More of a value than is enough, since less of it arrives in other wordings."""
        for part in PARTS:
            times = 1 + part * (self.config.beyond - 1)
            now = self._sure(self._answers(value * times, reads))
            if now >= self.config.sure:
                return value * times, now
        return value, sure

    @torch.no_grad()
    def _keys(self) -> tuple[Tensor, Tensor]:
        """(layers, sites, inputs), twice: one key for all wordings, and as the metrics see it."""
        seen: dict[int, Tensor] = {}
        with self._hooked(lambda i, x, y: seen.update({i: x.float()})):
            self.texts.ends()
        at, keys = self.texts.sites(self.count), []
        for i, n in enumerate(self.layers):
            sites = seen[i].gather(1, at[..., None].expand(-1, -1, seen[i].shape[-1])).cpu()
            keys.append(torch.stack([balanced(site, self.metrics[n]) for site in sites.unbind(1)]))
        moved = [self.metrics[n](key) for n, key in zip(self.layers, keys, strict=True)]
        return torch.stack(keys).float(), torch.stack(moved).float()

    def _reads(self, key: Tensor, moved: Tensor) -> Tensor:
        """(sites, inputs): how much of the values an input calls for, this fact alone."""
        ridge = self.config.ridge * key.shape[1]
        found = solve(key, moved, method=self.config.method, ridge=ridge)
        return found.float().to(self.adapter.device)

    def _answers(self, value: Tensor, reads: Mapping[int, Tensor]) -> Tensor:
        """(answer tokens, vocab): logits where answers are predicted, with a value."""
        with self._writing(reads, self._written(value)):
            return self.texts.logits()

    def _margins(self, answers: Tensor) -> Tensor:
        """(answer tokens,): how far each is ahead of the likeliest others, in nats."""
        wanted = answers.gather(1, self.wanted[:, None])[:, 0]
        others = answers.scatter(1, self.wanted[:, None], float("-inf"))
        ahead: Tensor = wanted - torch.logsumexp(SHARP * others, dim=-1) / SHARP
        return ahead

    def _sure(self, answers: Tensor) -> float:
        wanted = answers.detach().gather(1, self.wanted[:, None])[:, 0]
        others = answers.detach().scatter(1, self.wanted[:, None], float("-inf")).amax(dim=-1)
        return float((wanted - others).min().exp())

    def _writing(self, reads: Mapping[int, Tensor], values: Tensor) -> AbstractContextManager[None]:
        """While this lasts each layer writes its value, as its reader calls for it."""

        def write(i: int, x: Tensor, y: Tensor) -> Tensor:
            reader = reads[self.layers[i]]
            return y + (x.to(reader) @ reader.T @ values[i]).to(y)

        return self._hooked(write)

    @contextmanager
    def _hooked(self, act: Callable[[int, Tensor, Tensor], Tensor | None]) -> Iterator[None]:
        """While this lasts `act(i, x, y)` sees what the i-th layer reads and writes."""
        with ExitStack() as stack:
            for i, n in enumerate(self.layers):
                module = self.adapter.place("mlp_out", n).module
                stack.callback(module.register_forward_hook(partial(_hook, act, i)).remove)
            yield


def _hook(
    act: Callable[[int, Tensor, Tensor], Tensor | None],
    layer: int,
    module: Any,
    args: tuple[Tensor, ...],
    y: Tensor,
) -> Tensor | None:
    return act(layer, args[0], y)


def _slopes(margins: Tensor, value: Tensor) -> Tensor:
    """(answer tokens, numbers of the value), all in one pass back."""
    each = torch.eye(len(margins)).to(margins)
    (found,) = torch.autograd.grad(margins, [value], grad_outputs=each, is_grads_batched=True)
    return found.flatten(1)


class _Texts:
    """Texts that are read again and again, from the first token on at which values are written."""

    def __init__(self, adapter: Adapter, first: int, contexts: Sequence[Context]) -> None:
        self.adapter, self.contexts = adapter, contexts
        texts = [(*c.ids, *c.answer[:-1]) for c in contexts]
        # Before the subject hardly anything changes.
        self.ends = TextEnds(adapter, first, texts, [c.begins for c in contexts])

    def sites(self, count: Sites) -> Tensor:
        """(texts, sites): where in what is read the sites stand."""
        shifts = zip(self.contexts, self.ends.offsets, strict=True)
        at = [[site - c.begins + offset for site in c.sites(count)] for c, offset in shifts]
        return torch.tensor(at, device=self.adapter.device)

    def logits(self) -> Tensor:
        """(answer tokens, vocab) where they are predicted."""
        rows = []
        for row, c in zip(self.ends(), self.contexts, strict=True):
            end = len(c.ids) - c.begins
            rows.append(row[end - 1 : end - 1 + len(c.answer)])
        return self.adapter.logits(torch.cat(rows))
