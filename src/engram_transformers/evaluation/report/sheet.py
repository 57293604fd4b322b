"""Results put in order: one sheet a task and host, one row a memory."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.columns import distance, kind, ordered

Role = Literal["memory", "reference", "control"]
BARE = "bare host"
ORACLE = "text/oracle"
TASKS = (
    "zsre", "wikibigedit", "counterfact", "wikidata_cloze", "lookup", "stack_faq", "needle",
    "probes",
)  # fmt: skip
"Tasks in reading order; others follow by name."
ROWS = (
    "lookup", "text/retrieval", "text/examples", "lora", "fine_tune", "bottleneck", "bias",
)  # fmt: skip
"Memories in reading order; others follow by name."
ABOUT = {
    BARE: "the host without a memory",
    ORACLE: "the right fact put into the prompt by one who knows which is asked for",
    "text/retrieval": "facts that resemble the question are searched and put into the prompt",
    "text/examples": "facts that resemble the question stand before it as turns of the talk",
    "lookup": "each fact has rows of its own, which act only where its question is recognised",
    "lora": "low-rank changes of the weights are trained",
    "fine_tune": "the weights themselves are trained",
    "bottleneck": "a small two-layer network behind each late block is trained",
    "bias": "a bias behind each late block is trained",
    "lookup/shuffled": "control: the taught answers are dealt out among the facts",
    "lookup/empty": "control: nothing is taught",
    "none/context": "control: the bare host, with the fact in the talk before the text",
    "wrong": "control: a memory of something else",
}
ENOUGH = 0.8
"Share of the best recall from which a memory counts as one that does the job."
_UNRELATED = ("loc_bitexact", "loc_same")


@dataclass(frozen=True)
class Row:
    """What one memory did on one task."""

    label: str
    role: Role
    result: Mapping[str, Any]
    note: str = ""
    "How it was taught, where the memories of a sheet differ in that."

    def measure(self, name: str) -> Measure | None:
        """A measured number, or None."""
        return measure(self.result.get(name))

    @property
    def names(self) -> list[str]:
        """The metrics that were measured."""
        return [name for name, found in self.result.items() if measure(found)]

    def listed(self, name: str) -> list[Mapping[str, Any]]:
        """The objects of a list in the result; nothing where there is no such list."""
        found = self.result.get(name)
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []

    def mapped(self, name: str) -> Mapping[str, Any]:
        """An object in the result; an empty one where there is none."""
        found = self.result.get(name)
        return found if isinstance(found, dict) else {}


@dataclass(frozen=True)
class Sheet:
    """All rows of one task on one host: memories, then references, then controls."""

    task: str
    title: str
    rows: tuple[Row, ...]

    @property
    def names(self) -> list[str]:
        """Every metric that some row has, in reading order."""
        return ordered(name for row in self.rows for name in row.names)

    @property
    def memories(self) -> list[Row]:
        """The rows that are neither references nor controls."""
        return [row for row in self.rows if row.role == "memory"]

    @property
    def contenders(self) -> list[Row]:
        """The memories that are compared: those that were taught equally many facts.

        Fewer facts make a task easier. Of several numbers the largest counts that two memories
        share; none are compared where no two share one.
        """
        counts = [row.result.get("n") for row in self.memories]
        if len(set(map(str, counts))) < 2:
            return self.memories
        shared = [n for n in counts if isinstance(n, int) and counts.count(n) > 1]
        return [row for row in self.memories if shared and row.result.get("n") == max(shared)]

    @property
    def bare(self) -> Row | None:
        """The host without a memory."""
        return next((row for row in self.rows if row.label.startswith(BARE)), None)

    @property
    def working(self) -> list[Row]:
        """The contenders whose recall of taught prompts lies above the bare host's."""
        name = self.taught
        found = measured(self.contenders, name) if name else {}
        floor = self.floor(name) if name else None
        return [
            row for row in self.contenders if row.label in found and above(found[row.label], floor)
        ]

    @property
    def able(self) -> list[Row]:
        """Those of them that come near the best."""
        found = measured(self.working, self.taught or "")
        top = max((each.value for each in found.values()), default=0.0)
        return [row for row in self.working if found[row.label].value >= ENOUGH * top]

    def floor(self, name: str) -> Measure | None:
        """The bare host's value, where it was measured."""
        return self.bare.measure(name) if self.bare else None

    @property
    def taught(self) -> str | None:
        """The metric that tells whether teaching worked; of the needle task the farthest."""
        names = self.names
        needles = [name for name in names if distance(name) is not None]
        return "gen_rel" if "gen_rel" in names else needles[-1] if needles else None

    @property
    def wordings(self) -> str | None:
        """The metric for wordings that were not taught."""
        others = [
            name
            for name in self.names
            if name.startswith("gen_")
            and not name.endswith("_contains")
            and name not in ("gen_rel", "gen_stop")
        ]
        return "gen_gen" if "gen_gen" in others else others[0] if others else None

    @property
    def spared(self) -> list[str]:
        """The metrics for what was not taught: unrelated prompts, and each kind of near miss."""
        names = self.names
        unrelated = [name for name in _UNRELATED if name in names][:1]
        near = [n for n in names if n.startswith("hard_") and not n.endswith("bitexact")]
        return [*unrelated, *near]

    @property
    def unchanged(self) -> str | None:
        """Of those, the one on which the best memory does worst."""

        def best(name: str) -> float:
            found = measured(self.contenders, name)
            return max((each.value for each in found.values()), default=1.0)

        return min(self.spared, key=best, default=None)

    @property
    def chosen(self) -> list[str]:
        """The few metrics that stand for the task where space is short."""
        # A host that reads its facts tends to answer in a sentence: that it holds the answer
        # must not go unseen.
        held = f"{self.wordings}_contains" if self.wordings else None
        among = self.names
        found = [name for name in (self.taught, self.wordings, held, *self.spared) if name]
        found = [name for name in found if name in among]
        if self.taught:
            return found
        return [name for name in self.names if kind(name) != "cost"][:3]

    def at_most(self) -> tuple[int, Sheet] | None:
        """The curves at the largest number of facts that a memory was taught.

        Rows that were not measured there are left out, but for the bare host, whose numbers
        do not depend on what is taught.
        """
        counts = [taught(p) for row in self.memories for p in row.listed("curve")]
        most = max((count for count in counts if count), default=None)
        if most is None:
            return None
        rows = []
        for row in self.rows:
            points = [point for point in row.listed("curve") if taught(point) == most]
            if points:
                rows.append(replace(row, result={**points[0], "n": most}))
            elif row is self.bare:
                rows.append(row)
        return most, replace(self, rows=tuple(rows))


