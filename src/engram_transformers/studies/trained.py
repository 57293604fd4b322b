"""What studies of trained memories share: attach, train, ask, spoil, and see what else changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor

from engram_transformers.api import Host, load
from engram_transformers.attaching import attach
from engram_transformers.evaluation.answers import Answered
from engram_transformers.evaluation.metrics import Measure, rate_of
from engram_transformers.evaluation.silence import Bare, bare, readings
from engram_transformers.evaluation.task import Question
from engram_transformers.experiments.scores import ask
from engram_transformers.memories.engram import Engram
from engram_transformers.registry import config_of, memory_class
from engram_transformers.training.fit import fit
from engram_transformers.training.together import Together
from engram_transformers.types import Fact, Told

Change = Callable[[Tensor], Tensor]


@cache
def host_named(id: str) -> Host:
    """A host by name or folder, loaded once a process."""
    return load(id)


@contextmanager
def fresh(host: Host, kind: str, **options: Any) -> Iterator[Any]:
    """A new memory, attached while this lasts and kept nowhere."""
    config = config_of(kind, options)
    memory = memory_class(kind).open(host.adapter, host.tokens, config)
    with attach(host.model, memory):
        yield memory


def train(host: Host, memories: Sequence[Any], facts: Sequence[Fact], told: Told) -> dict[str, Any]:
    """Train attached memories together, and say what that took."""
    last = 0

    def progress(done: int, steps: int) -> None:
        nonlocal last
        told("training", done - last, steps)
        last = done

    done = fit(host.adapter, host.tokens, Together(memories), facts, progress=progress)
    return {
        "epochs": done.epochs,
        "loss": done.losses[-1],
        "parameters": done.parameters,
        "seconds of training": round(done.seconds, 1),
    }


def answers(host: Host, questions: Sequence[Question], told: Told) -> list[Answered]:
    """What the host says, by real generation with a natural end."""
    return ask(
        host, "asked", questions, form=host.tokens.ask_form,
        progress=lambda done: told("asking", done, len(questions)),
    )  # fmt: skip


def said(cases: Iterable[Answered]) -> list[int]:
    """[said exactly and ended there, said among other words, asked]."""
    all_ = list(cases)
    exact = sum(case.exact and case.ended for case in all_)
    return [exact, sum(case.contains or case.exact for case in all_), len(all_)]


def alone(host: Host, texts: Sequence[str]) -> Bare:
    """What the host makes of prompts without any memory."""
    prompts = host.prompts(texts, form=host.tokens.ask_form)
    return bare(host.adapter, prompts, stop=host.tokens.stop)


def unchanged(host: Host, before: Bare) -> list[int]:
    """[bit for bit, same first tokens of the answer, prompts]."""
    now = readings(host.adapter, before.prompts, before.answers)
    pairs = list(zip(now, before.readings, strict=True))
    equal = sum(one.digest == other.digest for one, other in pairs)
    return [equal, sum(one.choices == other.choices for one, other in pairs), len(pairs)]


def in_other_order(seed: int = 0) -> Change:
    """Puts the rows of tables into another order."""
    draw = torch.Generator().manual_seed(seed)
    return lambda table: table[torch.randperm(len(table), generator=draw)]


@contextmanager
def changed(memory: Engram, change: Change) -> Iterator[None]:
    """While this lasts, the memory's tables hold something else."""
    before = [part.table for part in memory.parts]
    try:
        for part in memory.parts:
            part.table = torch.nn.Parameter(change(part.table.detach()))
        yield
    finally:
        for part, table in zip(memory.parts, before, strict=True):
            part.table = table


def spoilt(host: Host, memory: Engram, facts: Sequence[Fact], told: Told) -> dict[str, list[int]]:
    """[said exactly, asked], with the tables zeroed and with their rows in another order."""
    found = {}
    for name, change in (("tables zeroed", torch.zeros_like), ("rows shuffled", in_other_order())):
        with changed(memory, change):
            verdicts = host.check(facts, progress=lambda done: told("controls", done, len(facts)))
        found[name] = [sum(verdict.holds for verdict in verdicts), len(facts)]
    return found


def over_questions(counts: Iterable[Sequence[int]]) -> Measure:
    """The share of first among last numbers, mean over runs, with Wilson's interval of one run.

    For runs whose seeds ask the same questions, or draw them from so few that many come again:
    a further training makes the share firmer, and no question more. The interval is as if all runs
    answered alike; where they differ in how much they ask, it is that of the least.
    `share_over_runs` has no interval for one run, nor for several that agree.
    """
    asked = [count for count in counts if count[-1]]
    if not asked:
        return rate_of(0, 0)
    n = min(count[-1] for count in asked)
    return rate_of(n * sum(count[0] / count[-1] for count in asked) / len(asked), n)


def pooled(counts: Iterable[Sequence[int]]) -> Measure:
    """The same where each seed makes up questions of its own: those of all runs are cases."""
    pairs = list(counts)
    return rate_of(sum(count[0] for count in pairs), sum(count[-1] for count in pairs))


def second(counts: Iterable[Sequence[int]]) -> float:
    """The share of second among last numbers, mean over runs, for a column beside the first."""
    return round(over_questions(count[1:] for count in counts).value, 4)
