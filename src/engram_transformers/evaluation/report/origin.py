"""Where the numbers come from: host, commit, machine, versions, options, commands."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from engram_transformers.evaluation.report.sheet import Sheet
from engram_transformers.evaluation.report.tables import scrolled

_COMMANDS = ("command", "commands")


def origin(results: Sequence[Mapping[str, Any]], sheets: Sequence[Sheet]) -> str:
    """What all results share, what each was made with, and the commands."""
    return f"{_shared(results)}{_settings(sheets)}{_commands(results)}"


def _shared(results: Sequence[Mapping[str, Any]]) -> str:
    came = [
        each for each in (result.get("provenance") for result in results) if isinstance(each, dict)
    ]
    keys = sorted({key for each in came for key in each if key not in _COMMANDS})
    rows = {key: _values([each[key] for each in came if each.get(key) is not None]) for key in keys}
    seconds = [r["seconds"] for r in results if isinstance(r.get("seconds"), int | float)]
    rows["results"] = f"{len(results)}"
    if seconds:
        rows["measuring took"] = f"{sum(seconds) / 3600:,.1f} hours in all"
    lines = "".join(
        f'<tr><th scope="row">{escape(str(key))}</th><td>{escape(value)}</td></tr>'
        for key, value in rows.items()
        if value
    )
    return f'<table class="plain"><tbody>{lines}</tbody></table>'


def _values(found: Sequence[object]) -> str:
    """The values that results have, the most frequent first, counted where they differ."""
    counts = Counter(map(_text, found))
    if len(counts) < 2:
        return "".join(counts)
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return "; ".join(f"{value} ({count} results)" for value, count in ranked)


def _settings(sheets: Sequence[Sheet]) -> str:
    rows = "".join(
        "<tr>"
        f"<td>{escape(sheet.title)}</td><td>{escape(row.label)}</td>"
        f"<td>{escape(_text(row.result.get('n', '–')))}</td>"
        f"<td>{escape(_text(row.result.get('seed', '–')))}</td>"
        f"<td>{escape(str(row.result.get('protocol') or '–'))}</td>"
        f"<td><code>{escape(_options(row.mapped('options')))}</code></td></tr>"
        for sheet in sheets
        for row in sheet.rows
    )
    names = ("task", "memory", "n", "seed", "taught", "options")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    table = f'<table class="settings"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    folded = scrolled("Settings of each result", table)
    return f"<details><summary>Settings of each result</summary>{folded}</details>"


def _commands(results: Sequence[Mapping[str, Any]]) -> str:
    found: dict[str, None] = {}
    for result in results:
        came = result.get("provenance")
        for name in _COMMANDS:
            said = came.get(name) if isinstance(came, dict) else None
            for each in said if isinstance(said, list) else [said] if said else []:
                found[_text(each)] = None
    lines = "".join(f"<li><code>{escape(each)}</code></li>" for each in found)
    if not lines:
        return ""
    return f"<details><summary>Commands</summary><ul>{lines}</ul></details>"


def _options(found: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_text(value)}" for name, value in found.items()) or "–"


def _text(found: object) -> str:
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)
