from __future__ import annotations

import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import pytest

from engram_transformers.errors import DataMissing, UnknownTask
from engram_transformers.evaluation.data import data_folder
from engram_transformers.evaluation.task import TASKS, Question, Task, load_task
from engram_transformers.evaluation.tasks.lookup import lookup
from engram_transformers.types import Fact

DATA_FREE = {"lookup", "user_preferences"}


def loaded(name: str) -> Task:
    if name not in DATA_FREE and not data_folder().is_dir():
        pytest.skip("the data folder is not on this machine")
    return load_task(name)


def same(text: str) -> str:
    return " ".join(text.casefold().split())


@pytest.mark.parametrize("name", TASKS)
def test_a_task_can_be_taught_and_scored(name: str) -> None:
    task = loaded(name)
    assert task.name == name
    check_facts(task)
    check_questions(task)
    check_silence(task)
    assert load_task(name) == task


def check_facts(task: Task) -> None:
    ids = {fact.id for fact in task.facts}
    assert len(ids) == len(task.facts) > 100
    assert all(fact.prompt.strip() and fact.answer == fact.answer.strip() for fact in task.facts)
    assert all(fact.answer for fact in task.facts)
    # What replaces an earlier fact is asked apart; nothing else is taught twice.
    replaced = {same(q.text) for q in task.asked.get("conflicting", ())}
    assert len(task.taught) + len(replaced) == len({same(fact.prompt) for fact in task.facts})
    assert task.accepted.keys() <= ids
    assert not task.categories or task.categories.keys() == ids


def check_questions(task: Task) -> None:
    prompts = {same(fact.prompt): fact.id for fact in task.facts}
    ids = {fact.id for fact in task.facts}
    for question in chain(task.taught, *task.asked.values()):
        assert question.text.strip() and all(question.answers)
        assert {question.fact, *question.needs} <= ids
        assert prompts.get(same(question.text), question.fact) == question.fact


def check_silence(task: Task) -> None:
    said = {same(q.text) for q in chain.from_iterable(task.asked.values())}
    said |= {same(fact.prompt) for fact in task.facts}
    for prompts in task.silent.values():
        assert prompts and len(set(prompts)) == len(prompts)
        assert not said & set(map(same, prompts))


@pytest.mark.parametrize("name", TASKS)
def test_a_cut_task_is_a_task(name: str) -> None:
    task = loaded(name)
    small = task.cut(40, silent=7)
    assert 40 <= len(small.facts) <= 45
    assert set(small.facts) <= set(task.facts)
    assert [fact for fact in task.facts if fact in set(small.facts)] == list(small.facts)
    check_questions(small)
    check_silence(small)
    assert all(len(prompts) == 7 for prompts in small.silent.values())
    assert small == task.cut(40, silent=7)
    assert small.facts != task.cut(40, seed=1).facts
    assert task.cut(None) == task


def test_large_sets_load_fast() -> None:
    started = time.process_time()
    loaded("icd10")
    assert time.process_time() - started < 4


def test_keys_that_are_taught_twice_end_with_the_later_answer() -> None:
    task = lookup()
    last = {fact.prompt: fact for fact in task.facts}
    first: dict[str, Fact] = {}
    for fact in task.facts:
        first.setdefault(fact.prompt, fact)
    asked = task.asked["conflicting"]
    assert len(asked) > 50
    for question in asked:
        assert question.answers == (last[question.text].answer,)
        assert question.needs == (first[question.text].id,)
        assert first[question.text].answer != last[question.text].answer
    assert not {q.text for q in asked} & {q.text for q in task.taught}
    assert {task.categories[q.fact] for q in asked} >= {"CAPITAL", "SYN"}


def test_the_keys_of_the_seed_have_its_values() -> None:
    poc = loaded("lookup_poc_5k").facts + loaded("lookup_poc_500").facts
    real = {fact.prompt: fact.answer for fact in poc if not fact.prompt.startswith("SYN:")}
    own = {fact.prompt: fact.answer for fact in lookup().standing if fact.relation != "SYN"}
    assert len(own) == 165
    assert real.items() <= own.items()


def test_one_question_has_an_answer_for_every_entity() -> None:
    for name in ("entity_keyed", "user_preferences"):
        facts = loaded(name).facts
        by_question: dict[str, set[str]] = {}
        for fact in facts:
            by_question.setdefault(fact.prompt.partition("] ")[2], set()).add(fact.answer)
        assert max(map(len, by_question.values())) > 3


def test_the_whole_chain_of_a_multi_hop_question_is_drawn() -> None:
    small = loaded("mquake_hard").cut(40)
    assert small.asked["multi_hop"]
    assert all(len(question.needs) == 3 for question in small.asked["multi_hop"])


def test_clashes_go() -> None:
    france, spain = Fact("Capital of France?", "Paris"), Fact("Capital of Spain?", "Madrid")
    task = Task(
        "t",
        "chat",
        (france, spain, Fact("Nothing?", " "), france),
        asked={
            "paraphrase": (
                Question.about(france, "capital  of spain?"),
                Question.about(france, "Its capital?"),
                Question.about(spain, "its capital?"),
                Question.about(spain, "Spain's capital?", ("Madrid", "Villa de Madrid")),
            )
        },
        silent={"near": ("capital of FRANCE?", "Spain's capital?", "Capital of Peru?") * 2},
    ).without_clashes()
    assert task.facts == (france, spain)
    assert [q.text for q in task.asked["paraphrase"]] == ["Spain's capital?"]
    assert task.asked["paraphrase"][0].answers == ("Madrid", "Villa de Madrid")
    assert task.silent == {"near": ("Capital of Peru?",)}
    assert replace(task, silent={}).cut(1, silent=0).facts in {(france,), (spain,)}


def test_an_unknown_name_says_what_is_near() -> None:
    with pytest.raises(UnknownTask, match="'zsrre'; try zsre"):
        load_task("zsrre")


def test_absent_data_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))
    with pytest.raises(DataMissing, match=r"Set ENGRAM_DATA .* docs/data\.md"):
        load_task("zsre")
    for name in DATA_FREE:
        assert load_task(name).facts


def test_near_misses_come_with_the_facts_that_they_are_near_to() -> None:
    facts = tuple(Fact(f"Where was {i} born?", f"In {i}.") for i in range(6))
    misses = {f"Where did {i} die?": fact.id for i, fact in enumerate(facts)}
    silent = {"near": tuple(misses), "unrelated": ("Why?", "Who?")}
    part = Task("t", "chat", facts, silent=silent, beside=misses).cut(2)
    assert {misses[text] for text in part.silent["near"]} == {fact.id for fact in part.facts}
    assert part.silent["unrelated"] == silent["unrelated"]
