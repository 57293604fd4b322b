"""Train one way on keys and values, and ask: taught keys, other wordings, other keys, talk."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from engram_transformers.api import Host
from engram_transformers.attach import attach
from engram_transformers.demo.data import demo_data
from engram_transformers.evaluation.silence import Bare, bare, readings
from engram_transformers.evaluation.task import Question
from engram_transformers.evaluation.tasks.lookup import lookup
from engram_transformers.experiments.scores import ask
from engram_transformers.memories.engram import Engram
from engram_transformers.registry import memory_class
from engram_transformers.studies.exact_match.options import REAL, Options
from engram_transformers.training.fit import fit
from engram_transformers.training.together import Together
from engram_transformers.types import Fact

Made = dict[str, dict[str, Any]]
"Options of each memory of a way, by kind."


def kinds(way: str, options: Options, *, blocks: int) -> Made:
    """The memories of a way."""
    late = blocks - options.late
    shared: dict[str, Any] = {"epochs": options.epochs}
    span = {"layout": "span", "layers": (options.late,), **shared}
    lora = {"layers": late, **shared}
    ways: dict[str, Made] = {
        "bare host": {},
        "engram, whole keys": {"engram": span},
        "engram, n-grams": {"engram": {"layers": (1,), "rows": options.rows, **shared}},
        "engram, unigram": {"engram": {"layout": "unigram", "layers": (1,), **shared}},
        "lora": {"lora": lora},
        "engram and lora": {"engram": span, "lora": lora},
        "bottleneck": {"bottleneck": {"layers": late, **shared}},
        "bias": {"bias": {"layers": late, **shared}},
    }
    return ways[way]


def taught(options: Options, *, seed: int) -> tuple[list[Fact], list[str]]:
    """Facts in an order of the seed's, real ones first, and keys that are never taught."""
    task = lookup(max(1, options.facts - REAL))
    last = {fact.prompt: fact for fact in task.facts}
    real = [fact for fact in last.values() if fact.relation != "SYN"]
    rest = [fact for fact in last.values() if fact.relation == "SYN"]
    random.Random(seed).shuffle(rest)
    return [*real, *rest][: options.facts], list(task.silent["unseen"])


def tried(
    host: Host,
    way: str,
    options: Options,
    *,
    seed: int,
    told: Callable[[str, int, int | None], None],
) -> dict[str, Any]:
    """Train a way and measure it."""
    facts, unseen = taught(options, seed=seed)
    talk = list(demo_data().unrelated)
    before = {"other keys": _bare(host, unseen), "talk": _bare(host, talk)}
    with ExitStack() as stack:
        memories = [
            stack.enter_context(_attached(host, kind, {**own, "seed": seed}))
            for kind, own in kinds(way, options, blocks=len(host.adapter.layers)).items()
        ]
        found: dict[str, Any] = {"facts": len(facts)}
        if memories:
            found |= _trained(host, memories, facts, told)
        found["taught"] = _asked(host, facts[: options.asked], told)
        for name, reading in before.items():
            found[name] = _unchanged(host, reading)
        for memory in memories:
            if isinstance(memory, Engram):
                found |= _controls(host, memory, facts[:REAL], told)
    return found


@contextmanager
def _attached(host: Host, kind: str, options: dict[str, Any]) -> Iterator[Any]:
    cls = memory_class(kind)
    memory = cls.open(host.adapter, host.tokens, cls.Config(**options))
    with attach(host.model, memory):
        yield memory


def _trained(
    host: Host, memories: Sequence[Any], facts: Sequence[Fact], told: Callable[..., None]
) -> dict[str, Any]:
    last = 0

    def progress(done: int, steps: int) -> None:
        nonlocal last
        told("training", done - last, steps)
        last = done

    together = Together(memories)
    done = fit(host.adapter, host.tokens, together, facts, progress=progress)
    return {
        "epochs": done.epochs,
        "loss": done.losses[-1],
        "parameters": done.parameters,
        "seconds of training": round(done.seconds, 1),
    }


def _asked(host: Host, facts: Sequence[Fact], told: Callable[..., None]) -> dict[str, list[int]]:
    """[right, asked] by category, by real generation with a natural end."""
    questions = [Question.about(fact, fact.prompt) for fact in facts]
    said = ask(
        host, "taught", questions, form=host.tokens.ask_form,
        progress=lambda done: told("asking", done, len(questions)),
    )  # fmt: skip
    found: dict[str, list[int]] = {}
    for fact, one in zip(facts, said, strict=True):
        counts = found.setdefault(fact.relation or "", [0, 0])
        counts[0] += one.exact and one.ended
        counts[1] += 1
    return found


def _bare(host: Host, texts: Sequence[str]) -> Bare:
    prompts = host.prompts(texts, form=host.tokens.ask_form)
    return bare(host.adapter, prompts, stop=host.tokens.stop)


def _unchanged(host: Host, before: Bare) -> list[int]:
    """[bit for bit, same first tokens of the answer, prompts]."""
    now = readings(host.adapter, before.prompts, before.answers)
    pairs = list(zip(now, before.readings, strict=True))
    equal = sum(one.digest == other.digest for one, other in pairs)
    return [equal, sum(one.choices == other.choices for one, other in pairs), len(pairs)]


def _controls(
    host: Host, memory: Engram, facts: Sequence[Fact], told: Callable[..., None]
) -> dict[str, Any]:
    """Real keys again, with the tables zeroed and with their rows in another order."""
    draw = torch.Generator().manual_seed(0)
    found: dict[str, Any] = {}
    for name, change in (
        ("tables zeroed", torch.zeros_like),
        ("rows shuffled", lambda t: t[torch.randperm(len(t), generator=draw)]),
    ):
        with _changed(memory, change):
            verdicts = host.check(facts, progress=lambda done: told("controls", done, len(facts)))
        found[name] = [sum(verdict.holds for verdict in verdicts), len(facts)]
    return found


@contextmanager
def _changed(memory: Engram, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    tables = [part.get_parameter("table") for part in memory.layers.values()]
    before = [table.detach().clone() for table in tables]
    with torch.no_grad():
        for table, old in zip(tables, before, strict=True):
            table.copy_(change(old))
    try:
        yield
    finally:
        with torch.no_grad():
            for table, old in zip(tables, before, strict=True):
                table.copy_(old)
