"""Options of a study: made from what a user gives, and described by the strings behind fields."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Mapping
from typing import Any

from engram_transformers.errors import BadInput
from engram_transformers.options import as_declared, hint
from engram_transformers.studies.study import Study


def configured(options: type[Any], given: Mapping[str, Any]) -> Any:
    """Options with the values that were given; `BadInput` for an unknown name or a wrong type."""
    known = [field.name for field in dataclasses.fields(options)]
    for name in given:
        if name not in known:
            raise BadInput(f"no option is called {name!r}; {hint(name, known)}")
    return options(**as_declared(options, given))


def quickly(study: Study) -> dict[str, Any]:
    """The options with which a study takes a few minutes; `BadInput` where it has none."""
    if not study.quick:
        raise BadInput(f"{study.name} has no quick form; make it smaller with --set")
    return dict(study.quick)


def meanings(options: type[Any]) -> dict[str, str]:
    """What each option means, by name: the string behind its field."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(options))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, behind in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            text = behind.value if isinstance(behind, ast.Expr) else None
            if isinstance(text, ast.Constant):
                found[field.target.id] = " ".join(str(text.value).split())
    return found
