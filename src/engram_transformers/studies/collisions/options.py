"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput
from engram_transformers.memories.engram.address import VARIANTS

HASHED = (*VARIANTS, "unigram")


@dataclass(frozen=True)
class Options:
    """Counting takes some minutes; a training of 32 keys up to two, of which there are 39.

    One of 128 keys takes about five, and there are 18.
    """

    layouts: tuple[str, ...] = ("unigram", "deepseek", "deepseek-v4.1", "qwen")
    "Whose rows are counted."
    sets: tuple[str, ...] = ("random", "wikidata_cloze")
    "Whose keys are counted: `random`, or the prompts of an evaluation task."
    counts: tuple[int, ...] = (1_000, 10_000)
    "Keys of a set, at most."
    sizes: tuple[int, ...] = (30, 100, 300, 1_000, 10_000, 100_000)
    "Rows of each table that is counted."
    trained: tuple[str, ...] = ("unigram", "deepseek", "qwen", "span")
    "Layouts whose memory is trained on random keys."
    keys: int = 32
    "Keys that a memory is taught."
    values: str = "word"
    """`word`: one token of the host's; `digits`: four, while which are said n-grams lose sight of
    the key."""
    rows: tuple[int, ...] = (2, 8, 32, 512)
    "Rows of each of its tables; `span` has as many as it takes."
    crowds: tuple[int, ...] = (128,)
    "Further numbers of keys, taught to memories of few hashed rows, so that keys outnumber rows."
    crowded: tuple[int, ...] = (2, 8)
    "Rows of each of their tables."
    seeds: int = 3
    "Trainings of each, with other keys and another beginning."
    host: str = "smollm2-135m"
    "The host, by name or folder."
    layers: tuple[int, ...] = (1, 15)
    "Blocks that the memory acts before, each with tables of its own."
    heads: int = 8
    "Tables for each order of n-grams, where rows are counted."
    trained_heads: int = 2
    "Likewise, of memories that are trained: few, so that keys have to share rows."
    width: int = 32
    "Numbers in a row."
    epochs: int = 30
    "Times that every key is trained at most."
    batch: int = 8
    "Keys in a step."
    learning_rate: float = 3e-3
    "Of all but the rows, which learn five times as fast."

    def __post_init__(self) -> None:
        for layout in self.layouts:
            if layout not in HASHED:
                raise BadInput(f"{layout!r} has no rows to count; use {', '.join(HASHED)}")
        for layout in self.trained:
            if layout not in (*HASHED, "span"):
                raise BadInput(f"no layout is called {layout!r}; use {', '.join(HASHED)}, span")
        if self.values not in ("word", "digits"):
            raise BadInput(f"values is {self.values!r}; use 'word' or 'digits'")
        if min(self.crowds, default=1) < 1:
            raise BadInput(f"crowds are {self.crowds}; each has to be at least 1")
        if self.keys < 1 or self.seeds < 1:
            raise BadInput(f"keys={self.keys}, seeds={self.seeds}: either has to be at least 1")
