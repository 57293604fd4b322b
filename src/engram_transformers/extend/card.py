"""What a training leaves for people: a plot of its losses, and a card that says what it is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from engram_transformers.evaluation.metrics import Measure, rate, rate_of
from engram_transformers.evaluation.report.drawing import png
from engram_transformers.evaluation.report.palette import palette
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.extend.run import DESCRIPTION, MEMORY, Trained

CARD, PLOT = "README.md", "loss.png"
POINTS = 24
"Of each line, about."
LEARNED, HELD_OUT = "trained", "held out"


def draw_losses(log: Sequence[Mapping[str, float]], path: Path) -> None:
    """The losses of a log over its steps, as a PNG.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    series = (_series(LEARNED, log, "loss"), _series(HELD_OUT, log, "eval_loss"))
    shown = tuple(one for one in series if one.points)
    panel = Panel("nats a token", "", shown, x_title="step", lines=True)
    png(
        Plot("loss", "Loss while training", (panel,)),
        palette([one.label for one in shown], ()),
        path,
    )


def write_card(trained: Trained) -> Path:
    """The card of a training, beside its memory."""
    described = json.loads((trained.folder / DESCRIPTION).read_text())
    plot = trained.folder / PLOT
    text = "\n".join(_lines(trained, described, plot=plot.name if plot.is_file() else None))
    path = trained.folder / CARD
    path.write_text(text + "\n", encoding="utf-8")
    return path


def _lines(trained: Trained, described: dict[str, Any], *, plot: str | None) -> list[str]:
    options = described["options"]
    holding = rate([True] * len(trained.holding) + [False] * len(trained.refused))
    beside = ", trained together with a `lora`," if options["lora"] is not None else ""
    lines = [
        f"# A memory of kind `{options['kind']}`{beside} for {described['host']}",
        "",
        f"Trained on {trained.facts:,} facts in {trained.steps:,} steps "
        f"({_took(trained)}). It belongs to the host with the fingerprint "
        f"`{described['fingerprint']}` and is opened by no other.",
        "",
        "```",
        f"engram ask -M {trained.path} QUESTION",
        "```",
        "",
        "| measured | value | 95 % interval | n |",
        "|---|---|---|---|",
        _row("taught facts answered exactly, every wording, to the end token", holding),
    ]
    if trained.held_out:
        n = described["held_out"]["questions"]
        after, before = trained.held_out["eval_exact"], trained.held_out["eval_exact_before"]
        lines += [
            _row(f"held-out questions answered exactly (before: {before:.3f})", _share(after, n)),
            f"| held-out loss, nats a token (before: {trained.held_out['eval_loss_before']:.3f}) "
            f"| {trained.held_out['eval_loss']:.3f} | | {n} |",
        ]
    lines += ["", *_notes(trained, described, plot)]
    return lines


def _notes(trained: Trained, described: dict[str, Any], plot: str | None) -> list[str]:
    options = described["options"]
    notes = [f"![losses]({plot})", ""] if plot else []
    if trained.refused:
        notes += [
            f"{len(trained.refused):,} facts do not hold and are not listed by the memory; what "
            "was trained of them is in its tensors all the same.",
            "",
        ]
    if options["lora"] is not None:
        notes += [
            f"Of the LoRA, which lies in `{MEMORY}/lora` and acts whenever the memory is opened: "
            f"{_given(options['lora'])}.",
            "",
        ]
    return [
        *notes,
        f"Options: {_given(options['memory'])}. {_course(described['schedule'])}",
        "",
        _came(described),
        "",
        "All facts share the tensors, so single ones cannot be forgotten, and questions that were "
        "not trained may be answered otherwise than by the bare host. `engram eval` measures that.",
    ]


def _course(schedule: Mapping[str, Any]) -> str:
    return (
        f"{schedule['epochs']} epochs with batches of {schedule['batch']}, learning rate "
        f"{schedule['learning_rate']:g} at its highest, seed {schedule['seed']}."
    )


def _came(described: Mapping[str, Any]) -> str:
    """When, by what and on what it was trained."""
    one, held_out = described["provenance"], described["held_out"]
    data = f"facts `{described['facts']['digest']}`"
    data += f", held out `{held_out['digest']}`" if held_out["n"] else ""
    return (
        f"Begun on {one['date']} with engram-transformers {one['library']}, commit "
        f"`{one['commit'] or 'unknown'}`, torch {one['torch']}, transformers "
        f"{one['transformers']}, on {one['machine']}. Digests of the data: {data}."
    )


def _given(options: Mapping[str, Any]) -> str:
    return ", ".join(f"`{name}={value}`" for name, value in options.items()) or "the defaults"


def _took(trained: Trained) -> str:
    return f"{trained.seconds:,.0f} s{' since it was resumed' if trained.resumed else ''}"


def _share(value: float, n: int) -> Measure:
    return rate_of(round(value * n), n)


def _row(what: str, found: Measure) -> str:
    return f"| {what} | {found.value:.3f} | {found.low:.3f} to {found.high:.3f} | {found.n} |"


def _series(label: str, log: Sequence[Mapping[str, float]], name: str) -> Series:
    found = [(entry["step"], float(entry[name])) for entry in log if name in entry]
    # Every point has a mark: of a long log some are drawn, the last one always.
    found = found[:: max(1, len(found) // POINTS)] + found[-1:]
    return Series(label, tuple((step, Measure(loss, loss, loss, 1)) for step, loss in found))
