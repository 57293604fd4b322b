"""Which trained memory says what it was taught exactly, and what else does it change?

The third seed's main experiments: 500 and 5,000 keys, and its patterns, with LoRA, an Engram, both
and neither, and the controls that it lacked: adapters of another kind, zeroed tables, shuffled
rows, what was never taught, and talk about other things.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engram_transformers.errors import BadInput
from engram_transformers.studies.exact_match.options import Options
from engram_transformers.studies.exact_match.sets import taught
from engram_transformers.studies.exact_match.training import kinds, tried
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
from engram_transformers.studies.trained import host_named, over_questions, second
from engram_transformers.types import Told

CONTROLS = ("tables zeroed", "rows shuffled")
PLANNING = ("ways", "sets", "seeds")
OWN = {"lookup": ("facts", "asked"), "patterns": ()}
"Options that decide about one set alone."
Groups = dict[str, list[dict[str, Any]]]


def plan(options: Options) -> list[Unit]:
    """A unit for each set, way and seed."""
    for way in options.ways:
        try:
            kinds(way, options, blocks=options.late + 1)
        except KeyError:
            names = ", ".join(Options().ways)
            raise BadInput(f"no way is called {way!r}; there are {names}") from None
    return [
        _unit(options, name, way, seed)
        for name in options.sets
        for way in options.ways
        for seed in range(options.seeds if way != "bare host" else 1)
    ]


def _unit(options: Options, name: str, way: str, seed: int) -> Unit:
    foreign = (own for other, mine in OWN.items() if other != name for own in mine)
    settings = settings_of(options, but=(*PLANNING, *foreign), **{"set": name}, way=way, seed=seed)
    return Unit(f"{way}, {_what(name, options)}, seed {seed}", settings)


def _what(name: str, options: Options) -> str:
    return f"{options.facts} keys" if name == "lookup" else name


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Train one way with one seed and ask it."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    material = taught(own["set"], options, seed=own["seed"])
    host = host_named(options.host)
    return tried(host, own["way"], options, material, seed=own["seed"], told=told)


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """By set: exact answers over all and by category, controls, and what else changed."""
    sets = {_what(name, options): _groups(done, name) for name in options.sets}
    tables = [
        table
        for what, groups in sets.items()
        for table in _tables(what, groups, options.epochs)
        if table.rows
    ]
    return Findings(tuple(tables), notes=(*NOTES, *_sizes(sets)))


def _groups(done: Sequence[Done], name: str) -> Groups:
    """Runs of a set by way."""
    groups: Groups = {}
    for one in done:
        if one.unit.settings["set"] == name:
            groups.setdefault(one.unit.settings["way"], []).append(one.measured)
    return groups


def _tables(what: str, groups: Groups, cap: int) -> Iterator[Table]:
    yield Table(
        f"{what}: answers said exactly",
        "share of what was taught and is asked",
        tuple(_overall(groups, cap)),
        "Greedy generation with a natural end, behind the taught prompt. Last loss: nats a token "
        "in the last epoch of training. Seeds at the cap: those whose training was ended by the "
        f"cap of {cap} epochs and not earlier by every answer being exact; more epochs might have "
        "taught them more.",
    )
    yield Table(f"{what}: by category", "share said exactly", tuple(_parts(groups, "taught")))
    yield Table(
        f"{what}: what was not taught",
        "share said exactly",
        tuple(_parts(groups, "besides")),
        "Held out: others of the same categories, taught in no form. Other prefixes: what was "
        "taught, behind words that were not.",
    )
    yield Table(
        f"{what}: controls",
        "share said exactly",
        tuple(_controls(groups)),
        "The trained Engram with its tables zeroed, and with its rows in another order; of keys, "
        "the real ones are asked.",
    )
    yield Table(
        f"{what}: what else changed",
        "share of the prompts whose logits are those of the bare host, bit for bit",
        tuple(_changed(groups)),
        "Prompts of the same kind that were not taught, and talk. Same beginning: share whose "
        "first eight tokens of an answer are the bare host's.",
    )


NOTES = (
    "`engram, n-grams` and `engram, unigram` act before the second block and see the last tokens "
    "read. The value of a key stands behind the chat template's marker, so what they add to the "
    "key has to be carried there by attention; patterns are plain text and end where their answer "
    "begins. `engram, whole keys` acts late and knows the whole prompt.",
    "`engram, content` reads the rows of its table that are like the host's state, and "
    "`engram, n-grams and content` such rows besides those of its n-grams: what is found by "
    "content is found in any order, so that shuffling it changes nothing. `bottleneck` is of the "
    "size of `lora`; `bottleneck, same size` trains as many numbers as `engram, whole keys` does.",
    "Seeds ask the same questions, taught in another order (of more keys than are asked, partly "
    "others): a share is the mean over seeds, n and its interval count the questions of one of "
    "them, as if all answered alike; how far trainings differ is not in it.",
)
SIZES_APART = ("engram, n-grams", "engram, unigram")
"Ways that look alike, and whose tables are not of one size."


def _sizes(sets: Mapping[str, Groups]) -> Iterator[str]:
    """The sizes of such ways, by set, where both were trained."""
    for what, groups in sets.items():
        one, other = ({run["parameters"] for run in groups.get(way, ())} for way in SIZES_APART)
        if one and other and one != other:
            yield (
                f"{what}: `{SIZES_APART[0]}` trains {max(one):,} numbers, `{SIZES_APART[1]}` "
                f"{max(other):,}. They are not of one size, so that their difference is not that "
                "of their addresses alone."
            )


def _overall(groups: Groups, cap: int) -> Iterator[Row]:
    for way, runs in groups.items():
        counts = [list(map(sum, zip(*run["taught"].values(), strict=True))) for run in runs]
        yield row(way, over_questions(counts), seeds=len(runs), more=_training(runs, cap))


def _training(runs: Sequence[dict[str, Any]], cap: int) -> dict[str, float]:
    """What training took and how it ended, mean over seeds; nothing of a host without a memory.

    Not the seconds: they are those of a machine that did other things besides.
    """
    if not all("epochs" in run for run in runs):
        return {}
    means = {
        column: round(sum(run[name] for run in runs) / len(runs), 4)
        for column, name in (("parameters",) * 2, ("epochs",) * 2, ("last loss", "loss"))
    }
    return {**means, "seeds at the cap": sum(run["epochs"] >= cap for run in runs)}


def _parts(groups: Groups, what: str) -> Iterator[Row]:
    for way, runs in groups.items():
        for name in runs[0][what]:
            counts = [run[what][name] for run in runs]
            more = {"among other words": second(counts)}
            yield row(f"{way}, {name}", over_questions(counts), seeds=len(runs), more=more)


def _controls(groups: Groups) -> Iterator[Row]:
    for way, runs in groups.items():
        for control in CONTROLS:
            if control in runs[0]:
                counts = [run[control] for run in runs]
                yield row(f"{way}, {control}", over_questions(counts), seeds=len(runs))


def _changed(groups: Groups) -> Iterator[Row]:
    for way, runs in groups.items():
        for what in ("not taught", "talk"):
            counts = [run[what] for run in runs]
            more = {"same beginning": second(counts)}
            yield row(f"{way}, {what}", over_questions(counts), seeds=len(runs), more=more)


STUDY = Study(
    name="exact_match",
    question="Which trained memory says what it was taught exactly, and what else does it change?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
)
