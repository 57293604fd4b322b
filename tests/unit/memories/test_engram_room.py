"""Whether tables fit: what is free, how much they need, and what would fit."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cases import host_of
from engram_transformers.errors import BadInput
from engram_transformers.memories.engram import Engram, EngramConfig, room
from engram_transformers.memories.engram import layer as layers
from engram_transformers.memories.engram.plan import sized

CPU = torch.device("cpu")


def opened(config: EngramConfig) -> Engram:
    host = host_of("llama")
    return Engram.open(host.adapter, host.tokens, config)


@pytest.mark.parametrize("layout", ["deepseek", "qwen", "unigram", "similar"])
@pytest.mark.parametrize("free", [10**7, 10**8])
def test_the_size_that_is_said_to_fit_does(
    layout: Any, free: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda device: free)
    config = EngramConfig(layers=(0, 1), layout=layout, rows=10**6, heads=2)
    with pytest.raises(BadInput) as error:
        opened(config)
    found = re.search(r"rows=([\d,]+) would fit \(memory_size=([\d,]+)\)", str(error.value))
    assert found is not None
    rows, size = (int(number.replace(",", "")) for number in found.groups())
    memory = opened(sized(config, size))
    assert memory.config.rows == rows
    tables = sum(part.table.nbytes for part in memory.parts)
    # Three of them are held at once, and little is left unused.
    assert 0.8 * free < 3 * tables < free


def test_where_not_even_a_row_fits_something_else_is_advised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda device: 100)
    with pytest.raises(BadInput, match="fewer layers or heads"):
        opened(EngramConfig(layers=(1,)))


@pytest.mark.parametrize("version", range(2))
def test_a_container_has_no_more_than_its_limit(
    version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_GROUPS", tmp_path)
    limit, used, kinds, cached = room._LIMITS[version]
    for name, text in ((limit, "90000\n"), (used, "50000\n"), (kinds, f"anon 1\n{cached} 2000\n")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    # Cached files give way.
    assert room.free_bytes(CPU) == 42000
    (tmp_path / limit).write_text("max\n")
    assert room.free_bytes(CPU) != 42000


def test_rows_of_nothing_are_not_held_to_be_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn, honest = [], torch.randn

    def randn(shape: Any, **how: Any) -> torch.Tensor:
        drawn.append(honest(shape, **how))
        return drawn[-1]

    monkeypatch.setattr(layers, "DRAWN", 1024)
    monkeypatch.setattr(layers.torch, "randn", randn)
    [part] = opened(EngramConfig(layers=(1,), rows=100, width=9)).parts
    assert not part.table.any() and part.table.numel() % 16
    assert max(each.numel() for each in drawn) < part.table.numel() / 2
    # What is drawn after them is what it would be behind a whole table.
    noise = torch.Generator().manual_seed(0)
    honest(part.table.shape, generator=noise)
    assert torch.equal(drawn[-2], honest(part.value.shape, generator=noise))
