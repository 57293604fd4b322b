"""Train one way on a set, and ask: what was taught, what was not, and talk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from engram_transformers.api import Host
from engram_transformers.demo.data import demo_data
from engram_transformers.evaluation.task import Question
from engram_transformers.experiments.scores import asked_as
from engram_transformers.memories.engram import Engram
from engram_transformers.memories.engram.config import SIMILAR
from engram_transformers.memory import Expecting
from engram_transformers.registry import config_of, memory_class
from engram_transformers.studies.exact_match.options import REAL, Options
from engram_transformers.studies.exact_match.sets import Taught
from engram_transformers.studies.trained import (
    alone,
    answers,
    fresh,
    said,
    spoilt,
    train,
    unchanged,
)
from engram_transformers.types import Fact, Told

SAME_SIZE = "bottleneck, same size"
"The control that trains as many numbers as the Engram of whole keys does on the same facts."
Made = dict[str, dict[str, Any]]
"Options of each memory of a way, by kind."


def kinds(way: str, options: Options, *, blocks: int) -> Made:
    """The memories of a way."""
    late = blocks - options.late
    shared: dict[str, Any] = {"epochs": options.epochs}
    span = {"layout": "span", "layers": (options.late,), **shared}
    n_grams = {"layers": (1,), "rows": options.rows, **shared}
    lora = {"layers": late, **shared}
    ways: dict[str, Made] = {
        "bare host": {},
        "engram, whole keys": {"engram": span},
        "engram, n-grams": {"engram": n_grams},
        "engram, unigram": {"engram": {"layout": "unigram", "layers": (1,), **shared}},
        "engram, content": {"engram": {"layout": "similar", **n_grams}},
        "engram, n-grams and content": {"engram": {"similar": SIMILAR, **n_grams}},
        "lora": {"lora": lora},
        "engram and lora": {"engram": span, "lora": lora},
        "bottleneck": {"bottleneck": {"layers": late, **shared}},
        SAME_SIZE: {"bottleneck": {"layers": late, **shared}},
        "bias": {"bias": {"layers": late, **shared}},
    }
    return ways[way]


def fitted(host: Host, way: str, options: Options, facts: Sequence[Fact]) -> Made:
    """The memories of a way for this host, the control of the same size with its width."""
    blocks = len(host.adapter.layers)
    made = kinds(way, options, blocks=blocks)
    if way == SAME_SIZE:
        engram = kinds("engram, whole keys", options, blocks=blocks)["engram"]
        wanted = _size(host, "engram", engram, facts)
        own = made["bottleneck"]
        one, two = (_size(host, "bottleneck", {**own, "width": w}, facts) for w in (1, 2))
        own["width"] = max(1, 1 + round((wanted - one) / (two - one)))
    return made


def _size(host: Host, kind: str, options: Mapping[str, Any], facts: Sequence[Fact]) -> int:
    """The numbers that such a memory trains on these facts, counted."""
    memory: Any = memory_class(kind).open(host.adapter, host.tokens, config_of(kind, options))
    if isinstance(memory, Expecting):
        memory.expect(facts)
    return sum(tensor.numel() for tensor in memory.parameters())


def tried(
    host: Host, way: str, options: Options, taught: Taught, *, seed: int, told: Told
) -> dict[str, Any]:
    """Train a way and measure it."""
    with ExitStack() as stack:
        stack.enter_context(asked_as(host, taught.form))
        before = {
            "not taught": alone(host, taught.others),
            "talk": alone(host, demo_data().unrelated),
        }
        memories = [
            stack.enter_context(fresh(host, kind, **own, seed=seed))
            for kind, own in fitted(host, way, options, taught.facts).items()
        ]
        found: dict[str, Any] = {"facts": len(taught.facts)}
        if memories:
            found |= train(host, memories, taught.facts, told)
        found["taught"] = _by_category(host, taught, options.asked, told)
        found["besides"] = _besides(host, taught.besides, told)
        found |= {name: unchanged(host, reading) for name, reading in before.items()}
        for memory in memories:
            if isinstance(memory, Engram):
                found |= spoilt(host, memory, taught.facts[:REAL], told)
    return found


def _by_category(host: Host, taught: Taught, asked: int, told: Told) -> dict[str, list[int]]:
    """[exact, among other words, asked] by category."""
    questions = [Question.about(fact, fact.prompt) for fact in taught.facts[:asked]]
    groups: dict[str, list[Any]] = {}
    for case in answers(host, questions, told):
        groups.setdefault(taught.categories[case.fact], []).append(case)
    return {category: said(cases) for category, cases in groups.items()}


def _besides(
    host: Host, groups: Mapping[str, Sequence[Question]], told: Told
) -> dict[str, list[int]]:
    return {name: said(answers(host, questions, told)) for name, questions in groups.items()}
