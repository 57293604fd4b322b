"""Which trained memory says the value of a key exactly, and what else does it change?

The third seed's main experiment: 500 and 5,000 keys, with LoRA, an Engram, both and neither, and
the controls that it lacked: adapters of another kind, zeroed tables, shuffled rows, keys that were
never taught, and talk about other things.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from engram_transformers.api import Host, load
from engram_transformers.errors import BadInput
from engram_transformers.evaluation.metrics import Measure, wilson
from engram_transformers.studies.exact_match.options import Options
from engram_transformers.studies.exact_match.training import kinds, tried
from engram_transformers.studies.options import configured
from engram_transformers.studies.study import (
    Done,
    Findings,
    Row,
    Study,
    Table,
    Told,
    Unit,
    row,
    settings_of,
)

CONTROLS = ("tables zeroed", "rows shuffled")


def plan(options: Options) -> list[Unit]:
    """A unit for each way and seed."""
    for way in options.ways:
        try:
            kinds(way, options, blocks=options.late + 1)
        except KeyError:
            names = ", ".join(Options().ways)
            raise BadInput(f"no way is called {way!r}; there are {names}") from None
    return [
        Unit(
            f"{way}, {options.facts} keys, seed {seed}",
            settings_of(options, but=("ways", "seeds"), way=way, seed=seed),
        )
        for way in options.ways
        for seed in range(options.seeds if way != "bare host" else 1)
    ]


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Train one way with one seed and ask it."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    return tried(_host(options.host), own["way"], options, seed=own["seed"], told=told)


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Exact answers over all keys and by category, controls, and what else changed."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for one in done:
        groups.setdefault(one.unit.settings["way"], []).append(one.measured)
    tables = (
        Table(
            f"{options.facts} keys: values said exactly",
            "share of the asked keys",
            tuple(_overall(groups)),
            "Greedy generation with a natural end, behind the taught key.",
        ),
        Table("By category", "share of the asked keys", tuple(_by_category(groups))),
        Table(
            "Controls",
            "share of the real keys said exactly",
            tuple(_controls(groups)),
            "The trained Engram with its tables zeroed, and with its rows in another order.",
        ),
        Table(
            "What else changed",
            "share of the prompts whose logits are those of the bare host, bit for bit",
            tuple(_changed(groups)),
            "Keys that were not taught, and talk. Same beginning: share whose first eight tokens "
            "of an answer are the bare host's.",
        ),
    )
    return Findings(tuple(table for table in tables if table.rows), notes=NOTES)


NOTES = (
    "`engram, n-grams` and `engram, unigram` act before the second block and see the last tokens "
    "read; the value stands behind the chat template's marker, so what they add to the key has to "
    "be carried there by attention. `engram, whole keys` acts late and knows the whole key.",
)


def _overall(groups: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    for way, runs in groups.items():
        counts = [pair for run in runs for pair in run["taught"].values()]
        more = {
            name: round(sum(run[name] for run in runs) / len(runs), 4)
            for name in ("parameters", "epochs", "seconds of training")
            if all(name in run for run in runs)
        }
        yield row(way, _share(counts), seeds=len(runs), more=more)


def _by_category(groups: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    for way, runs in groups.items():
        for category in runs[0]["taught"]:
            counts = [run["taught"][category] for run in runs]
            yield row(f"{way}, {category}", _share(counts), seeds=len(runs))


def _controls(groups: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    for way, runs in groups.items():
        for control in CONTROLS:
            if control in runs[0]:
                counts = [run[control] for run in runs]
                yield row(f"{way}, {control}", _share(counts), seeds=len(runs))


def _changed(groups: dict[str, list[dict[str, Any]]]) -> Iterator[Row]:
    for way, runs in groups.items():
        for what in ("other keys", "talk"):
            counts = [(run[what][0], run[what][2]) for run in runs]
            same = sum(run[what][1] for run in runs) / sum(run[what][2] for run in runs)
            more = {"same beginning": round(same, 4)}
            yield row(f"{way}, {what}", _share(counts), seeds=len(runs), more=more)


def _share(counts: Sequence[Sequence[int]]) -> Measure:
    n = sum(count[1] for count in counts)
    found = wilson(sum(count[0] for count in counts), n)
    return Measure(found.value, found.low, found.high, n)


@cache
def _host(id: str) -> Host:
    return load(id)


STUDY = Study(
    name="exact_match",
    question="Which trained memory says the value of a key exactly, and what else does it change?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
)
