"""Asks a host while something is injected: answers, and the probability of the wanted one.

What all prompts begin with is read once. A case is read up to where its answer begins; then the
wanted answer is read behind it, which gives its probability and shows whether greedy decoding
would say just that; if not, what it says is generated.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor

from engram_transformers.evaluation.answers import loops
from engram_transformers.evaluation.metrics import contains, exact
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.passes import branched, of_like_length, padded
from engram_transformers.models.tokens import HostTokens
from engram_transformers.models.trace import Patch, Spots, patched

BATCH_TOKENS = 2048
NEW_TOKENS = 12


@dataclass(frozen=True)
class Injected:
    """What acts on one prompt."""

    slots: Tensor | None = None
    "(blocks, n, hidden): what the first so many blocks are given at the tokens that are given."
    added: Tensor | None = None
    "(hidden,): added behind block `layer`."
    late: Tensor | None = None
    "(answer, hidden): put behind block `layer` where each token of the answer is chosen."
    layer: int = 0
    everywhere: bool = True
    "Whether `added` is added at every token behind the head, or from the prompt's last one on."


@dataclass(frozen=True)
class Case:
    """A prompt behind the head, the answer wanted, and what is injected."""

    given: tuple[int, ...]
    question: tuple[int, ...]
    answer: tuple[int, ...]
    injected: Injected = field(default_factory=Injected)
    behind: bool = False
    "Whether what is given stands behind the question's own words instead of before them."
    close: int = 0
    "How many tokens at the question's end close it."

    @property
    def ids(self) -> tuple[int, ...]:
        if not self.behind:
            return (*self.given, *self.question)
        cut = len(self.question) - self.close
        return (*self.question[:cut], *self.given, *self.question[cut:])

    @property
    def begin(self) -> int:
        """Where what is given begins."""
        return len(self.question) - self.close if self.behind else 0


@dataclass(frozen=True)
class Heard:
    """What a host made of a case."""

    logprob: float
    "Of the whole answer and its end, in nats."
    exact: bool
    contains: bool
    ended: bool
    "Whether it ended by itself without repeating itself."
    loops: bool
    said: str

    def plain(self) -> list[Any]:
        """As JSON-ready data."""
        flags = [self.exact, self.contains, self.ended, self.loops]
        return [round(self.logprob, 4), *map(int, flags), self.said]


class Asking:
    """Asks one host behind one head, which is read once."""

    def __init__(self, adapter: Adapter, tokens: HostTokens, head: Sequence[int]) -> None:
        self.adapter, self.tokens, self.head = adapter, tokens, tuple(head)
        self.skipped = 0
        "Positions of the head that its cache has no keys for any more."
        with torch.no_grad():
            ids = torch.tensor([self.head], device=adapter.device)
            self.read = adapter.decoder(input_ids=ids, use_cache=True).past_key_values

    def ask(self, cases: Sequence[Case], *, generate: bool = True) -> list[Heard]:
        """What the host makes of each case."""
        heard: dict[int, Heard] = {}
        sizes = [len(case.ids) + len(case.answer) for case in cases]
        for batch in of_like_length(sizes, batch_tokens=BATCH_TOKENS):
            found = _Batch(self, [cases[i] for i in batch]).hear(generate=generate)
            heard |= dict(zip(batch, found, strict=True))
        return [heard[i] for i in range(len(cases))]

    @torch.no_grad()
    def after(self, ids: Sequence[int]) -> Asking:
        """Asks behind the head and these tokens, which are read into its cache."""
        longer = copy.copy(self)
        longer.head, longer.read = (*self.head, *ids), self.past(1)
        at = torch.arange(len(self.head), len(longer.head), device=self.adapter.device)[None]
        new = torch.tensor([list(ids)], device=self.adapter.device)
        self.adapter.decoder(
            input_ids=new, position_ids=at, past_key_values=longer.read, use_cache=True
        )
        return longer

    def past(self, rows: int) -> Any:
        """A cache of the head for so many rows."""
        return branched(self.read, rows=rows)


class _Batch:
    """Some cases that are read together: padding stands between the head and each."""

    def __init__(self, asking: Asking, cases: Sequence[Case]) -> None:
        self.asking, self.cases, self.adapter = asking, cases, asking.adapter
        self.width = max(len(case.ids) for case in cases)
        self.pads = [self.width - len(case.ids) for case in cases]
        head = len(asking.head)
        self.mask = torch.tensor([[1] * head + [0] * p + [1] * (self.width - p) for p in self.pads])
        self.past = asking.past(len(cases))

    @torch.no_grad()
    def hear(self, *, generate: bool) -> list[Heard]:
        ids = torch.tensor(
            [[0] * p + list(c.ids) for p, c in zip(self.pads, self.cases, strict=True)]
        )
        first = self._read(ids, self.mask, self._before())[:, -1]
        logprobs, choices = self._forced(first)
        held = [c == case.answer for c, case in zip(choices, self.cases, strict=True)]
        forced = max(len(case.answer) for case in self.cases) - 1
        if forced:
            self.past.crop(-forced)
        written = [list(case.answer) for case in self.cases]
        if generate and not all(held):
            new = self._generate(first)
            written = [w if h else n for w, h, n in zip(written, held, new, strict=True)]
        return [
            self._heard(case, lp, h, w, generated=generate)
            for case, lp, h, w in zip(self.cases, logprobs, held, written, strict=True)
        ]

    def _read(self, ids: Tensor, mask: Tensor, patches: Sequence[Patch]) -> Tensor:
        """(rows, time, hidden) of the next tokens."""
        real = mask[:, -ids.shape[1] :]
        at = (mask.cumsum(1) - 1 + self.asking.skipped)[:, -ids.shape[1] :] * real
        device = self.adapter.device
        with patched(patches):
            states: Tensor = self.adapter.decoder(
                input_ids=ids.to(device), attention_mask=mask.to(device),
                position_ids=at.to(device), past_key_values=self.past, use_cache=True,
            )[0]  # fmt: skip
        return states

    def _forced(self, first: Tensor) -> tuple[list[float], list[tuple[int, ...]]]:
        """Log-probability of each answer, and the first choice at each of its tokens."""
        ids, real = padded([case.answer[:-1] for case in self.cases])
        states = first[:, None]
        if ids.shape[1]:
            mask = torch.cat([self.mask, real], 1)
            patches = list(self._amid(range(1, ids.shape[1] + 1)))
            states = torch.cat([states, self._read(ids, mask, patches)], 1)
        logprobs, choices = [], []
        for row, case in zip(states, self.cases, strict=True):
            logits = self.adapter.logits(row[: len(case.answer)])
            wanted = torch.tensor(case.answer, device=logits.device)[:, None]
            logprobs.append(float(logits.log_softmax(-1).gather(1, wanted).sum()))
            choices.append(tuple(logits.argmax(-1).tolist()))
        return logprobs, choices

    def _generate(self, first: Tensor) -> list[list[int]]:
        mask, states = self.mask, first
        written: list[list[int]] = [[] for _ in self.cases]
        stop = self.asking.tokens.stop
        for step in count(1):
            chosen = self.adapter.logits(states).argmax(-1).tolist()
            for row, token in zip(written, chosen, strict=True):
                if row[-1:] != [stop]:
                    row.append(token)
            if step == NEW_TOKENS or all(row[-1] == stop for row in written):
                break
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
            ids = torch.tensor([[row[-1]] for row in written])
            states = self._read(ids, mask, list(self._amid(range(step, step + 1))))[:, -1]
        return written

    def _before(self) -> list[Patch]:
        """What acts while prompts are read."""
        return [*self._slots(), *self._added(), *self._late(range(1), self.width - 1)]

    def _amid(self, steps: range) -> Iterator[Patch]:
        """What acts where the tokens of answers are read; column 0 chooses token `steps[0]`."""
        for row, case in enumerate(self.cases):
            one = case.injected
            if one.added is not None:
                spots = Spots.of([(row, i) for i in range(len(steps))])
                yield self._patch(one.layer, spots, one.added.expand(len(steps), -1), adds=True)
        yield from self._late(steps, 0)

    def _slots(self) -> Iterator[Patch]:
        for row, (case, pad) in enumerate(zip(self.cases, self.pads, strict=True)):
            slots = case.injected.slots
            if slots is not None:
                at = range(pad + case.begin, pad + case.begin + slots.shape[1])
                for layer, states in enumerate(slots):
                    place = self.adapter.place("block_in", layer)
                    yield Patch(place, Spots.of([(row, i) for i in at]), states)

    def _added(self) -> Iterator[Patch]:
        for row, (case, pad) in enumerate(zip(self.cases, self.pads, strict=True)):
            one = case.injected
            if one.added is not None:
                at = range(pad if one.everywhere else self.width - 1, self.width)
                spots = Spots.of([(row, i) for i in at])
                yield self._patch(one.layer, spots, one.added.expand(len(at), -1), adds=True)

    def _late(self, steps: range, column: int) -> Iterator[Patch]:
        """States that choose the tokens `steps`, at the columns from `column` on."""
        for row, case in enumerate(self.cases):
            late = case.injected.late
            if late is not None and steps.start < len(late):
                states = late[steps.start : steps.stop]
                spots = Spots.of([(row, column + i) for i in range(len(states))])
                yield self._patch(case.injected.layer, spots, states)

    def _patch(self, layer: int, spots: Spots, states: Tensor, *, adds: bool = False) -> Patch:
        return Patch(self.adapter.place("block_out", layer), spots, states, adds)

    def _heard(
        self, case: Case, logprob: float, held: bool, written: list[int], *, generated: bool
    ) -> Heard:
        tokens = self.asking.tokens
        if not generated and not held:
            return Heard(logprob, False, False, False, False, "")
        said, wanted = tokens.decode_answer(written), tokens.decode_answer(case.answer)
        ended = written[-1:] == [tokens.stop]
        looping = not held and loops(written[:-1] if ended else written)
        return Heard(
            logprob,
            exact(said, wanted),
            contains(said, wanted),
            ended and not looping,
            looping,
            said,
        )
