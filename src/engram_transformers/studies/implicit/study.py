"""What does a net get from slots that outlive its window? The seed's experiments, with controls."""

from __future__ import annotations

import ast
from typing import Any

from engram_transformers.errors import BadInput
from engram_transformers.registry import option_names
from engram_transformers.studies.implicit.findings import conclude
from engram_transformers.studies.implicit.measures import (
    influence,
    losses,
    recall,
    similarity,
    usage,
)
from engram_transformers.studies.implicit.nets import Net, made, train
from engram_transformers.studies.implicit.options import Options
from engram_transformers.studies.implicit.texts import Text, text_named
from engram_transformers.studies.options import configured
from engram_transformers.studies.study import Study, Unit, settings_of
from engram_transformers.types import Told

PLANNING = ("texts", "variants", "sweep", "seeds")
SWEPT = "slots"
"The variant whose options are changed one at a time."


def plan(options: Options) -> list[Unit]:
    """A unit for each text, variant and seed; then those of the sweep, on the first text.

    Raises:
        DataMissing: a text is not on this machine.
        BadInput: a text is too short, or the sweep names what the memory does not have.
    """
    for text in options.texts:
        made_of = text_named(text, windows=options.windows)
        for variant in options.variants:
            made(variant, {}, made_of, options, seed=0)
    for change in options.sweep:
        first = text_named(options.texts[0], windows=options.windows)
        made(SWEPT, _change(change), first, options, seed=0)
    runs = [(text, variant, "") for text in options.texts for variant in options.variants]
    runs += [(options.texts[0], SWEPT, change) for change in options.sweep]
    return [
        Unit(
            f"{text}, {variant}{change and f', {change}'}, seed {seed}",
            settings_of(
                options, but=PLANNING, text=text, variant=variant, change=change, seed=seed
            ),
        )
        for text, variant, change in runs
        for seed in range(options.seeds)
    ]


def measure(unit: Unit, told: Told) -> dict[str, Any]:
    """Train one net with its memory, and measure it."""
    own = unit.settings
    options: Options = configured(Options, own["options"])
    text = text_named(own["text"], windows=options.windows)
    net = made(own["variant"], _change(own["change"]), text, options, own["seed"])
    untrained = _similarity(net, text, own)
    training = train(
        net, text, options, seed=own["seed"], progress=lambda: told(unit.name, 1, options.steps)
    )
    held = text.held_out(options.held_out, windows=options.windows)
    found: dict[str, Any] = {
        **_counted(net),
        "training": training,
        "tokens": {"repeats": int(held.repeats.sum()), "all": held.ids[:, :, 1:].numel()},
        "losses": losses(net, held),
        "needles": [
            recall(net, text.needles(options.needles, windows=options.windows, distance=distance))
            for distance in range(1, options.windows)
        ],
    }
    if net.memory is not None:
        found |= {"influence": influence(net, held), "usage": usage(net, held)}
    if untrained is not None:
        found["similarity"] = {"untrained": untrained, "trained": _similarity(net, text, own)}
    return found


def _similarity(net: Net, text: Text, own: Any) -> dict[str, Any] | None:
    """The seed measured it of its own formula, whose slots are states."""
    return similarity(net, text, seed=own["seed"]) if own["variant"] == "original" else None


def _counted(net: Net) -> dict[str, int]:
    memory = [] if net.memory is None else list(net.memory.parameters())
    return {
        "parameters": sum(each.numel() for each in net.model.parameters()),
        "of the memory": sum(each.numel() for each in memory),
    }


def _change(text: str) -> dict[str, Any]:
    """`norm=layer` as an option of the memory."""
    if not text:
        return {}
    name, _, value = text.partition("=")
    if name not in option_names("implicit"):
        raise BadInput(f"sweep has {text!r}; use OPTION=VALUE of the memory `implicit`")
    try:
        return {name: ast.literal_eval(value)}
    except (ValueError, SyntaxError):
        return {name: value}


STUDY = Study(
    name="implicit",
    question="Does a small decoder recall, from slots that it writes and reads, what its attention "
    "cannot see any more?",
    Options=Options,
    plan=plan,
    measure=measure,
    conclude=conclude,
    quick={
        "texts": ["entities"],
        "variants": ["none", "slots", "linformer", "original"],
        "sweep": ["update=always"],
        "seeds": 1,
        "steps": 300,
        "held_out": 32,
        "needles": 32,
    },
)
