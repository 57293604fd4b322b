"""Training: what is learned, that it can be repeated, and what happens when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cases import DOOR, FACTS, fresh, host_of
from engram_transformers.attaching import attach, detach
from engram_transformers.errors import BadInput, TrainingDiverged
from engram_transformers.evaluation.check import check
from engram_transformers.memories.tuned import Bottleneck, BottleneckConfig
from engram_transformers.memory import Schedule
from engram_transformers.training import fit as training
from engram_transformers.training.fit import copied, fit, trials_of

FAST = Schedule(learning_rate=3e-2, epochs=40, batch=4, seed=0)
HOST = host_of("llama")


@pytest.fixture
def memory() -> Iterator[Any]:
    made = Bottleneck.open(HOST.adapter, HOST.tokens, BottleneckConfig(width=64))
    attach(HOST.model, made)
    yield made
    detach(HOST.model)


def train(memory: Any, schedule: Schedule = FAST, **options: Any) -> Any:
    return fit(HOST.adapter, HOST.tokens, memory, FACTS, schedule=schedule, **options)


def test_every_wording_is_trained_until_it_is_exact_and_then_no_more(memory: Any) -> None:
    told: list[tuple[int, int]] = []
    done = train(memory, progress=lambda *step: told.append(step))
    assert done.exact == 1 and done.epochs < FAST.epochs
    assert done.questions == 5 and done.late and len(done.losses) == done.epochs
    assert told[-1][0] == done.steps and done.losses[-1] < done.losses[0]
    trials = trials_of(FACTS, HOST.tokens)
    assert all(verdict.holds for verdict in check(HOST.adapter, trials))


def test_the_same_seed_gives_the_same_tensors_and_another_gives_others() -> None:
    found = []
    for seed in (0, 0, 1):
        memory = fresh("lora", HOST, seed=seed)
        with attach(HOST.model, memory):
            train(memory, Schedule(1e-2, 2, 2, seed))
        found.append(copied(memory))
    equal = [torch.equal(found[0][name], found[1][name]) for name in found[0]]
    assert all(equal)
    assert not any(torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_the_loss_is_that_of_the_answer_and_its_end_alone(memory: Any) -> None:
    [trial] = trials_of([FACTS[0]], HOST.tokens)
    assert trial.answer[-1] == HOST.tokens.stop
    ids = torch.tensor([[*trial.prompt, *trial.answer]])
    labels = ids.clone()
    labels[:, : len(trial.prompt)] = -100
    with torch.no_grad():
        expected = HOST.model(input_ids=ids, labels=labels).loss
    done = fit(HOST.adapter, HOST.tokens, memory, FACTS[:1], schedule=Schedule(1e-9, 1, 1, 0))
    assert done.losses[0] == pytest.approx(float(expected), rel=1e-4)


def test_given_paraphrases_are_asked_too() -> None:
    prompts = {trial.prompt for trial in trials_of([DOOR], HOST.tokens)}
    tokens = HOST.tokens
    assert prompts == {tuple(tokens.prompt_ids(q, form="chat")) for q in DOOR.questions}


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_it_and_the_good_tensors_come_back(
    memory: Any, monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    seen: list[dict[str, torch.Tensor]] = []
    steps, honest = [0], training.functional.cross_entropy

    def loss(*args: Any) -> torch.Tensor:
        steps[0] += 1
        if steps[0] == 3:  # two batches an epoch: the first of the second epoch
            seen.append(copied(memory))
        return honest(*args) * (bad if steps[0] == 4 else 1)

    monkeypatch.setattr(training.functional, "cross_entropy", loss)
    with pytest.raises(TrainingDiverged, match=r"epoch 2.*learning_rate below 0\.03"):
        train(memory)
    now = memory.state_dict()
    assert all(torch.equal(seen[0][name], now[name]) for name in now)
    assert all(p.grad is None for p in memory.parameters())


def test_a_rate_far_too_high_ends_in_numbers_or_in_an_error(memory: Any) -> None:
    with contextlib.suppress(TrainingDiverged):
        train(memory, Schedule(1e25, 3, 4, 0))
    assert all(bool(value.isfinite().all()) for value in memory.state_dict().values())


def test_what_comes_back_was_seen_to_give_numbers() -> None:
    host = host_of("gpt2")
    memory = fresh("engram", host)
    with attach(host.model, memory):
        # One batch an epoch: the copy that the second begins with is spoilt already.
        with pytest.raises(TrainingDiverged, match=r"epoch 2.*before epoch 1\."):
            fit(host.adapter, host.tokens, memory, FACTS, schedule=Schedule(1e25, 3, 8, 0))
        with torch.no_grad():
            trials = trials_of(FACTS, host.tokens)
            logits = [host.model(torch.tensor([each.prompt])).logits for each in trials]
    assert all(bool(each.isfinite().all()) for each in logits)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"),
    ],
)
def test_a_step_that_does_not_fit_says_what_would(
    memory: Any, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise error

    monkeypatch.setattr(training, "predictions", full)
    with pytest.raises(BadInput, match=r"batch of 4 does not fit .* on cpu; a batch of 2"):
        train(memory)
    with pytest.raises(BadInput, match="use a smaller host"):
        train(memory, Schedule(1e-3, 1, 1, 0))


def test_what_has_nothing_to_do_with_memory_is_raised_as_it_is(
    memory: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(*_: Any) -> Any:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(training, "predictions", wrong)
    with pytest.raises(RuntimeError, match="multiplied"):
        train(memory)


def test_the_host_is_left_as_it_was(memory: Any) -> None:
    HOST.model.train()
    first = next(HOST.model.parameters())
    first.requires_grad_(False)
    try:
        train(memory, Schedule(1e-3, 1, 4, 0))
        assert HOST.model.training and not first.requires_grad
        assert all(p.requires_grad for p in list(HOST.model.parameters())[1:])
    finally:
        HOST.model.eval()
        first.requires_grad_(True)


def test_it_trains_where_gradients_are_switched_off(memory: Any) -> None:
    with torch.no_grad():
        before = copied(memory)
        train(memory, Schedule(1e-3, 1, 4, 0))
    assert not torch.equal(before["parts.0.up"], memory.state_dict()["parts.0.up"])


def test_few_facts_get_steps_enough(memory: Any) -> None:
    done = fit(HOST.adapter, HOST.tokens, memory, FACTS[:1], schedule=Schedule(1e-9, 1, 8, 0))
    assert done.steps == training.LEAST


@pytest.mark.parametrize("wrong", [{"learning_rate": 0}, {"epochs": 0}, {"batch": 0}])
def test_a_schedule_makes_sense(wrong: dict[str, Any]) -> None:
    values = {"learning_rate": 1e-3, "epochs": 1, "batch": 1, "seed": 0}
    with pytest.raises(BadInput, match=next(iter(wrong))):
        Schedule(**{**values, **wrong})
