"""Write the facts of a memory to a file that `engram import` reads back."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from engram_transformers.cli.opening import directory
from engram_transformers.cli.output import emit, plural, say
from engram_transformers.cli.parser import Parser, add_memory
from engram_transformers.errors import BadInput

if TYPE_CHECKING:
    from engram_transformers.stores.fact_files import Kind

FORMATS = ("jsonl", "json", "csv")


def configure(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE", help="where to write; - is standard output")
    parser.add_argument("--format", choices=FORMATS, help="default: by the file's name, else jsonl")
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.stores.fact_export import lines_of

    path = None if args.file == "-" else Path(args.file)
    _check(args, path)
    with directory(args) as memory:
        facts = [one.fact for one in memory.facts(deltas=False)]
    kind: Kind = args.format or _kind(path)
    _write(lines_of(facts, kind), path)
    if args.json:
        emit({"file": args.file, "format": kind, "facts": len(facts)})
    elif path:
        say(f"{plural(len(facts), 'fact')} written to {path}")
    return 0


def _check(args: argparse.Namespace, path: Path | None) -> None:
    if path is None and args.json:
        raise BadInput("--json and the export would both go to standard output; name a file")
    if path and path.is_dir():
        raise BadInput(f"{path} is a directory; name a file in it")
    if path and path.exists() and not args.force:
        raise BadInput(f"{path} exists; name another file, or overwrite it with --force")
    if path and path.suffix == ".gz":
        raise BadInput(f"an export is not compressed; name it {path.with_suffix('')}")


def _kind(path: Path | None) -> Kind:
    kinds: dict[str, Kind] = {".json": "json", ".csv": "csv"}
    return kinds.get("" if path is None else path.suffix.lower(), "jsonl")


def _write(lines: Iterable[str], path: Path | None) -> None:
    if path is None:
        sys.stdout.writelines(lines)
        return
    # Written beside it and then renamed: whoever reads never sees half an export.
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
