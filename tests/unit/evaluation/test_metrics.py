"""How answers are compared."""

from __future__ import annotations

import pytest

from engram_transformers.evaluation.metrics import begins


@pytest.mark.parametrize(
    ("said", "wanted", "whether"),
    [
        ("Paris.\n\nThe answer is", "paris", True),
        ("The Paris of old", "Paris", True),
        ("42) or 43", "42", True),
        ("42.", "42", True),
        ("42.5", "42", False),
        ("421", "42", False),
        ("Aix-en-Provence", "Aix", False),
        ("Ada", "Ada Lovelace", False),
        ("Not Paris", "Paris", False),
        ("東京です", "東京", True),
        ("+ and", "+", True),
        ("größe?", "Größe", True),
    ],
)
def test_an_answer_begins_with_whole_words(said: str, wanted: str, whether: bool) -> None:
    assert begins(said, wanted) == whether
