"""The tables of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.columns import (
    COST,
    KINDS,
    described,
    interval,
    kind,
    ordered,
    unit,
    written,
)
from engram_transformers.evaluation.report.decisions import NEEDS, Cell, Decision
from engram_transformers.evaluation.report.drawing import variable
from engram_transformers.evaluation.report.marks import Mark, marks
from engram_transformers.evaluation.report.palette import Colour
from engram_transformers.evaluation.report.sheet import Row, Sheet, labels, measure, measured

_ROLES = {
    "memory": "",
    "reference": "for reference",
    "control": "controls",
}


@dataclass(frozen=True)
class Column:
    """One metric of one sheet, ready to be shown."""

    sheet: Sheet
    name: str

    @cached_property
    def unit(self) -> str:
        """The unit that suits all values of the column."""
        return unit(self.name, measured(self.sheet.rows, self.name).values())

    @cached_property
    def n(self) -> int | None:
        """The number of cases, where all rows share it."""
        counts = {found.n for found in measured(self.sheet.rows, self.name).values() if found.n}
        return counts.pop() if len(counts) == 1 else None

    @cached_property
    def marks(self) -> dict[str, Mark]:
        """The marks by label of the row."""
        return marks(self.sheet, self.name)


Groups = Sequence[tuple[str, Sequence[Column]]]


def glance(sheets: Sequence[Sheet], colours: Mapping[str, Colour]) -> str:
    """All tasks side by side, a few metrics each, and the costs of the first that has them."""
    groups = [(sheet.title, [Column(sheet, name) for name in sheet.chosen]) for sheet in sheets]
    for sheet in sheets:
        costs = [Column(sheet, name) for name in COST[:3] if name in sheet.names]
        if costs:
            groups.append((f"cost ({sheet.title})", costs))
            break
    return _table("All memories and tasks", sheets, groups, colours)


def full(sheet: Sheet, colours: Mapping[str, Colour]) -> str:
    """Every number of one task."""
    names = sheet.names
    groups = [
        (title, [Column(sheet, name) for name in names if kind(name) == each])
        for each, title in KINDS.items()
    ]
    return _table(f"All numbers of {sheet.title}", [sheet], groups, colours)


def categories(sheet: Sheet, colours: Mapping[str, Colour]) -> str:
    """A table for each metric that was split by category: a row a memory."""
    found: dict[str, dict[str, dict[str, Measure]]] = {}
    for row in sheet.rows:
        for name, split in row.mapped("categories").items():
            for category, each in split.items() if isinstance(split, dict) else ():
                here = measure(each)
                if here:
                    found.setdefault(name, {}).setdefault(category, {})[row.label] = here
    return "".join(_split(name, found[name], sheet, colours) for name in ordered(found))


def _split(
    name: str,
    found: Mapping[str, Mapping[str, Measure]],
    sheet: Sheet,
    colours: Mapping[str, Colour],
) -> str:
    of = unit(name, [each for some in found.values() for each in some.values()])
    heads = "".join(f'<th scope="col">{escape(category)}</th>' for category in sorted(found))
    title = described(name).title
    rows = ""
    for label in (row.label for row in sheet.rows if any(row.label in f for f in found.values())):
        cells = "".join(_plain_cell(found[each].get(label), of) for each in sorted(found))
        rows += f'<tr><th scope="row">{swatch(label, colours)}</th>{cells}</tr>'
    head = f'<thead><tr><th scope="col">{escape(title)}</th>{heads}</tr></thead>'
    return scrolled(f"{title} by category", f"<table>{head}<tbody>{rows}</tbody></table>")


def _plain_cell(found: Measure | None, of: str) -> str:
    if found is None:
        return '<td class="none">–</td>'
    cases = f"<small>n {found.n:,}</small>" if found.n else ""
    return f"<td>{written(found.value, of)}<small>{interval(found, of)}</small>{cases}</td>"


def decided(found: Sequence[Decision], colours: Mapping[str, Colour]) -> str:
    """The decision table."""
    heads = "".join(f'<th scope="col">{need}</th>' for need in NEEDS.values())
    head = f'<tr><th scope="col">kind of fact</th><th scope="col">use</th>{heads}</tr>'
    rows = "".join(_decision(each, colours) for each in found)
    return scrolled(
        "Which memory for which facts",
        f'<table class="choices"><thead>{head}</thead><tbody>{rows}</tbody></table>',
    )


def swatch(label: str, colours: Mapping[str, Colour]) -> str:
    """A memory's name with its colour."""
    colour = variable(colours[label].light, colours)
    return f'<i class="swatch" style="background: {colour}"></i>{escape(label)}'


