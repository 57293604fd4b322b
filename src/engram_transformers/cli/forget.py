"""Forget facts. The model then computes, bit for bit, as if they had never been taught.

`engram undo` brings them back.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engram_transformers.cli.list import matches
from engram_transformers.cli.opening import directory
from engram_transformers.cli.output import emit, plural, say, short
from engram_transformers.cli.parser import Parser, add_memory, add_why
from engram_transformers.errors import BadInput

if TYPE_CHECKING:
    from engram_transformers.stores.directory import Directory
    from engram_transformers.stores.records import Stored


def configure(parser: Parser) -> None:
    parser.add_argument("ids", nargs="*", metavar="ID", help="ids, or as much as is unique")
    parser.add_argument("--filter", metavar="TEXT", help="all facts that contain this text")
    parser.add_argument("--all", action="store_true", help="all facts")
    parser.add_argument("--dry-run", action="store_true", help="only say which")
    parser.add_argument("-y", "--yes", action="store_true", help="do not ask before --all")
    add_why(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.stores.who import user

    _check_choice(args)
    with directory(args, writable=not args.dry_run) as memory:
        memory.check_removable()
        gone = _chosen(args, memory)
        write = None
        if gone and not args.dry_run:
            _confirm(args, len(gone))
            ids = [one.id for one in gone]
            write = memory.commit("forget", remove=ids, who=user(), why=args.why)
    _report(args, gone, write=write)
    return 0


def _check_choice(args: argparse.Namespace) -> None:
    if sum((bool(args.ids), args.filter is not None, args.all)) != 1:
        raise BadInput("say what to forget: ids, or --filter TEXT, or --all (one of the three)")
    if args.filter is not None and not args.filter.strip():
        raise BadInput("--filter is empty, which would be every fact; use --all for that")


def _chosen(args: argparse.Namespace, memory: Directory) -> list[Stored]:
    if args.ids:
        found = {one.id: one for one in (memory.get(id, deltas=False) for id in args.ids)}
        return list(found.values())
    return [one for one in memory.facts(deltas=False) if matches(one.fact, args.filter)]


def _confirm(args: argparse.Namespace, count: int) -> None:
    if not args.all or args.yes:
        return
    if not sys.stdin.isatty():
        raise BadInput(f"--all would forget {plural(count, 'fact')}; confirm it with --yes")
    print(f"forget all {plural(count, 'fact')}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise BadInput("not confirmed, so nothing was forgotten")


def _report(args: argparse.Namespace, gone: Sequence[Stored], *, write: int | None) -> None:
    if args.json:
        facts = [{"id": one.id, **one.fact.as_dict()} for one in gone]
        emit({"forgotten": facts, "write": write, "dry_run": args.dry_run})
        return
    for one in gone[:20]:
        say(f"{one.id}  {short(one.fact.prompt)}  ->  {short(one.fact.answer, 40)}")
    if len(gone) > 20:
        say(f"… and {len(gone) - 20:,} more")
    done = "would be forgotten" if args.dry_run else "forgotten"
    back = f"; engram undo {write} brings them back" if write else ""
    say(f"{plural(len(gone), 'fact')} {done}{back}")
