"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput

TRAINED = "trained soft tokens"
WAYS = (
    "truncated text",
    "extracted sentences",
    "hidden chunks, early",
    "hidden chunks, late",
    "cached, evenly",
    "cached, least key norm",
    TRAINED,
)
"Ways to keep no more than a budget."


@dataclass(frozen=True)
class Options:
    """The defaults are ten units, by estimate a quarter of an hour on two idle cores."""

    ways: tuple[str, ...] = WAYS
    "Which ways to compress are measured."
    budgets: tuple[int, ...] = (16, 64, 256)
    "Tokens or vectors that are kept of a passage."
    soft_budgets: tuple[int, ...] = (16, 64)
    "Of these, at how many soft tokens are trained: more take longer."
    passages: int = 10
    "Passages, of 90; each has five questions."
    share: int = 2
    "Passages in one unit."
    early: int = 0
    "Block whose states `hidden chunks, early` averages."
    late: int = 20
    "Block whose states `hidden chunks, late` averages."
    steps: int = 24
    "Steps of training soft tokens, each on one stretch of the passage."
    window: int = 48
    "Tokens of such a stretch."
    learning_rate: float = 0.3
    "Of these steps, in usual sizes of an embedding's numbers."
    seed: int = 0
    "Draws stretches and starts."
    host: str = "smollm2-135m"
    "The host, by name or folder."

    def __post_init__(self) -> None:
        for name in ("passages", "share", "steps", "window"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it is at least 1")
        for way in self.ways:
            if way not in WAYS:
                raise BadInput(f"ways has no {way!r}; there are {', '.join(WAYS)}")
        if any(budget < 5 for budget in (*self.budgets, *self.soft_budgets)):
            raise BadInput("a budget is at least 5 tokens or vectors")
