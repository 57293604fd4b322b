"""What sentences claim, and that their questions ask for it."""

from __future__ import annotations

import pytest

from engram_transformers.corrections import Knowledge, claim_of, claims_of, question_of
from engram_transformers.types import Fact

CLAIMS = [
    ("The capital of Australia is Canberra.", "capital", "Canberra"),
    ("Australia's capital is Canberra", "capital", "Canberra"),
    ("Canberra is the capital of Australia.", "capital", "Canberra"),
    ("Ada Lovelace was born in 1815.", "year of birth", "1815"),
    ("Ada Lovelace was born on 10 December 1815", None, None),
    ("Ada Lovelace was born in London.", "place of birth", "London"),
    ("Ada Lovelace died in Marylebone.", "place of death", "Marylebone"),
    ("Emma was written by Jane Austen.", "author", "Jane Austen"),
    ("Jane Austen wrote Emma.", "author", "Jane Austen"),
    ("Redis listens on port 6379.", "port", "6379"),
    ("Jupiter has 95 moons.", "number of moons", "95"),
    ("Acme was founded in 1999.", "year of founding", "1999"),
    ("It is Canberra.", None, None),
    ("He was born in 1815.", None, None),
    ("My sister was born in 1815.", None, None),
    ("What is the capital of Australia?", None, None),
    ("Let us go.", None, None),
]


@pytest.mark.parametrize("text, relation, value", CLAIMS, ids=lambda x: str(x)[:30])
def test_claims(text: str, relation: str | None, value: str | None) -> None:
    claim = claim_of(text)
    assert (claim and claim.relation, claim and claim.value) == (relation, value)


@pytest.mark.parametrize("text", [text for text, relation, _ in CLAIMS if relation])
def test_the_question_of_a_claim_asks_for_it(text: str) -> None:
    claim = claim_of(text)
    assert claim is not None and question_of(claim.question) == claim.key


def test_other_ways_to_ask() -> None:
    for text in ("What's wrong?", "Tell me a story.", "", "Why is the sky blue?"):
        assert question_of(text) is None
    assert question_of("what is Australia's capital") == ("australia", "capital")
    assert question_of("Who was the author of The Hobbit?") == ("hobbit", "author")


def test_claims_of_a_text() -> None:
    text = "Oslo is the capital of Norway and Rome is the capital of Italy. Nice. I saw it."
    assert [claim.value for claim in claims_of(text)] == ["Oslo", "Rome"]


def test_facts_are_found_by_wording_and_by_what_they_are_about() -> None:
    capital = Fact("What is the capital of Australia?", "Canberra")
    owner = Fact("Who owns it?", "Ada", subject="Acme", relation="owner")
    begun = Fact("The currency of Poland is", "the złoty")
    known = Knowledge([capital, owner, begun])
    assert known.about("what is the capital of australia") is capital
    assert known.about("What is Australia's capital?") is capital
    assert known.about("Who is the owner of Acme?") is owner
    assert known.about("What is the currency of Poland?") is begun
    assert known.about("What is the capital of Austria?") is None
    wrong, right = claim_of("Acme's owner is Bo."), claim_of("Acme's owner is Ada.")
    assert wrong and known.against(wrong) is owner
    assert right and known.against(right) is None
