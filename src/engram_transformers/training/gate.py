"""Train the learned gate of a route on labelled prompts, and score it on kinds that it never saw.

The states are those by which the gate will decide: the bare host's, at the end of each prompt, one
prompt at a time. The net is trained on four fifths of the prompts, calibrated on the others, and
scored on held-out ones.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engram_transformers.errors import BadInput
from engram_transformers.evaluation.metrics import Measure, rate
from engram_transformers.memories.shared.bare import SilencedHost
from engram_transformers.models.adapter import Adapter
from engram_transformers.models.fingerprint import fingerprint
from engram_transformers.models.tokens import HostTokens
from engram_transformers.routing.learned import LearnedGate
from engram_transformers.training.gate_prompts import (
    Labelled,
    held_out_prompts,
    training_prompts,
)

BINS = 10
KEEP_BACK = 5
"One of so many prompts is kept back to calibrate with."
STEPS, RATE, DECAY = 300, 3e-3, 0.1


@dataclass(frozen=True)
class Bin:
    """The prompts whose probability lies in [low, high): one point of the calibration curve."""

    low: float
    high: float
    n: int
    said: float
    "Mean probability that the gate gave them."
    found: Measure
    "Share of them that are look-ups."


@dataclass(frozen=True)
class GateScore:
    """How well a gate tells look-ups from other prompts."""

    n: int
    lookups: int
    precision: Measure
    "Share of look-ups among what it opens for; n is what it opens for."
    recall: Measure
    "Share of the look-ups that it opens for; n is the look-ups."
    error: Measure
    "Expected calibration error over ten bins of equal width (Naeini 2015)."
    bins: tuple[Bin, ...]
    "Those that are not empty."


@dataclass(frozen=True)
class TrainedGate:
    """A gate, and what is known of it."""

    gate: LearnedGate
    trained: int
    "Prompts that the net was trained on."
    calibrated: int
    held_out: GateScore
    by_kind: dict[str, Measure]
    "For each held-out kind, the share of its prompts that are decided rightly."

    def about(self) -> dict[str, Any]:
        """The score as plain data, to be stored with the gate."""
        kinds = {kind: one.as_dict() for kind, one in self.by_kind.items()}
        return {
            "trained": self.trained,
            "calibrated": self.calibrated,
            "held_out": asdict(self.held_out),
            "by_kind": kinds,
        }


def train_gate(
    adapter: Adapter,
    tokens: HostTokens,
    *,
    prompts: Sequence[Labelled] | None = None,
    held_out: Sequence[Labelled] | None = None,
    layer: int | None = None,
    width: int | None = 0,
    seed: int = 0,
    states: Tensor | None = None,
    progress: Callable[[int], None] = lambda done: None,
) -> TrainedGate:
    """Train a gate for a host, on its own prompts unless others are given.

    Args:
        layer: the block whose output it reads; None: the one at two thirds of the host.
        width: units of its inner layer; 0: none, which was measured to be as good; None: a
            quarter of the host's states, as the third seed scaffolds it.
        states: what `end_states` found behind this block for the prompts and the held-out ones
            after them, where more than one gate is trained on them.
        progress: is told how many more prompts were read.
    """
    known = list(training_prompts() if prompts is None else prompts)
    others = list(held_out_prompts() if held_out is None else held_out)
    _check(known, others)
    layer = adapter.place("block_out", _late(adapter) if layer is None else layer).layer
    assert layer is not None
    if states is None:
        texts = [one.text for one in (*known, *others)]
        states = end_states(adapter, tokens, texts, layer=layer, progress=progress)
    labels = torch.tensor([float(one.lookup) for one in (*known, *others)])
    host = fingerprint(adapter.model, tokens.tokenizer)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        gate = LearnedGate(adapter.hidden_size, layer=layer, host=host, width=width)
        order = torch.randperm(len(known))
        back, used = order[::KEEP_BACK], order[torch.arange(len(known)) % KEEP_BACK != 0]
        _train(gate, states[used], labels[used])
        _calibrate(gate, states[back], labels[back])
    with torch.no_grad():
        found = gate.eval()(states[len(known) :]).double().numpy()
    return TrainedGate(
        gate,
        trained=len(used),
        calibrated=len(back),
        held_out=score(found, [one.lookup for one in others]),
        by_kind=_by_kind(found, others),
    )


def end_states(
    adapter: Adapter,
    tokens: HostTokens,
    texts: Sequence[str],
    *,
    layer: int,
    progress: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """(texts, hidden): the state at the end of each behind a block, asked as a user asks."""
    host, states = SilencedHost(adapter), []
    for text in texts:
        ids = np.array(tokens.prompt_ids(text, form=tokens.ask_form), np.int64)
        states.append(host.state(ids, layer).cpu())
        progress(1)
    return torch.stack(states)


def score(
    probabilities: Sequence[float] | NDArray[np.float64],
    lookups: Sequence[bool],
    *,
    threshold: float = 0.5,
) -> GateScore:
    """The score of probabilities, one a prompt, with intervals of 95 %."""
    said, true = np.asarray(probabilities, float), np.asarray(lookups, bool)
    opened = said >= threshold
    return GateScore(
        n=len(said),
        lookups=int(true.sum()),
        precision=rate(true[opened].tolist()),
        recall=rate(opened[true].tolist()),
        error=_error(said, true),
        bins=_bins(said, true),
    )


def _check(known: Sequence[Labelled], others: Sequence[Labelled]) -> None:
    if len(known) < 2 * KEEP_BACK or len({one.lookup for one in known}) < 2:
        raise BadInput(f"a gate needs {2 * KEEP_BACK} prompts, look-ups and others among them")
    if both := {one.text for one in known} & {one.text for one in others}:
        raise BadInput(f"{min(both)!r} is to be trained on and held out; leave it out of one")


def _late(adapter: Adapter) -> int:
    return 2 * (len(adapter.layers) - 1) // 3


def _train(gate: LearnedGate, states: Tensor, labels: Tensor) -> None:
    gate.mean, spread = states.mean(0), states.std(0)
    # A number that hardly varies over the prompts must not decide.
    gate.spread = spread + 1e-3 * spread.mean()
    optimizer = torch.optim.AdamW(gate.parameters(), lr=RATE, weight_decay=DECAY)
    for _ in range(STEPS):
        loss = functional.binary_cross_entropy_with_logits(gate.scores(states), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _calibrate(gate: LearnedGate, states: Tensor, labels: Tensor) -> None:
    """Platt's two numbers, fitted to targets that leave room for doubt."""
    with torch.no_grad():
        scores = gate.scores(states).double()
    positive, negative = labels.sum().double(), (1 - labels).sum().double()
    wanted = torch.where(
        labels > 0, (positive + 1) / (positive + 2), 1 / (negative + 2)
    )  # Platt 1999
    numbers = torch.tensor([1.0, 0.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([numbers], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.binary_cross_entropy_with_logits(
            numbers[0] * scores + numbers[1], wanted
        )
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    gate.calibration = numbers.detach().float()


def _by_kind(found: NDArray[np.float64], prompts: Sequence[Labelled]) -> dict[str, Measure]:
    right: dict[str, list[bool]] = {}
    for value, one in zip(found, prompts, strict=True):
        right.setdefault(one.kind, []).append(bool((value >= 0.5) == one.lookup))
    return {kind: rate(flags) for kind, flags in right.items()}


def _bins(said: NDArray[np.float64], true: NDArray[np.bool_]) -> tuple[Bin, ...]:
    at = np.minimum((said * BINS).astype(int), BINS - 1)
    return tuple(
        Bin(
            b / BINS,
            (b + 1) / BINS,
            int((at == b).sum()),
            float(said[at == b].mean()),
            rate(true[at == b].tolist()),
        )
        for b in range(BINS)
        if (at == b).any()
    )


def _error(said: NDArray[np.float64], true: NDArray[np.bool_], *, draws: int = 1000) -> Measure:
    """The expected calibration error with its percentile bootstrap interval."""
    if not len(said):
        return Measure(float("nan"), float("nan"), float("nan"), 0)
    rows = np.random.default_rng(0).integers(len(said), size=(draws, len(said)))
    low, high = np.percentile([_gap(said[each], true[each]) for each in rows], [2.5, 97.5])
    return Measure(_gap(said, true), float(low), float(high), len(said))


def _gap(said: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    at = np.minimum((said * BINS).astype(int), BINS - 1)
    gaps = np.bincount(at, weights=said - true, minlength=BINS)
    return float(np.abs(gaps).sum() / len(said))
