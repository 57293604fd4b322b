"""Which memory for which facts: read off the results by a rule, never typed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.columns import distance
from engram_transformers.evaluation.report.marks import leaders
from engram_transformers.evaluation.report.sheet import ENOUGH, Row, Sheet, measured

UNCHANGED = 0.95
"Share of unrelated prompts that must stay as they were."
JOBS = {
    "zsre": "single questions",
    "wikibigedit": "single questions",
    "counterfact": "beginnings to continue",
    "wikidata_cloze": "beginnings to continue",
    "lookup": "exact keys",
    "keys": "exact keys",
    "stack_faq": "FAQ that must abstain",
    "needle": "facts asked for far into a text",
}
NEEDS = {
    "taught": "best on taught prompts",
    "wordings": "best on other wordings",
    "unchanged": "leaves the rest unchanged",
    "forgets": "forgets exactly",
    "cheapest": "cheapest to teach",
    "fastest": "fastest to decode",
}
RULE = (
    "Each cell names the best memory and all whose 95 % interval overlaps its own, with their "
    "values. Only memories whose recall of taught prompts lies, interval against interval, above "
    "the bare host are considered; in the columns after “best on other wordings” only those that "
    f"reach {100 * ENOUGH:.0f} % of the best recall. “Leaves the rest unchanged” needs "
    f"{100 * UNCHANGED:.0f} % of the prompts, of the kind on which the best memory does worst, "
    "“forgets exactly” all of them. “Use” starts from "
    "the best on other wordings (on taught prompts, where no others were asked); ties are broken "
    "by taught prompts, then by what stays unchanged, then by forgetting; what is still tied is "
    "named together. Cost does not decide: that trade is yours."
)


@dataclass(frozen=True)
class Cell:
    """The memories that meet a need, with their values, and the metric that says so."""

    metric: str | None
    named: dict[str, Measure]


@dataclass(frozen=True)
class Decision:
    """One row of the decision table."""

    job: str
    task: str
    cells: dict[str, Cell]
    use: tuple[str, ...]
    "The memories to use; empty if none recalls more than the bare host."
    compared: int
    "How many memories were measured."


def decisions(sheets: Sequence[Sheet]) -> list[Decision]:
    """A row for each task that teaches, and one for the largest number of facts it was taught."""
    found = []
    for sheet in sheets:
        most = sheet.at_most()
        if most is None or any(row.result.get("n") != most[0] for row in sheet.contenders):
            found.append(_decide(sheet, JOBS.get(sheet.task, sheet.task)))
        if most is not None:
            found.append(_decide(most[1], f"many facts: {most[0]:,}"))
    return [each for each in found if each is not None]


def _decide(sheet: Sheet, job: str) -> Decision | None:
    compared = measured(sheet.contenders, sheet.taught) if sheet.taught else {}
    if sheet.taught is None or not compared:
        return None
    working, able = sheet.working, sheet.able
    cells = {
        "taught": _cell(working, sheet.taught),
        "wordings": _cell(working, sheet.wordings),
        "unchanged": _at_least(UNCHANGED, _cell(able, sheet.unchanged)),
        "forgets": _at_least(1, _cell(able, _first(sheet, "undo_exact"))),
        "cheapest": _cell(able, _first(sheet, "seconds_per_fact")),
        "fastest": _cell(able, _first(sheet, "slowdown", "ms_per_token")),
    }
    return Decision(_far(job, sheet.taught), sheet.title, cells, _use(cells), len(compared))


def _cell(rows: Sequence[Row], name: str | None) -> Cell:
    found = measured(rows, name) if name else {}
    return Cell(name, {label: found[label] for label in leaders(rows, name)})


def _at_least(share: float, cell: Cell) -> Cell:
    kept = {label: each for label, each in cell.named.items() if each.value >= share}
    return replace(cell, named=kept)


def _use(cells: dict[str, Cell]) -> tuple[str, ...]:
    kept = list(cells["wordings"].named or cells["taught"].named)
    for need in ("taught", "unchanged", "forgets"):
        kept = [label for label in kept if label in cells[need].named] or kept
    return tuple(kept)


def _first(sheet: Sheet, *names: str) -> str | None:
    return next((name for name in names if name in sheet.names), None)


def _far(job: str, name: str) -> str:
    tokens = distance(name)
    return job if tokens is None else f"{job}: {tokens:,} tokens"
