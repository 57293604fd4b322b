"""Pre-population: are rows that nobody trained worth anything?

The third seed wrote embeddings and states into its tables, read them through a projection that
nobody had trained, found nothing, and concluded that training is needed. Here rows are also
written in the space where they are read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from engram_transformers.api import Host
from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput
from engram_transformers.evaluation.task import load_task
from engram_transformers.studies.options import configured
from engram_transformers.studies.prepopulation.options import Options
from engram_transformers.studies.prepopulation.writing import STILL, WAYS, Bench, open_memory
from engram_transformers.studies.study import (
    Done,
    Findings,
    Row,
    Study,
    Table,
    Unit,
    row,
    settings_of,
)
from engram_transformers.studies.trained import host_named, over_questions, second
from engram_transformers.types import Fact, Told

TRAINED_APART = "projection trained on other facts"
PLANNING = ("ways", "sets", "layers", "seeds")


def plan(options: Options) -> list[Unit]:
    """A unit for each way, set, block and seed; the bare host has no block."""
    for way in options.ways:
        if way not in WAYS:
            raise BadInput(f"no way is called {way!r}; there are {', '.join(WAYS)}")
    return [
        Unit(
            f"{way}, {name}, block {layer}, seed {seed}",
            settings_of(options, but=PLANNING, way=way, set=name, layer=layer, seed=seed),
        )
        for way in options.ways
        for name in options.sets
        for layer in (options.layers if way != "bare host" else options.layers[:1])
        for seed in range(options.seeds)
    ]


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Write facts in one way, and count those that the host then says in full."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    host = host_named(options.host)
    facts, others = facts_of(own["set"], options.facts, seed=own["seed"])
    rate = STILL if own["way"] == TRAINED_APART else None
    memory = open_memory(host, own["layer"], options, seed=own["seed"], rate=rate)
    with attach(host.model, memory):
        WAYS[own["way"]](Bench(host, memory, own["layer"], facts, others, options, own["seed"]))
        verdicts = host.check(facts, progress=lambda done: told(unit.name, done, len(facts)))
    return {
        "facts": len(facts),
        "right": sum(verdict.holds for verdict in verdicts),
        "first tokens right": sum(
            bool(verdict.choices) and _first(host, fact) == verdict.choices[0]
            for fact, verdict in zip(facts, verdicts, strict=True)
        ),
    }


def facts_of(name: str, count: int, *, seed: int) -> tuple[list[Fact], list[Fact]]:
    """Facts to write, and as many others at most; prompts of either are not in the other."""
    last = {fact.prompt: fact for fact in load_task("lookup").facts}
    found = [fact for fact in last.values() if (fact.relation == "SYN") == (name == "random")]
    random.Random(seed).shuffle(found)
    return found[:count], found[count : 2 * count]


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Shares of facts said in full, and of first tokens."""
    tables = [
        Table(
            f"Facts with {name} values",
            "share of the answers that are said in full, and end",
            tuple(_rows(done, name)),
            "Greedy, behind the taught prompt. First tokens: share of the answers that begin as "
            "they should.",
        )
        for name in options.sets
    ]
    return Findings(tuple(table for table in tables if table.rows), notes=NOTES)


NOTES = (
    "Each key has rows of its own and the gate is open, so nothing collides and nothing is held "
    "back: what fails, fails because of what was written.",
    "`random projection` is the third seed's way, at one block rather than at all; `answer "
    "embeddings` and `answer states` are what it wrote. `no projection` reads the same, or the "
    "embedding of the very token that is to come, without a projection.",
    "`projection trained on other facts`: token embeddings, read by a projection that was trained "
    "on as many other facts with rows that stood still.",
    "Seeds draw from the same keys, so that some facts come again: a share is the mean over seeds, "
    "n and its interval count the facts of one of them; how far seeds differ is not in it.",
)


def _rows(done: Sequence[Done], name: str) -> Iterator[Row]:
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for one in done:
        own = one.unit.settings
        if own["set"] == name:
            groups.setdefault((own["way"], own["layer"]), []).append(one.measured)
    for (way, layer), runs in groups.items():
        where = "" if way == "bare host" else f", before block {layer}"
        counts = [(run["right"], run["first tokens right"], run["facts"]) for run in runs]
        more = {"first tokens": second(counts)}
        yield row(f"{way}{where}", over_questions(counts), seeds=len(runs), more=more)


def _first(host: Host, fact: Fact) -> int:
    form = host.tokens.ask_form
    return host.tokens.answer_ids(fact.prompt, fact.answer, form=form)[0]


STUDY = Study(
    name="prepopulation",
    question="Can a memory be filled without being trained?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
)
