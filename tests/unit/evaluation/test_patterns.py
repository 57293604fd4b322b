"""Patterns: what is held out is taught in no form, and a strange file is told as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engram_transformers.errors import BadInput, DataMissing
from engram_transformers.evaluation.data import data_folder
from engram_transformers.evaluation.task import Task, load_task
from engram_transformers.evaluation.tasks.patterns import FILES, PREFIXES


def write(folder: Path, **changed: str) -> None:
    """Files of two categories each, of one and of four patterns; JSON is YAML too."""
    (folder / "poc").mkdir()
    for kind, file in FILES.items():
        examples = [
            {"input": f"{kind} {i} ->", "output": f" value {i}\n", "category": f"{kind} {i > 0}"}
            for i in range(5)
        ]
        text = changed.get(kind) or json.dumps({"name": kind, "examples": examples})
        (folder / file).write_text(text, encoding="utf-8")


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))
    write(tmp_path)
    return load_task("patterns")


def test_what_is_held_out_is_taught_in_no_form(task: Task) -> None:
    assert task.form == "plain" and len(task.facts) == 16
    held_out = task.asked["held_out"]
    assert len(held_out) == 4
    taught = {text for fact in task.facts for text in (fact.prompt, *fact.paraphrases)}
    asked = [*taught, *(question.text for question in task.asked["paraphrase"])]
    assert not any(question.text in text for question in held_out for text in asked)
    by_id = {fact.id: fact for fact in task.facts}
    for question in held_out:
        kind = question.text.partition(" ")[0]
        assert str(by_id[question.fact].relation).startswith(kind)
        assert question.answers == (f"value {question.text[-4]}",)
    # A category of one pattern is taught whole.
    assert {"code idioms 0 ->", "formats 0 ->"} <= taught


def test_prefixes_are_asked_and_not_taught(task: Task) -> None:
    texts = [question.text for question in task.asked["paraphrase"]]
    assert len(texts) == 4 * 4 + 4 * 2
    assert all(text.startswith(tuple(sum(PREFIXES.values(), ()))) for text in texts)
    assert set(task.categories.values()) == set(FILES)


@pytest.mark.parametrize("text", ["- [", "just words", '{"examples": [{"input": "a"}]}'])
def test_strange_files_are_refused(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGRAM_DATA", str(tmp_path))
    with pytest.raises(DataMissing):
        load_task("patterns")
    write(tmp_path, formats=text)
    with pytest.raises(BadInput, match=r"patterns_formats\.yaml holds no patterns"):
        load_task("patterns")


def test_the_set_of_the_seed() -> None:
    if not (data_folder() / FILES["facts"]).is_file():
        pytest.skip("the data folder is not on this machine")
    task = load_task("patterns")
    assert len(task.facts) + len(task.asked["held_out"]) == 131
    assert len(task.asked["held_out"]) == 24
