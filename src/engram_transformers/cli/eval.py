"""Teach a memory the facts of a task, ask, and measure: answers, silence, undo, cost.

Every answer is generated, with the cache on and a natural end. The result and every case behind
it are kept in the folder of results. `--memory none` is the bare host, to compare with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.opening import host_of
from engram_transformers.cli.output import emit, note, say
from engram_transformers.cli.parser import Parser, add_json, add_model, positive
from engram_transformers.errors import BadInput

if TYPE_CHECKING:
    from engram_transformers.experiments.spec import Experiment

SPELT = {"True": True, "False": False, "None": None}
"What Python spells otherwise than JSON."


def configure(parser: Parser) -> None:
    parser.add_argument("task", metavar="TASK", help="an evaluation set; see docs/data.md")
    parser.add_argument(
        "--memory", default="lookup", metavar="KIND", help="a kind, or none (default: lookup)"
    )
    parser.add_argument("--n", type=positive, metavar="N", help="facts to teach (default: 300)")
    parser.add_argument("--all", action="store_true", help="teach all facts of the task")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="draws the facts")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the memory; may be repeated",
    )
    parser.add_argument(
        "--control",
        choices=("shuffled", "empty", "context"),
        help="a memory of wrong answers, an empty one, or (needle) the fact in the context",
    )
    parser.add_argument(
        "--points", default="", metavar="T,T,…", help="numbers of facts to score at on the way"
    )
    parser.add_argument(
        "--distractors", type=int, default=0, metavar="N", help="facts of another set besides"
    )
    parser.add_argument("--asked", type=positive, metavar="N", help="questions a group, at most")
    parser.add_argument(
        "--silent", type=positive, default=300, metavar="N", help="silent prompts a group, at most"
    )
    parser.add_argument(
        "--protocol",
        choices=("sequential", "together"),
        help="facts one by one or all at once (default: one by one where the memory can)",
    )
    parser.add_argument(
        "--after", default="zsre", metavar="TASK", help="for probes: the facts that are taught"
    )
    parser.add_argument("--no-check", action="store_true", help="teach without checking")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("results"),
        metavar="DIR",
        help="where the result is kept (default: results)",
    )
    add_model(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.cli.telling import Telling
    from engram_transformers.experiments.bench import Bench, check_experiments
    from engram_transformers.experiments.compare import result_path, run_and_keep

    experiment = _experiment(args)
    check_experiments(experiment)
    host = host_of(args, memory=None)
    with Telling() as told, Bench(host, told=told) as bench:
        result = run_and_keep(bench, experiment, args.out)
    if args.json:
        emit(result)
        return 0
    show(result)
    note(f"kept in {result_path(args.out, experiment)}, its cases in {result['records']}")
    return 0


def show(result: dict[str, Any]) -> None:
    """A result as a table for people."""
    from engram_transformers.evaluation.result import metric

    say(f"{result['task']}, {result['memory']}, {result['n']} facts, {result['seconds']:.0f} s")
    for name, found in result.items():
        if isinstance(found, dict) and {"value", "low", "high", "n"} <= found.keys():
            span = f"{found['low']:.3f} to {found['high']:.3f}"
            cases = f"n {found['n']}"
            say(f"  {name:<22}{found['value']:>10.3f}  {span:<20}{cases:<9}{metric(name).meaning}")
    for name, reason in result.get("absent", {}).items():
        say(f"  {name:<22}{'-':>10}  {reason}")


def _experiment(args: argparse.Namespace) -> Experiment:
    from engram_transformers.experiments.spec import Experiment

    n = None if args.all else args.n or (20 if args.task == "needle" else 300)
    options = dict(map(option, args.set))
    return Experiment(
        args.task,
        args.memory,
        variant=_variant(options, args.control),
        n=n,
        seed=args.seed,
        options=options,
        control=args.control,
        check=not args.no_check,
        silent=args.silent,
        asked=args.asked,
        points=_points(args.points),
        distractors=args.distractors,
        protocol=args.protocol,
        after=args.after,
    )


def _variant(options: dict[str, Any], control: str | None) -> str:
    """A name for the options that were given, fit for a file."""
    parts = [str(value) for value in options.values()] + ([control] if control else [])
    name = "-".join(parts) or "default"
    return "".join(each if each.isalnum() or each in "._-" else "_" for each in name)


def option(text: str) -> tuple[str, Any]:
    """Name and value of a `KEY=VALUE`; the value as JSON, as Python spells it, or else as text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise BadInput(f"{text!r} is not KEY=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, SPELT.get(value, value)


def _points(text: str) -> tuple[int, ...]:
    parts = [part for part in text.split(",") if part.strip()]
    if not all(part.strip().isdecimal() and int(part) > 0 for part in parts):
        raise BadInput(f"--points {text!r} is not a list of numbers such as 1,10,100")
    return tuple(int(part) for part in parts)
