"""Answers by example: what was asked, what was wanted, what was said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from engram_transformers.evaluation.report.palette import Colour
from engram_transformers.evaluation.report.sheet import Row, Sheet
from engram_transformers.evaluation.report.tables import swatch

SHOWN = 5
"Examples of each kind that are shown."
LONGEST = 280
_ENDS = 140


def examples(sheets: Sequence[Sheet], colours: Mapping[str, Colour]) -> str:
    """A fold for every row of every task that has examples."""
    parts = []
    for sheet in sheets:
        folds = "".join(_fold(row, colours) for row in sheet.rows)
        if folds:
            head = f"<summary><b>{escape(sheet.title)}</b></summary>"
            parts.append(f"<details>{head}{folds}</details>")
    return "".join(parts)


def _fold(row: Row, colours: Mapping[str, Colour]) -> str:
    found = {kind: _cases(row, kind) for kind in ("wrong", "right")}
    if not any(found.values()):
        return ""
    counts = ", ".join(f"{len(cases)} {kind}" for kind, cases in found.items() if cases)
    lists = "".join(_list(cases, kind) for kind, cases in found.items() if cases)
    head = f"{swatch(row.label, colours)} <small>{counts}</small>"
    return f"<details><summary>{head}</summary>{lists}</details>"


def _list(cases: Sequence[Mapping[str, Any]], kind: str) -> str:
    items = "".join(_case(case, kind) for case in cases)
    return f'<ul class="cases" aria-label="{kind}">{items}</ul>'


def _cases(row: Row, kind: str) -> list[Mapping[str, Any]]:
    cases = row.mapped("examples").get(kind)
    if not isinstance(cases, list):
        return []
    kept: list[Mapping[str, Any]] = [case for case in cases if isinstance(case, dict)]
    return kept[:SHOWN]


def _case(case: Mapping[str, Any], kind: str) -> str:
    group = f" <small>{escape(str(case['group']))}</small>" if case.get("group") else ""
    sign = "✓" if kind == "right" else "✗"
    lines = (
        f'<span><span class="label">{name}</span>{_said(case.get(name))}</span>'
        for name in ("asked", "wanted", "said")
    )
    return f"<li>{sign} {kind}{group}{''.join(lines)}</li>"


def _said(found: object) -> str:
    """A text as it is; of a long one the beginning and the end."""
    if isinstance(found, list | tuple):
        found = " / ".join(map(str, found))
    text = "" if found is None else str(found)
    if len(text) > LONGEST:
        text = f"{text[:_ENDS]} … {text[-_ENDS:]}"
    return escape(text) if text.strip() else "<i>nothing</i>"
