"""Train a memory on facts: cross-entropy on the answers alone, their end included.

The blocks below the lowest one that changes are run once for each question (`models/late.py`),
and the head only where an answer is predicted. Batches are made once, of questions of like length,
and come in another order every epoch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.attach import prompt_ends
from engram_transformers.errors import TrainingDiverged
from engram_transformers.evaluation.check import Trial
from engram_transformers.evaluation.generate import common_prefix
from engram_transformers.memories.shared.touched import Touched
from engram_transformers.memory import Expecting, Rehearsing, Routable, Schedule, Trainable
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.late import Below, LatePass
from engram_transformers.models.tokens import HostTokens
from engram_transformers.training.rowwise import RowWise, Tabled
from engram_transformers.types import Fact

WARM_UP = 0.1
"Share of the steps in which the learning rate rises; then it falls along a cosine."
FLOOR = 0.1
"Share of the highest learning rate that is left in the last step."
CLIP = 1.0
"Length that a gradient is cut to."
LEAST = 60
"Steps that a training has at least, if it needs them: a few facts make few steps an epoch."
ROOM = 2 * 2**30
"Bytes of states that are kept at most; batches beyond are run whole."


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


@dataclass
class _Batch:
    """Questions that are trained in one step, padded on the right."""

    ids: Tensor
    "(rows, time), without what all questions begin with."
    mask: Tensor
    "(rows, time): 0 where there is padding."
    prompt_ends: tuple[int, ...]
    at: tuple[Tensor, Tensor]
    "Rows and columns of the states that predict answers."
    wanted: Tensor
    "(tokens of all answers,)"
    sizes: list[int]
    "Tokens of each answer."
    below: Below | None = None


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
        TrainingDiverged: the loss or a gradient was no number; the memory has the tensors that it
            had when that epoch began.
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
    with _alone(adapter.model, memory), torch.enable_grad(), unrouted, by_rows as tables:
        run = _Run(adapter, memory, schedule, trials, tables=tables)
        return run.until_exact(progress)


def trials_of(facts: Iterable[Fact], tokens: HostTokens) -> list[Trial]:
    """Every wording of every fact, asked as a user asks, with the answer to it."""
    form = tokens.ask_form
    return [
        Trial(
            tuple(tokens.prompt_ids(question, form=form)),
            tuple(tokens.answer_ids(question, fact.answer, form=form)),
        )
        for fact in facts
        for question in fact.questions
    ]


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
        self.parameters = list(memory.parameters())
        prefix = common_prefix([trial.prompt for trial in trials])
        self.late = LatePass(adapter, memory.first_block, prefix=prefix)
        self.batches = _batches(trials, adapter, schedule, skip=len(prefix))
        self.epochs = max(schedule.epochs, -(-LEAST // max(1, len(self.batches))))
        self.steps = self.epochs * len(self.batches)
        self.optimizers = _optimizers(memory, schedule.learning_rate, tables)
        self.rates = [
            torch.optim.lr_scheduler.LambdaLR(each, self._share) for each in self.optimizers
        ]
        self.order = torch.Generator().manual_seed(schedule.seed)
        self.done, self.exact = 0, 0.0
        self.losses: list[float] = []

    def until_exact(self, progress: Callable[[int, int], None]) -> Fit:
        started = time.perf_counter()
        self._keep()
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
            parameters=sum(p.numel() for p in self.parameters),
            late=self.late.late,
            seconds=time.perf_counter() - started,
        )

    @property
    def _questions(self) -> int:
        return sum(len(batch.sizes) for batch in self.batches)

    def _keep(self) -> None:
        """What the lower blocks give, as far as there is room for it."""
        room = ROOM
        for batch in self.batches:
            if room > 0:
                batch.below = self.late.keep(batch.ids, batch.mask)
                room -= 0 if batch.below is None else batch.below.states.nbytes

    def _epoch(self, progress: Callable[[int, int], None]) -> None:
        good = copied(self.memory)
        loss, exact, weight = 0.0, 0, 0
        for i in torch.randperm(len(self.batches), generator=self.order).tolist():
            batch = self.batches[i]
            one, right = self._step(batch, good=good)
            loss, weight = loss + one * len(batch.wanted), weight + len(batch.wanted)
            exact += right
            self.done += 1
            progress(self.done, self.steps)
        self.losses.append(loss / weight)
        self.exact = exact / self._questions

    def _step(self, batch: _Batch, *, good: Mapping[str, Tensor]) -> tuple[float, int]:
        """One step: the loss before it, and how many answers were exact."""
        with prompt_ends(self.adapter.model, batch.prompt_ends):
            states = self.late(batch.ids, batch.mask, batch.below)
        logits = self.adapter.logits(states[batch.at])
        loss = functional.cross_entropy(logits, batch.wanted)
        if isinstance(self.memory, Rehearsing):
            loss = loss + self.memory.penalty()
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = float(nn.utils.clip_grad_norm_(self.parameters, CLIP))
        # A row's step does not depend on the length of its gradient, so there is nothing to cut.
        norm += sum(each.norm() for each in self.optimizers if isinstance(each, RowWise))
        value = float(loss.detach())
        if not (math.isfinite(value) and math.isfinite(norm)):
            self._diverged(good)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.step()
            rate.step()
        right = torch.split(logits.argmax(dim=-1) == batch.wanted, batch.sizes)
        return value, sum(bool(one.all()) for one in right)

    def _diverged(self, good: Mapping[str, Tensor]) -> None:
        self.memory.load_state_dict(good)
        raise TrainingDiverged(
            f"the loss was no number any more in epoch {len(self.losses) + 1}; the memory is as it "
            f"was before that epoch. Use a learning_rate below {self.schedule.learning_rate:g}."
        )

    def _share(self, step: int) -> float:
        """Share of the highest learning rate at a step."""
        warm = max(1, round(WARM_UP * self.steps))
        if step < warm:
            return (step + 1) / warm
        left = (step - warm) / max(1, self.steps - warm)
        return FLOOR + (1 - FLOOR) * (1 + math.cos(math.pi * min(1.0, left))) / 2


def _optimizers(
    memory: Trainable, rate: float, tables: Sequence[tuple[nn.Parameter, Touched]]
) -> list[torch.optim.Optimizer]:
    """AdamW for all tensors but the tables, whose rows are updated as they are read.

    Decay of tensors that all facts share would wear the earlier ones away.
    """
    by_row = {id(table) for table, _ in tables}
    others = [p for p in memory.parameters() if id(p) not in by_row]
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW(others, lr=rate, weight_decay=0.0)]
    if isinstance(memory, Tabled):
        found.append(RowWise(tables, lr=rate * memory.table_rate))
    return found


def copied(memory: Trainable) -> dict[str, Tensor]:
    """A memory's tensors as they are now, on their device."""
    return {name: value.detach().clone() for name, value in memory.state_dict().items()}


