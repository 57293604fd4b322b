"""How commands open memories and load hosts."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from engram_transformers.cli.output import waiting
from engram_transformers.cli.parser import memory_named
from engram_transformers.errors import BadInput, HostNotFound

if TYPE_CHECKING:
    from engram_transformers.api import Host, OpenMemory
    from engram_transformers.stores.directory import Directory

DEFAULT_MODEL = "smollm2-135m"


def memory_path(args: argparse.Namespace) -> Path:
    """The existing memory directory that was named; `BadInput` where there is none."""
    from engram_transformers.stores.directory import is_memory

    path = Path(memory_named(args))
    if not is_memory(path):
        what = "exists but is no memory" if path.exists() else "does not exist"
        raise BadInput(
            f"the memory {path} {what}.{_near(path)} 'engram teach FILE -M {path}' makes one"
        )
    return path


@contextmanager
def directory(args: argparse.Namespace, *, writable: bool = False) -> Iterator[Directory]:
    """The memory directory by itself, without its model: listing takes no torch."""
    from engram_transformers.stores.directory import Directory

    with Directory.open(memory_path(args), writable=writable) as found:
        yield found


def host_named(args: argparse.Namespace) -> str:
    """The id of the host that was named, or of the default one."""
    return str(args.model or os.environ.get("ENGRAM_MODEL") or DEFAULT_MODEL)


def host_of(args: argparse.Namespace, *, memory: Path | None) -> Host:
    """The host that was named, or else the one that the memory was made for."""
    from engram_transformers.api import load

    named = args.model or os.environ.get("ENGRAM_MODEL")
    id = named or _made_for(memory) or DEFAULT_MODEL
    try:
        with waiting(f"loading {id}"):
            return load(id)
    except HostNotFound as error:
        if named or id == DEFAULT_MODEL:
            raise
        raise HostNotFound(
            f"{memory} was made for {id!r}, which is not found by that name; say with -m which "
            "folder, .gguf file or Hugging Face id it is"
        ) from error


@contextmanager
def opened(args: argparse.Namespace) -> Iterator[tuple[Host, OpenMemory]]:
    """A host with the existing memory attached, for reading only."""
    path = memory_path(args)
    host = host_of(args, memory=path)
    with host.open_memory(path, read_only=True) as memory:
        yield host, memory


def _made_for(memory: Path | None) -> str | None:
    from engram_transformers.stores.directory import Directory, is_memory

    if memory is None or not is_memory(memory):
        return None
    with Directory.open(memory) as found:
        return found.host.id


def _near(path: Path) -> str:
    from engram_transformers.stores.directory import is_memory

    parent = path.parent
    found = [each.name for each in parent.iterdir() if is_memory(each)] if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, found, n=1)
    return f" Did you mean {parent / near[0]}?" if near else ""
