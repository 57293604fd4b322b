"""Take back the last write that is in effect, or a given one, exactly."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from engram_transformers.cli.opening import directory
from engram_transformers.cli.output import emit, plural, say
from engram_transformers.cli.parser import Parser, add_memory, positive
from engram_transformers.cli.show import describe
from engram_transformers.errors import BadInput


def configure(parser: Parser) -> None:
    parser.add_argument(
        "write", nargs="?", type=positive, metavar="WRITE", help="number of the write"
    )
    parser.add_argument("--list", action="store_true", help="list the writes, change nothing")
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    if args.list and args.write:
        raise BadInput("--list shows all writes and takes no number")
    return _list(args) if args.list else _undo(args)


def _list(args: argparse.Namespace) -> int:
    with directory(args) as memory:
        writes = memory.writes()
    if args.json:
        emit({"writes": [asdict(write) for write in writes]})
        return 0
    for write in writes:
        say(f"{write.number:>4}  {describe(write)}")
    if not writes:
        say("nothing was ever written")
    return 0


def _undo(args: argparse.Namespace) -> int:
    from engram_transformers.stores.who import user

    with directory(args, writable=True) as memory:
        memory.check_removable()
        inverse = memory.inverse(args.write)
        number = memory.commit(
            "undo",
            add=inverse.add,
            remove=inverse.remove,
            undoes=inverse.undoes,
            who=user(),
        )
    back = [fact.id for fact, _ in inverse.add]
    if args.json:
        removed = list(inverse.remove)
        emit({"undid": inverse.undoes, "write": number, "restored": back, "removed": removed})
        return 0
    counts = f"{plural(len(back), 'fact')} restored, {len(inverse.remove):,} removed"
    say(f"write {inverse.undoes} undone: {counts} (write {number})")
    return 0
