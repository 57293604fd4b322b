"""List the facts of a memory, oldest first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from engram_transformers.cli.opening import directory
from engram_transformers.cli.output import emit, plural, say, short
from engram_transformers.cli.parser import Parser, add_memory, positive

if TYPE_CHECKING:
    from engram_transformers.stores.records import Stored
    from engram_transformers.types import Fact


def configure(parser: Parser) -> None:
    parser.add_argument("--filter", metavar="TEXT", help="only facts that contain this text")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many facts")
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    with directory(args) as memory:
        stored = memory.facts(deltas=False)
    found = [one for one in stored if matches(one.fact, args.filter)]
    shown = found[: args.limit]
    if args.json:
        emit({"total": len(stored), "found": len(found), "facts": [_data(one) for one in shown]})
    else:
        _print(shown, found=len(found), total=len(stored))
    return 0


def matches(fact: Fact, text: str | None) -> bool:
    """Whether a fact contains a text, in any of its fields and in any case."""
    if not text:
        return True
    fields = (fact.id, *fact.questions, fact.answer, fact.subject, fact.relation, fact.source)
    return any(text.casefold() in field.casefold() for field in fields if field)


def _data(one: Stored) -> dict[str, object]:
    return {"id": one.id, **one.fact.as_dict(), "write": one.write}


def _print(shown: Sequence[Stored], *, found: int, total: int) -> None:
    for one in shown:
        say(f"{one.id}  {short(one.fact.prompt)}  ->  {short(one.fact.answer, 40)}")
    if found < total or len(shown) < found:
        say(f"{len(shown):,} shown, {found:,} found, {plural(total, 'fact')} in all")
    elif not total:
        say("no facts")
