"""As of which write a snapshot is, told from its first bytes and without an import of torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from engram_transformers.stores.records import Head

VERSION = "1"
"Another version is rebuilt from the ledger, so that snapshots never need a migration."


def peek(path: Path) -> Head | None:
    """As of which write the snapshot is, without reading it all; None if that cannot be told."""
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = file.read(size) if size <= path.stat().st_size else b""
        return head_of(json.loads(header)["__metadata__"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def head_of(metadata: Mapping[str, str]) -> Head | None:
    """The write that a snapshot's metadata names; None for a version that is not ours."""
    if metadata["version"] != VERSION:
        return None
    return Head(int(metadata["write"]), metadata["stamp"])
