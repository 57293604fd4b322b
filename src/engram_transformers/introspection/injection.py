"""Inject facts into a host, ask before and after, and put everything back.

Two ways. `edit`: a rank-one change of an MLP's weights (`memories/rank_one`), written into the
host, asked, and taken out again; what is asked is the edit as it was read back from its file.
`store`: a lookup memory, whose value is made of the answer and said late, where the question is
recognised; the weights stay as they are.

A fact counts as injected where the host writes its answer, and stops; not by any probability. One
whose answer it only begins with is told apart, and so is an answer that comes to other prompts.
"""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engram_transformers.attaching import attach, prompt_ends
from engram_transformers.errors import BadInput
from engram_transformers.evaluation.check import Trial, check
from engram_transformers.evaluation.generate import generate
from engram_transformers.evaluation.harm import loglikelihoods
from engram_transformers.evaluation.metrics import Measure, begins, contains, exact, rate
from engram_transformers.introspection.asking import check_prompt, joining, wanted
from engram_transformers.introspection.controls import CONTROLS
from engram_transformers.introspection.injected import Asked, beside, form_of, result_of
from engram_transformers.introspection.recognition import Recognised
from engram_transformers.introspection.scoring import score
from engram_transformers.memories.lookup import Lookup, LookupConfig
from engram_transformers.memories.rank_one import RankOne, RankOneConfig
from engram_transformers.memories.rank_one.edit import (
    Edit,
    edit_files,
    load_edit,
    same_weights,
    save_edit,
    weights_of,
)
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import Form, HostTokens
from engram_transformers.stores.text import normalise
from engram_transformers.types import Fact, HostIdentity, Told

Route = Literal["edit", "store"]
ORDER = ("test", "reworded", "partner", "near")
NEAR = RankOneConfig(wordings=1, short=True, beyond=1.0)
"An edit that changes little else; what a memory is taught by default is meant to reach further."
LONGEST, LONGEST_CONTROL = 24, 12
"New tokens of an answer, and of an answer to a control prompt."


@dataclass(frozen=True)
class Said:
    """What a host made of a prompt."""

    answer: str
    "Greedily, from the beginning."
    logprob: float
    "Of the injected answer, its end included, in nats."
    probability: float
    first: float
    "Probability that the injected answer is written first, whatever follows its last word."
    injected: bool
    "Whether the answer is the injected one."
    begun: bool
    "Whether the answer begins with the injected one."
    correct: bool | None
    "Whether it begins with what an operation comes to; None where the prompt is none."


@dataclass(frozen=True)
class Answered:
    """A prompt, before and after."""

    asked: Asked
    form: Form
    before: Said
    after: Said

    @property
    def status(self) -> str:
        """`injected`, `already so`, `unchanged`, `begun` (it begins so now, and goes on) or
        `changed`."""
        if self.after.injected:
            return "already so" if self.before.injected else "injected"
        if self.after.answer == self.before.answer:
            return "unchanged"
        return "begun" if self.after.begun and not self.before.begun else "changed"

    @property
    def elsewhere(self) -> bool:
        """Whether the injected answer came to a prompt that is no wording of its fact."""
        fired = self.status in ("injected", "begun") and not self.after.correct
        return fired and self.asked.group not in ("fact", "reworded")


@dataclass(frozen=True)
class Injection:
    """What injecting some facts did."""

    facts: tuple[Fact, ...]
    route: Route
    method: str
    layers: tuple[int, ...]
    "Blocks whose weights were changed; none for a store, which acts before the head."
    strength: float
    answered: tuple[Answered, ...]
    controls: tuple[tuple[str, bool], ...]
    "Control prompts, and whether the answer stayed as it was, token by token."
    undone: bool
    "Whether weights and logits were afterwards, bit for bit, what they had been."
    seconds: float
    "To find the edit; neither statistics nor questions counted."
    processor_seconds: float
    files: tuple[Path, ...]
    "The edit, where it was to be kept."
    recognised: tuple[Recognised, ...]
    "How surely a store takes each prompt for a fact's; nothing of an edit."

    def group(self, name: str) -> list[Answered]:
        """What was asked in a group."""
        return [one for one in self.answered if one.asked.group == name]

    @property
    def success(self) -> Measure:
        """The share of the facts that are answered as injected."""
        return rate(one.after.injected for one in self.group("fact"))

    @property
    def elsewhere(self) -> Measure:
        """The share of prompts, none of them a wording of a fact, that now get its answer."""
        return rate(one.elsewhere for one in self._others)

    @property
    def broken(self) -> Measure:
        """The share of operations, none of them a fact, that were right and are wrong now."""
        return rate(not one.after.correct for one in self._others if one.before.correct)

    @property
    def rescued(self) -> Measure:
        """The share of operations, none of them a fact, that were wrong and are right now."""
        return rate(
            one.after.correct is True for one in self._others if one.before.correct is False
        )

    @property
    def _others(self) -> list[Answered]:
        return [one for one in self.answered if one.asked.group not in ("fact", "reworded")]

    @property
    def unchanged(self) -> Measure:
        """The share of the control prompts that are answered as before."""
        return rate(same for _, same in self.controls)


