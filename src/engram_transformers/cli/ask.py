"""Ask one question, with the memory attached."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.opening import host_of, opened
from engram_transformers.cli.output import emit, is_terminal, say
from engram_transformers.cli.parser import Parser, add_memory, add_model, positive
from engram_transformers.errors import BadInput

if TYPE_CHECKING:
    from engram_transformers.api import Host, OpenMemory
    from engram_transformers.types import Fact, Firing


def configure(parser: Parser) -> None:
    parser.add_argument("question", metavar="QUESTION")
    parser.add_argument("--explain", action="store_true", help="say which fact fired, and why")
    parser.add_argument("--bare", action="store_true", help="ask the model without the memory")
    parser.add_argument(
        "--max-new-tokens", type=positive, default=128, metavar="N", help="default: 128"
    )
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.cli.words import explanation

    if not args.question.strip():
        raise BadInput("the question is empty")
    if args.bare and args.explain:
        raise BadInput("--explain explains what the memory did, and --bare asks without it")
    with _asked(args) as (host, memory):
        answer = _answer(args, host)
        firing = None if args.bare or memory is None else memory.explain(args.question)
        fact = memory.get(firing.fact).fact if memory and firing and firing.fact else None
    if args.json:
        emit(_data(args, answer, firing=firing, fact=fact))
    elif args.explain and firing:
        say(explanation(firing, fact))
    return 0


@contextmanager
def _asked(args: argparse.Namespace) -> Iterator[tuple[Host, OpenMemory | None]]:
    if args.bare:
        yield host_of(args, memory=None), None
        return
    with opened(args) as found:
        yield found


def _answer(args: argparse.Namespace, host: Host) -> str:
    from engram_transformers.cli.streaming import Stream

    stream = Stream(host.tokens) if is_terminal() and not args.json else None
    options: dict[str, Any] = {"streamer": stream} if stream else {}
    with host.bare() if args.bare else nullcontext():
        answer = host.ask(args.question, max_new_tokens=args.max_new_tokens, **options)
    if not stream and not args.json:
        say(answer)
    return answer


def _data(
    args: argparse.Namespace, answer: str, *, firing: Firing | None, fact: Fact | None
) -> dict[str, Any]:
    data: dict[str, Any] = {"question": args.question, "answer": answer}
    data["fired"] = bool(firing and firing.fired)
    data["fact"] = {"id": fact.id, **fact.as_dict()} if fact else None
    if args.explain and firing:
        data["explanation"] = asdict(firing)
    return data
