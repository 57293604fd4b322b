"""The row-wise optimiser equals a dense twin, and touches nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from engram_transformers.errors import BadInput
from engram_transformers.memories.shared.touched import Touched, look_up
from engram_transformers.training.rowwise import RowWise


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class Dense:
    """The same rule, row by row, over a whole gradient."""

    def __init__(self, table: Tensor, lr: float, rule: str, beta: float) -> None:
        self.table, self.lr, self.rule, self.beta = table, lr, rule, beta
        self.second, self.count = [0.0] * len(table), [0] * len(table)

    def step(self, gradient: Tensor, read: set[int]) -> None:
        for row in sorted(read):
            g = gradient[row]
            size = float((g * g).mean())
            self.count[row] += 1
            if self.rule == "adagrad":
                self.second[row] += size
                level = self.second[row]
            else:
                self.second[row] = self.beta * self.second[row] + (1 - self.beta) * size
                level = self.second[row] / (1 - self.beta ** self.count[row])
            self.table[row] -= self.lr * g / (level**0.5 + 1e-8)


@pytest.mark.parametrize("rule", ["adam", "adagrad"])
def test_it_equals_a_dense_twin(rule: Any) -> None:
    table, touched = nn.Parameter(noise(50, 6)), Touched()
    twin = Dense(table.detach().clone().double(), 0.1, rule, 0.9)
    optimizer = RowWise([(table, touched)], lr=0.1, rule=rule, beta=0.9)
    for step in range(8):
        draw = torch.Generator().manual_seed(step)
        batches = [torch.randint(0, 30, (4, 3), generator=draw) for _ in range(2)]
        for batch in batches:  # two passes before a step, rows read more than once
            pull = noise(4, 3, 6, seed=step)
            (look_up(table, batch, touched).pow(2) * pull).sum().backward()
        whole = table.detach().clone().requires_grad_()
        sum(
            (functional.embedding(b, whole).pow(2) * noise(4, 3, 6, seed=step)).sum()
            for b in batches
        ).backward()
        assert table.grad is None
        norm = optimizer.norm()
        optimizer.step()
        assert norm > 0 and optimizer.norm() == 0
        read = {int(row) for batch in batches for row in batch.flatten()}
        twin.step(whole.grad.double(), read)
        assert torch.allclose(table.double(), twin.table, atol=1e-5)
    assert torch.equal(table[30:], noise(50, 6)[30:])


def test_gradients_of_rows_are_those_of_an_ordinary_look_up() -> None:
    table, touched = nn.Parameter(noise(20, 4)), Touched()
    rows = torch.tensor([[3, 3, 7], [19, 0, 3]])
    assert torch.equal(look_up(table, rows, touched), functional.embedding(rows, table))
    (look_up(table, rows, touched) * noise(2, 3, 4)).sum().backward()
    other = table.detach().clone().requires_grad_()
    (functional.embedding(rows, other) * noise(2, 3, 4)).sum().backward()
    found = touched.take()
    assert found is not None and found[0].tolist() == [0, 3, 7, 19]
    assert torch.allclose(found[1], other.grad[found[0]]) and touched.take() is None


def test_a_table_in_half_precision() -> None:
    table, touched = nn.Parameter(torch.zeros(5, 4, dtype=torch.bfloat16)), Touched()
    optimizer = RowWise([(table, touched)], lr=0.5)
    (look_up(table, torch.tensor([1]), touched) * noise(1, 4).bfloat16()).sum().backward()
    optimizer.step()
    # The first step has the size of the learning rate.
    assert abs(float(table[1].detach().float().square().mean().sqrt()) - 0.5) < 0.01
    assert optimizer.state[table]["second"].dtype == torch.float32


def test_its_state_is_stored_and_goes_on() -> None:
    def run(steps: int, table: nn.Parameter, optimizer: RowWise, touched: Touched) -> None:
        for step in range(steps):
            rows = torch.tensor([step % 3, 4])
            (look_up(table, rows, touched) * noise(2, 4, seed=step)).sum().backward()
            optimizer.step()

    def fresh(start: Tensor) -> tuple[nn.Parameter, RowWise, Touched]:
        table, touched = nn.Parameter(start.clone()), Touched()
        return table, RowWise([(table, touched)], lr=0.1), touched

    one, first, touched = fresh(noise(6, 4))
    run(3, one, first, touched)
    two, second, other = fresh(one.detach())
    second.load_state_dict(first.state_dict())
    run(2, one, first, touched)
    run(2, two, second, other)
    assert torch.equal(one, two)
    assert second.state[two]["count"].dtype == torch.int32


def test_what_waits_can_be_forgotten_and_schedulers_work() -> None:
    table, touched = nn.Parameter(noise(5, 4)), Touched()
    optimizer = RowWise([(table, touched)], lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    look_up(table, torch.tensor([1]), touched).sum().backward()
    optimizer.zero_grad()
    optimizer.step()
    schedule.step()
    assert torch.equal(table, noise(5, 4)) and optimizer.param_groups[0]["lr"] == 0.05


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"lr": 1.0, "beta": 1.0}, {"lr": 1.0, "rule": "s"}])
def test_options_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="lr"):
        RowWise([(nn.Parameter(noise(2, 2)), Touched())], **wrong)
