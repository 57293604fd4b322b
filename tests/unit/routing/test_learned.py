"""The learned gate on disk and in use; how it is trained: tests/unit/training/test_gate.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engram_transformers.errors import BadInput, HostMismatch, StoreDamaged, StoreTooNew
from engram_transformers.routing.learned import LearnedGate, LearnedRoute

STATES = torch.randn(7, 12, generator=torch.Generator().manual_seed(0))


def gate(width: int | None = None) -> LearnedGate:
    torch.manual_seed(0)
    made = LearnedGate(12, layer=1, host="here", width=width)
    with torch.no_grad():
        made.mean.fill_(0.3)
        made.spread.fill_(2.0)
        made.calibration.copy_(torch.tensor([1.5, -0.2]))
    return made


@pytest.mark.parametrize("width", [None, 0, 5])
def test_it_computes_what_it_says(width: int | None) -> None:
    one = gate(width)
    z = (STATES - 0.3) / 2
    weights = [(linear.weight, linear.bias) for linear in one.linears]
    if width == 0:
        [(w, b)] = weights
        f = z @ w.T + b
    else:
        (w1, b1), (w2, b2) = weights
        assert w1.shape == ((3 if width is None else width), 12)
        f = (z @ w1.T + b1).clamp_min(0) @ w2.T + b2
    assert torch.allclose(one(STATES), torch.sigmoid(1.5 * f[:, 0] - 0.2))


@pytest.mark.parametrize("width", [None, 0])
def test_saved_and_loaded_it_decides_the_same(width: int | None, tmp_path: Path) -> None:
    gate(width).save(tmp_path / "gate", about={"n": 3})
    again = LearnedGate.load(tmp_path / "gate", host="here")
    assert again.layer == 1 and torch.equal(again(STATES), gate(width)(STATES))
    assert json.loads((tmp_path / "gate" / "gate.json").read_text())["about"] == {"n": 3}


def test_the_route_opens_from_its_threshold_on() -> None:
    class Host:
        def state(self, prompt, layer):
            assert layer == 1
            return STATES[int(prompt[0])]

        def logits(self, prompt):
            raise AssertionError("nobody asks for logits")

    value = float(gate()(STATES[2:3]).detach())
    for threshold, opened in ((value - 1e-4, True), (value + 1e-4, False)):
        found = LearnedRoute(gate(), Host(), threshold).decide(np.array([2]))
        assert found.open is opened and found.score == pytest.approx(value)


def test_what_is_no_gate_of_this_host_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "gate"
    with pytest.raises(BadInput, match="no trained gate"):
        LearnedGate.load(folder, host="here")
    with pytest.raises(BadInput, match="plain JSON"):
        gate().save(folder, about={"a": object()})
    gate().save(folder)
    with pytest.raises(HostMismatch, match="there"):
        LearnedGate.load(folder, host="there")
    description = folder / "gate.json"
    said = json.loads(description.read_text())
    for change, error in (
        ({"format": 2}, StoreTooNew),
        ({"width": "wide"}, StoreDamaged),
        ({"width": 4}, StoreDamaged),
        ({"sha256": "0" * 64}, StoreDamaged),
    ):
        description.write_text(json.dumps({**said, **change}))
        with pytest.raises(error):
            LearnedGate.load(folder, host="here")
    description.write_text("{")
    with pytest.raises(StoreDamaged):
        LearnedGate.load(folder, host="here")


@pytest.mark.parametrize("left", [0, 10])
def test_a_truncated_gate_is_refused(tmp_path: Path, left: int) -> None:
    gate().save(tmp_path)
    tensors = tmp_path / "gate.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:left])
    with pytest.raises(StoreDamaged):
        LearnedGate.load(tmp_path, host="here")
    tensors.unlink()
    with pytest.raises(StoreDamaged, match="cannot be read"):
        LearnedGate.load(tmp_path, host="here")
