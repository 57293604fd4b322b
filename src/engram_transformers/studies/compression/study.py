"""Context compression: what survives of a passage within a fixed budget of tokens or vectors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engram_transformers.evaluation.check import check
from engram_transformers.evaluation.metrics import Measure, mean, rate
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.studies.compression.keeping import Reader
from engram_transformers.studies.compression.options import TRAINED, WAYS, Options
from engram_transformers.studies.compression.passages import Passage, passages
from engram_transformers.studies.injection.asking import Asking, Case
from engram_transformers.studies.options import configured
from engram_transformers.studies.study import Done, Findings, Row, Study, Table, Unit, row
from engram_transformers.studies.study import settings_of as settings
from engram_transformers.studies.trained import fresh, host_named
from engram_transformers.types import Told

NONE, FULL, LOOKUP = "nothing", "whole text, cached", "lookup memory of five facts"
REST = "without training"
"The unit of all ways that train nothing."


def plan(options: Options) -> list[Unit]:
    """Units of some passages each: all ways that train nothing, and soft tokens by budget."""
    parts = -(-len(passages(options.passages)) // options.share)
    plain = tuple(way for way in options.ways if way != TRAINED)
    soft = options.soft_budgets if TRAINED in options.ways else ()
    units = []
    for part in range(parts):
        if plain:
            units.append(_unit(options, part, REST, ways=plain, budgets=options.budgets))
        units += [_unit(options, part, TRAINED, ways=(TRAINED,), budgets=(b,)) for b in soft]
    return units


def _unit(
    options: Options, part: int, name: str, *, ways: tuple[str, ...], budgets: tuple[int, ...]
) -> Unit:
    training = ("steps", "window", "learning_rate", "seed")
    unneeded = ("early", "late") if name == TRAINED else training
    but = ("ways", "budgets", "soft_budgets", "passages", *unneeded)
    own = {"part": part, "ways": ways, "budgets": budgets}
    label = f" of {budgets[0]}" if name == TRAINED else ""
    return Unit(f"{name}{label}, part {part}", settings(options, but=but, **own))


_readers: dict[Options, Reader] = {}


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Compress some passages and ask what they said."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    if options not in _readers:
        _readers[options] = Reader(host_named(options.host), options)
    reader, found = _readers[options], []
    end = (own["part"] + 1) * options.share
    for passage in passages(end)[own["part"] * options.share :]:
        cases: dict[str, Any] = {}
        if TRAINED not in own["ways"]:
            cases[NONE] = _ask(reader.nothing(), passage)
            cases[FULL] = _ask(reader.whole(passage), passage)
            cases[LOOKUP] = _looked_up(reader, passage)
        kept = {
            f"{way}|{budget}": _kept(reader, way, passage, budget, told)
            for way in own["ways"]
            for budget in own["budgets"]
        }
        size = len(reader.ids(passage.text))
        found.append({"passage": passage.number, "tokens": size, "fixed": cases, "kept": kept})
        told("passages", 1, options.share)
    return {"passages": found}


def _kept(reader: Reader, way: str, passage: Passage, budget: int, told: Told) -> dict[str, Any]:
    asking, size = reader.kept(way, passage, budget, told)
    return {"size": size, "cases": _ask(asking, passage)}


def _ask(asking: Asking, passage: Passage) -> list[list[float]]:
    """[said, log-probability] of each question: how the host goes on, greedily."""
    encode = asking.tokens.encode
    cases = [
        Case((), tuple(encode(f"\n\n{begin}")), tuple(encode(asking.tokens.spaced(rest))))
        for begin, rest in passage.asked
    ]
    heard = asking.ask(cases, generate=False)
    return [[int(one.exact), round(one.logprob, 4)] for one in heard]


def _looked_up(reader: Reader, passage: Passage) -> list[list[float]]:
    """Asked of a lookup memory that was taught the passage's own sentences, end included."""
    host = reader.host
    with fresh(host, "lookup") as memory:
        facts = list({fact.prompt: fact for fact in passage.facts}.values())
        deltas = memory.write(facts)
        memory.add((f.id, f, delta) for f, delta in zip(facts, deltas, strict=True))
        trials = host.trials(list(passage.asked), form="plain")
        return [[int(one.holds), 0.0] for one in check(host.adapter, trials)]


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Retention by way and budget, a curve, and what has to be said beside it."""
    every = [one for unit in done for one in unit.measured["passages"]]
    rows = [*_fixed(every), *_curves(every)]
    table = Table(
        "What survives of a passage",
        "share of the questions whose answer the host goes on with",
        tuple(rows),
        "Sentences about the passage, in other words than its own, are begun; the host goes on "
        "greedily. Log-probability: of the whole continuation, in nats. Budget: tokens of text, or "
        "vectors; a cached position is one key and one value in every block, so 30 times two "
        "narrower vectors in this host, and a soft token one vector.",
    )
    return Findings((table,), (_plot(every),) if rows else (), NOTES)


NOTES = (
    "Intervals are over questions, five of each passage; bootstrap over passages for "
    "log-probabilities.",
    "The lookup memory was taught the five sentences that are asked, in the passage's own words, "
    "and is asked by meaning; it knows nothing else of the passage, takes no context, and has to "
    "end its answer too.",
    "Soft tokens were trained on stretches of the passage and never on a question.",
    "Sentences are extracted by how near their MiniLM vectors are to the passage's mean; summaries "
    "written by a model were not tried.",
)


def _fixed(every: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for name in (NONE, FULL, LOOKUP):
        parts = [one["fixed"][name] for one in every if name in one["fixed"]]
        if parts:
            size = {FULL: sum(one["tokens"] for one in every if one["fixed"]) / len(parts)}
            yield _row(name, parts, size.get(name, 0), logprob=name != LOOKUP)


def _curves(every: Sequence[Mapping[str, Any]]) -> Iterator[Row]:
    for way in WAYS:
        for budget in _budgets(every, way):
            found = _of(every, way, budget)
            size = sum(one["size"] for one in found) / len(found)
            yield _row(f"{way}, {budget}", [one["cases"] for one in found], size)


def _row(name: str, parts: Sequence[Any], size: float, *, logprob: bool = True) -> Row:
    more: dict[str, Any] = {"kept": round(size), "log-probability": ""}
    if logprob:
        found = mean(sum(case[1] for case in part) / len(part) for part in parts)
        more["log-probability"] = f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
    return row(name, _said(parts), seeds=1, more=more)


def _said(parts: Sequence[Any]) -> Measure:
    return rate(bool(case[0]) for part in parts for case in part)


def _budgets(every: Sequence[Mapping[str, Any]], way: str) -> list[int]:
    names = {name for one in every for name in one["kept"]}
    return sorted(int(name.split("|")[1]) for name in names if name.split("|")[0] == way)


def _of(every: Sequence[Mapping[str, Any]], way: str, budget: int) -> list[Any]:
    name = f"{way}|{budget}"
    return [one["kept"][name] for one in every if name in one["kept"]]


def _plot(every: Sequence[Mapping[str, Any]]) -> Plot:
    said = [
        Series(
            way,
            tuple(
                (float(b), _said([one["cases"] for one in _of(every, way, b)]))
                for b in _budgets(every, way)
            ),
        )
        for way in WAYS
        if _budgets(every, way)
    ]
    likely = [
        Series(
            way,
            tuple(
                (float(b), mean(case[1] for one in _of(every, way, b) for case in one["cases"]))
                for b in _budgets(every, way)
            ),
        )
        for way in WAYS
        if _budgets(every, way)
    ]
    across = sorted({b for way in WAYS for b in _budgets(every, way)})
    for name in (NONE, FULL, LOOKUP):
        parts = [one["fixed"][name] for one in every if name in one["fixed"]]
        if parts:
            level = _said(parts)
            said.append(Series(name, tuple((float(b), level) for b in across), control=True))
        if parts and name != LOOKUP:  # it stands in for the output, which has no probability then
            chance = mean(case[1] for part in parts for case in part)
            likely.append(Series(name, tuple((float(b), chance) for b in across), control=True))
    what = "tokens or vectors kept"
    return Plot(
        "retention",
        "What survives of a passage, by budget",
        (
            Panel("said", "share", tuple(said), what, "log", lines=True),
            Panel("log-probability", "nats", tuple(likely), what, "log", lines=True),
        ),
    )


STUDY = Study(
    name="compression",
    question="What survives of a passage when only so many tokens or vectors of it are kept?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
    quick={
        "passages": 1, "share": 1, "budgets": (16, 64), "soft_budgets": (16,), "steps": 6,
        "window": 32,
    },
)  # fmt: skip
