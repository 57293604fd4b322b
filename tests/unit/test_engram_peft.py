"""The comparison with engram-peft, as far as it needs no engram-peft."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import decoding, engram_peft, engram_peft_side
from benchmarks.decoding import GAPS, SHARES, Text
from benchmarks.engram_peft import Options, host_folder, ours, task_of, training
from benchmarks.engram_peft_table import tables

from engram_transformers.experiments.provenance import origin
from hosts import tiny

OPTIONS = Options(facts=4, steps=12, batch=2, rows=50, width=4, heads=2)
TEXTS = [Text((5, 9, 30, 31, 32, 33, 7, 1), 6), Text((8, 41, 42, 43, 44, 45, 46, 47, 48, 1), 8)]


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = host_folder(OPTIONS, tmp_path_factory.mktemp("host"))
    how = {"arguments": training(OPTIONS, rate=3e-2, seed=0), "seed": 0, "bare": True}
    return {**task_of(OPTIONS, folder), **how}


@pytest.fixture(scope="module")
def found(task: dict[str, Any]) -> dict[str, Any]:
    return ours(task)


def test_ours_learns_and_says_the_same_however_it_reads(found: dict[str, Any]) -> None:
    assert found["taught"]["loss"] < 0.7 * found["untrained"]["taught"]["loss"]
    assert found["steps"] == OPTIONS.steps and found["conv"] > 0
    for seen in (found["laws"], found["bare"]):
        assert all(seen[name] < 1e-3 * seen["spread"] for name in GAPS)
        assert all(seen[name] == 1 for name in SHARES)


def test_runs_stand_beside_each_other_in_tables(found: dict[str, Any]) -> None:
    worse = {**found, "held_out": {"loss": found["held_out"]["loss"] + 0.25, "exact": 0.0}}
    sides = [("ours", found), ("theirs", worse), ("theirs, one branch", worse)]
    runs = [{"side": side, "rate": 1e-3, "seed": 0, **run} for side, run in sides]
    runs = [{**run, "provenance": origin()} for run in runs]
    text = tables({"tiny": {"options": vars(OPTIONS), "runs": runs}})
    assert "**tiny**: 4 facts, 12 steps of 2, 2 tables of 50 rows x 4 for each of" in text
    assert text.count("+0.250") == 2 and f"{found['held_out']['loss']:.3f} |  |" in text
    assert f"| {found['trained']:,} |" in text and "| in chunks |" in text


def test_what_is_stored_is_kept_unless_the_comparison_is_another(tmp_path: Path) -> None:
    out, runs = tmp_path / "result.json", [{"side": "ours", "rate": 1e-3, "seed": 0}]
    assert engram_peft.kept(OPTIONS, out) == []
    engram_peft._store(out, "tiny", {"options": engram_peft._fixed(OPTIONS), "runs": runs})
    assert engram_peft.kept(replace(OPTIONS, seeds=1, rates=(1e-2,)), out) == runs
    assert engram_peft.kept(replace(OPTIONS, steps=13), out) == []


def test_held_out_wordings_are_not_among_the_taught(task: dict[str, Any]) -> None:
    assert task["held_out"]
    assert not {tuple(ids) for ids, _ in task["held_out"]} & {tuple(i) for i, _ in task["taught"]}


class Forgetful(torch.nn.Module):
    """A host whose every call is told apart by how many tokens it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.host = tiny("llama")
        self.generate = self.host.generate

    def forward(self, input_ids: torch.Tensor, **how: Any) -> Any:
        found = self.host(input_ids=input_ids, **how)
        found.logits = found.logits + input_ids.shape[1]
        return found


def test_what_is_read_otherwise_is_seen() -> None:
    sound, faulty = (decoding.laws(m, TEXTS, pad=0) for m in (tiny("llama"), Forgetful()))
    assert all(sound[name] < 1e-3 for name in GAPS)
    assert faulty["token by token"] == pytest.approx(9, abs=1e-2)
    assert faulty["in chunks"] == pytest.approx(5, abs=1e-2)
    assert faulty["padded on the left"] == pytest.approx(2, abs=1e-2)
    assert faulty["one token after another text"] == pytest.approx(9, abs=1e-2)


def test_the_loss_is_that_of_the_answer_a_token() -> None:
    model = tiny("llama")
    logits = [model(input_ids=t.row).logits[0, t.prompt - 1 : -1].log_softmax(-1) for t in TEXTS]
    each = [
        -float(rows[i, t.ids[t.prompt + i]].detach())
        for t, rows in zip(TEXTS, logits, strict=True)
        for i in range(len(rows))
    ]
    assert decoding.losses(model, TEXTS)["loss"] == pytest.approx(sum(each) / len(each), rel=1e-4)


def test_the_other_side_learns_answers_only() -> None:
    batch = engram_peft_side.padded(TEXTS, pad=0)
    assert batch["labels"].tolist() == [[-100] * 6 + [7, 1, -100, -100], [-100] * 8 + [48, 1]]
    assert batch["attention_mask"].sum(1).tolist() == [8, 10]
    assert batch["input_ids"][0, 8:].tolist() == [0, 0]


def test_a_side_that_fails_ends_the_comparison_with_what_it_said(
    capfd: pytest.CaptureFixture[str],
) -> None:
    task = {"host": "nowhere", "threads": 1}
    with (
        pytest.raises(SystemExit, match="stopped with status 1"),
        engram_peft.other_side(Path(sys.executable), "benchmarks.engram_peft_side") as theirs,
    ):
        theirs(task)
    assert "Traceback" in capfd.readouterr().err
