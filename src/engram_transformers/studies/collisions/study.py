"""Collisions counted, and what they cost: recall of random keys against the size of tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from engram_transformers.evaluation.metrics import Measure, rate_of
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.memories.engram.address import primes_from
from engram_transformers.studies.collisions.counting import counted
from engram_transformers.studies.collisions.keys import keys_of
from engram_transformers.studies.collisions.options import Options
from engram_transformers.studies.collisions.recall import CONTROLS, recalled
from engram_transformers.studies.options import configured
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
from engram_transformers.studies.trained import host_named, pooled
from engram_transformers.types import Told

COUNTING = ("layouts", "sets", "counts", "sizes")
TRAINING = ("trained", "rows", "seeds", "crowds", "crowded", "keys", "values", "trained_heads",
            "width", "epochs", "batch", "learning_rate")  # fmt: skip
"Options of one half of the study, which do not decide about the other."
SHARES = ("told apart", "with an n-gram of their own", "rows used")
Trainings = dict[tuple[str, int, int], list[dict[str, Any]]]
"What was measured by layout, rows and keys, the seeds side by side."


def plan(options: Options) -> list[Unit]:
    """Counts by layout, set and number of keys; trainings by layout, rows and seed."""
    for name in options.sets:
        keys_of(name, 1, seed=0)
    return [*_counts(options), *_trainings(options)]


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Count, or train."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    host = host_named(options.host)
    if own["part"] == "recall":
        return recalled(
            host,
            options,
            layout=own["layout"],
            rows=own["rows"],
            seed=own["seed"],
            progress=lambda done: told(unit.name, done, options.keys),
        )
    keys = keys_of(own["set"], own["count"], seed=0)
    return {"curve": [counted(host, options, own["layout"], n, keys) for n in own["sizes"]]}


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Shares of keys with rows of their own, recall, and the controls of recall."""
    counts = [one for one in done if one.unit.settings["part"] == "counts"]
    recalls = [one for one in done if one.unit.settings["part"] == "recall"]
    trainings = _together(recalls)
    tables = [
        *(_counted(name, counts) for name in options.sets),
        Table("Recall of random keys", "share of the taught values that are said in full",
              tuple(_recall(trainings)), RECALL),
        Table("Controls of recall", "share of the values that are said in full",
              tuple(_controls(recalls)), CONTROL),
    ]  # fmt: skip
    plots = [
        _curves(counts, options),
        _recall_plot(trainings, options.keys),
        _crowding_plot(trainings),
    ]
    return Findings(
        tuple(table for table in tables if table.rows),
        tuple(plot for plot in plots if plot),
        (*NOTES, *_chance(done)),
    )


RECALL = (
    "A value counts if each of its tokens and the end behind it is the host's first choice, which "
    "is what greedy decoding writes. `unigram` has one table for each block; n-grams have one for "
    "each block, length and head, of the next primes of rows, none twice: with as many rows a "
    "table they are far larger, and *rows in all* is what compares. `span` has a row for each key "
    "and each beginning of its value. Keys for a row: keys by the rows in all; above 1 not all can "
    "have one of their own. Each seed draws keys of its own: n and Wilson's interval count those "
    "of all seeds."
)
CONTROL = (
    "The same questions to the host without the memory, with the memory's tables zeroed, and with "
    "its rows looked up by another hash (for `unigram` and `span`: in another order). The last "
    "asks for keys that were not taught. The share is of all answers; n and its interval count "
    "each key of a seed once, however many memories were asked for it, and the bare host, which is "
    "the same beside all of them, stands there once."
)
NOTES = (
    "Rows are counted at a key's last token, behind which its value begins. A row of its own: at "
    "least one of those that the token reads is read by no other key. Told apart: no other key "
    "reads all the same rows.",
    "An n-gram of its own is the ceiling of all hashes: keys that end in the same tokens are one "
    "to them, however many rows there are. `unigram` sees the last token alone.",
)


def _chance(done: Sequence[Done]) -> Iterator[str]:
    for values in sorted({one.measured["values"] for one in done if "values" in one.measured}):
        yield f"Values are drawn from {values:,}: so rarely is one guessed."


def _counts(options: Options) -> list[Unit]:
    shared = {"part": "counts", "sizes": options.sizes}
    return [
        Unit(
            f"counts {layout} {name} {count}",
            settings_of(
                options, but=(*COUNTING, *TRAINING), **shared, layout=layout, set=name, count=count
            ),
        )
        for name in options.sets
        for layout in options.layouts
        for count in options.counts
    ]


def _trainings(options: Options) -> list[Unit]:
    few = [
        _training(options, layout, rows, seed)
        for seed in range(options.seeds)
        for layout in options.trained
        for rows in (options.rows if layout != "span" else options.rows[:1])
    ]
    many = [
        _training(replace(options, keys=keys), layout, rows, seed, told=f" {keys} keys")
        for seed in range(options.seeds)
        for keys in options.crowds
        for layout in options.trained
        for rows in (options.crowded if layout != "span" else ())
    ]
    return [*few, *many]


def _training(options: Options, layout: str, rows: int, seed: int, *, told: str = "") -> Unit:
    planning = (*COUNTING, "heads", "trained", "rows", "seeds", "crowds", "crowded")
    return Unit(
        f"recall {layout} {rows} rows{told} seed {seed}",
        settings_of(options, but=planning, part="recall", layout=layout, rows=rows, seed=seed),
    )


