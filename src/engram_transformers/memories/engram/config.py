"""Options of the Engram memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.routes import ROUTES, RouteName
from engram_transformers.memory import Schedule

Layout = Literal["deepseek", "deepseek-v4.1", "qwen", "unigram", "span", "similar"]
Gate = Literal["learned", "plain", "fixed", "content"]
LAYOUTS = ("deepseek", "deepseek-v4.1", "qwen", "unigram", "span", "similar")
SIMILAR = 4
"Rows that the layout `similar` reads unless it is told otherwise."
OWN_RATE = 100.0
GATES = ("learned", "plain", "fixed", "content")


@dataclass(frozen=True)
class EngramConfig:
    """Tables of rows that are looked up by the last tokens read, and added before attention."""

    layers: tuple[int, ...] | None = None
    "Blocks that it acts before, counted from 0; None: the second and the middle one."
    layout: Layout = "deepseek"
    "How tokens become addresses."
    orders: tuple[int, ...] | None = None
    "Lengths of the n-grams; None: those of the layout."
    heads: int = 8
    "Tables for each order; each n-gram reads one row in each."
    rows: int = 10_000
    "Rows of each table; the layouts of published models take the next primes from here on."
    width: int = 32
    "Numbers in a row."
    similar: int = 0
    "Rows read because they are like the host's state, besides those read by address."
    gate: Gate = "learned"
    "`learned` with a signed root, `plain` as in the paper, `fixed`, or `content`: among heads."
    gate_value: float = 1.0
    "What a `fixed` gate lets through."
    conv: bool = False
    "Whether a short causal convolution follows the gate."
    kernel: int = 4
    "Taps of the convolution; they stand as far apart as the longest n-gram is long."
    zero: Literal["rows", "value"] | None = None
    "What is zero to begin with; None: the rows, or `value` where rows are found by content."
    reset: bool | None = None
    "Whether n-grams stop at a token that ends a text; None: as the layout does."
    hash_seed: int | None = None
    "Decides the multipliers of the hash; None: the layout's own."
    route: RouteName = "always"
    "On which prompts it acts at all: look-ups by `rules` or by a `learned` gate, or all `unsure`."
    route_gate: str | None = None
    "Directory of the trained gate that a `learned` route decides by."
    route_threshold: float | None = None
    "Score at which a route opens, or the host is sure; None: the route's own."
    learning_rate: float = 3e-3
    "Highest learning rate of all but the rows."
    table_rate: float | None = None
    "How many times as fast rows learn; None: 5, as in the paper, and 100 for rows of whole keys."
    epochs: int = 12
    "Times that every question is trained at most."
    batch: int = 8
    "Questions in one step."
    seed: int = 0
    "Decides where training starts and the order of the steps."

    def __post_init__(self) -> None:
        for name in ("layers", "orders"):  # JSON and callers bring lists
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, tuple(value))
        _check_choice("layout", self.layout, LAYOUTS)
        _check_choice("gate", self.gate, GATES)
        if self.layout == "similar" and not self.similar:
            object.__setattr__(self, "similar", SIMILAR)
        if self.table_rate is None:
            # The row of a key is read, and so moved, once an epoch.
            object.__setattr__(self, "table_rate", OWN_RATE if self.layout == "span" else 5.0)
        if self.route_gate is not None:  # a memory is opened from other directories, too
            gate = Path(self.route_gate).expanduser().absolute()
            object.__setattr__(self, "route_gate", str(gate))
        if self.zero is None:
            object.__setattr__(self, "zero", "value" if self.similar else "rows")
        _check_choice("zero", str(self.zero), ("rows", "value"))
        _check_choice("route", self.route, ROUTES)
        self._check_similar()
        for name in ("heads", "rows", "width", "kernel"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it has to be at least 1")
        for name in ("layers", "orders"):
            _check_numbers(name, getattr(self, name))
        if self.orders and min(self.orders) < 1:
            raise BadInput(f"orders are {self.orders}; an n-gram has at least 1 token")
        if self.hash_seed is not None and self.hash_seed < 0:
            raise BadInput(f"hash_seed is {self.hash_seed}; use 0 or more")
        if not (self.table_rate or 0) > 0:
            raise BadInput(f"table_rate is {self.table_rate}; it has to be above 0")
        Schedule.of(self)  # refuses rates and counts that cannot be

    def _check_similar(self) -> None:
        if not 0 <= self.similar <= self.rows:
            raise BadInput(f"similar is {self.similar}; use 0 to {self.rows}, the rows of a table")
        if not self.similar:
            return
        if self.zero == "rows":
            raise BadInput("rows of zeros are all alike; with similar rows, use zero='value'")
        if self.layout == "span":
            raise BadInput("rows of keys are read by their keys alone; similar has to be 0")
        if self.conv:
            raise BadInput("similar rows depend on states that no cache carries; use conv=False")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise BadInput(f"{name} is {value!r}; use one of {', '.join(choices)}")


def _check_numbers(name: str, values: tuple[int, ...] | None) -> None:
    if values is None:
        return
    if not values or len(set(values)) < len(values):
        raise BadInput(f"{name} are {values}; name at least one, and none twice")
