"""The result of a study on disk: tables, plots and where the numbers come from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engram_transformers.errors import StoreDamaged, StoreError
from engram_transformers.studies.run import FORMAT, write_json
from engram_transformers.studies.study import Done, Findings, Study

RESULT = "result.json"


def write_result(
    study: Study, options: Any, done: Sequence[Done], folder: Path, *, planned: int, plots: bool
) -> dict[str, Any]:
    """Conclude from what was done, draw the plots, and write the result into the folder.

    Args:
        planned: units that the options ask for.
        plots: whether plots are drawn; they take matplotlib, and raise `MissingExtra` without it.
    """
    found = study.conclude(options, done)
    result = {
        "format": FORMAT,
        "study": study.name,
        "question": study.question,
        "options": asdict(options),
        "units": {"done": len(done), "planned": planned},
        "seconds": round(sum(one.seconds for one in done), 1),
        "tables": [asdict(table) for table in found.tables],
        "plots": _drawn(found, folder) if plots else [],
        "notes": list(found.notes),
        "provenance": _origins(done),
    }
    write_json(folder / RESULT, result)
    return result


def read_result(folder: Path) -> dict[str, Any]:
    """The stored result of a study.

    Raises:
        StoreError: there is none.
        StoreDamaged: the file is none, or of another format.
    """
    path = folder / RESULT
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}; run 'engram study'") from error
    except ValueError as error:
        raise StoreDamaged(f"{path} is no result of a study ({error}); make it anew") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT or "tables" not in found:
        raise StoreDamaged(f"{path} is no result of a study of format {FORMAT}; make it anew")
    return found


def _drawn(found: Findings, folder: Path) -> list[dict[str, str]]:
    from engram_transformers.studies.pictures import draw, words

    return [
        {"file": draw(plot, folder / "plots").relative_to(folder).as_posix(), "words": words(plot)}
        for plot in found.plots
    ]


def _origins(done: Sequence[Done]) -> list[dict[str, Any]]:
    """Where the numbers come from, each origin once: units may be done on different days."""
    texts = dict.fromkeys(json.dumps(one.provenance, sort_keys=True) for one in done)
    return [json.loads(text) for text in texts]
