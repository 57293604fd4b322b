"""What follows from the demonstrations: tables and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engram_transformers.evaluation.metrics import Measure, rate_of
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.studies.study import Findings, Row, Table, row
from engram_transformers.studies.trained import over_questions, pooled, second

Runs = Sequence[dict[str, Any]]
Groups = Mapping[str, Mapping[str, Runs]]
"Runs by demonstration and variant."

LOOKUPS = ("terminology", "random keys")
NOTES = (
    "1 and 2: the third seed expected an Engram to say terms and to fail on random values. A "
    "memory of whole keys has no use for what a value means.",
    "3: a route decides for a whole prompt, before any of it is read. `always` is no route. "
    "`rules` also opens for questions that begin as questions for one fact do, such as those for "
    "capitals; `unsure` closes where the bare host is sure of its own answer: above a "
    "mean probability of its first tokens that is calibrated on other capitals and on facts that "
    "were made up; `learned` goes by a gate that is trained on labelled prompts, look-ups such as "
    "`PORT:SSH` and questions for capitals among them.",
    "4: a trained memory has been taught its facts before, by training; nothing is written while "
    "the text is read.",
    "5, the pre-populated memory, is the study `prepopulation`.",
    "1 to 3: seeds ask the same questions, or draw them from the same few keys: a share is the "
    "mean over seeds, n and its interval count the questions of one of them, as if all answered "
    "alike; how far trainings differ is not in it. 4: each seed makes up facts of its own, and n "
    "counts those of all.",
)


def findings(groups: Groups) -> Findings:
    """A table or some for each demonstration of which there are runs."""
    far = groups.get("long context", {})
    tables = [
        *(_lookups(i, demo, groups.get(demo, {})) for i, demo in enumerate(LOOKUPS, start=1)),
        _other_keys(groups),
        *(_gated(one, groups.get("gating", {})) for one in GATED),
        _sure(groups.get("gating", {})),
        _recall(far),
    ]
    plots = (_distances(far),) if far else ()
    return Findings(tuple(table for table in tables if table.rows), plots, NOTES)


# -- look-ups ------------------------------------------------------------------------------


def _lookups(number: int, demo: str, variants: Mapping[str, Runs]) -> Table:
    runs = variants.get(demo, ())
    rows = [_looked_up(name, runs) for name in (runs[0]["asked"] if runs else ())]
    return Table(
        f"{number}: {demo}",
        "share of the keys whose value is said exactly, with nothing behind it",
        tuple(rows),
        "Greedy generation with a natural end. Fact in the text: the key and its value stand "
        "before the question. In words: the same asked in a sentence, which is not taught. Tables "
        "zeroed, rows shuffled: the trained memory, spoilt.",
    )


def _looked_up(name: str, runs: Runs) -> Row:
    counts = [run["asked"][name] for run in runs]
    # Spoilt memories are checked in one pass, which sees no other words.
    more = {"among other words": second(counts)} if len(counts[0]) > 2 else {}
    return row(name, over_questions(counts), seeds=len(runs), more=more)


def _other_keys(groups: Groups) -> Table:
    found = [(demo, groups.get(demo, {}).get(demo, ())) for demo in LOOKUPS]
    return Table(
        "1 and 2: keys that were not taught",
        "share whose logits are those of the bare host, bit for bit",
        tuple(_unchanged(f"engram, {demo}", runs) for demo, runs in found if runs),
        BEGINNING,
    )


def _unchanged(name: str, runs: Runs) -> Row:
    counts = [run["keys not taught"] for run in runs]
    more = {"same beginning": second(counts)}
    return row(name, over_questions(counts), seeds=len(runs), more=more)


BEGINNING = "Same beginning: share whose first eight tokens of an answer are the bare host's."


# -- gating --------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Gated:
    """One group of prompts that every route is tried on."""

    name: str
    title: str
    value: str
    about: str
    other: str
    "What the second of the counts is: a column of its own."
    first: bool = True
    "Whether the first count is the number of the table, and not the second."


GATED = (
    _Gated("keys", "taught look-ups", "share said exactly", "Asked by key.", "among other words"),
    _Gated(
        "general",
        "prompts that no fact answers",
        "share whose logits are those of the bare host, bit for bit",
        BEGINNING,
        "same beginning",
    ),
    _Gated(
        "known",
        "capitals that the bare host knows",
        "share that is still said",
        "Asked in words, which are not taught; these are the capitals that the bare host says. "
        "The third seed's fell from two of nine to none.",
        "exactly",
        first=False,
    ),
)


def _gated(group: _Gated, layouts: Mapping[str, Runs]) -> Table:
    rows = [
        _routed(group, name, runs)
        for name, runs in _by_route(layouts)
        if sum(run[group.name][2] for run in runs)
    ]
    return Table(f"3: gating, {group.title}", group.value, tuple(rows), group.about)


def _routed(group: _Gated, name: str, runs: Runs) -> Row:
    counts = [run[group.name] for run in runs]
    swapped = [(count[1], count[0], count[2]) for count in counts]
    chosen = counts if group.first else swapped
    more = {group.other: second(chosen)}
    if "open" in runs[0]:
        more["route open"] = second([0, *run["open"][group.name]] for run in runs)
    return row(name, over_questions(chosen), seeds=len(runs), more=more)


def _sure(layouts: Mapping[str, Runs]) -> Table:
    """What was calibrated on the bare host: once, as it depends on no memory and on no seed."""
    found: list[tuple[str, Any]] = []
    for layout, runs in layouts.items():
        for i, run in enumerate(runs):
            if run["sure"] not in (sure for _, sure in found):
                name = f"bare host, beside {layout}, seed {i}" if found else "bare host"
                found.append((name, run["sure"]))
    return Table(
        "3: gating, when a host counts as sure",
        "share of the questions that are left to the bare host",
        tuple(_left(name, sure) for name, sure in found),
        "Capitals of other countries and made-up facts, none of which is taught or asked elsewhere "
        "here. The threshold is the lowest from which on 95 % of the host's answers are right; 1, "
        "and nothing is left to it, where there is none.",
    )


def _left(name: str, sure: Mapping[str, Any]) -> Row:
    more = {
        "of these right": sure["bypassed_right"],
        "of all right": sure["right"],
        "threshold": round(sure["threshold"], 4),
    }
    return row(name, rate_of(sure["bypassed"], sure["n"]), seeds=1, more=more)


def _by_route(layouts: Mapping[str, Runs]) -> Iterator[tuple[str, Runs]]:
    """The bare host once, and each memory behind each route."""
    for number, (layout, runs) in enumerate(layouts.items()):
        if number == 0:
            yield "bare host", [run["bare host"] for run in runs]
        for route in runs[0]["routes"]:
            yield f"{layout}, route {route}", [run["routes"][route] for run in runs]


# -- long context --------------------------------------------------------------------------


def _recall(ways: Mapping[str, Runs]) -> Table:
    return Table(
        "4: long context",
        "share of the facts that are said",
        tuple(
            row(f"{way}, behind {distance} tokens", _said(runs, distance), seeds=len(runs))
            for way, runs in ways.items()
            for distance in runs[0]["said"]
        ),
        "Codes of five digits, made up anew, asked behind so many tokens of running text. "
        "Memories are taught before it begins; `fact in the text` has the fact in the talk before "
        "it; `engram of other facts` was taught the same questions with each other's codes.",
    )


def _said(runs: Runs, distance: str) -> Measure:
    """Over the facts of all seeds, each of which makes up its own."""
    return pooled(run["said"][distance] for run in runs)


def _distances(ways: Mapping[str, Runs]) -> Plot:
    series = tuple(
        Series(
            way,
            tuple((float(d), _said(runs, d)) for d in runs[0]["said"]),
            control=way not in ("engram, whole keys", "engram, n-grams"),
        )
        for way, runs in ways.items()
    )
    panel = Panel("recall", "share", series, "tokens before the question", lines=True)
    return Plot("long-context", "Recall behind a long text", (panel,))
