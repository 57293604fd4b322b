"""Inject facts into a host, ask before and after, and put everything back.

Two ways. `edit`: a rank-one change of an MLP's weights (`memories/rank_one`), written into the
host, asked, and taken out again; what is asked is the edit as it was read back from its file.
`store`: a lookup memory, whose value is made of the answer and said late, where the question is
recognised; the weights stay as they are.

A fact counts as injected where the host writes its answer, and stops; not by any probability.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput
from engram_transformers.evaluation.check import Trial, check
from engram_transformers.evaluation.generate import generate
from engram_transformers.evaluation.harm import loglikelihoods
from engram_transformers.evaluation.metrics import Measure, exact, rate
from engram_transformers.introspection.controls import CONTROLS
from engram_transformers.introspection.injected import Asked, beside, form_of
from engram_transformers.memories.lookup import Lookup, LookupConfig
from engram_transformers.memories.rank_one import RankOne, RankOneConfig
from engram_transformers.memories.rank_one.edit import (
    Edit,
    load_edit,
    same_weights,
    save_edit,
    weights_of,
)
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import Form, HostTokens
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
    injected: bool
    "Whether the answer is the injected one."


@dataclass(frozen=True)
class Answered:
    """A prompt, before and after."""

    asked: Asked
    form: Form
    before: Said
    after: Said

    @property
    def status(self) -> str:
        """`injected`, `already so`, `unchanged` or `changed`."""
        if self.after.injected:
            return "already so" if self.before.injected else "injected"
        return "unchanged" if self.after.answer == self.before.answer else "changed"


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

    def group(self, name: str) -> list[Answered]:
        """What was asked in a group."""
        return [one for one in self.answered if one.asked.group == name]

    @property
    def success(self) -> Measure:
        """The share of the facts that are answered as injected."""
        return rate(one.after.injected for one in self.group("fact"))

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
        BadInput: a fact is what the host says already; the strength is not above 0.
        PlaceNotFound: the host has no such block, or no MLP that can be changed.
    """
    if not strength > 0:
        raise BadInput(
            f"strength is {strength}; it has to be above 0, and 1 writes all of the edit"
        )
    memory: RankOne | Lookup
    if route == "edit":
        memory = RankOne.open(adapter, tokens, config or NEAR)
    else:
        memory = Lookup.open(adapter, tokens, LookupConfig())
    asker = Asker(adapter, tokens, facts, chat=chat, told=told)
    asked = [Asked(fact.prompt, "fact", n) for n, fact in enumerate(facts)]
    before = asker.said(asked)
    _check_new(facts, before)
    asked += _more(facts, tests, reworded)
    before += asker.said(asked[len(before) :])
    controls = asker.controls() if known is None else known
    if isinstance(memory, RankOne):
        memory.prepare(lambda done, total: told("reading text", done, total))
    seconds, processor = time.perf_counter(), time.process_time()
    _write(memory, facts, asker)
    seconds, processor = time.perf_counter() - seconds, time.process_time() - processor
    files: tuple[Path, ...] = ()
    with tempfile.TemporaryDirectory() as folder:
        with _acting(
            adapter, memory, strength, keep or Path(folder) / "edit", identity, facts
        ) as at:
            after = asker.said(asked)
            same = asker.same(controls)
        files = at.files if keep else ()
        undone = at.undone()
    return Injection(
        tuple(facts),
        route,
        memory.config.method if isinstance(memory, RankOne) else "lookup",
        memory.layers if isinstance(memory, RankOne) else (),
        strength if route == "edit" else 1.0,
        tuple(
            Answered(one, asker.form(one.prompt), b, a)
            for one, b, a in zip(asked, before, after, strict=True)
        ),
        tuple(zip(CONTROLS, same, strict=True)),
        undone,
        seconds,
        processor,
        files,
    )


def _check_new(facts: Sequence[Fact], before: Sequence[Said]) -> None:
    for fact, said in zip(facts, before, strict=True):
        if said.injected:
            raise BadInput(
                f"the model says {said.answer!r} to {fact.prompt!r} already; there is nothing to "
                "inject. Give another answer"
            )


def _more(facts: Sequence[Fact], tests: Sequence[str], reworded: Sequence[str]) -> list[Asked]:
    """What else is asked; nothing twice."""
    found = [Asked(text, "test", 0) for text in tests]
    found += [Asked(text, "reworded", 0) for text in reworded]
    found += [one for n, fact in enumerate(facts) for one in beside(fact, n)]
    seen = {fact.prompt for fact in facts}
    # What a fact's neighbours are called matters more than that somebody asked for it too.
    first = {one.prompt: one for one in reversed(found)}
    ordered = dict.fromkeys(one.prompt for one in found)
    rest = {one.prompt: one for one in found if one.group != "test"}
    asked = [rest.get(prompt, first[prompt]) for prompt in ordered if prompt not in seen]
    return sorted(asked, key=lambda one: ORDER.index(one.group))


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
        wanted = [
            self.tokens.answer_ids(
                one.prompt, self.facts[one.fact].answer, form=self.form(one.prompt)
            )
            for one in asked
        ]
        likely = loglikelihoods(self.adapter, list(zip(prompts, wanted, strict=True)))
        longest = max(LONGEST, *(len(ids) + 4 for ids in wanted))
        written = self._generate(prompts, longest)
        self.told("asking", len(asked), None)
        return [
            _said(self.tokens.decode_answer(ids), one.logprob, self.facts[each.fact].answer)
            for ids, one, each in zip(written, likely, asked, strict=True)
        ]

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


def _said(answer: str, logprob: float, wanted: str) -> Said:
    return Said(answer, logprob, float(torch.tensor(logprob).exp()), exact(answer, wanted))
