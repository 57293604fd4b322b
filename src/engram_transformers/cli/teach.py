"""Teach facts, check each by what the model then says, and store those that hold.

Files may be JSONL, JSON or CSV (prompt, answer, and optionally paraphrases, subject, relation,
source), gzipped or not, or the evaluation files of ZsRE, CounterFact, WikiBigEdit and MQuAKE,
cloze files, and chats of one question and one answer. Interrupted, it can be run again: what is
stored already is not written twice.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.eval import option
from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import emit, progress
from engram_transformers.cli.parser import (
    Parser,
    add_memory,
    add_model,
    add_why,
    memory_named,
    positive,
)
from engram_transformers.errors import BadInput, FactFileError, Interrupted
from engram_transformers.registry import check_kind
from engram_transformers.types import Fact

if TYPE_CHECKING:
    from engram_transformers.api import OpenMemory
    from engram_transformers.cli.receipts import Outcome, Reading
    from engram_transformers.stores.fact_files import FactFile


def configure(parser: Parser) -> None:
    parser.add_argument("files", nargs="*", metavar="FILE", help="facts; - is standard input")
    one = parser.add_argument_group("one fact instead of files")
    one.add_argument("--prompt", metavar="TEXT", help="the question")
    one.add_argument("--answer", metavar="TEXT", help="the answer to it")
    one.add_argument(
        "--paraphrase",
        action="append",
        default=[],
        metavar="TEXT",
        help="another wording of the question; may be repeated",
    )
    one.add_argument("--subject", metavar="TEXT", help="what the fact is about")
    one.add_argument("--relation", metavar="TEXT", help="which property of it")
    configure_common(parser)


def configure_common(parser: Parser) -> None:
    """The options that teaching and importing share."""
    parser.add_argument(
        "--on-conflict",
        choices=("replace", "keep", "reject"),
        default="replace",
        help="what to do where another answer is stored (default: replace)",
    )
    parser.add_argument("--no-check", action="store_true", help="store without asking the model")
    parser.add_argument(
        "--with-paraphrases",
        action="store_true",
        help="also teach the rephrasings of evaluation files, which else stay held out",
    )
    parser.add_argument("--dry-run", action="store_true", help="write nothing; say what would be")
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many facts")
    parser.add_argument(
        "--kind",
        metavar="KIND",
        help="of a new memory: lookup (default), text; edits: memoir, rank_one, grace, horen, "
        "wise; or trained, so that it cannot forget: lora, gated_lora, fine_tune, bottleneck, "
        "bias, engram, implicit",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of a new memory's kind, as method=gradient; may be repeated",
    )
    parser.add_argument(
        "--address",
        choices=("meaning", "exact"),
        help="of a new memory: find other wordings too (default), or taught wordings only",
    )
    parser.add_argument(
        "--encoder",
        choices=("minilm", "host"),
        help="of a new memory: what compares meanings (default: minilm)",
    )
    add_why(parser)
    add_model(parser)
    add_memory(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.cli.receipts import Reading, report

    wanted = Path(memory_named(args))
    if args.kind is not None:
        check_kind(args.kind)  # before a model is loaded
    reading = Reading(_sources(args), limit=args.limit)
    with ExitStack() as stack:
        path = _path(args, wanted, stack)
        host = host_of(args, memory=path)
        memory = stack.enter_context(host.open_memory(path, **_options(args)))
        found = _taught(args, memory, reading)
    report(found, as_json=args.json)
    return 1 if found.refused else 0


def _taught(args: argparse.Namespace, memory: OpenMemory, reading: Reading) -> Outcome:
    try:
        with progress("teaching", reading.count()) as advance:
            receipt = memory.teach(
                reading.facts(advance),
                on_conflict=args.on_conflict,
                check=not args.no_check,
                dry_run=args.dry_run,
                why=args.why,
                source=reading.source,
                progress=advance,
            )
    except Interrupted as stop:
        if args.json:
            emit(reading.outcome(stop.receipt).as_dict() | {"interrupted": True})
        raise
    if not reading.read:
        raise FactFileError(f"{reading.source} holds no facts")
    return reading.outcome(receipt, dry_run=args.dry_run)


def _sources(args: argparse.Namespace) -> list[FactFile] | Fact:
    """What is to be taught; faults of whole files are found before a model is loaded."""
    from engram_transformers.stores.fact_files import FactFile

    single = getattr(args, "prompt", None) is not None or getattr(args, "answer", None) is not None
    if single and args.files:
        raise BadInput("pass files, or --prompt and --answer, not both")
    if single:
        return _single(args)
    if not args.files:
        raise BadInput("nothing to teach; pass a file of facts, or --prompt and --answer")
    return [FactFile(file, with_paraphrases=args.with_paraphrases) for file in args.files]


def _single(args: argparse.Namespace) -> Fact:
    for name in ("prompt", "answer"):
        if not (getattr(args, name) or "").strip():
            raise BadInput(f"--{name} is missing or empty; a fact needs --prompt and --answer")
    return Fact(args.prompt, args.answer, args.paraphrase, args.subject, args.relation)


def _path(args: argparse.Namespace, wanted: Path, stack: ExitStack) -> Path:
    from engram_transformers.stores.directory import is_memory

    if not args.dry_run or is_memory(wanted):
        return wanted
    # A dry run must not create what it is asked about.
    return Path(stack.enter_context(tempfile.TemporaryDirectory())) / wanted.name


def _options(args: argparse.Namespace) -> dict[str, Any]:
    given = {"kind": args.kind, "address": args.address, "encoder": args.encoder}
    named = {name: value for name, value in given.items() if value is not None}
    return named | dict(map(option, args.set))
