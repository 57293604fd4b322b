"""Ask the model for every stored fact again; the exit status is 1 if one does not hold."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.opening import opened
from engram_transformers.cli.output import emit, plural, progress, say, short
from engram_transformers.cli.parser import Parser, add_memory, add_model

if TYPE_CHECKING:
    from engram_transformers.api import OpenMemory


def configure(parser: Parser) -> None:
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    with opened(args) as (host, memory):
        questions = sum(len(fact.questions) for fact in memory.facts)
        with progress("verifying", questions) as advance:
            verdicts = memory.verify(progress=advance)
        said = {
            id: host.tokens.decode_answer(verdict.choices)
            for id, verdict in verdicts.items()
            if not verdict.holds
        }
        failed = _failed(memory, said)
    if args.json:
        held = len(verdicts) - len(failed)
        emit({"facts": len(verdicts), "questions": questions, "hold": held, "failed": failed})
    else:
        _print(failed, facts=len(verdicts), questions=questions)
    return 1 if failed else 0


def _failed(memory: OpenMemory, said: Mapping[str, str]) -> list[dict[str, Any]]:
    facts = {fact.id: fact for fact in memory.facts}
    return [{"id": id, **facts[id].as_dict(), "said": text} for id, text in said.items()]


def _print(failed: list[dict[str, Any]], *, facts: int, questions: int) -> None:
    for one in failed:
        expected, said = short(one["answer"], 40), short(one["said"], 40)
        say(f"{one['id']}  {short(one['prompt'])}  expected {expected!r}, said {said!r}")
    asked = f"asked {plural(questions, 'question')}"
    say(f"{facts - len(failed):,} of {plural(facts, 'fact')} hold, {len(failed):,} fail ({asked})")