def sheets(results: Sequence[Mapping[str, Any]]) -> list[Sheet]:
    """The results by task and host, in reading order."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for result in results:
        found[str(result["task"]), host(result)].append(result)
    several = len({name for _, name in found}) > 1
    keys = sorted(found, key=lambda key: (_place(key[0], TASKS), key))
    return [
        Sheet(task, f"{task}, {name}" if several else task, _rows(found[task, name]))
        for task, name in keys
    ]


def labels(sheets: Sequence[Sheet]) -> list[str]:
    """The labels of all rows, each once, in reading order."""
    rows = {row.label: row for sheet in sheets for row in sheet.rows}
    return [row.label for row in sorted(rows.values(), key=_order)]


def host(result: Mapping[str, Any]) -> str:
    """The host that a result was measured on."""
    came = result.get("provenance")
    return str(came.get("host") or "an unnamed host") if isinstance(came, dict) else "a host"


def taught(point: Mapping[str, Any]) -> int | None:
    """How many facts were taught at a point of a curve."""
    count = point.get("T")
    return int(count) if isinstance(count, int | float) and count > 0 else None


def measure(found: object) -> Measure | None:
    """A stored number with its interval; None for what is none, or was counted on nothing."""
    if not isinstance(found, dict) or not _number(found.get("value")):
        return None
    value = float(found["value"])
    low, high = (found[k] if _number(found.get(k)) else value for k in ("low", "high"))
    cases = found.get("n")
    return Measure(value, float(low), float(high), cases if isinstance(cases, int) else 0)


def measured(rows: Sequence[Row], name: str) -> dict[str, Measure]:
    """The values of a column by label, where there are any."""
    found = {row.label: row.measure(name) for row in rows}
    return {label: each for label, each in found.items() if each is not None}


def above(one: Measure, floor: Measure | None) -> bool:
    """Whether an interval lies above another; so it does where there is no other."""
    return floor is None or one.low > floor.high


def _number(found: object) -> bool:
    return isinstance(found, int | float) and math.isfinite(found)


def _rows(results: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
    rows: dict[str, Row] = {}
    for result in results:
        name = _name(result)
        # Two results of one memory are told apart by what differs, at last by their number.
        twins = [one for one in results if _name(one) == name]
        differing = [
            key for key in ("protocol", "n", "seed") if len({str(o.get(key)) for o in twins}) > 1
        ]
        label = ", ".join([name, *(f"{key} {result.get(key)}" for key in differing)])
        if label in rows:
            label = f"{label} #{sum(each.startswith(label) for each in rows) + 1}"
        rows[label] = Row(label, _role(result, name), result, _note(result, results))
    return tuple(sorted(rows.values(), key=_order))


def _note(result: Mapping[str, Any], among: Sequence[Mapping[str, Any]]) -> str:
    protocol, n = result.get("protocol"), result.get("n")
    words: list[str] = []
    if _name(result) == BARE:
        return ""
    if len({str(each.get("n")) for each in among if _name(each) not in (BARE, ORACLE)}) > 1:
        words.append(f"{n:,} facts" if isinstance(n, int) else "")
    if len({str(each["protocol"]) for each in among if each.get("protocol")}) > 1:
        words.append(str(protocol or ""))
    return ", ".join(word for word in words if word)


def _name(result: Mapping[str, Any]) -> str:
    memory, variant = str(result["memory"]), str(result.get("variant") or "default")
    name = memory if variant == "default" else f"{memory}/{variant}"
    control = result.get("control")
    if control and control not in (memory, variant):
        name = f"{name}/{control}"
    return BARE if name == "none" else name


def _role(result: Mapping[str, Any], name: str) -> Role:
    if result.get("control") or "wrong" in name.split("/"):
        return "control"
    return "reference" if name in (BARE, ORACLE) else "memory"


def _order(row: Row) -> tuple[int, int, str]:
    roles = ("memory", "reference", "control")
    return roles.index(row.role), _place(row.label.split(",")[0], ROWS), row.label


def _place(name: str, known: Sequence[str]) -> int:
    """Where a name stands; a variant stands with its memory."""
    if name not in known:
        name = name.partition("/")[0]
    return known.index(name) if name in known else len(known)