@contextmanager
def _alone(model: nn.Module, memory: Trainable) -> Iterator[None]:
    """Only the memory gets gradients, and the host is in eval mode; afterwards all is as it was."""
    ours = {id(p) for p in memory.parameters()}
    # A resident memory's tensors stand among the host's.
    host = [p for p in model.parameters() if id(p) not in ours]
    trained, modes = [p.requires_grad for p in host], [m.training for m in model.modules()]
    for parameter in host:
        parameter.requires_grad_(False)
    model.eval()
    try:
        yield
    finally:
        for parameter, before in zip(host, trained, strict=True):
            parameter.requires_grad_(before)
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode
        for parameter in memory.parameters():
            parameter.grad = None


def _batches(
    trials: Sequence[Trial], adapter: Adapter, schedule: Schedule, *, skip: int
) -> list[_Batch]:
    """Trials of like length side by side; which of them, among equals, the seed decides."""
    noise = torch.Generator().manual_seed(schedule.seed)
    mixed = torch.randperm(len(trials), generator=noise).tolist()
    order = sorted(mixed, key=lambda i: len(trials[i].prompt) + len(trials[i].answer))
    groups = [order[i : i + schedule.batch] for i in range(0, len(order), schedule.batch)]
    return [_batch([trials[i] for i in group], adapter.device, skip=skip) for group in groups]


def _batch(trials: Sequence[Trial], device: torch.device, *, skip: int) -> _Batch:
    # The last token of an answer is predicted, never read.
    texts = [(*trial.prompt, *trial.answer[:-1])[skip:] for trial in trials]
    width = max(map(len, texts))
    ids = torch.tensor([[*text, *[0] * (width - len(text))] for text in texts])
    mask = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    places = [
        (row, len(trial.prompt) - skip - 1 + i)
        for row, trial in enumerate(trials)
        for i in range(len(trial.answer))
    ]
    rows, columns = torch.tensor(places, device=device).T
    wanted = torch.tensor([token for trial in trials for token in trial.answer], device=device)
    return _Batch(
        ids=ids.to(device),
        mask=mask.to(device),
        prompt_ends=tuple(len(trial.prompt) for trial in trials),
        at=(rows, columns),
        wanted=wanted,
        sizes=[len(trial.answer) for trial in trials],
    )
