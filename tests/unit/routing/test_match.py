"""The match rule on hand-written facts; similarities are given by hand."""

from __future__ import annotations

import numpy as np
import pytest

from engram_transformers.routing.match import (
    FEATURES,
    Array,
    MatchRule,
    Query,
    Stored,
    WordCounts,
    features,
    ranks_from_vocabulary,
    sameness,
    words,
)

COMMON = [
    "the",
    "of",
    "in",
    "to",
    "what",
    "is",
    "who",
    "which",
    "where",
    "when",
    "does",
    "did",
    "was",
    "by",
    "for",
    "a",
    "how",
    "do",
    "use",
    "used",
]
RANKS = {word: place for place, word in enumerate(COMMON)} | {
    "country": 400, "service": 330, "born": 600, "capital": 900, "port": 1400, "search": 1900,
    "citizen": 2700, "die": 2800, "reset": 9000, "password": 12000, "billing": 24000,
}  # fmt: skip
LLOYD = "Which country is Rhodri Lloyd a citizen of?"
PORT = "What port does the billing service use?"
BIRTH = "Where was Ada Lovelace born?"


def memory(*texts: str) -> WordCounts:
    counts = WordCounts(RANKS)
    for text in texts:
        counts.add(text)
    return counts


def measured(asked: str, text: str, subject: str | None, similarity: float) -> Array:
    counts = memory(text)
    return features(Query.of(asked), Stored.of(text, subject, counts), similarity, 0.0, counts)


def fires(asked: str, text: str, subject: str | None, similarity: float) -> bool:
    rule = MatchRule.load()
    return rule.probability(measured(asked, text, subject, similarity)) >= rule.threshold


def test_words_are_folded() -> None:
    assert words("Küçük's C++ port, SYN_03637?") == ("kucuk", "c++", "port", "syn", "03637")


def test_names_that_differ_in_a_letter_are_other_names() -> None:
    assert sameness("feuillet", "feuillet") == 1.0
    assert sameness("fuillet", "feuillet") < 0.5
    assert sameness("03637", "03638") == 0.0


def test_forgetting_restores_the_counts() -> None:
    sample = ("ada", "born", "capital")
    counts = memory(BIRTH)
    before = [counts.weight(word) for word in sample]
    counts.add("What is the capital of Peru?")
    assert [counts.weight(word) for word in sample] != before
    counts.remove("What is the capital of Peru?")
    assert [counts.weight(word) for word in sample] == before


def test_common_words_weigh_less_than_names() -> None:
    counts = memory("What is the capital of Peru?")
    assert counts.weight("the") < counts.weight("capital") < counts.weight("lovelace")


def test_ranks_come_from_a_vocabulary() -> None:
    assert ranks_from_vocabulary({"[PAD]": 0, "▁of": 2, "the": 1, "##ing": 3}) == {
        "the": 0,
        "of": 1,
    }


def test_subject_is_inferred_from_capitals() -> None:
    assert Stored.of(LLOYD, None, memory()).names == ("rhodri", "lloyd")


@pytest.mark.parametrize("subject", ["Rhodri Lloyd", None])
def test_near_miss_is_silent(subject: str | None) -> None:
    assert fires("Of which country is Rhodri Lloyd a citizen?", LLOYD, subject, 0.97)
    assert not fires("Which country is Jody Lloyd a citizen of?", LLOYD, subject, 0.85)


@pytest.mark.parametrize(
    "asked", ["RHODRI LLOYD CITIZEN OF WHICH COUNTRY", "which countri is rhodri lloyd a citizen of"]
)
def test_case_punctuation_and_slips_do_not_matter(asked: str) -> None:
    assert fires(asked, LLOYD, "Rhodri Lloyd", 0.93)


def test_diacritics_do_not_matter() -> None:
    assert fires("Where was Jose Munoz born?", "Where was José Muñoz born?", None, 0.95)


@pytest.mark.parametrize("subject", ["SYN_03637", None])
def test_other_identifier_is_silent(subject: str | None) -> None:
    assert fires("SYN:SYN_03637", "SYN:SYN_03637", subject, 1.0)
    assert not fires("SYN:SYN_03638", "SYN:SYN_03637", subject, 0.98)


@pytest.mark.parametrize("subject", ["billing service", None])
def test_short_question(subject: str | None) -> None:
    assert fires("billing service port?", PORT, subject, 0.86)
    assert not fires("What port does the search service use?", PORT, subject, 0.72)


@pytest.mark.parametrize("subject", ["Ada Lovelace", None])
def test_unrelated_question_is_silent(subject: str | None) -> None:
    assert not fires("how do i reset the password", BIRTH, subject, 0.1)


def test_two_equal_facts_are_ambiguous() -> None:
    rule = MatchRule.load()
    both = np.stack([measured(BIRTH, BIRTH, None, 1.0)] * 2)
    assert not rule.choose(both, ["London", "Paris"]).fires
    assert rule.choose(both, ["London", "London"]).fires


def test_best_of_several_is_chosen() -> None:
    asked = "In what town was Ada Lovelace born?"
    texts = {"Where was Ada Byron born?": 0.8, BIRTH: 0.92}
    rows = np.stack([measured(asked, text, None, cosine) for text, cosine in texts.items()])
    choice = MatchRule.load().choose(rows, ["Bath", "London"])
    assert (choice.place, choice.fires) == (1, True)


def test_rule_of_other_features_is_refused() -> None:
    with pytest.raises(ValueError, match="other features"):
        MatchRule.from_record({"features": FEATURES[1:]})


def test_features_are_finite_for_empty_texts() -> None:
    values = measured("", "", None, 0.0)
    assert values.shape == (len(FEATURES),)
    assert np.isfinite(values).all()