def _counted(name: str, counts: Sequence[Done]) -> Table:
    rows = []
    for one in counts:
        own = one.unit.settings
        for point in one.measured["curve"] if own["set"] == name else ():
            told = f"{own['layout']}, {point['keys']:,} keys, {point['rows']:,} rows a table"
            more: dict[str, Any] = {share: round(point[share], 4) for share in SHARES}
            more["rows in all"] = _size(own["layout"], point)
            rows.append(row(told, _own(point), seeds=1, more=more))
    about = (
        "Counted, not estimated; the interval is Wilson's, for keys like these. Rows in all: "
        "of all tables of the one block that is counted, which is what compares: `unigram` has one "
        "table, the others have one for each length and head, of the next primes of rows."
    )
    return Table(f"Rows and collisions, keys: {name}", "share of the keys with a row of their own",
                 tuple(rows), about)  # fmt: skip


def _size(layout: str, point: Mapping[str, Any]) -> int:
    """Rows of all tables that were counted: those of the first block, with the first primes."""
    if layout == "unigram":
        return int(point["rows"])
    tables = sum(len(order["used"]) for order in point["orders"])
    return sum(islice(primes_from(point["rows"]), tables))


def _own(point: Mapping[str, Any]) -> Measure:
    return rate_of(round(point["with a row of their own"] * point["keys"]), point["keys"])


def _together(done: Sequence[Done]) -> Trainings:
    found: Trainings = {}
    for one in done:
        own, keys = one.unit.settings, one.measured["keys"]
        found.setdefault((own["layout"], own["rows"], keys), []).append(one.measured)
    return found


def _recalled(runs: Sequence[Mapping[str, Any]]) -> Measure:
    """Over the keys of all seeds, each of which draws its own."""
    return pooled((run["recall"], run["keys"]) for run in runs)


def _recall(trainings: Trainings) -> Iterator[Row]:
    for (layout, rows, keys), runs in trainings.items():
        tables = runs[0]["tables"]
        told = f"{rows:,} rows a table" if layout != "span" else "rows as needed"
        more = {"rows in all": tables, "keys for a row": round(keys / tables, 4)}
        yield row(f"{layout}, {keys:,} keys, {told}", _recalled(runs), seeds=len(runs), more=more)


def _controls(done: Sequence[Done]) -> Iterator[Row]:
    """The bare host once; by layout, over rows and keys, what else should say nothing."""
    bare, *others = CONTROLS
    if done:
        yield _control(bare, bare, done)
    for layout in dict.fromkeys(one.unit.settings["layout"] for one in done):
        some = [one for one in done if one.unit.settings["layout"] == layout]
        for control in others:
            yield _control(f"{layout}, {control}", control, some)


def _control(name: str, control: str, done: Sequence[Done]) -> Row:
    """The share of all answers, with an interval of the questions of the largest draw of each seed.

    The keys of a smaller draw are the first of a larger one with the same seed.
    """
    drawn: dict[int, int] = {}
    for one in done:
        seed, keys = one.unit.settings["seed"], one.measured["keys"]
        drawn[seed] = max(keys, drawn.get(seed, 0))
    right, asked = (sum(one.measured[what] for one in done) for what in (control, "keys"))
    n = sum(drawn.values())
    return row(name, rate_of(n * right / asked, n), seeds=len(drawn))


def _curves(counts: Sequence[Done], options: Options) -> Plot | None:
    panels = []
    for name in options.sets:
        some = [one for one in counts if one.unit.settings["set"] == name]
        most = max((one.unit.settings["count"] for one in some), default=0)
        series = tuple(_curve(one) for one in some if one.unit.settings["count"] == most)
        if series:
            title = f"{name}: keys with a row of their own"
            panels.append(Panel(title, "share", series, "rows in all", "log", lines=True))
    return Plot("collisions", "Collisions over rows in all", tuple(panels)) if panels else None


def _curve(one: Done) -> Series:
    layout = one.unit.settings["layout"]
    points = [(float(_size(layout, point)), _own(point)) for point in one.measured["curve"]]
    return Series(layout, tuple(points))


def _recall_plot(trainings: Trainings, keys: int) -> Plot | None:
    """Recall of so many keys over the rows in all, which compares layouts of any tables."""
    some = {(layout, rows): runs for (layout, rows, n), runs in trainings.items() if n == keys}
    if not some:
        return None
    series = []
    for layout in dict.fromkeys(layout for layout, _ in some):
        points = [
            (float(runs[0]["tables"]), _recalled(runs))
            for (own, _), runs in some.items()
            if own == layout
        ]
        series.append(Series(layout, tuple(sorted(points, key=lambda point: point[0]))))
    panel = Panel(f"recall of {keys} keys", "share", tuple(series), "rows in all", "log",
                  lines=True)  # fmt: skip
    return Plot("recall", "Recall of random keys over rows in all", (panel,))


def _crowding_plot(trainings: Trainings) -> Plot | None:
    """Recall over the keys that there are for a row, where rows are hashed."""
    points: dict[str, list[tuple[float, Measure]]] = {}
    for (layout, _, keys), runs in trainings.items():
        if layout != "span":
            point = (keys / runs[0]["tables"], _recalled(runs))
            points.setdefault(f"{layout}, {keys} keys", []).append(point)
    if not points:
        return None
    series = tuple(
        Series(name, tuple(sorted(some, key=lambda point: point[0])))
        for name, some in points.items()
    )
    panel = Panel("recall", "share", series, "keys for a row", "log", lines=True)
    return Plot("crowding", "Recall of random keys over keys for a row", (panel,))


STUDY = Study(
    name="collisions",
    question="How many keys do hashed tables hold, and what is recalled of them?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
)
