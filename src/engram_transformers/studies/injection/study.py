"""Injecting memory: what the first seed concluded from one fact, tried fairly.

Every route asks the same made-up facts in one form of prompt, beside controls that have to pass and
controls that have to fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from engram_transformers.studies.injection import measuring, routes
from engram_transformers.studies.injection.facts import chosen
from engram_transformers.studies.injection.findings import findings
from engram_transformers.studies.injection.options import ADDRESSED, SWEPT, TRAINED, Options
from engram_transformers.studies.injection.routes import Bench
from engram_transformers.studies.options import configured
from engram_transformers.studies.study import Done, Findings, Study, Unit, settings_of
from engram_transformers.studies.trained import host_named
from engram_transformers.types import Told

ASKED = ("facts", "tuned", "others", "host")
"Options that decide about every way's numbers."
OWN = {
    "random vectors": ("held", "slots", "seed"),
    **dict.fromkeys(SWEPT, ("held", "layers", "scales", "slots")),
    **dict.fromkeys(TRAINED, ("soft_slots", "steps", "learning_rate", "share", "seed")),
}


def plan(options: Options) -> list[Unit]:
    """A unit for each way; soft prompts in parts."""
    chosen(tuned=options.tuned, facts=options.facts)
    plain = [way for way in options.ways if way not in TRAINED]
    trained = [way for way in options.ways if way in TRAINED]
    return [
        *(Unit(way, _settings(options, way)) for way in plain),
        # Part by part, so that what is done of both can be compared at any time.
        *(
            Unit(f"{way}, part {part}", _settings(options, way, part=part))
            for part in measuring.parts(options)
            for way in trained
        ),
    ]


def _settings(options: Options, way: str, **own: Any) -> dict[str, Any]:
    needed = {*ASKED, *OWN.get(way, ("held",))}
    others = [field.name for field in fields(options) if field.name not in needed]
    return settings_of(options, but=others, way=way, **own)


_benches: dict[str, Bench] = {}
"By host: what all prompts begin with is read once a process."


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Measure one way."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    if options.host not in _benches:
        _benches[options.host] = Bench(host_named(options.host))
    bench, way = _benches[options.host], own["way"]
    if way in SWEPT:
        return measuring.swept(bench, way, options, told)
    if way in TRAINED:
        return measuring.soft(bench, way, own["part"], options, told)
    special = {
        "retrieved text": measuring.retrieved,
        "lookup memory": measuring.looked_up,
        "cached keys and values": measuring.cached,
        "late patch": measuring.late_patch,
        ADDRESSED: measuring.addressed,
    }
    if way in special:
        return special[way](bench, options, told)
    _, facts = chosen(tuned=options.tuned, facts=options.facts)
    if way == "keys and values of another fact":
        route = routes.of_another(facts, routes.keys_and_values(bench))
    else:
        route = measuring.simple(options)[way](bench)
    return measuring.measure_route(bench, route, options, told)


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Tables, the seed's verdicts, and plots."""
    ways: dict[str, list[dict[str, Any]]] = {}
    for one in done:
        ways.setdefault(one.unit.settings["way"], []).append(one.measured)
    return findings(ways)


STUDY = Study(
    name="injection",
    question="What can be put into a host instead of text so that it says a fact?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
    quick={
        "ways": (
            "nothing", "text", "cached keys and values", "late patch", "random vectors", "chunks",
            "soft prompt, one question", "soft prompt, paraphrases",
        ),
        "facts": 3, "tuned": 2, "layers": (6, 18), "scales": (1.0,), "share": 3, "others": 2,
        "steps": 16,
    },
)  # fmt: skip
