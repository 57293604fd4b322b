"""The experiments of a comparison in several processes side by side."""

from __future__ import annotations

import multiprocessing
import os
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from engram_transformers.errors import EngramError, StoreError
from engram_transformers.experiments.compare import Step, compare
from engram_transformers.experiments.spec import Experiment

PATIENCE = 1.0
"Seconds between two looks at whether the workers are alive."


def compare_side_by_side(
    host: str, experiments: Sequence[Experiment], folder: Path, *, jobs: int
) -> Iterator[Step]:
    """Like `compare`, in so many processes, each with a host of its own.

    Experiments that teach the same memory stay in one process. The processor's cores are shared
    out among the processes.

    Args:
        host: what to load, as for `api.load`.
    """
    parts = groups(experiments)
    steps = side_by_side(_work, parts, host, folder, jobs, jobs=jobs, results=len(experiments))
    for number, step in enumerate(steps, start=1):
        yield replace(step, number=number, of=len(experiments))


def side_by_side(
    work: Callable[..., None], parts: Sequence[Any], *given: Any, jobs: int, results: int
) -> Iterator[Any]:
    """So many results of work that is shared out among processes, as they come.

    Args:
        work: is called in each process as `work(*given, todo, done)`; takes parts from `todo`
            until there is None, and puts results, or an error to be raised here, into `done`.
    """
    # A forked child would inherit threads that are not there any more.
    context = multiprocessing.get_context("spawn")
    todo, done = context.Queue(), context.Queue()
    for part in parts:
        todo.put(part)
    workers = [
        context.Process(target=_watched, args=(work, *given, todo, done), daemon=True)
        for _ in range(jobs)
    ]
    for worker in workers:
        todo.put(None)
        worker.start()
    try:
        for _ in range(results):
            yield _next(done, workers)
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def groups(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Neighbours that teach the same, together."""
    return [list(some) for _, some in groupby(experiments, key=lambda one: one.teaching)]


def _next(done: Any, workers: Sequence[Any]) -> Any:
    while True:
        try:
            found = done.get(timeout=PATIENCE)
        except queue.Empty:
            if not any(worker.is_alive() for worker in workers):
                codes = ", ".join(str(worker.exitcode) for worker in workers)
                raise ChildProcessError(f"all processes ended early (status {codes})") from None
            continue
        if isinstance(found, BaseException):
            raise found
        return found


def _work(host: str, folder: Path, jobs: int, todo: Any, done: Any) -> None:
    """What a process does: one group after another, until there is none."""
    import torch

    from engram_transformers.api import load
    from engram_transformers.experiments.bench import Bench

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    try:
        with Bench(load(host)) as bench:
            while (group := todo.get()) is not None:
                for step in compare(bench, group, folder):
                    done.put(step)
    except EngramError as error:
        # An error with arguments of its own would not arrive in one piece.
        done.put(StoreError(str(error)) if isinstance(error, StoreError) else error)
    except KeyboardInterrupt:
        pass


def _watched(work: Callable[..., None], *given: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(*given)


def _end_with_parent() -> None:
    """A worker whose parent was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
