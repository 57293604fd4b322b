"""Kinds of memory by name: imported when asked for, never before."""

from __future__ import annotations

import difflib
from importlib import import_module
from typing import Any

from engram_transformers.errors import UnknownMemory

KINDS = {
    "lookup": "engram_transformers.memories.lookup:Lookup",
    "text": "engram_transformers.memories.text:Text",
}


def memory_class(kind: str) -> Any:
    """The class of a kind of memory; `UnknownMemory` names the nearest kinds that exist."""
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=2) or sorted(KINDS)
        raise UnknownMemory(f"no kind of memory is called {kind!r}; try {' or '.join(near)}")
    module, _, name = KINDS[kind].partition(":")
    return getattr(import_module(module), name)
