"""The rule detector: anchored, so that what is merely mentioned opens nothing."""

from __future__ import annotations

import pytest

from engram_transformers.routing.rules import LookupPatternDetector


@pytest.mark.parametrize(
    ("text", "sure"),
    [
        ("ACRONYM:GPU", 1.0),
        ("ACRONYM: GPU", 1.0),
        ("  CAPITAL:France\n", 1.0),
        ("SYN:SYN_00271", 1.0),
        ("[Q937] What is the place of birth?", 1.0),
        ("[user_42] Which theme is preferred?", 1.0),
        ("Question: PORT:SSH\nAnswer:", 1.0),
        ("What is the capital of France?", 0.7),
        ("which port does Redis use", 0.7),
        ("What does GPU stand for?", 0.7),
        ("Define recursion.", 0.7),
        ("key: value", 0.5),
        ("Write a poem", 0.0),
        ("What is 2+2?", 0.0),
        ("What does she want for her birthday?", 0.0),
        ("Please review the CODE: section of my essay about France.", 0.0),
        ("The sign said [Q and I wondered what comes next.", 0.0),
        ("I would like to expand my business.", 0.0),
        ("https://example.org/a:b", 0.0),
        ("HTTP://example.org", 0.0),
        ("It is 10:30", 0.0),
        ("TIME:10:30", 1.0),
        ("ACRONYM:", 0.0),
        ("Dear all:", 0.0),
        ("", 0.0),
    ],
)
def test_how_surely_a_text_is_a_lookup(text: str, sure: float) -> None:
    assert LookupPatternDetector()(text) == sure


def test_prefixes_and_patterns_of_ones_own() -> None:
    own = LookupPatternDetector(prefixes=("sku ",), patterns=(r"price of\b",))
    assert own("sku 4711") == 1.0 and own("Price of tea") == 0.7
    assert own("What is the capital of France?") == 0.0
