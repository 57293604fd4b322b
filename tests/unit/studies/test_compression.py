"""Compression: what is kept is no more than the budget, and all of it is the whole text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engram_transformers.api import load
from engram_transformers.errors import BadInput, DataMissing
from engram_transformers.studies.compression.keeping import Reader, evenly, least_norm
from engram_transformers.studies.compression.options import TRAINED, WAYS, Options
from engram_transformers.studies.compression.passages import Passage, passages
from engram_transformers.studies.compression.study import _ask, conclude, measure, plan
from engram_transformers.studies.study import Done
from hosts import tiny, tiny_tokenizer

TEXT = "The harbour of Rotterdam is green. Ada wrote the report. It has seven doors and a station."


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {
        "train_context": TEXT,
        "mem_input": ["The harbour of Rotterdam is", "Ada wrote"],
        "mem_target": ["green", "the report"],
        "gen_input": ["Rotterdam's harbour has the colour", "What Ada wrote was"],
        "gen_target": ["green", "the report"],
    }
    (tmp_path / "unseen").mkdir()
    (tmp_path / "unseen" / "fictional_knowledge.json").write_text(json.dumps([row, row]))
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))


@pytest.fixture(scope="module")
def reader(folder: Path) -> Reader:
    return Reader(load(str(folder)), small(folder))


@pytest.fixture
def passage(data: None) -> Passage:
    return passages(1)[0]


def small(folder: Path, **changes: object) -> Options:
    given = {"passages": 1, "share": 1, "budgets": (6,), "soft_budgets": (6,), "late": 1}
    return Options(host=str(folder), steps=2, window=12, **{**given, **changes})


def test_nothing_is_kept_beyond_the_budget(reader: Reader, passage: Passage) -> None:
    size = len(reader.ids(passage.text))
    for way in WAYS:
        for budget in (5, 9, size + 50):
            asking, kept = reader.kept(way, passage, budget, lambda *_: None)
            assert kept <= min(budget, size)
            assert asking.read.layers[0].keys.shape[-2] == len(reader.opening) + kept
            assert asking.skipped + len(asking.head) <= len(reader.opening) + size


def test_a_budget_of_everything_is_the_whole_text(reader: Reader, passage: Passage) -> None:
    whole = _ask(reader.whole(passage), passage)
    for way in ("truncated text", "cached, evenly", "cached, least key norm"):
        asking, _ = reader.kept(way, passage, 999, lambda *_: None)
        for one, other in zip(whole, _ask(asking, passage), strict=True):
            assert other == pytest.approx(one, abs=1e-3)


def test_a_compacted_cache_leaves_the_whole_one_alone(reader: Reader, passage: Passage) -> None:
    before = _ask(reader.whole(passage), passage)
    reader.kept("cached, evenly", passage, 6, lambda *_: None)
    assert _ask(reader.whole(passage), passage) == before


def test_positions_are_picked_once_each_and_in_order() -> None:
    keys = torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0))
    keys[:, 17] = 0
    for pick in (evenly, least_norm):
        at = pick(keys, 12).tolist()
        assert len(at) == 12 and at == sorted(set(at)) and at[:4] == [0, 1, 2, 3]
    assert 17 in least_norm(keys, 12).tolist()


def test_units_are_measured_and_come_to_a_curve(folder: Path, data: None) -> None:
    options = small(folder)
    units = [unit for unit in plan(options) if unit.name.startswith(TRAINED)]
    assert len(units) == 1 and len(plan(options)) == 2
    done = [Done(unit, measure(unit, lambda *_: None), 1.0, {}) for unit in units]
    found = conclude(options, done)
    assert [row.name for row in found.tables[0].rows] == [f"{TRAINED}, 6"]
    assert found.tables[0].rows[0].n == 2 and found.plots[0].name == "retention"


def test_bad_input(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="ways has no"):
        Options(ways=("zip",))
    with pytest.raises(BadInput, match="at least 5"):
        Options(budgets=(2,))
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DataMissing, match="ENGRAM_DATA"):
        plan(small(folder))


def test_a_passage_longer_than_the_host_is_refused(reader: Reader) -> None:
    long = Passage(9, "word " * 900, (("a", "b"),), ())
    with pytest.raises(BadInput, match="this host reads 512"):
        reader.whole(long)
