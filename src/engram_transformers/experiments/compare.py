"""Many experiments: runs those whose result is missing or was made by another experiment."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engram_transformers.errors import EngramError, StoreDamaged, StoreError, StoreTooNew
from engram_transformers.evaluation.result import read_result, write_records, write_result
from engram_transformers.experiments.bench import Bench, check_experiments
from engram_transformers.experiments.spec import Experiment


@dataclass(frozen=True)
class Step:
    """One experiment of a comparison, done or failed."""

    experiment: Experiment
    result: dict[str, Any] | None
    error: str | None
    number: int
    of: int


def result_path(folder: Path, experiment: Experiment) -> Path:
    """Where the result of an experiment is kept."""
    return folder / f"{experiment.name}.result.json"


def is_done(folder: Path, experiment: Experiment) -> bool:
    """Whether the result of this very experiment is there."""
    with suppress(StoreError):
        return bool(read_result(result_path(folder, experiment)).get("digest") == experiment.digest)
    return False


def check_folder(folder: Path, experiments: Sequence[Experiment]) -> None:
    """Raise what is wrong with stored results or with an experiment before any work is done."""
    for experiment in experiments:
        path = result_path(folder, experiment)
        if path.exists():
            read_result(path)
    check_experiments(*experiments)


def pending(
    folder: Path, experiments: Sequence[Experiment], *, anew: bool = False
) -> list[Experiment]:
    """The experiments that are still to be run, those that teach the same side by side.

    Args:
        anew: run those that are done as well.
    """
    missing = [one for one in experiments if anew or not is_done(folder, one)]
    # Probes come right after the task whose memory they look at.
    return sorted(missing, key=lambda one: (one.memory, one.variant, one.teaching, one.task))


def compare(bench: Bench, experiments: Sequence[Experiment], folder: Path) -> Iterator[Step]:
    """Run experiments in turn and keep each result as soon as it is there.

    An experiment that cannot be run is reported and the others go on; an interruption loses at
    most the experiment that it falls into.
    """
    for number, experiment in enumerate(experiments, start=1):
        try:
            result = run_and_keep(bench, experiment, folder)
        except (StoreDamaged, StoreTooNew):
            raise
        except (EngramError, MemoryError, RuntimeError) as error:
            bench.close()
            if isinstance(error, StoreError):
                raise  # a disk that refuses will refuse the next one too
            yield Step(experiment, None, str(error), number, len(experiments))
        else:
            yield Step(experiment, result, None, number, len(experiments))


def run_and_keep(bench: Bench, experiment: Experiment, folder: Path) -> dict[str, Any]:
    """Run one experiment and write its records and then its result."""
    outcome = bench.run(experiment)
    path = result_path(folder, experiment)
    records = path.with_name(f"{experiment.name}.records.jsonl")
    write_records(records, outcome.records)
    result = {**outcome.result, "records": records.name}
    write_result(path, result)
    return result
