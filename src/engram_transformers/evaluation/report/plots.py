"""What is plotted: plain data, read off the sheets; `drawing` puts it on paper."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.columns import (
    PROBES,
    described,
    distance,
    kind,
    ordered,
    unit,
    written,
)
from engram_transformers.evaluation.report.sheet import BARE, Row, Sheet, measure, taught

Scale = Literal["plain", "log", "named"]


@dataclass(frozen=True)
class Series:
    """The points of one memory; no point where it was not measured."""

    label: str
    points: tuple[tuple[float, Measure], ...]
    control: bool = False


@dataclass(frozen=True)
class Panel:
    """One small plot: dots, a row a memory, or lines over x."""

    title: str
    unit: str
    series: tuple[Series, ...]
    x_title: str = ""
    x_scale: Scale = "plain"
    lines: bool = False
    log_y: bool = False
    zero: bool = False
    "Whether values are differences, with the bare host at zero."

    @property
    def words(self) -> str:
        """The plot told to those who cannot see it."""
        told = (f"{one.label}: {_told(one, self)}" for one in self.series if one.points)
        return f"{self.title}. {'; '.join(told)}."


@dataclass(frozen=True)
class Plot:
    """Panels that belong together, and the name of their file."""

    name: str
    title: str
    panels: tuple[Panel, ...]
    tasks: bool = False
    "Whether each panel is a task; else the title is the task, and each panel a metric."


def recall(sheets: Iterable[Sheet]) -> list[Plot]:
    """Taught prompts, other wordings and what stays unchanged: a dot a memory."""
    found = []
    for sheet in sheets:
        if not any(map(distance, sheet.names)) and sheet.taught:
            panels = tuple(_dots(sheet, name) for name in sheet.chosen)
            found.append(Plot(named("recall", sheet.title), sheet.title, panels))
    return found


def retention(sheets: Iterable[Sheet]) -> list[Plot]:
    """What is left of facts, by how many were taught after them."""
    panels = []
    for sheet in sheets:
        series = [Series(row.label, _ages(row), row.role == "control") for row in sheet.rows]
        panels.append(_lines(sheet.title, series, "facts taught since"))
    return _together("retention", "Retention over age", panels)


def curves(sheets: Iterable[Sheet], *, cost: bool) -> list[Plot]:
    """Everything measured against the number of facts: what it costs, or all the rest."""
    found = []
    for sheet in sheets:
        points = [point for row in sheet.rows for point in row.listed("curve") if taught(point)]
        names = ordered(name for point in points for name in point if measure(point[name]))
        some = [_curve(sheet, name) for name in names if (kind(name) == "cost") is cost]
        panels = tuple(panel for panel in some if panel.series)
        title = "cost" if cost else "accuracy"
        if panels:
            found.append(Plot(named(title, sheet.title), sheet.title, panels))
    return found


def harm(sheets: Iterable[Sheet]) -> list[Plot]:
    """Probes of what the host could do before, less the bare host's own."""
    found = []
    for sheet in sheets:
        if sheet.bare is None:
            continue
        names = [name for name in sheet.names if sheet.bare.measure(name) and _probe(sheet, name)]
        panels = tuple(panel for name in names if (panel := _difference(sheet, name)))
        found += [Plot(named("harm", sheet.title), sheet.title, panels)] if panels else []
    return found


def needle(sheets: Iterable[Sheet]) -> list[Plot]:
    """Accuracy over the tokens between the beginning and the question."""
    panels = []
    for sheet in sheets:
        names = [name for name in sheet.names if distance(name) is not None]
        series = [
            Series(row.label, _points(row, names), row.role == "control") for row in sheet.rows
        ]
        panels.append(_lines(sheet.title, series, "tokens of other text in between", "named"))
    return _together("needle", "Accuracy over distance", panels)


def distinct(found: Sequence[Plot]) -> list[Plot]:
    """The plots with names that differ: titles in other scripts may leave none."""
    seen: dict[str, int] = {}
    kept = []
    for plot in found:
        seen[plot.name] = seen.get(plot.name, 0) + 1
        again = f"-{seen[plot.name]}" if seen[plot.name] > 1 else ""
        kept.append(replace(plot, name=f"{plot.name}{again}"))
    return kept


def difference(one: Measure, bare: Measure, *, ratio: bool) -> Measure:
    """One less the other, with Newcombe's square-and-add interval (Zou and Donner, 2008).

    With `ratio` the logarithms are subtracted, and the result is the relative change. Both
    samples are taken for independent; where prompts are shared the interval is too wide, never
    too narrow by that.
    """
    if ratio:
        found = difference(_log(one), _log(bare), ratio=False)
        value, low, high = (math.expm1(x) for x in (found.value, found.low, found.high))
        return Measure(value, low, high, found.n)
    value = one.value - bare.value
    down = math.hypot(one.value - one.low, bare.high - bare.value)
    up = math.hypot(one.high - one.value, bare.value - bare.low)
    return Measure(value, value - down, value + up, min(one.n, bare.n))


