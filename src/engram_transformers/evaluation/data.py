"""The evaluation sets on this machine, and the readers that tasks share."""

from __future__ import annotations

import csv
import gzip
import json
import os
from pathlib import Path
from typing import Any

from engram_transformers.errors import DataMissing

Row = dict[str, Any]


def data_folder() -> Path:
    """Where evaluation sets lie: ENGRAM_DATA, else `shared/data` beside the project."""
    given = os.environ.get("ENGRAM_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "data"


def data_file(name: str) -> Path:
    """A file of the evaluation sets, relative to their folder; `DataMissing` without it."""
    path = data_folder() / name
    if not path.is_file():
        raise DataMissing(
            f"{path} is not on this machine. Set ENGRAM_DATA to the folder of evaluation sets; "
            "docs/data.md says where each of them comes from."
        )
    return path


def rows(name: str) -> list[Row]:
    """The rows of a JSON-lines file, gzipped or not."""
    path = data_file(name)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


def document(name: str) -> Any:
    """What a JSON file holds."""
    return json.loads(data_file(name).read_text(encoding="utf-8-sig"))


def table(name: str) -> list[dict[str, str]]:
    """The rows of a CSV file by the names of its columns."""
    with data_file(name).open(encoding="utf-8-sig", newline="") as lines:
        return list(csv.DictReader(lines))


def text(name: str) -> str:
    """What a text file holds, without a byte-order mark."""
    return data_file(name).read_text(encoding="utf-8-sig")
