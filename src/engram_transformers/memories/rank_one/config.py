"""Options of the rank-one memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from engram_transformers.errors import BadInput

Method = Literal["rome", "memit", "alphaedit"]
METHODS = ("rome", "memit", "alphaedit")


@dataclass(frozen=True)
class RankOneConfig:
    """A change of rank one for each fact, in the output projection of MLPs."""

    method: Method = "memit"
    "How the changes of all facts are solved for: each alone, by least squares, or in a null space."
    layers: tuple[int, ...] | None = None
    "Blocks whose MLPs are changed, negative ones counted from the end; None: `AT` of the depth."
    along: bool = True
    "Whether each token of subject and answer has a key and a value; else the subject's last alone."
    wordings: int = 4
    "Of each prompt: as it stands, and put in so many other ways but one; more reach further."
    short: bool = False
    "Whether the shortest value is looked for: the rest changes less, and other wordings too."
    lookalikes: int = 24
    "Subjects like a fact's own, whose keys are left alone like those of text."
    steps: int = 40
    "Of the optimiser, for one value, at most."
    learning_rate: float = 0.25
    "Length of a step, in ways to the answer as the first slope has it."
    sure: float = 1.25
    "Times as likely as any other that each token of the answer is to be, in every wording."
    beyond: float = 1.5
    "How many times what is enough is written, at most, while that is as sure; 1: no more."
    decay: float = 0.5
    "Weight of the value's squared length, in such ways."
    reach: float = 4.0
    "Greatest length of a value, in such ways."
    ridge: float = 0.1
    "How much `memit` and `alphaedit` hold back, in widths of the MLP."
    null: float = 0.02
    "Share of the keys' energy that `alphaedit` takes for nothing."
    text: str | None = None
    "A file of plain text from which keys are counted; None: the manual that Python brings."
    tokens: int = 8_192
    "How many of its tokens are read, once for a host and a block."

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise BadInput(f"method is {self.method!r}; use {', '.join(METHODS)}")
        if self.layers is not None:
            object.__setattr__(self, "layers", tuple(self.layers))
        for name in ("wordings", "steps", "tokens", "beyond"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it has to be at least 1")
