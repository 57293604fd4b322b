"""The study of implicit memory: what repeats, needles that differ in one thing, whole runs."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from engram_transformers.errors import BadInput, DataMissing, TrainingDiverged
from engram_transformers.studies.implicit import texts
from engram_transformers.studies.implicit.measures import losses, recall
from engram_transformers.studies.implicit.nets import Net, made, train
from engram_transformers.studies.implicit.options import VARIANTS, Options
from engram_transformers.studies.implicit.study import STUDY, conclude, measure, plan
from engram_transformers.studies.implicit.texts import (
    MODERN,
    Characters,
    Entities,
    characters,
    repeats,
    text_named,
)
from engram_transformers.studies.options import configured, quickly
from engram_transformers.studies.study import Done

TINY = Options(
    texts=("entities", "tinyshakespeare"), sweep=("slots=16",), seeds=2, hidden=16, heads=2,
    inner=16, windows=3, batch=2, steps=4, held_out=3, needles=3,
)  # fmt: skip
TEXT = "The king of France went to see a wise queen by night, and the king came back. " * 100


@pytest.fixture(autouse=True)
def shakespeare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "text" / "tinyshakespeare.txt"
    path.parent.mkdir(parents=True)
    path.write_text(TEXT)
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))
    texts._shakespeare.cache_clear()


def net(variant: str = "slots", text: str = "entities", **changes: object) -> Net:
    return made(variant, dict(changes), text_named(text, windows=3), TINY, 0)


def test_what_repeats_was_said_in_an_earlier_window_and_not_yet_in_this_one() -> None:
    ids = torch.tensor([[[1, 2, 3, 9], [9, 1, 2, 3], [1, 2, 1, 2]]])
    assert repeats(ids, order=3).tolist() == [
        [[False] * 4, [False, False, False, True], [False] * 4]
    ]
    again = torch.tensor([[[1, 2, 9, 9], [1, 2, 1, 2]]])
    assert repeats(again, order=2)[0, 1].tolist() == [False, True, False, False]


def test_entities_keep_one_thing_through_a_text_and_another_in_the_next() -> None:
    text = Entities()
    held = text.held_out(40, windows=4)
    assert (
        held.ids.shape == (40, 4, 16) and held.repeats[:, 1:].any() and not held.repeats[:, 0].any()
    )
    kept: list[dict[str, str]] = []
    for row in held.ids:
        words = text.shown(row.flatten().tolist()).split()
        pairs = {
            (a, c) for a, b, c in zip(words, words[1:], words[2:], strict=False) if b == "keeps"
        }
        kept.append({name: thing for name, thing in pairs if name.istitle()})
        assert len(pairs) == len(kept[-1])
    assert len({each.get("Alma") for each in kept}) > 3
    learnt = text.batch(40, windows=4, draw=random.Random(0))
    assert not any((learnt == row).flatten(1).all(1).any() for row in held.ids)


@pytest.mark.parametrize("distance", [1, 2])
def test_needles_differ_from_wrong_ones_by_what_is_told_alone(distance: int) -> None:
    text = Entities()
    found = text.needles(20, windows=3, distance=distance)
    differ = found.ids != found.wrong
    assert (differ.flatten(1).sum(1) == 1).all() and differ[:, 2 - distance].any(1).all()
    for row in found.ids:
        *before, last = (text.shown(window.tolist()) for window in row)
        cue = " ".join(last.split()[-4:])
        assert sum(cue in window for window in before) == 1 and cue not in last[: -len(cue)]


def test_modern_facts_are_asked_in_another_window_than_they_are_told() -> None:
    text = text_named("tinyshakespeare", windows=3)
    found = text.needles(10, windows=3, distance=1)
    assert isinstance(text, Characters) and len(found.answers) == 10
    for row, (right, wrong) in enumerate(zip(found.ids, found.wrong, strict=True)):
        cue, answer = MODERN[row % len(MODERN)]
        assert text.shown(right[-1].tolist()).endswith(cue + answer)
        assert text.shown(right[1].tolist()).endswith(cue + answer)
        assert answer not in text.shown(wrong[1].tolist())
        assert torch.equal(right[0], wrong[0]) and torch.equal(right[-1], wrong[-1])
    learnt = text.batch(30, windows=3, draw=random.Random(0))
    assert repeats(learnt, order=6).any()
    assert not any(answer in text.shown(row.flatten().tolist()) for row in learnt
                   for _, answer in MODERN)  # fmt: skip


def test_a_recalled_answer_is_what_the_net_generates_after_reading() -> None:
    """The one pass that counts answers, against a session that reads and then generates."""
    small, text = net(), Entities()
    train(small, text, replace(TINY, steps=30, batch=8), seed=0, progress=lambda: None)
    needles = text.needles(4, windows=3, distance=2)
    assert small.memory is not None
    memory, counted = small.memory, recall(small, needles)
    said = 0
    for row in needles.ids:
        for window in row[:-1]:
            memory.read(window.tolist())
        given = row[-1][None, :-2]
        out = small.model.generate(given, max_new_tokens=2, do_sample=False, pad_token_id=0)
        said += int(torch.equal(out[0, -2:], row[-1, -2:]))
        memory.reset()
    assert said == counted["right"]["said"]


def test_an_empty_memory_is_no_memory_from_the_past() -> None:
    small, text = net(), Entities()
    train(small, text, TINY, seed=0, progress=lambda: None)
    held = text.held_out(4, windows=3)
    own, other = small.logits(held.ids), small.logits(held.ids, "another's")
    empty = small.logits(held.ids, "emptied")
    assert torch.allclose(own[:, 0], empty[:, 0], atol=1e-5)
    assert not torch.allclose(own[:, 1:], empty[:, 1:]) and not torch.allclose(
        own[:, 1:], other[:, 1:]
    )
    assert set(losses(net("none"), held)) == {"own"}


def test_what_cannot_be_run_says_so(tmp_path: Path) -> None:
    for wrong in ({"windows": 1}, {"heads": 3}, {"texts": ("bible",)}, {"variants": ("lstm",)},
                  {"steps": 0}):  # fmt: skip
        with pytest.raises(BadInput):
            replace(TINY, **wrong)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="longer text"):
        characters("too short", windows=3)
    with pytest.raises(BadInput, match="OPTION=VALUE"):
        plan(replace(TINY, sweep=("colour=red",)))
    with pytest.raises(BadInput, match="blocks"):
        plan(replace(TINY, layer=2))
    (tmp_path / "text" / "tinyshakespeare.txt").unlink()
    texts._shakespeare.cache_clear()
    with pytest.raises(DataMissing, match="docs/data"):
        plan(TINY)
    small = net("none")
    with torch.no_grad():
        small.model.lm_head.weight.fill_(float("nan"))
    with pytest.raises(TrainingDiverged, match="step 1"):
        train(small, Entities(), TINY, seed=0, progress=lambda: None)


def test_a_whole_study() -> None:
    units = plan(TINY)
    assert len(units) == 2 * 5 * 2 + 2 and len({unit.digest for unit in units}) == len(units)
    more = plan(replace(TINY, seeds=3))
    assert {unit.digest for unit in more} > {unit.digest for unit in units}
    done = [Done(unit, measure(unit, lambda *_: None), 1.0, {}) for unit in units]
    found = conclude(TINY, done)
    titles = [table.title for table in found.tables]
    assert sum("held-out loss" in title for title in titles) == 2
    assert sum("needles recalled" in title for title in titles) == 3
    assert all(row.seeds == 2 for table in found.tables for row in table.rows)
    names = {plot.name for plot in found.plots}
    assert names >= {
        "pattern_similarity", "context_influence", "slot_usage_heatmap", "optimal_config_results"
    }  # fmt: skip
    assert sum(note.startswith("**entities, ") for note in found.notes) == 3
    again = measure(units[2], lambda *_: None)
    assert again == done[2].measured
    part = conclude(TINY, done[:3])
    assert part.tables and "pattern_similarity" not in {plot.name for plot in part.plots}


def test_it_has_a_quick_form() -> None:
    options = configured(Options, quickly(STUDY))
    assert len(plan(options)) <= 6 and set(options.variants) < set(VARIANTS)
