"""`config.json`: what kind of memory a directory holds, and for which host."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from engram_transformers import __version__
from engram_transformers.errors import BadInput, StoreDamaged, StoreError
from engram_transformers.stores.files import replace_file
from engram_transformers.stores.versions import FORMAT, MIGRATIONS, Migration, upgraded_config
from engram_transformers.types import HostIdentity


@dataclass(frozen=True)
class Description:
    """What `config.json` says."""

    kind: str
    config: Mapping[str, Any]
    "The memory's own settings."
    host: HostIdentity
    library: str = __version__
    "Version of this library that created the directory."
    created: str = ""
    "UTC, ISO 8601."


def described(kind: str, config: Mapping[str, Any], host: HostIdentity) -> Description:
    """The description of a directory that is created now."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Description(kind, dict(config), host, created=now)


def write(path: Path, description: Description) -> None:
    """Write `config.json` atomically; `BadInput` if the settings are no JSON."""
    try:
        text = json.dumps({"format": FORMAT, **asdict(description)}, indent=2)
    except (TypeError, ValueError) as error:
        raise BadInput(f"the config of a memory must be plain JSON data: {error}") from error
    replace_file(path, [text.encode(), b"\n"])


def read(path: Path, *, migrations: Mapping[int, Migration] = MIGRATIONS) -> Description:
    """Read `config.json`; `StoreDamaged` or `StoreTooNew` if it is not one of ours."""
    found = read_raw(path)
    found = upgraded_config(path, found, migrations=migrations)
    try:
        return _checked(found)
    except (KeyError, TypeError) as error:
        raise StoreDamaged(f"{path} is damaged: {error} is missing or wrong") from error


def read_raw(path: Path) -> dict[str, Any]:
    """What the file says, in whatever format it was written."""
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise StoreDamaged(f"{path} is damaged, it is no JSON: {error}") from error
    if not isinstance(found, dict) or type(found.get("format")) is not int:
        raise StoreDamaged(f"{path} is damaged: it does not say its format")
    return found


def _checked(found: dict[str, Any]) -> Description:
    own = found["host"]
    host = HostIdentity(own["id"], own["fingerprint"], own.get("weights", ""))  # older ones lack it
    description = Description(
        found["kind"], found["config"], host, found["library"], found["created"]
    )
    texts = description.kind, *astuple(host), description.library, description.created
    if not isinstance(description.config, dict) or not all(isinstance(t, str) for t in texts):
        raise TypeError("a field")
    return description
