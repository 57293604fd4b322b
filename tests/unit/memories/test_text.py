"""The text memory: finds facts, puts them into the prompt, and leaves the host alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cases import DOOR, FACTS, LETTER, PORT, host_of
from engram_transformers.errors import BadInput, MissingExtra
from engram_transformers.memories.text import Text, TextConfig
from engram_transformers.memories.text import memory as module
from engram_transformers.memories.text.memory import Index

faiss = pytest.importorskip("faiss")


class Letters:
    """An encoder that counts letters: near is what is written alike."""

    name, fingerprint, vocabulary = "letters", "letters", {"a": 0}

    def encode(self, texts: Any) -> Any:
        rows = np.array([[text.lower().count(chr(97 + i)) for i in range(26)] for text in texts])
        return (rows / np.maximum(1, np.linalg.norm(rows, axis=1, keepdims=True))).astype("float32")


def text(**options: Any) -> Text:
    memory = Text(TextConfig(**options), encoder=Letters(), form="chat")  # type: ignore[arg-type]
    deltas = memory.write(FACTS)
    memory.add((fact.id, fact, delta) for fact, delta in zip(FACTS, deltas, strict=True))
    return memory


def test_the_nearest_facts_stand_before_the_question_the_best_one_last() -> None:
    [[(role, said)]] = text(top_k=2).compose(["which port does BILLING use"], form="chat")
    assert role == "user" and said.endswith("Question: which port does BILLING use\nAnswer:")
    assert "Which port does billing use? 8443." in said
    facts = said.split("Context: ")[1].split("\n")[0]
    assert facts.endswith("8443.") and facts.count("?") == 2


def test_a_beginning_is_continued_behind_whole_statements() -> None:
    [[(_, said)]] = text(top_k=1).compose(["Which port does billing use?"], form="plain")
    assert said == "Which port does billing use? 8443.\nWhich port does billing use?"


def test_examples_are_turns_of_the_talk() -> None:
    [talk] = text(mode="examples", top_k=2).compose([PORT.prompt], form="chat")
    assert [role for role, _ in talk] == ["user", "assistant"] * 2 + ["user"]
    assert talk[-3:-1] == [("user", PORT.prompt), ("assistant", PORT.answer)]


def test_the_oracle_puts_in_the_fact_that_is_asked_for_and_no_other() -> None:
    memory = text(mode="oracle")
    asked, unknown = "the letter: who?", "How far is it?"
    assert memory.compose([unknown, asked], form="chat") == [[("user", unknown)], [("user", asked)]]
    memory.tell({asked: LETTER.id, unknown: "no such fact"})
    [[(_, said)], [(_, left)]] = memory.compose([asked, unknown], form="chat")
    assert LETTER.answer in said and left == unknown
    assert memory.explain(asked).fact == LETTER.id and not memory.explain(unknown).fired


def test_what_is_less_similar_than_asked_is_left_out() -> None:
    assert text(least=0.999).compose(["zzz"], form="chat") == [[("user", "zzz")]]
    firing = text(least=0.999).explain("zzz")
    assert not firing.fired and firing.fact is None


def test_a_fact_with_many_wordings_leaves_room_for_others() -> None:
    index = Index()
    index.add("a", np.eye(3, dtype="float32")[[0, 0, 0]])
    index.add("b", np.eye(3, dtype="float32")[[1]])
    assert [id for id, _ in index.nearest(np.eye(3, dtype="float32")[[0]], 2)[0]] == ["a", "b"]


def test_removed_facts_are_found_no_more() -> None:
    memory = text(top_k=4)
    memory.remove([PORT.id])
    assert PORT.id not in memory and len(memory) == 3
    assert "8443" not in memory.compose([PORT.prompt], form="chat")[0][0][1]
    memory.remove([fact.id for fact in FACTS if fact is not PORT])
    assert memory.compose(["anything"], form="chat") == [[("user", "anything")]]


def test_taught_kept_read_and_forgotten(tmp_path: Path) -> None:
    host = host_of("llama")
    before = host.prompts([DOOR.prompt], form="chat")
    with host.open_memory(tmp_path / "m", kind="text", encoder="host") as memory:
        assert memory.teach(FACTS, check=False).taught
        given = host.prompts([DOOR.prompt], form="chat")
        assert given != before
        with host.bare():
            assert host.prompts([DOOR.prompt], form="chat") == before
    with host.open_memory(tmp_path / "m") as memory:
        assert host.prompts([DOOR.prompt], form="chat") == given
        ids = torch.tensor(before)
        attached = host.model(input_ids=ids).logits
        with host.bare():
            assert torch.equal(attached, host.model(input_ids=ids).logits)
        memory.forget([fact.id for fact in memory.facts])
        assert host.prompts([DOOR.prompt], form="chat") == before


def test_a_talk_gets_its_facts_at_the_last_question(tmp_path: Path) -> None:
    host = host_of("llama")
    with host.open_memory(tmp_path / "m", kind="text", encoder="host", top_k=1) as memory:
        memory.teach([PORT], check=False)
        ids = host.talk([("user", "Hello"), ("assistant", "Yes?"), ("user", PORT.prompt)])
    read = host.tokens.decode(ids)
    assert read.index("Hello") < read.index("8443") < read.index("Question: Which port")


@pytest.mark.parametrize("options", [{"mode": "rag"}, {"top_k": 0}])
def test_options_that_mean_nothing_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"mode|top_k"):
        text(**options)


def test_without_faiss_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module.__dict__, "_faiss", module._faiss)
    monkeypatch.setitem(__import__("sys").modules, "faiss", None)
    with pytest.raises(MissingExtra, match=r"engram-transformers\[text\]"):
        text()
