"""Train a memory on facts: cross-entropy on the answers alone, their end included.

The blocks below the lowest one that changes are run once for each question (`models/late.py`),
and the head only where an answer is predicted. Batches are made once, of questions of like length,
and come in another order every epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.errors import TrainingDiverged
from engram_transformers.evaluation.check import Trial
from engram_transformers.evaluation.generate import common_prefix
from engram_transformers.memories.shared.touched import Touched
from engram_transformers.memory import Expecting, Rehearsing, Routable, Schedule, Trainable
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.late import LatePass
from engram_transformers.models.modes import evaluating
from engram_transformers.models.tokens import HostTokens
from engram_transformers.training.batches import (
    Batch,
    exact_in,
    keep_below,
    padded_batches,
    predictions,
)
from engram_transformers.training.examples import Example, trials_of
from engram_transformers.training.joint import optimizer_of
from engram_transformers.training.rate import shares
from engram_transformers.training.room import within_memory
from engram_transformers.training.rowwise import Tabled
from engram_transformers.types import Fact

LEAST = 60
"Steps that a training has at least, if it needs them: a few facts make few steps an epoch."


@dataclass(frozen=True)
class Fit:
    """What a training did."""

    epochs: int
    steps: int
    questions: int
    losses: tuple[float, ...]
    "Mean loss of each epoch, in nats a token."
    exact: float
    "Share of the questions whose whole answer was the first choice in the last epoch."
    parameters: int
    "Numbers that were trained."
    late: bool
    "Whether the blocks below were left out."
    seconds: float


def fit(
    adapter: Adapter,
    tokens: HostTokens,
    memory: Trainable,
    facts: Iterable[Fact],
    *,
    schedule: Schedule | None = None,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Fit:
    """Train an attached memory until every question is answered exactly, or the epochs are over.

    The same memory, facts and schedule give the same tensors every time.

    Args:
        progress: is told how many of how many steps are done.

    Raises:
        BadInput: a step does not fit into memory.
        TrainingDiverged: the loss or a gradient was no number; the memory has the tensors that it
            had when that epoch began or, where these gave no number, when the one before did.
    """
    facts, schedule = list(facts), schedule or memory.schedule
    if isinstance(memory, Expecting):
        memory.expect(facts)
    trials = trials_of(facts, tokens)
    if isinstance(memory, Rehearsing) and trials:
        taught = {trial.prompt for trial in trials}
        trials += [Trial(*each) for each in memory.rehearsal(tokens, besides=taught)]
    by_rows = memory.by_rows() if isinstance(memory, Tabled) else nullcontext(())
    # What is taught shall be known; whether the route lets it through is for the check to see.
    unrouted = memory.unrouted() if isinstance(memory, Routable) else nullcontext()
    ours = alone(adapter.model, memory.parameters())
    fitting = within_memory(batch=schedule.batch, device=adapter.device)
    with fitting, ours, torch.enable_grad(), unrouted, by_rows as tables:
        run = _Run(adapter, memory, schedule, trials, tables=tables)
        return run.until_exact(progress)


class _Run:
    def __init__(
        self,
        adapter: Adapter,
        memory: Trainable,
        schedule: Schedule,
        trials: Sequence[Trial],
        *,
        tables: Sequence[tuple[nn.Parameter, Touched]],
    ) -> None:
        self.adapter, self.memory, self.schedule = adapter, memory, schedule
        prefix = common_prefix([trial.prompt for trial in trials])
        self.late = LatePass(adapter, memory.first_block, prefix=prefix)
        self.batches = padded_batches(
            [Example.of(trial) for trial in trials],
            schedule.batch,
            seed=schedule.seed,
            skip=len(prefix),
            device=adapter.device,
        )
        self.epochs = enough(schedule.epochs, steps=len(self.batches))
        self.steps = self.epochs * len(self.batches)
        rate = schedule.learning_rate
        self.optimizer = optimizer_of([memory], rate=rate, tables=[(memory, tables)])
        self.rate = torch.optim.lr_scheduler.LambdaLR(self.optimizer, shares(self.steps))
        self.order = torch.Generator().manual_seed(schedule.seed)
        self.done, self.exact = 0, 0.0
        self.losses: list[float] = []
        self.good: dict[str, Tensor] = {}
        "The memory's tensors when an epoch began, once they gave a loss that is a number."
        self.kept = 1
        "That epoch."

    def until_exact(self, progress: Callable[[int, int], None]) -> Fit:
        started = time.perf_counter()
        keep_below(self.late, self.batches)
        for _ in range(self.epochs if self.batches else 0):
            self._epoch(progress)
            if self.exact == 1:
                break
        return Fit(
            epochs=len(self.losses),
            steps=self.done,
            questions=self._questions,
            losses=tuple(self.losses),
            exact=self.exact,
            parameters=sum(p.numel() for p in self.memory.parameters()),
            late=self.late.late,
            seconds=time.perf_counter() - started,
        )

    @property
    def _questions(self) -> int:
        return sum(len(batch.sizes) for batch in self.batches)

    def _epoch(self, progress: Callable[[int, int], None]) -> None:
        loss, exact, weight = 0.0, 0, 0
        for n, i in enumerate(torch.randperm(len(self.batches), generator=self.order).tolist()):
            batch = self.batches[i]
            one, right = self._step(batch, first=n == 0)
            loss, weight = loss + one * len(batch.wanted), weight + len(batch.wanted)
            exact += right
            self.done += 1
            progress(self.done, self.steps)
        self.losses.append(loss / weight)
        self.exact = exact / self._questions

    def _step(self, batch: Batch, *, first: bool) -> tuple[float, int]:
        """One step: the loss before it, and how many answers were exact."""
        logits = predictions(self.adapter, self.late, batch)
        loss = functional.cross_entropy(logits, batch.wanted)
        if isinstance(self.memory, Rehearsing):
            loss = loss + self.memory.penalty()
        value = float(loss.detach())
        loss.backward()  # type: ignore[no-untyped-call]
        try:
            if not math.isfinite(value):
                raise TrainingDiverged("the loss is no number")
            if first:
                self._keep()
            self.optimizer.step()
        except TrainingDiverged:
            self._diverged()
        self.rate.step()
        return value, exact_in(logits, batch)

    def _keep(self) -> None:
        self.good.clear()  # first, so that no two copies are held
        self.good, self.kept = copied(self.memory), len(self.losses) + 1

    def _diverged(self) -> None:
        if self.good:  # else no step was taken
            self.memory.load_state_dict(self.good)
        raise TrainingDiverged(
            f"the loss was no number any more in epoch {len(self.losses) + 1}; the memory is as it "
            f"was before epoch {self.kept}. "
            f"Use a learning_rate below {self.schedule.learning_rate:g}."
        )


def enough(epochs: int, *, steps: int) -> int:
    """So many epochs of so many steps, or more where they would be too few."""
    return max(epochs, -(-LEAST // max(1, steps)))


def copied(memory: Trainable) -> dict[str, Tensor]:
    """A memory's tensors as they are now, on their device."""
    return {name: value.detach().clone() for name, value in memory.state_dict().items()}


@contextmanager
def alone(model: nn.Module, parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Only these get gradients, and the host is in eval mode; afterwards all is as it was."""
    trained_now = list(parameters)
    ours = {id(p) for p in trained_now}
    # A resident memory's tensors stand among the host's.
    host = [p for p in model.parameters() if id(p) not in ours]
    trained = [p.requires_grad for p in host]
    for parameter in host:
        parameter.requires_grad_(False)
    for parameter in trained_now:
        parameter.grad = None
    try:
        with evaluating(model):
            yield
    finally:
        for parameter, before in zip(host, trained, strict=True):
            parameter.requires_grad_(before)
        for parameter in trained_now:
            parameter.grad = None
