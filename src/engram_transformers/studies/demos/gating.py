"""Gating: one trained Engram behind several routes, on look-ups and on everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np

from engram_transformers.api import Host
from engram_transformers.attaching import attach
from engram_transformers.demo.data import demo_data
from engram_transformers.evaluation.task import Question
from engram_transformers.memories.engram import Engram
from engram_transformers.memories.shared.routed import Routed
from engram_transformers.memories.shared.routes import RouteName, open_route
from engram_transformers.routing.learned import LearnedGate
from engram_transformers.routing.route import Route
from engram_transformers.studies.demos.facts import capitals, keys_of
from engram_transformers.studies.demos.options import Options
from engram_transformers.studies.demos.sureness import calibrated
from engram_transformers.studies.trained import (
    alone,
    answers,
    fresh,
    said,
    train,
    unchanged,
)
from engram_transformers.training.gate import train_gate
from engram_transformers.training.gate_prompts import held_out_prompts, training_prompts
from engram_transformers.types import Fact, Told


@dataclass(frozen=True)
class Asked:
    """What every route is tried on."""

    keys: Sequence[Question]
    general: Sequence[str]
    known: Sequence[Question]
    "Capitals, in words, that the bare host says: what a memory can only spoil."


def gated(host: Host, layout: str, options: Options, *, seed: int, told: Told) -> dict[str, Any]:
    """Train once; then the same tensors behind each route, and the host without them."""
    task, facts = keys_of("gating", options.gated, seed=seed)
    cases = answers(host, questions := capitals(task), told)
    known = [q for q, case in zip(questions, cases, strict=True) if case.contains or case.exact]
    sure, gate = calibrated(host, told), _gate(host, options, seed, told)
    asked = Asked(_prompts(facts), demo_data().unrelated, known)
    with fresh(host, "engram", **options.memory(layout), seed=seed) as memory:
        trained = train(host, [memory], facts, told)
    needs: dict[str, dict[str, Any]] = {
        "unsure": {"threshold": sure.threshold},
        "learned": {"gate": gate},
    }
    routes = {
        name: _behind(host, memory, _route(host, name, **needs.get(name, {})), asked, told)
        for name in options.routes
    }
    bare = _measured(host, asked, told)
    return {"bare host": bare, "routes": routes, "sure": asdict(sure), **trained}


def _gate(host: Host, options: Options, seed: int, told: Told) -> LearnedGate | None:
    """A gate that is trained on labelled prompts, where one is asked for."""
    if "learned" not in options.routes:
        return None
    count = len(training_prompts()) + len(held_out_prompts())
    return train_gate(
        host.adapter,
        host.tokens,
        seed=seed,
        progress=lambda done: told("reading labelled prompts", done, count),
    ).gate


def _route(host: Host, name: str, **needs: Any) -> Route | None:
    return open_route(cast("RouteName", name), adapter=host.adapter, tokens=host.tokens, **needs)


def _prompts(facts: Sequence[Fact]) -> list[Question]:
    return [Question.about(fact, fact.prompt) for fact in facts]


def _behind(
    host: Host, memory: Engram, route: Route | None, asked: Asked, told: Told
) -> dict[str, Any]:
    if route is None:
        with attach(host.model, memory):
            return _measured(host, asked, told)
    routed = Routed(memory, route)
    with attach(host.model, routed):
        return {**_measured(host, asked, told), "open": _opened(host, routed, asked)}


def _measured(host: Host, asked: Asked, told: Told) -> dict[str, list[int]]:
    # Batches depend on whether a route stands there: the bare host is read beside it.
    before = alone(host, asked.general)
    return {
        "keys": said(answers(host, asked.keys, told)),
        "general": unchanged(host, before),
        "known": said(answers(host, asked.known, told)),
    }


def _opened(host: Host, routed: Routed, asked: Asked) -> dict[str, list[int]]:
    """[open, prompts] of each group."""
    groups = {
        "keys": [question.text for question in asked.keys],
        "general": asked.general,
        "known": [question.text for question in asked.known],
    }
    return {name: _open(host, routed, texts) for name, texts in groups.items()}


def _open(host: Host, routed: Routed, texts: Sequence[str]) -> list[int]:
    prompts = host.prompts(texts, form=host.tokens.ask_form)
    return [sum(routed.decide(np.array(ids)).open for ids in prompts), len(prompts)]
