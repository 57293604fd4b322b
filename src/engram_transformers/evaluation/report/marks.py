"""Which values of a column are the best, and which the data do not tell from the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.columns import comparable, described, kind
from engram_transformers.evaluation.report.sheet import ENOUGH, Row, Sheet, above, measured

Mark = Literal["best", "tied"]
RULE = (
    "Bold is the best value of a column; = marks values whose 95 % interval overlaps that of the "
    "best, so that these data do not separate them. References and controls do not compete: the "
    "bare host was taught nothing, and text/oracle is handed the very fact that is asked for. "
    "Memories compete only with equally many facts taught. In columns about what was taught, "
    "nothing is marked unless the best interval lies above that of the bare host; for cost, only "
    f"memories compete that reach {100 * ENOUGH:.0f} % of the best recall. Columns with one "
    "competitor, and metrics of which it is unknown which values are good, are not marked."
)


def marks(sheet: Sheet, name: str) -> dict[str, Mark]:
    """The marks of a column by label of the row."""
    # What teaches nothing costs nothing: such a bargain is none.
    rows = sheet.able if kind(name) == "cost" and sheet.taught else sheet.contenders
    found = measured(rows, name)
    if len(found) < 2 or not comparable(name):
        return {}
    top = best(found, name)
    if kind(name) == "recall" and not above(top, sheet.floor(name)):
        return {}
    return {
        label: "best" if each.value == top.value else "tied"
        for label, each in found.items()
        if overlap(each, top)
    }


def leaders(rows: Sequence[Row], name: str | None) -> list[str]:
    """The best of some rows and all that are tied with it, from the best value down."""
    found = measured(rows, name) if name else {}
    if not found or name is None:
        return []
    top = best(found, name)
    sign = 1 if described(name).best == "low" else -1
    ranked = sorted(found, key=lambda label: sign * found[label].value)
    return [label for label in ranked if overlap(found[label], top)]


def best(found: Mapping[str, Measure], name: str) -> Measure:
    """The best value; of equal ones that with the narrowest interval."""
    sign = 1 if described(name).best == "low" else -1
    return min(found.values(), key=lambda each: (sign * each.value, each.high - each.low))


def overlap(one: Measure, other: Measure) -> bool:
    """Whether two intervals have a point in common."""
    return one.low <= other.high and other.low <= one.high
