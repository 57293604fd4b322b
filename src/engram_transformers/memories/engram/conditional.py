"""The third seed's names for an Engram memory that acts on look-ups alone.

`ConditionalEngram` is any memory behind any route (`memories/shared/routed.py`), what acts at one
place of it is a `ConditionalEngramLayer`, and rules decide by `LookupPatternDetector`.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Any

from engram_transformers.attaching import attach
from engram_transformers.errors import BadInput
from engram_transformers.memories.engram.memory import Engram
from engram_transformers.memories.shared.routed import Routed, RoutedPart
from engram_transformers.memories.shared.routes import RouteName
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.load import load_host
from engram_transformers.registry import config_of
from engram_transformers.stores.directory import Directory, beside

ConditionalEngram = ConditionalEngramWrapper = Routed
ConditionalEngramLayer = RoutedPart


def create_conditional_engram(
    engram_weights_path: str | PathLike[str],
    *,
    model: str | None = None,
    route: RouteName = "rules",
    **options: Any,
) -> tuple[Any, Any]:
    """A host with a trained Engram memory behind a route, and its tokenizer.

    Args:
        engram_weights_path: a memory directory of the kind `engram`.
        model: the host; None: the one that the memory was trained for, by name.
        options: `route_gate` and `route_threshold`, as in `EngramConfig`.

    Raises:
        BadInput: the directory holds no trained Engram memory, or one that was trained together
            with another, or an option that there is not.
        HostMismatch: the memory, or the gate of its route, is another host's.
    """
    with Directory.open(Path(engram_weights_path)) as directory:
        tensors = directory.tensors() if directory.kind == "engram" else None
        if tensors is None:
            raise BadInput(f"{engram_weights_path} holds no trained Engram memory; teach one first")
        if others := ", ".join(each.name for each in beside(directory.path)):
            raise BadInput(
                f"{engram_weights_path} was trained together with a {others}, before which no "
                "route can stand; load_engram gives a model both, without a route"
            )
        loaded = load_host(model or directory.host.id)
        directory.check_host(loaded.identity)
        config = config_of("engram", {**directory.config, **options, "route": route})
    memory = Engram.open(Adapter(loaded.model), loaded.tokens, config)
    memory.load_state_dict(tensors)
    attach(loaded.model, memory)
    return loaded.model, loaded.tokenizer
