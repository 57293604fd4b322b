"""What a study is: a question, its units of work, and what follows from their results."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from engram_transformers.evaluation.metrics import Measure
from engram_transformers.evaluation.report.plots import Plot
from engram_transformers.types import Told


@dataclass(frozen=True)
class Unit:
    """A piece of work that is done as a whole or not at all."""

    name: str
    settings: Mapping[str, Any]
    "Plain JSON data: everything that decides about the numbers, and nothing else."

    @property
    def digest(self) -> str:
        """Changes with anything that decides about the numbers."""
        text = json.dumps(self.settings, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    @property
    def file(self) -> str:
        """The name of the file that keeps what was measured."""
        return f"{re.sub(r'[^a-z0-9.]+', '-', self.name.lower()).strip('-')}-{self.digest}.json"


@dataclass(frozen=True)
class Done:
    """A unit with what was measured."""

    unit: Unit
    measured: dict[str, Any]
    "Plain JSON data."
    seconds: float
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """One line of a table: a number with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float
    "Equal to `low` where a single run leaves no interval."
    n: int
    "Cases behind the number."
    seeds: int
    "Runs behind the number, each with a seed of its own."
    more: Mapping[str, Any] = field(default_factory=dict)
    "Further columns."


@dataclass(frozen=True)
class Table:
    """Rows of one kind."""

    title: str
    value: str
    "What the numbers are, and their unit."
    rows: tuple[Row, ...]
    about: str = ""
    "What one has to know to read it."


@dataclass(frozen=True)
class Heatmap:
    """Numbers from 0 to 1 over words and layers."""

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    values: tuple[tuple[float, ...], ...]
    "(rows, columns)"

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns as they can be seen: line breaks and lone spaces as signs."""
        return tuple(word.replace("\n", "↵").strip() or "␣" for word in self.columns)

    @property
    def words(self) -> str:
        """The plot told to those who cannot see it."""
        pairs = [(v, w) for row in self.values for v, w in zip(row, self.labels, strict=True)]
        most = ", ".join(f"{word!r} {value:.2f}" for value, word in sorted(pairs)[:-6:-1])
        return f"{self.title}; highest: {most}."


@dataclass(frozen=True)
class Findings:
    """What follows from the units of a study."""

    tables: tuple[Table, ...]
    plots: tuple[Plot | Heatmap, ...] = ()
    notes: tuple[str, ...] = ()
    "What has to be said beside the numbers."


@dataclass(frozen=True)
class Study:
    """A question, and how it is answered.

    All functions stand in modules, so that a study can be handed to another process.
    """

    name: str
    question: str
    Options: type[Any]
    "A frozen dataclass; each field has a default and a string behind it that says what it means."
    plan: Callable[[Any], Sequence[Unit]]
    "The units that these options ask for; raises what is wrong before any work is done."
    measure: Callable[[Unit, Told], dict[str, Any]]
    "Does one unit."
    conclude: Callable[[Any, Sequence[Done]], Findings]
    "What follows, also from some of the units: a study that was interrupted has a page too."
    quick: Mapping[str, Any] = field(default_factory=dict)
    "Options with which it shows in a few minutes that it works; empty: there are none."


def row(
    name: str,
    found: Measure,
    *,
    seeds: int,
    n: int | None = None,
    more: Mapping[str, Any] = MappingProxyType({}),
) -> Row:
    """A line of a table; n is the measure's own unless there is a better count of cases."""
    cases = found.n if n is None else n
    return Row(name, found.value, found.low, found.high, cases, seeds, dict(more))


def settings_of(options: Any, *, but: Sequence[str], **own: Any) -> dict[str, Any]:
    """A unit's settings: the options, but for those that only say which units there are."""
    shared = {name: value for name, value in asdict(options).items() if name not in but}
    plain: dict[str, Any] = json.loads(json.dumps({**own, "options": shared}))
    return plain
