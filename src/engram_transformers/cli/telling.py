"""Progress of work that goes through several stages, each with a count of its own."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from engram_transformers.cli.output import progress


class Telling:
    """Shows the stage that is under way; a context manager."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._what: str | None = None
        self._advance: Callable[[int], None] = lambda done: None

    def __call__(self, what: str, done: int, total: int | None) -> None:
        if what != self._what:
            self._stack.close()
            self._what = what
            self._advance = self._stack.enter_context(progress(what, total))
        self._advance(done)

    def __enter__(self) -> Telling:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
