"""Run many experiments and keep their results: those that are missing or were changed.

An experiment is a JSON file TASK/MEMORY/VARIANT.json with the fields of `engram eval`. Interrupted,
it can be run again: what is done is not done twice. `engram report` makes a page of the results.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engram_transformers.cli.opening import host_named, host_of
from engram_transformers.cli.output import emit, note, plural, say
from engram_transformers.cli.parser import Parser, add_json, add_model, positive
from engram_transformers.errors import BadInput, StoreError

if TYPE_CHECKING:
    from engram_transformers.experiments.compare import Step
    from engram_transformers.experiments.spec import Experiment

GUESS = 180.0
"Seconds that an experiment may take, as long as none has been run."


def configure(parser: Parser) -> None:
    parser.add_argument(
        "experiments",
        nargs="?",
        type=Path,
        default=Path("benchmarks/experiments"),
        metavar="FOLDER",
        help="of experiments (default: benchmarks/experiments)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="TASK/MEMORY/VARIANT",
        help="just these, * stands for anything; may be repeated",
    )
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        default=Path("benchmarks/results/compare"),
        metavar="DIR",
        help="where results are kept (default: benchmarks/results/compare)",
    )
    parser.add_argument(
        "--jobs",
        type=positive,
        default=1,
        metavar="N",
        help="processes side by side, each with a model of its own (default: 1)",
    )
    parser.add_argument("--force", action="store_true", help="run those that are done as well")
    parser.add_argument("--list", action="store_true", help="say what would be run, and stop")
    add_model(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    from engram_transformers.experiments.compare import check_folder, pending
    from engram_transformers.experiments.spec import read_experiments

    wanted = _chosen(read_experiments(args.experiments), args.only)
    check_folder(args.out, wanted)
    todo = pending(args.out, wanted, anew=args.force)
    note(f"{plural(len(wanted), 'experiment')}, {len(wanted) - len(todo)} done already")
    if args.list or not todo:
        return _listed(args, todo)
    clock = _Clock(dict(zip([each.name for each in todo], _expected(args.out, todo), strict=True)))
    note(f"about {clock.seconds_left / args.jobs / 60:.0f} min")
    steps: list[Step] = []
    for step in _steps(args, todo):
        steps.append(step)
        clock.tell(step)
        minutes = clock.seconds_left / args.jobs / 60
        left = f"; {step.number} of {step.of}, about {minutes:.0f} min left"
        note(_line(step) + left * bool(clock.expected))
    failed = [step for step in steps if step.error]
    if args.json:
        emit({"done": [_told(s) for s in steps if not s.error], "failed": list(map(_told, failed))})
    else:
        say(f"{plural(len(steps) - len(failed), 'experiment')} done, {len(failed)} failed")
    return 1 if failed else 0


def _chosen(experiments: Sequence[Experiment], only: Sequence[str]) -> list[Experiment]:
    if not only:
        return list(experiments)
    names = {f"{one.task}/{one.memory}/{one.variant}": one for one in experiments}
    for pattern in only:
        if not fnmatch.filter(names, pattern):
            raise BadInput(f"no experiment is called {pattern!r}; there are {', '.join(names)}")
    return [one for name, one in names.items() if any(fnmatch.fnmatch(name, p) for p in only)]


def _listed(args: argparse.Namespace, todo: Sequence[Experiment]) -> int:
    if args.json:
        emit({"todo": [one.name for one in todo]})
        return 0
    for one in todo:
        say(one.name)
    return 0


def _expected(folder: Path, todo: Sequence[Experiment]) -> list[float]:
    """Seconds that each experiment took the last time, or else as long as the others did."""
    from engram_transformers.evaluation.result import read_result
    from engram_transformers.experiments.compare import result_path

    known: dict[int, float] = {}
    for i, one in enumerate(todo):
        with suppress(StoreError):
            known[i] = float(read_result(result_path(folder, one)).get("seconds", GUESS))
    usual = sum(known.values()) / len(known) if known else GUESS
    return [known.get(i, usual) for i in range(len(todo))]


def _steps(args: argparse.Namespace, todo: Sequence[Experiment]) -> Iterator[Step]:
    """The experiments one after another, or in several processes."""
    from engram_transformers.cli.telling import Telling
    from engram_transformers.experiments.bench import Bench
    from engram_transformers.experiments.compare import compare
    from engram_transformers.experiments.parallel import compare_side_by_side

    if args.jobs > 1:
        yield from compare_side_by_side(host_named(args), todo, args.out, jobs=args.jobs)
        return
    host = host_of(args, memory=None)
    with Telling() as told, Bench(host, told=told) as bench:
        yield from compare(bench, todo, args.out)


@dataclass
class _Clock:
    """How long it will take, corrected by how long it took until now."""

    expected: dict[str, float]
    "Seconds of each experiment that is not done."
    past: float = 0.0
    "Seconds that were expected of those that are."
    took: float = 0.0
    "Seconds that these took."

    def tell(self, step: Step) -> None:
        self.past += self.expected.pop(step.experiment.name)
        self.took += 0.0 if step.result is None else float(step.result["seconds"])

    @property
    def seconds_left(self) -> float:
        pace = self.took / self.past if self.past and self.took else 1.0
        return sum(self.expected.values()) * pace


def _line(step: Step) -> str:
    if step.result is None:
        return f"{step.experiment.name} failed: {step.error}"
    shown = [
        f"{name} {step.result[name]['value']:.3f}"
        for name in ("gen_rel", "gen_gen", "loc_bitexact", "hard_loc", "perplexity")
        if name in step.result
    ]
    return f"{step.experiment.name}: {', '.join(shown)}, {step.result['seconds']:.0f} s"


def _told(step: Step) -> dict[str, Any]:
    told: dict[str, Any] = {"experiment": step.experiment.name}
    if step.result is None:
        return told | {"error": step.error}
    return told | {"seconds": step.result["seconds"]}
