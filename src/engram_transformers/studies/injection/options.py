"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput

REFERENCES = ("nothing", "text", "retrieved text", "lookup memory")
CONTROLS = (
    "empty slots",
    "random vectors",
    "cached keys and values",
    "keys and values",
    "keys and values of another fact",
    "late patch",
)
ADDRESSED = "keys and values, found by address"
SWEPT = ("raw states", "chunks", "last token", "mean", "added")
ONE, SEVERAL = "soft prompt, one question", "soft prompt, paraphrases"
FIRST = "soft prompt, first token"
TRAINED = (ONE, SEVERAL, FIRST)
"""Trained on the question, on several wordings, and, as the first seed did, on the question with a
loss on the answer's first token alone."""
WAYS = (*REFERENCES, *CONTROLS, ADDRESSED, *TRAINED, *SWEPT)


@dataclass(frozen=True)
class Options:
    """The defaults are 28 units, by estimate half an hour on two idle cores with `--jobs 2`."""

    ways: tuple[str, ...] = WAYS
    "Which routes are measured."
    facts: int = 52
    "Facts that are asked; there are 68 in all, and those for tuning come first."
    tuned: int = 6
    "Facts on which layer, scale and position are chosen; none of them is asked later."
    held: int = 1
    "Held-out wordings of each fact that are asked, of two."
    layers: tuple[int, ...] = (0, 10, 20, 29)
    "Blocks whose states are injected, or behind which something is added."
    scales: tuple[float, ...] = (0.3, 1.0, 3.0)
    "Lengths of injected vectors, in lengths of a token embedding or of the states added to."
    slots: int = 8
    "Vectors of `chunks` and of the random control."
    soft_slots: int = 4
    "Vectors of a soft prompt."
    steps: int = 36
    "Steps of training a soft prompt at most; it ends when every wording is sure."
    learning_rate: float = 0.3
    "Of these steps, in usual sizes of an embedding's numbers."
    share: int = 13
    "Facts whose soft prompts are trained in one unit."
    others: int = 6
    "Questions about other facts, and of general knowledge, each, that show what else changes."
    seed: int = 0
    "Draws random vectors and starts of soft prompts."
    host: str = "smollm2-135m"
    "The host, by name or folder."

    def __post_init__(self) -> None:
        for name in ("facts", "tuned", "slots", "soft_slots", "steps", "share"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it is at least 1")
        if not 1 <= self.held <= 2:
            raise BadInput(f"held is {self.held}; every fact has 1 or 2 held-out wordings")
        for way in self.ways:
            if way not in WAYS:
                raise BadInput(f"ways has no {way!r}; there are {', '.join(WAYS)}")
        if not self.layers or not self.scales or min(self.scales) <= 0:
            raise BadInput("layers and scales name at least one each, and scales are above 0")
