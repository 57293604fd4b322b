"""Demonstrations: whole keys recall what the host cannot know, routes leave the rest alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engram_transformers.api import load
from engram_transformers.errors import BadInput
from engram_transformers.experiments import needle
from engram_transformers.studies.demos import gating, lookups, sureness
from engram_transformers.studies.demos.facts import capitals, in_the_text, keys_of
from engram_transformers.studies.demos.options import WAYS, Options
from engram_transformers.studies.demos.study import conclude, measure, plan
from engram_transformers.studies.study import Done
from hosts import tiny, tiny_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hosts") / "tiny"
    tiny("llama").save_pretrained(path)
    tiny_tokenizer().save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def little_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needle, "text", lambda name: "The harbour lies north of the town. " * 40)
    honest = lookups.keys_of

    def few(*given: Any, **named: Any) -> Any:
        task, facts = honest(*given, **named)
        return replace(task, silent={"unseen": task.silent["unseen"][:4]}), facts

    monkeypatch.setattr(lookups, "keys_of", few)
    # Each is answered at length by a host that never ends.
    monkeypatch.setattr(gating, "capitals", lambda task: capitals(task)[:2])


def small(folder: Path, **changes: Any) -> Options:
    given: dict[str, Any] = {
        "keys": 4, "gated": 4, "needles": 3, "distances": (0, 30), "late": 1, "rows": 50,
        "epochs": 150, "host": str(folder),
    }  # fmt: skip
    return Options(**given | changes)


def tables_of(options: Options) -> dict[str, dict[str, Any]]:
    done = [Done(unit, measure(unit, lambda *_: None), 1.0, {}) for unit in plan(options)]
    found = conclude(options, done)
    for table in found.tables:
        assert all(row.low <= row.value <= row.high and row.n for row in table.rows)
    return {table.title: {row.name: row for row in table.rows} for table in found.tables}


@pytest.mark.parametrize("demo", ["terminology", "random keys"])
def test_keys_are_recalled_and_nothing_else_changes(demo: str, folder: Path) -> None:
    tables = tables_of(small(folder, demos=(demo,)))
    asked, others = tables.values()
    assert asked["engram"].value == 1 and asked["engram"].n == 4
    for control in ("bare host", "engram, tables zeroed", "engram, asked in words"):
        assert asked[control].value == 0
    assert asked["engram, rows shuffled"].value < 1
    assert others[f"engram, {demo}"].value == 1


def test_a_route_keeps_an_engram_from_what_nobody_asked(folder: Path) -> None:
    tables = tables_of(small(folder, demos=("gating",)))
    keys, general = (
        tables["3: gating, taught look-ups"],
        next(rows for title, rows in tables.items() if "no fact answers" in title),
    )
    assert keys["bare host"].value == 0
    assert keys["span, route always"].value == keys["span, route rules"].value == 1
    assert (
        keys["deepseek, route rules"].value == 1 == keys["deepseek, route rules"].more["route open"]
    )
    assert general["span, route always"].value == general["bare host"].value == 1
    assert general["deepseek, route always"].value < general["deepseek, route rules"].value
    assert "route open" not in general["span, route always"].more
    # Its gate is trained anew, on prompts of its own; where it shuts, the host is as it was.
    opened = keys["deepseek, route learned"].more["route open"]
    assert opened > 0 and keys["deepseek, route learned"].value <= opened
    shut = 1 - general["deepseek, route learned"].more["route open"]
    assert general["deepseek, route learned"].value >= shut


def test_what_the_host_knew_is_counted_before_and_after() -> None:
    routes = {"always": {"keys": [3, 3, 4], "general": [2, 3, 5], "known": [0, 1, 2]}}
    run = {"bare host": {"keys": [0, 0, 4], "general": [5, 5, 5], "known": [0, 2, 2]}}
    run |= {"sure": {"threshold": 0.71, "n": 60, "right": 20, "bypassed": 10, "bypassed_right": 9}}
    unit = next(u for u in plan(Options(demos=("gating",), layouts=("deepseek",))))
    one = Done(unit, {**run, "routes": routes}, 1.0, {})
    # A second seed asks the same: no further cases, and what was calibrated is the same.
    found = conclude(Options(), [one, one])
    known = {row.name: row for row in found.tables[-2].rows}
    [sure] = found.tables[-1].rows
    assert (sure.n, sure.more["of these right"], sure.more["threshold"]) == (60, 9, 0.71)
    assert sure.name == "bare host" and (known["bare host"].n, known["bare host"].seeds) == (2, 2)
    assert known["bare host"].value == 1 and known["bare host"].more == {"exactly": 0.0}
    assert known["deepseek, route always"].value == 0.5
    other = Done(unit, {**one.measured, "sure": {**run["sure"], "threshold": 0.9}}, 1.0, {})
    names = [row.name for row in conclude(Options(), [one, other]).tables[-1].rows]
    assert names == ["bare host", "bare host, beside deepseek, seed 1"]


def test_facts_that_each_seed_makes_up_are_all_cases() -> None:
    unit = next(u for u in plan(Options(demos=("long context",))))
    runs = [Done(unit, {"said": {"0": [hits, 12]}}, 1.0, {}) for hits in (12, 6)]
    [far] = conclude(Options(), runs).tables
    assert (far.rows[0].value, far.rows[0].n, far.rows[0].seeds) == (0.75, 24, 2)


def test_a_host_is_held_sure_by_questions_that_are_not_asked(folder: Path) -> None:
    task, _ = keys_of("gating", 10, seed=0)
    asked = {question.text for question in capitals(task)} | {f.prompt for f in task.standing}
    assert not asked & {question.text for question in sureness.questions()}
    found = sureness.calibrated(load(str(folder)), lambda *_: None)
    assert found.n == 60 and found.right == 0  # a random host knows nothing
    assert found.threshold == 1 and found.bypassed == 0


def test_a_memory_holds_behind_a_long_text(folder: Path) -> None:
    options = small(folder, demos=("long context",))
    rows = tables_of(options)["4: long context"]
    assert len(rows) == 2 * len(WAYS)
    assert rows["engram, whole keys, behind 0 tokens"].value == 1
    # A gate of a random host is trained on questions without text before them.
    assert rows["engram, whole keys, behind 30 tokens"].value > 0
    for distance in (0, 30):
        for control in ("bare host", "fact in the text", "engram of other facts"):
            assert rows[f"{control}, behind {distance} tokens"].value == 0


def test_facts_are_drawn_and_their_answers_can_be_read() -> None:
    task, facts = keys_of("gating", 10, seed=1)
    assert len(facts) == 10 and facts != keys_of("gating", 10, seed=2)[1]
    assert all(fact.relation != "SYN" for fact in facts) and len(capitals(task)) == 30
    asked = in_the_text(facts[0])
    assert facts[0].answer in asked.text and asked.text.endswith(facts[0].prompt)


def test_demonstrations_have_settings_of_their_own() -> None:
    options = Options()
    units = {unit.digest for unit in plan(options)}
    assert len(units) == len(plan(options)) == 9
    assert len(units & {unit.digest for unit in plan(replace(options, keys=9))}) == 7
    assert len(units & {unit.digest for unit in plan(replace(options, needles=9))}) == 4


@pytest.mark.parametrize(
    "wrong", [{"keys": 0}, {"demos": ("x",)}, {"routes": ("open",)}, {"layouts": ("similar",)}]
)
def test_options_make_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Options(**wrong)
