"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput
from engram_transformers.studies.implicit.texts import TEXTS

MEMORIES = ("slots", "linformer", "original")
NONE, WHOLE = "none", "whole text"
"Without a memory: a window at a time, and with attention over the whole text."
VARIANTS = (NONE, *MEMORIES, WHOLE)


@dataclass(frozen=True)
class Options:
    """A small decoder that sees a window at a time, and the memories that it is trained with."""

    texts: tuple[str, ...] = ("entities", "tinyshakespeare")
    "What is learnt: generated text whose entities come back, and characters of TinyShakespeare."
    variants: tuple[str, ...] = VARIANTS
    "Memories, and what has none."
    sweep: tuple[str, ...] = (
        "slots=96", "update=always", "slots=16", "writes=4", "chunk=8", "rate=0.2", "norm=none",
        "temperature=1.0", "reset_every=2",
    )  # fmt: skip
    "Changes of the variant `slots`, one at a time, each trained anew on the first text."
    seeds: int = 3
    "Runs of each variant."
    hidden: int = 64
    "Width of the decoder."
    blocks: int = 2
    "Blocks of the decoder."
    heads: int = 4
    "Heads of its attention."
    inner: int = 128
    "Width of its feed-forward layers."
    layer: int = 1
    "Block before which the memory is read and written, counted from 0."
    windows: int = 6
    "Windows of a text; gradients flow back through the writes of all of them."
    early: float = 0.4
    "Share of the steps, the first ones, whose texts have two windows."
    batch: int = 16
    "Texts in a step."
    steps: int = 500
    "Steps of training."
    learning_rate: float = 5e-3
    "Of AdamW at its highest, after a tenth of the steps; then along a cosine to a tenth."
    held_out: int = 64
    "Held-out texts."
    needles: int = 64
    "Needles at each distance."

    def __post_init__(self) -> None:
        for name in ("seeds", "hidden", "blocks", "heads", "inner", "batch", "steps", "held_out"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.windows < 2:
            raise BadInput(f"windows is {self.windows}; beyond a single one there is nothing")
        if self.hidden % self.heads:
            raise BadInput(f"hidden={self.hidden} cannot be split into heads={self.heads} parts")
        _check_names("texts", self.texts, TEXTS)
        _check_names("variants", self.variants, VARIANTS)


def _check_names(what: str, given: tuple[str, ...], known: tuple[str, ...]) -> None:
    if unknown := [name for name in given if name not in known]:
        raise BadInput(f"{what} has {unknown[0]!r}; there are {', '.join(known)}")
