"""Show one fact: its text, what wrote it, and what became of it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.opening import directory, host_of, memory_path
from engram_transformers.cli.output import emit, say
from engram_transformers.cli.parser import Parser, add_memory, add_model

if TYPE_CHECKING:
    from engram_transformers.stores.records import Stored, Write


def configure(parser: Parser) -> None:
    parser.add_argument("id", metavar="ID", help="the fact's id, or as much of it as is unique")
    parser.add_argument("--spans", action="store_true", help="also the texts that it fires on")
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    with directory(args) as memory:
        one = memory.get(args.id, deltas=args.spans)
        history = [w for w in memory.writes() if one.id in w.added or one.id in w.removed]
    spans = _spans(args, one) if args.spans else ()
    if args.json:
        events = [_event(one.id, write) for write in history]
        emit({"id": one.id, **one.fact.as_dict(), "history": events, "spans": spans})
    else:
        _print(one, history, spans)
    return 0


def _spans(args: argparse.Namespace, one: Stored) -> tuple[str, ...]:
    """The token spans after which the fact speaks, as text."""
    from engram_transformers.memories.lookup.write import unpack

    if not one.delta:
        return ()  # a trained memory fires on no text in particular
    tokens = host_of(args, memory=memory_path(args)).tokens
    return tuple(tokens.decode(span) for span in unpack(one.delta).spans)


def _event(id: str, write: Write) -> dict[str, Any]:
    event = {"write": write.number, "at": write.at, "act": write.act, "undone": write.undone}
    event["what"] = "stored" if id in write.added else "removed"
    notes = {"who": write.who, "why": write.why, "source": write.source}
    return {**event, **{name: text for name, text in notes.items() if text}}


def _print(one: Stored, history: Sequence[Write], spans: Sequence[str]) -> None:
    fact = one.fact
    rows = [("id", one.id), ("prompt", fact.prompt), ("answer", fact.answer)]
    rows += [("paraphrase", text) for text in fact.paraphrases]
    rows += [(name, getattr(fact, name) or "") for name in ("subject", "relation", "source")]
    rows += [("fires on", repr(text)) for text in spans]
    for name, text in rows:
        if text:
            say(f"{name:<11} {text}")
    for write in history:
        say(f"{'write ' + str(write.number):<11} {describe(write, id=one.id)}")


def describe(write: Write, *, id: str | None = None) -> str:
    """One line about a write."""
    parts = [write.at[:19].replace("T", " "), write.act]
    if id:
        parts.append("stored" if id in write.added else "removed")
    else:
        parts.append(f"+{len(write.added)} -{len(write.removed)}")
    parts += [f"undoes {write.undoes}"] if write.undoes else []
    parts += [f"{n}: {t}" for n in ("who", "why", "source") if (t := getattr(write, n))]
    return "  ".join(parts) + ("  (undone)" if write.undone else "")
