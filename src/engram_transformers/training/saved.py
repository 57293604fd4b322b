"""Trained memories on disk without a facade: each is a memory directory, as `open_memory` makes.

The first memory is the directory itself, every further one a folder in it named after its kind.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from engram_transformers.attaching import attached, vacated
from engram_transformers.errors import BadInput, LayoutMismatch, StoreDamaged
from engram_transformers.memory import Trainable
from engram_transformers.models.load import LoadedHost
from engram_transformers.registry import kind_of
from engram_transformers.stores.directory import Directory, beside, is_memory
from engram_transformers.stores.who import user
from engram_transformers.types import Fact, HostIdentity


def described(model: Any, tokenizer: Any = None) -> LoadedHost:
    """Who a model is, whatever is attached to it.

    Args:
        tokenizer: None: that with which a memory was added, or else the one of the model's name.
    """
    if tokenizer is None:
        added = (getattr(memory, "tokenizer", None) for memory in attached(model))
        tokenizer = next((one for one in added if one is not None), None)
    with vacated(model):
        return LoadedHost.of(model, tokenizer)


def save_memories(
    path: str | Path,
    memories: Sequence[Any],
    host: HostIdentity,
    *,
    facts: Sequence[Fact] = (),
    receipt: dict[str, Any] | None = None,
) -> Path:
    """Write trained memories to a directory, one write each in their ledgers.

    Args:
        facts: what they were seen to know; those that are stored already are left as they are.

    Raises:
        HostMismatch, LayoutMismatch, StoreError: what is there belongs to something else.
    """
    path = Path(path)
    for place, memory in zip(_places(path, memories), memories, strict=True):
        _save(place, memory, host, facts, receipt)
    return path


def _save(path: Path, memory: Any, host: HostIdentity, facts: Sequence[Fact], receipt: Any) -> None:
    with closing(_directory(path, memory, host)) as directory:
        known = directory.active(fact.id for fact in facts)
        directory.commit(
            "teach",
            add=[(fact, {}) for fact in facts if fact.id not in known],
            receipt=receipt or {"checked": False},
            tensors={name: tensor.cpu() for name, tensor in memory.state_dict().items()},
            who=user(),
        )


def load_memories(path: str | Path, memories: Sequence[Any], host: HostIdentity) -> None:
    """Take the tensors of a directory that `save_memories` wrote from such memories: all or none.

    Raises:
        BadInput: there is none for one of the memories, or it holds no tensors.
        HostMismatch: they were trained on another host.
        LayoutMismatch: they are of another kind, or were made with other options.
    """
    found = [
        _tensors(place, memory, host)
        for place, memory in zip(_places(Path(path), memories), memories, strict=True)
    ]
    before = [{n: t.clone() for n, t in memory.state_dict().items()} for memory in memories]
    try:
        for memory, tensors in zip(memories, found, strict=True):
            _take(memory, tensors, path)
    except BaseException:
        for memory, tensors in zip(memories, before, strict=True):
            memory.load_state_dict(tensors)
        raise


def saved_kinds(path: str | Path) -> list[tuple[str, dict[str, Any]]]:
    """Kind and options of each memory in such a directory, the first one first.

    Raises:
        BadInput: it is no memory directory.
    """
    path = Path(path)
    if not is_memory(path):
        raise BadInput(f"{path} holds no trained memory; save_engram makes such a directory")
    found = []
    for each in (path, *beside(path)):
        with Directory.open(each) as directory:
            found.append((directory.kind, dict(directory.config)))
    return found


def _places(path: Path, memories: Sequence[Any]) -> list[Path]:
    kinds = [kind_of(memory) for memory in memories]
    if len(set(kinds)) < len(kinds):
        raise BadInput(f"two memories of one kind ({', '.join(kinds)}) cannot be saved together")
    return [path, *(path / kind for kind in kinds[1:])]


def _directory(path: Path, memory: Any, host: HostIdentity) -> Directory:
    config = dataclasses.asdict(memory.config)
    if not is_memory(path):
        return Directory.create(path, kind=kind_of(memory), config=config, host=host)
    directory = Directory.open(path, writable=True)
    try:
        _check(directory, memory, host)
    except BaseException:
        directory.close()
        raise
    return directory


def _check(directory: Directory, memory: Any, host: HostIdentity) -> None:
    directory.check_host(host)
    kind, config = kind_of(memory), dataclasses.asdict(memory.config)
    if directory.kind != kind:
        raise LayoutMismatch(f"{directory.path} is a {directory.kind} memory, not {kind}")
    for name, own in config.items():
        stored, own = directory.config.get(name), list(own) if isinstance(own, tuple) else own
        if stored != own:
            raise LayoutMismatch(
                f"{directory.path} was made with {name}={stored!r}, and this memory with {own!r}"
            )


def _tensors(path: Path, memory: Any, host: HostIdentity) -> dict[str, Any]:
    if not is_memory(path):
        raise BadInput(f"{path} holds no {kind_of(memory)} memory; save_engram makes such")
    with Directory.open(path) as directory:
        _check(directory, memory, host)
        tensors = directory.tensors()
    if tensors is None:
        raise BadInput(f"{path} holds no tensors: nothing was trained into it")
    return tensors


def _take(memory: Trainable, tensors: dict[str, Any], path: str | Path) -> None:
    try:
        memory.load_state_dict(tensors)
    except RuntimeError as error:
        raise StoreDamaged(f"the tensors in {path} are not those of its memory: {error}") from error