def scrolled(name: str, table: str) -> str:
    """A table that scrolls by itself, also from the keyboard, and leaves the page where it is."""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(name)}">{table}</div>'
    )


def _table(
    name: str, sheets: Sequence[Sheet], groups: Groups, colours: Mapping[str, Colour]
) -> str:
    groups = [group for group in groups if group[1]]
    rows = {row.label: row for sheet in sheets for row in sheet.rows}
    parts = []
    for role, title in _ROLES.items():
        some = [rows[label] for label in labels(sheets) if rows[label].role == role]
        if some:
            span = sum(len(columns) for _, columns in groups)
            head = (
                f'<tr class="role"><th scope="rowgroup">{title}</th><td colspan="{span}"></td></tr>'
            )
            body = "".join(_row(row, groups, colours) for row in some)
            parts.append(f'<tbody class="{role}">{head if title else ""}{body}</tbody>')
    return scrolled(name, f"<table>{_head(groups)}{''.join(parts)}</table>")


def _head(groups: Groups) -> str:
    above = "".join(
        f'<th scope="colgroup" class="first" colspan="{len(columns)}">{escape(title)}</th>'
        for title, columns in groups
    )
    below = "".join(
        _column_head(column, i == 0) for _, columns in groups for i, column in enumerate(columns)
    )
    corner = '<th scope="col" rowspan="2">memory</th>'
    return f"<thead><tr>{corner}{above}</tr><tr>{below}</tr></thead>"


def _column_head(column: Column, first: bool) -> str:
    found = described(column.name)
    low = " ↓" if found.best == "low" else ""
    cases = f"<small>n {column.n:,}</small>" if column.n else ""
    return (
        f'<th scope="col"{_first(first)} title="{escape(found.meaning)}">'
        f"{escape(found.title).replace('-', '‑')}{low}{cases}</th>"
    )


def _row(row: Row, groups: Groups, colours: Mapping[str, Colour]) -> str:
    note = f"<small>{escape(row.note)}</small>" if row.note else ""
    # Where tasks stand side by side, what a row was taught differs from cell to cell.
    note = (
        note
        if len({column.sheet.title for _, columns in groups for column in columns}) == 1
        else ""
    )
    cells = "".join(
        _value(row.label, column, i == 0)
        for _, columns in groups
        for i, column in enumerate(columns)
    )
    return f'<tr><th scope="row">{swatch(row.label, colours)}{note}</th>{cells}</tr>'


def _value(label: str, column: Column, first: bool) -> str:
    row = next((row for row in column.sheet.rows if row.label == label), None)
    found = row.measure(column.name) if row else None
    if row is None or found is None:
        reason = row.mapped("absent").get(column.name) if row else None
        hint = f' title="{escape(str(reason))}"' if reason else ""
        return f"<td{_first(first, 'none')}{hint}>–</td>"
    mark = column.marks.get(label)
    value = written(found.value, column.unit)
    shown = {
        "best": f"<b>{value}</b>",
        "tied": f'{value}<span title="tied with the best"> =</span>',
    }.get(mark or "", value)
    return f"<td{_first(first, mark or '')}>{shown}{_details(found, column, row.note)}</td>"


def _details(found: Measure, column: Column, note: str) -> str:
    parts = [interval(found, column.unit), escape(note)]
    if column.n is None and found.n:
        parts.append(f"n {found.n:,}")
    return "".join(f"<small>{part}</small>" for part in parts if part)


def _first(first: bool, more: str = "") -> str:
    names = " ".join(name for name in ("first" if first else "", more) if name)
    return f' class="{names}"' if names else ""


def _decision(each: Decision, colours: Mapping[str, Colour]) -> str:
    use = " or ".join(swatch(label, colours) for label in each.use)
    use = f"<b>{use}</b>" if use else "none beats the bare host"
    cells = "".join(f"<td>{_named(cell, colours)}</td>" for cell in each.cells.values())
    some = "one memory measured" if each.compared == 1 else f"{each.compared} memories compared"
    title = f"{escape(each.job)}<small>{escape(each.task)}, {some}</small>"
    return f'<tr><th scope="row">{title}</th><td class="use">{use}</td>{cells}</tr>'


def _named(cell: Cell, colours: Mapping[str, Colour]) -> str:
    if cell.metric is None:
        return '<span class="none">not measured</span>'
    of = unit(cell.metric, cell.named.values())
    found = (
        f"<div>{swatch(label, colours)} <small>{written(each.value, of)}</small></div>"
        for label, each in cell.named.items()
    )
    return "".join(found) or '<span class="none">none</span>'
