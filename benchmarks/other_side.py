"""A program of another environment that does tasks: a line of JSON each way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent

Row = dict[str, Any]
Ask = Callable[[Row], Row]


@contextmanager
def other_side(python: Path, module: str, *, arguments: Sequence[str] = ()) -> Iterator[Ask]:
    """A function that has `python -m module` do a task and gives its answer.

    Args:
        python: of the other environment, which knows nothing of ours.
        module: reads tasks from stdin and writes answers to stdout.
    """
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [str(python.absolute()), "-m", module, *arguments],
        cwd=ROOT,
        env={**environment, "HF_HUB_OFFLINE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    tasks, answers = process.stdin, process.stdout

    def ask(task: Row) -> Row:
        print(json.dumps(task), file=tasks, flush=True)
        line = answers.readline()
        if not line:
            sys.exit(f"{python} stopped with status {process.wait()}; what it said is above")
        answer: Row = json.loads(line)
        return answer

    with process:
        try:
            yield ask
        finally:
            tasks.close()