def named(*parts: str) -> str:
    """A name for files and ids, of letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", "-".join(parts).lower()).strip("-")


def _dots(sheet: Sheet, name: str) -> Panel:
    series = tuple(
        Series(
            row.label, ((0, found),) if (found := row.measure(name)) else (), row.role == "control"
        )
        for row in sheet.rows
    )
    measures = [each for one in series for _, each in one.points]
    return Panel(described(name).title, unit(name, measures), series)


def _curve(sheet: Sheet, name: str) -> Panel:
    costs = kind(name) == "cost"
    found = [
        Series(row.label, _over(row.listed("curve"), name), row.role == "control")
        for row in sheet.rows
    ]
    series = [_level(one, sheet, name, found) for one in found]
    if costs:
        series = [_positive(one) for one in series]
    measures = [each for one in series for _, each in one.points]
    return Panel(
        described(name).meaning if costs else described(name).title,
        unit(name, measures),
        tuple(one for one in series if one.points),
        x_title="facts taught",
        x_scale="log",
        lines=True,
        log_y=costs,
    )


def _positive(one: Series) -> Series:
    """What has a place on a logarithmic axis."""
    kept = ((x, each) for x, each in one.points if each.value > 0)
    lows = ((x, replace(each, low=each.low if each.low > 0 else each.value)) for x, each in kept)
    return replace(one, points=tuple(lows))


def _lines(
    title: str, series: Sequence[Series], x_title: str, scale: Scale = "plain"
) -> Panel | None:
    kept = tuple(one for one in series if one.points)
    return Panel(title, "share", kept, x_title, scale, lines=True) if kept else None


def _level(one: Series, sheet: Sheet, name: str, among: Sequence[Series]) -> Series:
    """The bare host, which was taught nothing, as a level line where it has no curve."""
    found = sheet.floor(name)
    if one.points or not found or not sheet.bare or one.label != sheet.bare.label:
        return one
    xs = [x for each in among for x, _ in each.points]
    return replace(one, points=((min(xs), found), (max(xs), found)))


def _together(name: str, title: str, panels: Iterable[Panel | None]) -> list[Plot]:
    kept = tuple(panel for panel in panels if panel)
    return [Plot(name, title, kept, tasks=True)] if kept else []


def _difference(sheet: Sheet, name: str) -> Panel | None:
    bare = sheet.bare and sheet.bare.measure(name)
    found = {row.label: row.measure(name) for row in sheet.rows if row.label != BARE}
    measures = [each for each in found.values() if each]
    if not bare or not measures:
        return None
    ratio = unit(name, [*measures, bare]) != "share" and min(m.low for m in (*measures, bare)) > 0
    series = tuple(
        Series(row.label, ((0, difference(each, bare, ratio=ratio)),), row.role == "control")
        for row in sheet.rows
        if (each := found.get(row.label))
    )
    title = described(name).title
    words = "relative change, %" if ratio else "difference, percentage points"
    better = "lower" if described(name).best == "low" else "higher"
    return Panel(f"{title} ({better} is better)", "share", series, x_title=words, zero=True)


def _probe(sheet: Sheet, name: str) -> bool:
    # The task named after them may bring probes of its own.
    return name in PROBES or (sheet.task == "probes" and kind(name) == "other")


def _ages(row: Row) -> tuple[tuple[float, Measure], ...]:
    found = []
    for each in row.listed("retention_by_age"):
        here, start, end = measure(each), each.get("from"), each.get("to")
        if here and isinstance(start, int | float) and isinstance(end, int | float):
            found.append(((start + end) / 2, here))
    return tuple(sorted(found, key=lambda point: point[0]))


def _over(points: Iterable[Mapping[str, Any]], name: str) -> tuple[tuple[float, Measure], ...]:
    found = [
        (float(x), here)
        for each in points
        if (x := taught(each)) and (here := measure(each.get(name)))
    ]
    return tuple(sorted(found, key=lambda point: point[0]))


def _points(row: Row, names: Sequence[str]) -> tuple[tuple[float, Measure], ...]:
    return tuple((distance(name) or 0, here) for name in names if (here := row.measure(name)))


def _log(of: Measure) -> Measure:
    return Measure(math.log(of.value), math.log(of.low), math.log(of.high), of.n)


def _told(one: Series, panel: Panel) -> str:
    def value(each: Measure) -> str:
        return f"{each.value:+.1%}" if panel.zero else written(each.value, panel.unit)

    if not panel.lines:
        return value(one.points[0][1])
    return ", ".join(f"{value(each)} at {told_place(x)}" for x, each in one.points)


def told_place(x: float) -> str:
    """A place on an axis: digits behind the point only where it is small."""
    return f"{x:,.0f}" if x >= 100 or x == int(x) else f"{x:.3g}"
