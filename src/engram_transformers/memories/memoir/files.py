"""Tensors and JSON on disk: whole or not at all, with checksums, never a pickle."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from engram_transformers.errors import BadInput, StoreDamaged, StoreError
from engram_transformers.stores.files import replace_file

PICKLES = (".pkl", ".pickle", ".pt", ".pth", ".bin")
"Endings of files that may run code when they are read."


@dataclass(frozen=True)
class Stored:
    """The content of one file of tensors."""

    tensors: dict[str, Tensor]
    facts: dict[str, str]
    "What the file says about itself."


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hexadecimal digits over names, types, shapes and values; the same on any machine."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, str]) -> str:
    """Put tensors into a safetensors file, atomically; their checksum, which the file holds too."""
    made = checksum(tensors)
    ready = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    _make_room(path)
    replace_file(path, [save(ready, metadata={**facts, "checksum": made})])
    return made


def read_tensors(path: Path, *, what: str) -> Stored:
    """The tensors of a file that `write_tensors` wrote.

    Args:
        what: the kind of content that the file has to say it has, under ``what``.

    Raises:
        StoreError: there is no such file, or it cannot be read.
        StoreDamaged: it is truncated, changed, or something else than `what`.
    """
    if not path.is_file():
        raise StoreError(f"{path} is not there; {what} was looked for in it")
    try:
        with safe_open(path, "pt") as file:
            facts = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise StoreDamaged(f"{path} is truncated or no safetensors file: {error}") from error
    if facts.get("what") != what:
        raise StoreDamaged(f"{path} holds {facts.get('what', 'something unnamed')}, not {what}")
    if checksum(tensors) != facts.get("checksum"):
        raise StoreDamaged(f"{path} is damaged: its tensors do not have the checksum it names")
    return Stored(tensors, facts)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Put JSON into a file, atomically."""
    _make_room(path)
    replace_file(path, [json.dumps(content, ensure_ascii=False, indent=1).encode(), b"\n"])


def read_json(path: Path, *, what: str) -> dict[str, Any]:
    """An object from a JSON file that says what it is; `StoreDamaged` where it cannot be that."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{path} is truncated or no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("what") != what:
        raise StoreDamaged(f"{path} does not hold {what}")
    return content


def as_json(content: Any, *, name: str) -> Any:
    """A copy of `content` as JSON will give it back; `BadInput` where JSON cannot hold it."""
    try:
        return json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise BadInput(
            f"{name} cannot be stored: {error}. Use text, numbers, lists and dictionaries."
        ) from error


def _make_room(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be created: {error.strerror}") from error
