"""Options of the residual memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MemoirConfig:
    """How edits are written beside a feed-forward layer, and when one of them speaks."""

    method: Literal["closed_form", "gradient", "published"] = "closed_form"
    "How an edit is found: solved for, trained, or trained as the released code of the paper does."
    shared: bool = False
    "Whether all edits write into one matrix, as in the paper, and not each into values of its own."
    layer: int = -1
    "The block beside whose feed-forward the memory stands; negative ones count from the end."
    place: Literal["mlp_out", "block_out"] | None = None
    "Beside the feed-forward, or the block where that cannot be added to; filled in when created."
    top_k: int | None = None
    "Features of a mask; None: two in seven, as published."
    match: Literal["meaning", "words", "mask"] | None = None
    """What has to agree beside the mask: `meaning` and the words, the `words` alone, or nothing.

    None takes `meaning` where its sentence encoder is installed, `words` elsewhere; filled in when
    the memory is created.
    """
    threshold: float | None = None
    "Overlap of masks from which an edit may speak; None calibrates it to the host when created."
    prefixes: int = 0
    "Beginnings of other texts before which an edit is learnt too."
    steps: int = 40
    "Of training at most."
    learning_rate: float = 0.3
    "Of training, relative to the size of the host's states."
    target: float = 0.99
    "How likely every token of the answer has to be before training stops."
    max_edits: int = 100_000
    "Edits that it holds."
    seed: int = 42
    "Decides the permutation of masks."
    encoder_print: str | None = None
    "Which encoder wrote the vectors of `meaning`; filled in when created."
    host_usual: str | None = None
    "What prompts look like to this host on average; filled in when created."