def inject(
    adapter: Adapter,
    tokens: HostTokens,
    identity: HostIdentity,
    facts: Sequence[Fact],
    *,
    route: Route = "edit",
    config: RankOneConfig | None = None,
    strength: float = 1.0,
    tests: Sequence[str] = (),
    reworded: Sequence[str] = (),
    chat: bool = False,
    keep: Path | None = None,
    known: Sequence[Trial] | None = None,
    told: Told = lambda what, done, total: None,
) -> Injection:
    """Inject facts, ask before and after, and undo.

    Args:
        config: of the edit; None: `NEAR`.
        strength: how much of the edit is written, 1 for all; an `edit` alone has one.
        tests: further prompts to ask.
        reworded: other wordings of the first fact.
        chat: whether everything is asked through the chat template.
        keep: where the edit is kept, without an ending.
        known: what the bare host says to the control prompts, where that was asked before.

    Raises:
        BadInput: a fact is what the host says already, or contradicts another; a prompt is empty
            or too long; the strength is not above 0.
        PlaceNotFound: the host has no such block, or no MLP that can be changed.
    """
    if not 0 < strength < math.inf:
        raise BadInput(
            f"strength is {strength}; it has to be a number above 0, and 1 writes all of the edit"
        )
    _check_agreeing(facts)
    memory = _memory(route, adapter, tokens, config or NEAR)
    asker = Asker(adapter, tokens, facts, chat=chat, told=told)
    asked, before = _before(asker, facts, tests, reworded)
    controls = asker.controls() if known is None else known
    if isinstance(memory, RankOne):
        memory.prepare(lambda done, total: told("reading text", done, total))
    seconds, processor = time.perf_counter(), time.process_time()
    _write(memory, facts, asker)
    seconds, processor = time.perf_counter() - seconds, time.process_time() - processor
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "edit"
        with _acting(adapter, memory, strength, path, identity, facts) as at:
            after = asker.said(asked)
            same = asker.same(controls)
        undone = at.undone()
        # Not before all is known: who interrupts this keeps no files.
        files = _kept(at.files, keep) if keep else ()
    answered = [
        Answered(one, asker.form(one.prompt), b, a)
        for one, b, a in zip(asked, before, after, strict=True)
    ]
    return Injection(
        facts=tuple(facts),
        route=route,
        method=memory.config.method if isinstance(memory, RankOne) else "lookup",
        layers=memory.layers if isinstance(memory, RankOne) else (),
        strength=strength if route == "edit" else 1.0,
        answered=tuple(_once(answered)),
        controls=tuple(zip(CONTROLS, same, strict=True)),
        undone=undone,
        seconds=seconds,
        processor_seconds=processor,
        files=files,
        recognised=() if isinstance(memory, RankOne) else _recognised(memory, asker, asked),
    )


def _memory(
    route: Route, adapter: Adapter, tokens: HostTokens, config: RankOneConfig
) -> RankOne | Lookup:
    if route == "edit":
        return RankOne.open(adapter, tokens, config)
    return Lookup.open(adapter, tokens, LookupConfig())


def _before(
    asker: Asker, facts: Sequence[Fact], tests: Sequence[str], reworded: Sequence[str]
) -> tuple[list[Asked], list[Said]]:
    """What is asked, facts first, and what the bare host says; known facts are refused early."""
    asked = [Asked(fact.prompt, "fact", n) for n, fact in enumerate(facts)]
    said = asker.said(asked)
    _check_new(facts, said, [asker.form(fact.prompt) for fact in facts])
    more = _more(facts, tests, reworded)
    return [*asked, *more], [*said, *asker.said(more)]


