"""What a configuration means for one host: which layers read which tables, by which addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from engram_transformers.errors import BadInput
from engram_transformers.memories.engram.address import VARIANTS, Layout, lay_out
from engram_transformers.memories.engram.compress import Compression, compression
from engram_transformers.memories.engram.config import EngramConfig
from engram_transformers.memories.engram.reading import (
    NGramReader,
    NoReader,
    Reader,
    SpanReader,
)
from engram_transformers.memories.engram.spans import KeySpans
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.tokens import HostTokens

_APART = 3
"Tokens between the taps of a convolution where the layout has no n-grams."


@dataclass(frozen=True)
class Plan:
    """How one layer reads."""

    reader: Reader
    rows: int
    "Of all its tables."
    slots: int
    width: int
    distance: int
    "Tokens between two taps of its convolution."
    layout: Layout | None
    "None for spans, which are not hashed."


@dataclass(frozen=True)
class Plans:
    """The layers of a memory, and what they share."""

    layers: dict[int, Plan]
    end: int | None
    "The token behind which another text begins, where the layout tells texts apart."
    compress: Compression | None = None
    spans: KeySpans | None = None


def sized(config: EngramConfig, memory_size: int) -> EngramConfig:
    """The configuration with so many rows in each layer, all its tables taken together.

    Spans have as many rows as they need, and their configuration stays as it is.
    """
    tables = tables_of(config)
    if not isinstance(memory_size, int) or memory_size < tables:
        raise BadInput(
            f"memory_size is {memory_size!r}; use a number of rows: {tables} tables need a row "
            "each at least"
        )
    return replace(config, rows=memory_size // tables)


def tables_of(config: EngramConfig) -> int:
    """Tables of each layer."""
    if config.layout not in VARIANTS:
        return 1
    return len(config.orders or VARIANTS[config.layout].orders) * config.heads


def plans_of(config: EngramConfig, adapter: Adapter, tokens: HostTokens) -> Plans:
    """The layers of a memory for a host; `PlaceNotFound` for a block that it does not have."""
    layers = _layers(config, adapter)
    end = _end(adapter, tokens) if _resets(config) else None
    if config.layout == "span":
        spans = KeySpans(tokens)
        # As many numbers as two orders of n-grams read.
        width = 2 * config.heads * config.width
        plan = Plan(SpanReader(spans), 0, 1, width, _APART, None)
        return Plans(dict.fromkeys(layers, plan), end, spans=spans)
    if config.layout == "similar":
        plan = Plan(NoReader(), config.rows, 0, config.width, _APART, None)
        return Plans(dict.fromkeys(layers, plan), end)
    compressed = config.layout in VARIANTS and VARIANTS[config.layout].compressed
    compress = compression(tokens.tokenizer) if compressed else None
    fill = _fill(config, adapter, tokens, compress)
    layouts = lay_out(
        config.layout,
        layers=layers,
        ids=adapter.vocab_size if compress is None else compress.size,
        rows=config.rows,
        heads=config.heads,
        orders=config.orders,
        seed=config.hash_seed,
    )
    plans = {
        layer: Plan(
            NGramReader(layout, compress, fill, end),
            layout.rows,
            layout.slots,
            config.width,
            layout.longest,
            layout,
        )
        for layer, layout in layouts.items()
    }
    return Plans(plans, end, compress=compress)


def _layers(config: EngramConfig, adapter: Adapter) -> Sequence[int]:
    """Indices of the blocks, as the host counts them."""
    count = len(adapter.layers)
    asked = config.layers or sorted({min(1, count - 1), count // 2})
    found = [adapter.place("block_in", layer).layer for layer in asked]
    if len(set(found)) < len(found):
        raise BadInput(f"layers {asked} name a block twice; the host has {count}")
    return [layer for layer in found if layer is not None]


def _resets(config: EngramConfig) -> bool:
    if config.reset is not None:
        return config.reset
    return config.layout in VARIANTS and VARIANTS[config.layout].resets


def _end(adapter: Adapter, tokens: HostTokens) -> int | None:
    """The token with which the host's texts end."""
    own = getattr(adapter.config, "eos_token_id", None)
    found = own[0] if isinstance(own, list | tuple) and own else own
    return int(found) if isinstance(found, int) else tokens.stop


def _fill(
    config: EngramConfig, adapter: Adapter, tokens: HostTokens, compress: Compression | None
) -> int:
    """The id, as it is hashed, that stands for what is before a text."""
    pad, end = tokens.tokenizer.pad_token_id, _end(adapter, tokens)
    variant = VARIANTS.get(config.layout)
    wanted = (end, pad) if variant is not None and variant.begins_with == "end" else (pad, end)
    raw = next((int(token) for token in wanted if token is not None), 0)
    return raw if compress is None else int(compress.map[raw])
