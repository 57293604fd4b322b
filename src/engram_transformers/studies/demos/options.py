"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.routes import ROUTES

DEMOS = ("terminology", "random keys", "gating", "long context")
LAYOUTS = ("span", "deepseek", "deepseek-v4.1", "qwen", "unigram")
WAYS = (
    "bare host",
    "fact in the text",
    "engram, whole keys",
    "engram, n-grams",
    "engram of other facts",
)


@dataclass(frozen=True)
class Options:
    """The defaults are nine units; the two of `gating` take most of the time."""

    demos: tuple[str, ...] = DEMOS
    "Which demonstrations there are."
    keys: int = 100
    "Keys that are taught for `terminology` and for `random keys`; there are 165 real ones."
    layouts: tuple[str, ...] = ("span", "deepseek")
    "Engrams whose gating is shown."
    routes: tuple[str, ...] = ROUTES
    "Routes that are put before them."
    gated: int = 48
    "Keys that are taught for `gating`, drawn from the real ones."
    ways: tuple[str, ...] = WAYS
    "What knows the facts of `long context`."
    needles: int = 12
    "Facts that are asked behind each distraction."
    distances: tuple[int, ...] = (0, 256, 1024)
    "Tokens of distraction between a fact and its question."
    seeds: int = 1
    "Draws of the facts, and trainings."
    late: int = 26
    "Block that memories of whole keys act before; those of n-grams act before the second one."
    rows: int = 10_000
    "Rows of each table of n-grams."
    epochs: int = 20
    "Times that every fact is trained at most; it ends when every answer is exact."
    host: str = "smollm2-135m"
    "The host, by name or folder."

    def __post_init__(self) -> None:
        for name in ("keys", "gated", "needles", "seeds", "rows", "epochs"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it is at least 1")
        for name, known in (
            ("demos", DEMOS), ("layouts", LAYOUTS), ("routes", ROUTES), ("ways", WAYS),
        ):  # fmt: skip
            for one in getattr(self, name):
                if one not in known:
                    raise BadInput(f"{name} has no {one!r}; there are {', '.join(known)}")

    def memory(self, layout: str) -> dict[str, object]:
        """Options of an Engram of this layout."""
        if layout == "span":
            return {"layout": layout, "layers": (self.late,), "epochs": self.epochs}
        return {"layout": layout, "layers": (1,), "rows": self.rows, "epochs": self.epochs}