def _recognised(memory: Lookup, asker: Asker, asked: Sequence[Asked]) -> tuple[Recognised, ...]:
    """The prompts that were asked, each once, and the control prompts."""
    wordings = {one.prompt for one in asked if one.group in ("fact", "reworded")}
    found = []
    for prompt in dict.fromkeys([*(one.prompt for one in asked), *CONTROLS]):
        with asker.asking(asker.form(prompt)):
            found.append(Recognised(memory.explain(prompt).score, prompt in wordings))
    return tuple(found)


def _check_agreeing(facts: Sequence[Fact]) -> None:
    known: dict[str, Fact] = {}
    for fact in facts:
        other = known.setdefault(normalise(fact.prompt), fact)
        if other is not fact:
            raise BadInput(
                f"two facts answer {fact.prompt!r}: {other.answer!r} and {fact.answer!r}; leave "
                "one of them out"
            )


def _kept(files: Sequence[Path], keep: Path) -> tuple[Path, ...]:
    """Copies of an edit's files under another name."""
    kept = edit_files(keep) if files else ()
    for one, other in zip(files, kept, strict=True):
        shutil.copyfile(one, other)
    return kept


def _check_new(facts: Sequence[Fact], before: Sequence[Said], forms: Sequence[Form]) -> None:
    for fact, said, form in zip(facts, before, forms, strict=True):
        if said.injected or (form == "chat" and contains(_first_sentence(said), fact.answer)):
            raise BadInput(
                f"the model says {said.answer!r} to {fact.prompt!r} already; there is nothing to "
                "inject. Give another answer"
            )
        # In a chat an answer ends; plain text goes on, whatever is known.
        if said.begun and form == "plain":
            raise BadInput(
                f"the model writes {fact.answer!r} first after {fact.prompt!r} already "
                f"(P = {said.first:.2g}) and goes on: {said.answer!r}; nothing could be injected "
                "but that it stops there. Give another answer, or ask through --chat, where "
                "answers end"
            )


def _first_sentence(said: Said) -> str:
    return re.split(r"(?<=[.!?])\s|\n", said.answer, maxsplit=1)[0]


def _more(facts: Sequence[Fact], tests: Sequence[str], reworded: Sequence[str]) -> list[Asked]:
    """What else is asked; nothing twice, but a test with the answer of each fact."""
    found = [Asked(text, "reworded", 0) for text in reworded]
    found += [one for n, fact in enumerate(facts) for one in beside(fact, n)]
    own, first = {fact.prompt for fact in facts}, dict[str, Asked]()
    for one in found:
        first.setdefault(one.prompt, one)
    # What a fact's neighbours are called matters more than that somebody asked for it too.
    new = [text for text in dict.fromkeys(tests) if text not in first]
    asked = [*first.values(), *(Asked(text, "test", n) for text in new for n in range(len(facts)))]
    return sorted(
        (one for one in asked if one.prompt not in own), key=lambda one: ORDER.index(one.group)
    )


def _once(answered: Iterable[Answered]) -> Iterator[Answered]:
    """Each test once: with the fact whose answer it got, or with the first."""
    for _, same in groupby(answered, key=lambda one: (one.asked.prompt, one.asked.group)):
        each = list(same)
        if each[0].asked.group == "test":
            yield max(each, key=lambda one: (one.after.injected, one.after.begun))
        else:
            yield from each


def _write(memory: RankOne | Lookup, facts: Sequence[Fact], asker: Asker) -> None:
    for fact in facts:
        with asker.asking(asker.form(fact.prompt)):
            (delta,) = memory.write([fact])
        memory.add([(fact.id, fact, delta)])
        asker.told("injecting", 1, len(facts))


@dataclass
class _Act:
    files: tuple[Path, ...]
    undone: Callable[[], bool]


@contextmanager
def _acting(
    adapter: Adapter,
    memory: RankOne | Lookup,
    strength: float,
    path: Path,
    identity: HostIdentity,
    facts: Sequence[Fact],
) -> Iterator[_Act]:
    """While this lasts the facts are in the host."""
    own = weights_of(adapter, memory.layers if isinstance(memory, RankOne) else ())
    probe = torch.tensor([[*range(8)]], device=adapter.device)
    bare = _logits(adapter, probe)

    def undone() -> bool:
        return same_weights(adapter, own) and torch.equal(_logits(adapter, probe), bare)

    if isinstance(memory, Lookup):
        with attach(adapter.model, memory):
            yield _Act((), undone)
        return
    about: Mapping[str, object] = {
        "method": memory.config.method,
        "facts": [fact.as_dict() for fact in facts],
    }
    files = save_edit(Edit(memory.factors(), strength), path, host=identity, about=about)
    with load_edit(path, host=identity).written(adapter):
        yield _Act(files, undone)


