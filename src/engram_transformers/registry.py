"""Kinds of memory by name: imported when asked for, never before."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from engram_transformers.errors import BadInput, UnknownMemory
from engram_transformers.options import as_declared, hint

KINDS = {
    "lookup": "engram_transformers.memories.lookup:Lookup",
    "lora": "engram_transformers.memories.lora:Lora",
    "gated_lora": "engram_transformers.memories.lora:GatedLora",
    "fine_tune": "engram_transformers.memories.tuned:FineTune",
    "bottleneck": "engram_transformers.memories.tuned:Bottleneck",
    "bias": "engram_transformers.memories.tuned:Bias",
    "rank_one": "engram_transformers.memories.rank_one:RankOne",
    "engram": "engram_transformers.memories.engram:Engram",
    "memoir": "engram_transformers.memories.memoir:Memoir",
    "grace": "engram_transformers.memories.codebook:Grace",
    "horen": "engram_transformers.memories.codebook:Horen",
    "wise": "engram_transformers.memories.wise:Wise",
    "activation": "engram_transformers.memories.activation:Activation",
    "soft_prompt": "engram_transformers.memories.soft_prompt:SoftPrompt",
    "implicit": "engram_transformers.memories.implicit:Implicit",
    "text": "engram_transformers.memories.text:Text",
}


def check_kind(kind: str) -> None:
    """Raise `UnknownMemory`, which names the nearest kinds, unless there is such a kind."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=2) or sorted(KINDS)
        raise UnknownMemory(f"no kind of memory is called {kind!r}; try {' or '.join(near)}")


def memory_class(kind: str) -> Any:
    """The class of a kind of memory; imported now."""
    check_kind(kind)
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)


def option_names(kind: str) -> list[str]:
    """What a memory of this kind can be told when it is made."""
    return [field.name for field in dataclasses.fields(memory_class(kind).Config)]


def config_of(kind: str, options: Mapping[str, Any]) -> Any:
    """The configuration of a kind with these options.

    Raises:
        BadInput: it has no such option, or a value is of another type or out of bounds.
    """
    known = option_names(kind)
    for name in options:
        if name not in known:
            raise BadInput(f"a memory of kind {kind} has no option {name!r}; {hint(name, known)}")
    config = memory_class(kind).Config
    return config(**as_declared(config, options))


def kind_of(memory: Any) -> str:
    """The kind that a memory is of.

    Raises:
        UnknownMemory: it is of none that is registered.
    """
    config, home = type(memory.config), type(memory).__module__
    for kind, target in KINDS.items():
        # Nothing is imported that the memory itself did not need.
        if home.startswith(target.partition(":")[0]) and memory_class(kind).Config is config:
            return kind
    raise UnknownMemory(f"a {type(memory).__name__} is no kind of memory that can be stored")
