"""Options of the study."""

from __future__ import annotations

from dataclasses import dataclass

from engram_transformers.errors import BadInput


@dataclass(frozen=True)
class Options:
    """A small decoder and its variants; a run of the defaults takes some four minutes on a core.

    Two texts, six variants and three seeds are 36 runs.
    """

    texts: tuple[str, ...] = ("tinyshakespeare", "wikitext2")
    "What is learnt: names, or files of the evaluation sets."
    shares: tuple[int, ...] = (25, 50, 100)
    "Percent of the extra parameters that are Engram; the rest widens the feed-forward layers."
    seeds: int = 3
    "Runs of each variant."
    extra: int = 2_000_000
    "Parameters that a variant has beyond the baseline."
    vocab: int = 4_096
    "Tokens of the byte-level BPE, which is trained on the training text."
    held_out: float = 0.1
    "Share of the text, its end, that is not trained on."
    hidden: int = 192
    "Width of the decoder."
    blocks: int = 6
    "Blocks of the decoder."
    heads: int = 6
    "Heads of its attention."
    inner: int = 512
    "Width of the baseline's feed-forward layers."
    context: int = 128
    "Tokens of a row; rows are pieces of the text without padding."
    batch: int = 8
    "Rows in a step."
    steps: int = 400
    "Steps of training."
    learning_rate: float = 2e-3
    "Of AdamW at its highest, after a tenth of the steps; then along a cosine to a tenth."
    decay: float = 0.1
    "Weight decay of matrices; rows of tables have none."
    layers: tuple[int, ...] = (1,)
    "Blocks that the Engram acts before, counted from 0."
    layout: str = "deepseek"
    "How tokens become addresses."
    orders: tuple[int, ...] = (2, 3)
    "Lengths of the n-grams."
    tables: int = 4
    "Tables for each order."
    width: int = 16
    "Numbers in a row."
    gate: str = "learned"
    "The Engram's gate."
    conv: bool = False
    "Whether the Engram has its convolution."
    zero: str = "rows"
    "What of the Engram is zero to begin with: its rows, or the projection of what they hold."
    table_rate: float = 5.0
    "How many times as fast as the rest rows learn."
    shown: int = 72
    "Held-out tokens whose gates are kept."

    def __post_init__(self) -> None:
        for name in ("seeds", "extra", "hidden", "blocks", "heads", "inner", "context", "batch"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} is {getattr(self, name)}; it has to be at least 1")
        if self.hidden % self.heads:
            raise BadInput(f"hidden={self.hidden} cannot be split into heads={self.heads} parts")
        if any(not 0 < share <= 100 for share in self.shares):
            raise BadInput(f"shares are {self.shares}; use percentages above 0, up to 100")
        if not 0 < self.held_out < 1:
            raise BadInput(f"held_out is {self.held_out}; use a share between 0 and 1")
