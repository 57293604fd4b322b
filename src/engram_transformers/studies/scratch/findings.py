"""What follows from the runs: losses, differences to the baseline, ablations, gates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.plots import Panel, Plot, Series
from engram_transformers.studies.estimates import over_runs
from engram_transformers.studies.scratch.allocation import losses_by_share, shape_of_curve
from engram_transformers.studies.scratch.options import Options
from engram_transformers.studies.scratch.variants import (
    BASELINE,
    SAME_FLOPS,
    SIZES,
    WIDE,
    share_of,
)
from engram_transformers.studies.study import Done, Findings, Heatmap, Row, Table, row

UNIT = "nats a token"


def conclude(options: Options, done: Sequence[Done]) -> Findings:
    """Losses, differences to the baseline of the same seed, ablations and gates."""
    tables: list[Table] = []
    plots: list[Plot | Heatmap] = []
    for text in options.texts:
        runs = _Runs([one for one in done if one.unit.settings["text"] == text])
        tables += [make(text, runs) for make in (_losses, _against, _paired, _carried)]
        plots += _heatmaps(text, runs)
    curves = [panel for text in options.texts if (panel := _curve(text, done))]
    if curves:
        title = "Held-out loss by where the extra parameters are"
        plots.insert(0, Plot("allocation", title, tuple(curves)))
    kept = tuple(table for table in tables if table.rows)
    shapes = [shape_of_curve(text, losses_by_share(text, done)) for text in options.texts]
    return Findings(kept, tuple(plots), (*filter(None, shapes), *_notes(done)))


class _Runs:
    """The runs of one text, by variant and seed."""

    def __init__(self, done: Sequence[Done]) -> None:
        self.by: dict[str, dict[int, dict[str, Any]]] = {}
        for one in done:
            own = one.unit.settings
            self.by.setdefault(own["variant"], {})[own["seed"]] = one.measured

    def values(self, variant: str, name: str) -> list[float]:
        return [run[name] for run in self.by[variant].values() if run.get(name) is not None]

    def less(self, variant: str, name: str, other: str, of: str) -> list[float]:
        """One number less another of the run with the same seed."""
        others = self.by.get(other, {})
        return [
            run[name] - others[seed][of]
            for seed, run in self.by[variant].items()
            if seed in others and name in run
        ]

    def line(self, variant: str, values: Sequence[float], **more: Any) -> Row:
        runs = self.by[variant]
        n = next(iter(runs.values()))["tokens held out"]
        return row(variant, over_runs(values), n=n, seeds=len(values), more=more)

    def with_engram(self) -> Iterator[str]:
        return (variant for variant in self.by if variant.startswith("engram"))


def _losses(text: str, runs: _Runs) -> Table:
    sizes = {v: {name: next(iter(r.values()))[name] for name in SIZES} for v, r in runs.by.items()}
    return Table(
        f"{text}: held-out loss",
        UNIT,
        tuple(runs.line(v, runs.values(v, "loss"), **sizes[v]) for v in runs.by),
        "Mean over seeds, with Student's interval over them; n counts held-out tokens.",
    )


def _against(text: str, runs: _Runs) -> Table:
    pairs = {v: runs.less(v, "loss", BASELINE, "loss") for v in runs.by if v != BASELINE}
    return Table(
        f"{text}: difference to the baseline",
        UNIT,
        tuple(runs.line(v, values) for v, values in pairs.items() if values),
        "Each run less the baseline with the same seed, which read the same batches; below zero "
        "is better.",
    )


def _paired(text: str, runs: _Runs) -> Table:
    """Each Engram against what has its parameters, and against what has its computation."""
    pairs = {
        (variant, other): runs.less(variant, "loss", other, "loss")
        for other in (WIDE, SAME_FLOPS)
        for variant in runs.with_engram()
    }
    return Table(
        f"{text}: an Engram against the same without tables",
        UNIT,
        tuple(
            replace(runs.line(variant, values), name=f"{variant} minus {other}")
            for (variant, other), values in pairs.items()
            if values
        ),
        "Each run less that of the same seed and the same batches; below zero the Engram is "
        f"better. `{WIDE}` has as many parameters, `{SAME_FLOPS}` as much computation as an "
        "Engram's projections add; below 100 % the rest of its parameters computes besides.",
    )


def _carried(text: str, runs: _Runs) -> Table:
    return Table(
        f"{text}: what the trained Engram carries",
        UNIT,
        tuple(_ablations(runs)),
        "The loss of the trained model with its tables zeroed, and with its rows in another "
        "order, less its own. Rows moved: the share that training has read.",
    )


def _ablations(runs: _Runs) -> Iterator[Row]:
    for variant in runs.with_engram():
        moved = runs.values(variant, "rows moved")
        more = {"rows moved": over_runs(moved).value} if moved else {}
        for what in ("tables zeroed", "rows shuffled"):
            values = runs.less(variant, f"loss, {what}", variant, "loss")
            line = runs.line(variant, values, **more)
            yield replace(line, name=f"{variant}, {what}")


def _curve(text: str, done: Sequence[Done]) -> Panel | None:
    """Difference to the baseline over the share of extra parameters in the Engram."""
    runs = _Runs([one for one in done if one.unit.settings["text"] == text])
    points: list[tuple[float, Measure]] = []
    for variant in runs.by:
        share = share_of(variant)
        values = runs.less(variant, "loss", BASELINE, "loss")
        if share is not None and values:
            points.append((float(share), over_runs(values)))
    if not points:
        return None
    series = [Series("same parameters", tuple(sorted(points, key=lambda point: point[0])))]
    if SAME_FLOPS in runs.by and (even := runs.less(SAME_FLOPS, "loss", BASELINE, "loss")):
        level = over_runs(even)
        ends = (min(x for x, _ in points), max(x for x, _ in points))
        series.append(Series(SAME_FLOPS, tuple((x, level) for x in ends), control=True))
    title = f"{text}: nats a token, baseline = 0"
    return Panel(title, "", tuple(series), "% of the extra parameters in Engram", lines=True)


def _heatmaps(text: str, runs: _Runs) -> Iterator[Heatmap]:
    """Gates of the first seed over held-out tokens, of the variant with the largest Engram."""
    with_gates = [run for v in runs.with_engram() for run in [runs.by[v].get(0)] if run]
    if not with_gates:
        return
    run = max(with_gates, key=lambda each: int(each["in tables"]))
    layers: Mapping[str, list[float]] = run["gates"]
    yield Heatmap(
        f"gates-{text}".replace("/", "-").replace(".", "-"),
        f"{text}: what the gate lets through, held-out text",
        tuple(run["shown"]),
        tuple(f"block {layer}" for layer in layers),
        tuple(tuple(values) for values in layers.values()),
    )


def _notes(done: Sequence[Done]) -> Iterator[str]:
    corpora = {(one.unit.settings["text"], one.measured["corpus"]) for one in done}
    if len(corpora) > len({text for text, _ in corpora}):
        yield "**Runs of one text differ in their tokens: they are not comparable.**"
    for text in sorted({text for text, _ in corpora}):
        one = next(d.measured for d in done if d.unit.settings["text"] == text)
        passes = one["tokens learnt"] / one["tokens of the text"]
        yield (
            f"{text}: {one['tokens of the text']:,} tokens to learn from, read {passes:.2f} times; "
            "the tokenizer has seen the same part alone."
        )
    yield (
        "FLOPs are those of the matrices and of attention on the way forward; a training step "
        "takes about three times as many. Hashing, norms and gates are left out."
    )
    yield (
        "Feed-forward layers are dense here, not mixtures of experts as in the paper: with equal "
        "parameters the wider ones also compute more. `same FLOPs` has as much computation as the "
        "Engram's projections add, and no table."
    )
    yield (
        "A gate of 0.50 exactly stands where none of the rows was trained, if rows were zero to "
        "begin with: nothing passes it."
    )
    yield "Variants of a seed share batches, not weights: other sizes are drawn otherwise."
