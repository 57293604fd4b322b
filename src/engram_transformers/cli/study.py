"""Answer a question by many measurements, each done once and kept.

Without a name it lists the studies. A study consists of units, such as one training with one seed.
Each is kept as a file as soon as it is done: interrupted, the same command goes on, and with other
options only units that are new are done. At the end there are tables, plots and a page.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.eval import option
from engram_transformers.cli.output import complain, emit, note, plural, say
from engram_transformers.cli.parser import Parser, add_json, positive
from engram_transformers.errors import StoreError

if TYPE_CHECKING:
    from engram_transformers.studies.run import Step
    from engram_transformers.studies.study import Study, Unit

FOLDER = Path("benchmarks/results/studies")


def configure(parser: Parser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="a study; none lists them")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the study, lists as [1,2]; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        metavar="DIR",
        help=f"where units, result and plots are kept (default: {FOLDER}/NAME)",
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="write a page of the result")
    parser.add_argument(
        "--jobs", type=positive, default=1, metavar="N", help="processes side by side (default: 1)"
    )
    parser.add_argument(
        "--list", action="store_true", help="say which options and units there are, and stop"
    )
    parser.add_argument(
        "--stored", action="store_true", help="run nothing; conclude from the units that are done"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the study's own small options, which take minutes; kept in DIR/quick",
    )
    parser.add_argument("--no-plots", action="store_true", help="draw nothing (needs matplotlib)")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.studies.catalogue import studies, study_named
    from engram_transformers.studies.options import configured, quickly

    if args.name is None:
        return _studies(studies(), json=args.json)
    study = study_named(args.name)
    given = (quickly(study) if args.quick else {}) | dict(map(option, args.set))
    options = configured(study.Options, given)
    # Not beside the stored studies: pages and reports are made of those.
    folder = (args.out or FOLDER / study.name) / ("quick" if args.quick else "")
    units = study.plan(options)
    if args.list:
        return _listed(study, options, units, folder, json=args.json)
    _check_plots(args)
    failed = [] if args.stored else _run(study, units, folder, args.jobs)
    if failed is None:
        return 130
    _conclude(study, options, units, folder, args)
    return 1 if failed else 0


def _studies(found: Sequence[Study], *, json: bool) -> int:
    if json:
        emit({"studies": [{"name": one.name, "question": one.question} for one in found]})
        return 0
    for one in found:
        say(f"{one.name:<14}{one.question}")
    return 0


def _listed(study: Study, options: Any, units: Sequence[Unit], folder: Path, *, json: bool) -> int:
    from engram_transformers.studies.options import meanings
    from engram_transformers.studies.run import pending

    means, todo = meanings(study.Options), {unit.name for unit in pending(folder, units)}
    if json:
        names = [unit.name for unit in units]
        done = [name for name in names if name not in todo]
        emit({"options": asdict(options), "means": means, "done": done, "todo": sorted(todo)})
        return 0
    say(study.question)
    for name, value in asdict(options).items():
        shown = ",".join(map(str, value)) if isinstance(value, tuple) else value
        say(f"  {name}={shown}\n      {means.get(name, '')}")
    say(f"{plural(len(units), 'unit')}, {len(units) - len(todo)} done")
    for unit in units:
        say(f"  {'todo' if unit.name in todo else 'done'}  {unit.name}")
    return 0


def _check_plots(args: argparse.Namespace) -> None:
    """Nobody should learn after an hour that plots cannot be drawn."""
    if not args.no_plots:
        from engram_transformers.evaluation.report.drawing import check

        check()


def _run(study: Study, units: Sequence[Unit], folder: Path, jobs: int) -> list[Step] | None:
    """Do what is not done; returns what failed, or None where a user interrupted."""
    from engram_transformers.cli.telling import Telling
    from engram_transformers.studies.run import all_kept, pending, run

    todo = pending(folder, units)
    note(f"{plural(len(units), 'unit')}, {len(units) - len(todo)} done already")
    known = [done.seconds for done in all_kept(folder, units)]
    failed = []
    try:
        with Telling() as told:
            for step in run(study, todo, folder, jobs=jobs, known=known, told=told):
                note(_line(step))
                failed += [step] if step.error else []
    except KeyboardInterrupt:
        done = len(units) - len(pending(folder, units))
        complain(f"interrupted; {done} of {len(units)} units are kept, run it again to go on")
        return None
    return failed


def _line(step: Step) -> str:
    what = f"failed: {step.error}" if step.done is None else f"{step.done.seconds:.0f} s"
    left = f"; about {step.left / 60:.0f} min left" if step.left else ""
    return f"{step.number} of {step.of} · {step.unit.name}: {what}{left}"


def _conclude(
    study: Study, options: Any, units: Sequence[Unit], folder: Path, args: argparse.Namespace
) -> None:
    from engram_transformers.studies.page import write_page
    from engram_transformers.studies.result import write_result
    from engram_transformers.studies.run import all_kept

    done = all_kept(folder, units)
    if not done:
        raise StoreError(f"no unit of {study.name} with these options is done in {folder}")
    result = write_result(study, options, done, folder, planned=len(units), plots=not args.no_plots)
    if args.page:
        write_page(result, folder, args.page)
    if args.json:
        emit(result)
        return
    show(result)
    note(f"kept in {folder}" + (f", page {args.page}" if args.page else ""))


def show(result: Mapping[str, Any]) -> None:
    """A result as tables for people."""
    from engram_transformers.studies.page import cells

    for table in result["tables"]:
        say(f"\n{table['title']}")
        lines = cells(table)
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        for line in lines:
            first, *rest = zip(line, widths, strict=True)
            right = "".join(f"  {text:>{width}}" for text, width in rest)
            say(f"  {first[0]:<{first[1]}}{right}")
    for text in result["notes"]:
        say(f"* {text}")
