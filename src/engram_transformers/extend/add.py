"""Give a model Engram layers, train them, keep them: the third seed's interface."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engram_transformers.attaching import attach, attached, detach
from engram_transformers.errors import BadInput
from engram_transformers.memory import Trainable
from engram_transformers.models.adapter import Adapter
from engram_transformers.registry import config_of, kind_of, memory_class
from engram_transformers.training.saved import (
    described,
    load_memories,
    save_memories,
    saved_kinds,
)

GateType = Literal["learned", "fixed", "content-based"]
GATES = {"learned": "learned", "fixed": "fixed", "content-based": "content", "plain": "plain"}
MEMORY_SIZE = 100_000


def add_engram(
    model: Any,
    memory_size: int = MEMORY_SIZE,
    inject_layers: Sequence[int] | None = None,
    gate_type: GateType = "learned",
    *,
    tokenizer: Any = None,
    **options: Any,
) -> Any:
    """The same model, with an Engram memory attached that changes nothing until it is trained.

    It gets the methods `save_engram`, `load_engram` and `remove_engram`; `EngramTrainer` trains it.

    Args:
        memory_size: rows of each layer, all its tables taken together.
        inject_layers: blocks that it acts before; None: the second and the middle one.
        gate_type: what decides how much of a row is let through.
        tokenizer: of the model; found under the model's name if it is not given. Training and
            saving remember it.
        options: further fields of `EngramConfig`.

    Raises:
        PlaceNotFound: the model has no such block.
        BadInput: an option that there is not, or a model that has an Engram memory already.
    """
    from engram_transformers.memories.engram.plan import sized

    if gate_type not in GATES:
        raise BadInput(f"gate_type is {gate_type!r}; use one of {', '.join(GATES)}")
    config = config_of("engram", {"layers": inject_layers, "gate": GATES[gate_type], **options})
    return _add(model, "engram", sized(config, memory_size), tokenizer=tokenizer)


def add_lora(model: Any, *, tokenizer: Any = None, **options: Any) -> Any:
    """The same model with a LoRA memory attached, to be trained and saved with an Engram memory.

    Args:
        options: fields of `LoraConfig`: `rank`, `alpha`, `layers`.
    """
    return _add(model, "lora", config_of("lora", options), tokenizer=tokenizer)


def save_engram(model: Any, path: str | Path, *, tokenizer: Any = None) -> Path:
    """Write the trained memories of a model to a directory, which `open_memory` opens too.

    Raises:
        BadInput: the model has none.
        HostMismatch, LayoutMismatch: the directory holds another host's memory, or another layout.
    """
    return save_memories(path, _trained(model), described(model, tokenizer).identity)


def load_engram(model: Any, path: str | Path, *, tokenizer: Any = None) -> Any:
    """The same model with the memories of a directory: attached, or into those that it has.

    All tensors are taken, or none.

    Raises:
        BadInput: the directory holds no trained memory.
        HostMismatch: it was trained on another model.
        LayoutMismatch: the model's memories have another layout, size or kind.
    """
    host = described(model, tokenizer)
    made = [] if _trained(model, missing_ok=True) else saved_kinds(path)
    for kind, options in made:
        _add(model, kind, config_of(kind, options), tokenizer=host.tokenizer)
    try:
        load_memories(path, _trained(model), host.identity)
    except BaseException:
        if made:
            remove_engram(model)
        raise
    return model


def remove_engram(model: Any) -> Any:
    """The same model without its trained memories: it computes what it computed before them."""
    for memory in _trained(model):
        detach(model, memory)
    for method in (save_engram, load_engram, remove_engram):
        model.__dict__.pop(method.__name__, None)
    return model


def _add(model: Any, kind: str, config: Any, *, tokenizer: Any) -> Any:
    host = described(model, tokenizer)
    memory = memory_class(kind).open(Adapter(model), host.tokens, config)
    return give(model, memory, tokenizer=host.tokenizer)


def give(model: Any, memory: Any, *, tokenizer: Any) -> Any:
    """The same model with a memory attached, and with methods that save it and take it away."""
    kind = kind_of(memory)
    if any(kind_of(one) == kind for one in _trained(model, missing_ok=True)):
        raise BadInput(f"this model has a memory of kind {kind} already; remove_engram first")
    memory.tokenizer = tokenizer  # the model may have no name under which to find it again
    attach(model, memory)
    # Not closures: a deep copy of the model gets methods of its own.
    for method in (save_engram, load_engram, remove_engram):
        model.__dict__[method.__name__] = partial(method, model)
    return model


def _trained(model: Any, *, missing_ok: bool = False) -> list[Any]:
    found = [one for one in attached(model) if isinstance(one, Trainable)]
    if not found and not missing_ok:
        raise BadInput("this model has no trained memory; add_engram gives it one")
    return found
