"""The studies by name."""

from __future__ import annotations

from importlib import import_module

from engram_transformers.errors import BadInput
from engram_transformers.options import hint
from engram_transformers.studies.study import Study

STUDIES = {
    "scratch": "engram_transformers.studies.scratch.study",
    "collisions": "engram_transformers.studies.collisions.study",
    "exact_match": "engram_transformers.studies.exact_match.study",
    "prepopulation": "engram_transformers.studies.prepopulation.study",
    "demos": "engram_transformers.studies.demos.study",
    "injection": "engram_transformers.studies.injection.study",
    "compression": "engram_transformers.studies.compression.study",
    "implicit": "engram_transformers.studies.implicit.study",
    "table_size": "engram_transformers.studies.table_size",
}
"Modules that hold a `STUDY`; they are imported when they are asked for."


def study_named(name: str) -> Study:
    """The study of this name; `BadInput` where there is none."""
    if name not in STUDIES:
        raise BadInput(f"no study is called {name!r}; {hint(name, STUDIES)}")
    found = import_module(STUDIES[name]).STUDY
    assert isinstance(found, Study)
    return found


def studies() -> list[Study]:
    """All studies."""
    return [study_named(name) for name in STUDIES]
