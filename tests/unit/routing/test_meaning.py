"""The address by meaning, with an encoder that counts words: quick, and the same every time."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from engram_transformers.routing.match import words
from engram_transformers.routing.meaning import MeaningAddress
from engram_transformers.types import Fact


class WordEncoder:
    """Unit vectors of hashed words: texts with the same words are the same."""

    name = fingerprint = "words"

    @property
    def vocabulary(self):
        return {"the": 0, "of": 1, "is": 2, "what": 3, "who": 4, "in": 5, "to": 6, "how": 7}

    def encode(self, texts):
        rows = np.zeros((len(texts), 256), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in words(text):
                row[int(hashlib.sha256(word.encode()).hexdigest(), 16) % 256] += 1
        return rows / np.maximum(1e-9, np.linalg.norm(rows, axis=1, keepdims=True))


FACTS = [
    Fact("What port does the billing service use?", "8443", subject="billing service"),
    Fact("Who runs the search team?", "Ines Aalto", subject="search team"),
    Fact("What is the capital of Palau?", "Ngerulmud", subject="Palau"),
]


@pytest.fixture
def address() -> MeaningAddress:
    return taught(FACTS)


def taught(facts: list[Fact]) -> MeaningAddress:
    address = MeaningAddress(WordEncoder())
    for number, (fact, vectors) in enumerate(zip(facts, address.encode_facts(facts), strict=True)):
        address.add(number, fact, vectors)
    return address


def asked(address: MeaningAddress, text: str) -> int | None:
    return address.decide([text])[text].value


@pytest.mark.parametrize("number", range(len(FACTS)))
def test_a_taught_question_is_found_whatever_its_case_and_marks(address, number) -> None:
    prompt = FACTS[number].prompt
    for text in (prompt, prompt.lower(), prompt.upper().rstrip("?"), f"  {prompt}!!"):
        assert asked(address, text) == number


def test_another_subject_is_silence(address) -> None:
    assert asked(address, "What port does the search service use?") is None
    assert asked(address, "What is the capital of Peru?") is None


def test_nothing_is_asked_by_nothing(address) -> None:
    assert asked(address, "") is None
    assert asked(address, " \n ") is None
    assert asked(MeaningAddress(WordEncoder()), "Who runs the search team?") is None


def test_two_facts_that_fit_equally_are_silence() -> None:
    twins = [
        Fact("Who leads the red team?", "Ada", subject="red team"),
        Fact("who leads the red team", "Bob", subject="red team"),
    ]
    decision = taught(twins).decide(["Who leads the red team??"])["Who leads the red team??"]
    assert decision.value is None
    assert "equally" in decision.reason
    assert {one.value for one in decision.ranking} == {0, 1}


def test_the_last_sentence_of_a_text_can_be_the_question(address) -> None:
    text = "I was away for a week. A lot has changed. Who runs the search team?"
    assert asked(address, text) == 1


def test_forgetting_restores_every_decision(address) -> None:
    before = taught(FACTS[:2])
    address.remove(2)
    for text in ("What is the capital of Palau?", FACTS[0].prompt, "who runs search?"):
        first, second = before.decide([text])[text], address.decide([text])[text]
        assert first == second


def test_paraphrases_address_the_same_fact() -> None:
    fact = Fact("What port does billing use?", "8443", paraphrases=("Where do invoices go?",))
    assert asked(taught([fact]), "where do invoices go") == 0


def test_a_decision_is_forgotten_when_something_is_taught(address) -> None:
    text = "Who runs the kitchen team?"
    assert asked(address, text) is None
    fact = Fact(text, "Mo", subject="kitchen team")
    [vectors] = address.encode_facts([fact])
    address.add(9, fact, vectors)
    assert asked(address, text) == 9


FAQ = [
    Fact("How do I delete my Larkspur account?", "Open the settings and press the red button."),
    Fact("How do I move my Larkspur data?", "Copy the data folder to the new machine."),
]


def test_what_is_explained_may_be_asked_freely() -> None:
    assert asked(taught(FAQ), "I want to delete my account") == 0


def test_what_is_named_may_not() -> None:
    named = [Fact(fact.prompt, "Ada") for fact in FAQ]
    assert asked(taught(named), "I want to delete my account") is None


def test_an_exchanged_word_is_another_question() -> None:
    restart = Fact("How do I restart the billing service?", "Run the restart script on its host.")
    assert asked(taught([restart]), "How do I restart the booking service?") is None


def test_only_the_questions_that_count_are_judged(address) -> None:
    asked_for = "Which port does the billing service use?"
    assert address.decide_among(asked_for, [0, 1, 2]).value == 0
    assert address.decide_among(asked_for, [2, 0]).value == 0
    assert address.decide_among(asked_for, [1, 2]).value is None
    assert address.decide_among(asked_for, []).value is None
    assert address.decide_among("  ", [0]).value is None