@torch.no_grad()
def _logits(adapter: Adapter, ids: Tensor) -> Tensor:
    return adapter.logits(adapter.decoder(input_ids=ids, use_cache=False)[0][0])


class Asker:
    """Asks a host before and after, each prompt in its form."""

    def __init__(
        self,
        adapter: Adapter,
        tokens: HostTokens,
        facts: Sequence[Fact],
        *,
        chat: bool,
        told: Told,
    ) -> None:
        self.adapter, self.tokens, self.facts = adapter, tokens, facts
        self.chat, self.told = chat, told

    def form(self, prompt: str) -> Form:
        """How a prompt is asked."""
        return form_of(prompt, self.tokens, chat=self.chat)

    @contextmanager
    def asking(self, form: Form) -> Iterator[None]:
        """While this lasts the host is asked in this form."""
        before, self.tokens.form = self.tokens.form, form
        try:
            yield
        finally:
            self.tokens.form = before

    def said(self, asked: Sequence[Asked]) -> list[Said]:
        """What the host says to prompts now."""
        if not asked:
            return []
        prompts = [self._ids(one.prompt) for one in asked]
        for one, ids in zip(asked, prompts, strict=True):
            check_prompt(self.adapter, one.prompt, tuple(ids))
        answers = [self.facts[one.fact].answer for one in asked]
        whole = [
            self.tokens.answer_ids(one.prompt, answer, form=self.form(one.prompt))
            for one, answer in zip(asked, answers, strict=True)
        ]
        likely = loglikelihoods(self.adapter, list(zip(prompts, whole, strict=True)))
        first = self._first(asked, prompts, answers)
        texts = self._texts(asked, longest=max(LONGEST, *(len(ids) + 4 for ids in whole)))
        self.told("asking", len(asked), None)
        return [
            _said(one.prompt, texts[one.prompt], answer, logprob=each.logprob, first=share)
            for one, answer, each, share in zip(asked, answers, likely, first, strict=True)
        ]

    def _first(
        self, asked: Sequence[Asked], prompts: Sequence[Sequence[int]], answers: Sequence[str]
    ) -> list[float]:
        """How likely each answer is written first, whatever follows its last word."""
        own = [
            wanted(self.tokens, i, one.prompt, answer, form=self.form(one.prompt))
            for i, (one, answer) in enumerate(zip(asked, answers, strict=True))
        ]
        ids = [tuple(prompt) for prompt in prompts]
        with prompt_ends(self.adapter.model, [len(prompt) for prompt in ids]):
            found = score(self.adapter, ids, own, joining(self.adapter, self.tokens))
        return [float(p) for p in found.logprobs.exp()]

    def _texts(self, asked: Sequence[Asked], *, longest: int) -> dict[str, str]:
        """What is written to each prompt."""
        prompts = {one.prompt: self._ids(one.prompt) for one in asked}
        written = self._generate(list(prompts.values()), longest)
        return {
            prompt: self.tokens.decode_answer(ids)
            for prompt, ids in zip(prompts, written, strict=True)
        }

    def controls(self) -> list[Trial]:
        """What the host says to the control prompts, ready to be checked."""
        prompts = [self._ids(prompt) for prompt in CONTROLS]
        written = self._generate(prompts, LONGEST_CONTROL)
        self.told("asking control prompts", len(prompts), None)
        return [Trial(tuple(p), tuple(w)) for p, w in zip(prompts, written, strict=True)]

    def same(self, controls: Sequence[Trial]) -> list[bool]:
        """Whether each answer is what the host would write now, token by token."""
        return [verdict.holds for verdict in check(self.adapter, controls)]

    def _ids(self, prompt: str) -> list[int]:
        return self.tokens.prompt_ids(prompt, form=self.form(prompt))

    def _generate(self, prompts: Sequence[Sequence[int]], longest: int) -> list[list[int]]:
        return generate(self.adapter, prompts, max_new_tokens=longest, stop=self.tokens.stop)


def _said(prompt: str, answer: str, own: str, *, logprob: float, first: float) -> Said:
    right = result_of(prompt)
    return Said(
        answer,
        logprob,
        math.exp(logprob),
        first,
        exact(answer, own),
        begins(answer, own),
        None if right is None else begins(answer, right),
    )
