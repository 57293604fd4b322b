"""The compact table of all results for the README and the documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from engram_transformers.evaluation.report.columns import described, interval, unit, written
from engram_transformers.evaluation.report.marks import Mark, marks
from engram_transformers.evaluation.report.sheet import Sheet, host, labels, measured, sheets

_NOTE = (
    "Shares in percent, 95 % intervals small. **Bold**: best of its column; =: its interval "
    "overlaps that of the best. *Italic* rows are references and controls, which do not compete."
)


def master_table(results: Sequence[Mapping[str, Any]]) -> str:
    """GitHub Markdown: a row a memory, the few metrics that stand for each task as columns."""
    found = sheets(results)
    columns = [(sheet, name) for sheet in found for name in _few(sheet)]
    roles = {row.label: row.role for sheet in found for row in sheet.rows}
    lines = [
        _line(["memory", *(_head(sheet, name) for sheet, name in columns)]),
        _line(["---"] * (len(columns) + 1)),
    ]
    marked = [marks(sheet, name) for sheet, name in columns]
    for label in labels(found):
        name = _plain(label) if roles[label] == "memory" else f"*{_plain(label)}*"
        cells = (
            _cell(sheet, metric, label, here)
            for (sheet, metric), here in zip(columns, marked, strict=True)
        )
        lines.append(_line([name, *cells]))
    hosts = _plain(" and ".join(sorted({host(result) for result in results})))
    return "\n".join([*lines, "", f"Measured on {hosts}. {_NOTE}"])


def _few(sheet: Sheet) -> list[str]:
    """Probes have one place in a table that is about what is taught."""
    return sheet.chosen if sheet.taught else sheet.chosen[:1]


def _head(sheet: Sheet, name: str) -> str:
    return f"{_plain(sheet.title)}: {_plain(described(name).title)}{_cases(sheet, name)}"


def _cases(sheet: Sheet, name: str) -> str:
    """The n that all rows share, or its span."""
    counts = {found.n for row in sheet.rows if (found := row.measure(name)) and found.n}
    if not counts:
        return ""
    span = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,}–{max(counts):,}"
    return f"<br><sub>n {span}</sub>"


def _cell(sheet: Sheet, name: str, label: str, marked: Mapping[str, Mark]) -> str:
    row = next((row for row in sheet.rows if row.label == label), None)
    found = row.measure(name) if row else None
    if row is None or found is None:
        return ""
    of = unit(name, measured(sheet.rows, name).values())
    value = written(found.value, of)
    mark = marked.get(label)
    value = f"**{value}**" if mark == "best" else f"{value} =" if mark == "tied" else value
    # How it was taught is said once a task.
    note = _plain(row.note) if name == sheet.chosen[0] else ""
    beside = ", ".join(each for each in (interval(found, of), note) if each)
    return f"{value} <sub>{beside}</sub>" if beside else value


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    for sign in "\\`*_|[]":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(escape(text, quote=False).split())
