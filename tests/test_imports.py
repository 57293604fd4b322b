"""Imports go down in rank and never sideways; some things are at home in one room only."""

from __future__ import annotations

import ast
from pathlib import Path

import engram_transformers

ROOT = Path(engram_transformers.__file__).parent
RANKS = [
    ["errors", "options", "types"],
    ["registry", "distributed", "models"],
    ["memory", "stores", "routing", "files"],
    ["attaching", "corrections"],
    ["memories"],
    ["training", "introspection", "evaluation"],
    ["api", "extend", "demo", "experiments", "studies"],
    ["cli", "server"],
]
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names}
BELOW = {
    "options": {"errors"},
    "types": {"errors"},
    "training": {"evaluation"},
    "introspection": {"evaluation"},
    "routing": {"stores"},
    "demo": {"api"},
    "experiments": {"api"},
    "extend": {"api", "experiments"},
    "studies": {"api", "demo", "experiments"},
}
"Rooms of one rank of which the first may read the second."
HOMES = {"transformers": {"models", "training", "extend"}, "fastapi": {"server"}, "typer": {"cli"}}
HOMES |= {"peft": {"memories"}, "argparse": {"cli"}, "click": {"cli"}, "rich": {"cli"}}


def imports(path: Path) -> list[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return found + [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]


def room(parts: tuple[str, ...]) -> str:
    """`memories/lookup` is a room of its own, and so is `memories/shared`."""
    return "/".join(parts[:2]) if parts[0] == "memories" else parts[0]


def test_imports_go_down_and_libraries_stay_in_their_rooms() -> None:
    wrong = []
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts == ("__init__",):
            continue
        here = room(parts)
        for name in imports(path):
            home = HOMES.get(name.split(".")[0])
            if home is not None and parts[0] not in home:
                wrong.append(f"{'/'.join(parts)} imports {name}")
            inner = tuple(name.split(".")[1:]) if name.startswith("engram_transformers.") else ()
            if inner and not allowed(here, room(inner)):
                wrong.append(f"{'/'.join(parts)} imports {name}")
    assert not wrong, "\n".join(wrong)


def allowed(here: str, there: str) -> bool:
    one, other = here.split("/")[0], there.split("/")[0]
    if one == other == "memories":
        return here == there or there == "memories/shared"
    return one == other or RANK[other] < RANK[one] or other in BELOW.get(one, ())


def test_only_the_command_line_prints() -> None:
    printing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.relative_to(ROOT).parts[0] != "cli"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "print"
    ]
    assert not printing
