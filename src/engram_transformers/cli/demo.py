"""Teach a real model facts that it does not know, prove what changed, and take them back.

The facts were written for this demonstration. Every answer is generated; the questions marked
"other wordings" are asked but never taught. What is left behind is a memory to play with.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engram_transformers.cli.demo_page import Page
from engram_transformers.cli.opening import DEFAULT_MODEL
from engram_transformers.cli.output import emit, waiting
from engram_transformers.cli.parser import Parser, add_json, positive
from engram_transformers.errors import BadInput

if TYPE_CHECKING:
    from engram_transformers.api import Host
    from engram_transformers.demo.data import DemoData
    from engram_transformers.demo.result import DemoResult

FILES = ("memory.safetensors", "ledger.sqlite", "ledger.sqlite-journal", "write.lock")
HERE = "demo-memory"


def configure(parser: Parser) -> None:
    parser.add_argument("-m", "--model", metavar="ID", help=f"default: {DEFAULT_MODEL}")
    parser.add_argument("-M", "--memory", metavar="DIR", default=HERE, help=f"default: ./{HERE}")
    parser.add_argument("--limit", type=positive, metavar="N", help="teach only so many facts")
    parser.add_argument(
        "--address",
        choices=("meaning", "exact"),
        default="meaning",
        help="exact answers taught wordings only (default: meaning)",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    started = time.perf_counter()
    path = Path(args.memory)
    clear(path)
    with waiting("loading the model"):
        from engram_transformers.api import load
        from engram_transformers.demo.data import demo_data

        host = load(args.model or DEFAULT_MODEL)
    data = demo_data(args.limit)
    show = Page(host.identity.id, data, quiet=args.json)
    result = _demonstrate(args, host, data, show, started)
    if args.json:
        emit(result.as_dict())
    show.end(result, path)
    return 0 if result.succeeded else 1


def clear(path: Path) -> None:
    """Make room for the demonstration's memory; deletes nothing but an earlier one of its own."""
    from engram_transformers.stores.directory import is_memory

    if not path.exists():
        return
    if not is_memory(path):
        if not path.is_dir() or any(each.name not in FILES for each in path.iterdir()):
            raise BadInput(f"{path} is there already and is no demo memory; pass -M another/place")
        return
    _check_own(path)
    # The description goes last: without it a directory is no memory.
    for name in (*FILES, "config.json"):
        (path / name).unlink(missing_ok=True)


def _check_own(path: Path) -> None:
    from engram_transformers.demo import SOURCE
    from engram_transformers.stores.directory import Directory

    with Directory.open(path, writable=True) as memory:
        taught = [write for write in memory.writes() if write.act == "teach"]
    foreign = [write for write in taught if write.source != SOURCE and not write.undone]
    if foreign:
        raise BadInput(
            f"{path} holds facts that are not the demo's (write {foreign[0].number}); "
            "it is left alone, pass -M another/place"
        )


def _demonstrate(
    args: argparse.Namespace, host: Host, data: DemoData, show: Page, started: float
) -> DemoResult:
    from engram_transformers.demo import SOURCE
    from engram_transformers.demo import run as demo
    from engram_transformers.demo.result import DemoResult

    shown, probes = demo.shown_questions(data), demo.probes(data)
    with show.step("the untouched model is asked", len(probes)) as advance:
        untouched = demo.digests(host, probes, advance)
        before = demo.begin(host, shown)
    with host.open_memory(args.memory, address=args.address) as memory:
        with show.step(
            f"{len(data.facts)} facts are taught and checked", len(data.facts)
        ) as advance:
            receipt = demo.teach(memory, data, advance)
        show.compare(shown, before, demo.begin(host, shown))
        taught, held_out = demo.taught_questions(data), demo.held_out_questions(data)
        everything = [*taught, *held_out]
        with show.step("all of it is asked, in other words too", len(everything)) as advance:
            said = demo.answers(host, everything, advance)
        with show.step("logits are compared on unrelated prompts", data.prompts) as advance:
            silences = demo.silence(host, data, advance)
        with show.step("everything is forgotten and compared", len(probes)) as advance:
            memory.forget([fact.id for fact in memory.facts], why=SOURCE)
            restored = demo.same(untouched, demo.digests(host, probes, advance))
        again = taught[:: len(taught) // demo.AGAIN + 1]
        with show.step("the forgetting is undone", len(again)) as advance:
            memory.undo()
            recalled = demo.answers(host, again, advance)
    return DemoResult(
        model=host.identity.id,
        receipt=receipt,
        taught=said[: len(taught)],
        held_out=said[len(taught) :],
        silences=silences,
        restored=restored,
        recalled=recalled,
        seconds=time.perf_counter() - started,
    )
