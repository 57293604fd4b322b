from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from engram_transformers.stores import Directory
from engram_transformers.types import Fact, HostIdentity

Tensors = dict[str, torch.Tensor]
Batch = list[tuple[Fact, Tensors]]

HOST = HostIdentity("smollm2-135m", "f1")


def make_batch(count: int, *, seed: int = 0) -> Batch:
    """Facts with deltas that nothing but the seed decides."""
    noise = torch.Generator().manual_seed(seed)
    return [
        (
            Fact(
                f"What port does service {seed}.{number} use?",
                f"{8000 + number}",
                [f"Which port is {seed}.{number} on?"],
                subject=f"service {seed}.{number}",
                relation="port",
                source="ops.md",
            ),
            {
                "keys": torch.randint(0, 50000, (3 + number % 5,), generator=noise).int(),
                "payload": torch.randn(2, 8, generator=noise).half(),
                "scale": torch.randn((), generator=noise),
            },
        )
        for number in range(count)
    ]


def assert_same_bits(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        found = other[name]
        assert (found.dtype, found.shape) == (value.dtype, value.shape), name
        bits = [each.reshape(-1).view(torch.uint8) for each in (value, found)]
        assert torch.equal(*bits), name


@pytest.fixture
def batch() -> Callable[..., Batch]:
    return make_batch


@pytest.fixture
def same_bits() -> Callable[[Tensors, Tensors], None]:
    return assert_same_bits


@pytest.fixture
def host() -> HostIdentity:
    return HOST


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "acme"


@pytest.fixture
def store(path: Path) -> Iterator[Directory]:
    with Directory.create(path, kind="lookup", config={"threshold": 0.7}, host=HOST) as directory:
        yield directory
