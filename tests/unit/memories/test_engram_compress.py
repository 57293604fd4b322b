"""The compression of token ids, against the rule written out by hand."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from engram_transformers.memories.engram import compression
from hosts import tiny_tokenizer


def by_hand(text: str) -> str:
    text = unicodedata.normalize("NFD", unicodedata.normalize("NFKC", text))
    text = "".join(c for c in text if unicodedata.category(c) != "Mn").lower()
    text = re.sub(r"[ \t\r\n]+", " ", text)
    return " " if text == " " else text.strip()


def words(*tokens: str) -> Any:
    vocabulary = {token: i for i, token in enumerate(tokens)}
    one = Tokenizer(models.WordLevel(vocabulary, unk_token=tokens[0]))
    return PreTrainedTokenizerFast(tokenizer_object=one)


def test_tokens_that_differ_in_case_accents_or_space_only_are_one() -> None:
    tokens = [
        "a",
        "A",
        "Á",
        " a",
        "\n",
        "  ",
        "\t",
        "é",
        "e",
        "ﬁ",
        "fi",
        "FI ",
        "b",
        "１",
        "1",
        "ß",
    ]
    found = compression(words(*tokens))
    # a A Á " a" | white space | é e | ﬁ fi "FI " | b | １ 1 | ß
    assert found.map.tolist() == [0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3, 4, 5, 5, 6]
    assert found.size == 7 and found.map.dtype == np.int64


def test_what_is_nothing_when_normalised_keeps_its_text() -> None:
    mark = "\u0301"  # an accent alone
    found = compression(words("a", mark, "\u0300", "b"))
    assert found.map.tolist() == [0, 1, 2, 3]


def test_parts_of_characters_are_told_apart_by_their_token() -> None:
    tokenizer = tiny_tokenizer()
    broken = [i for i in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([i])]
    found = compression(tokenizer)
    assert len(broken) > 100 and len({found.map[i] for i in broken}) == len(broken)


@pytest.mark.parametrize("cleaned", [False, True])
def test_the_map_of_a_tokenizer_is_the_rule_by_hand_in_the_order_of_first_sight(
    cleaned: bool,
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.clean_up_tokenization_spaces = cleaned
    keys: dict[str, int] = {}
    expected = []
    for i in range(len(tokenizer)):
        text = tokenizer.decode([i], skip_special_tokens=False)
        key = tokenizer.convert_ids_to_tokens(i) if "\ufffd" in text else by_hand(text) or text
        expected.append(keys.setdefault(key, len(keys)))
    found = compression(tokenizer)
    assert found.map.tolist() == expected and found.size == len(keys) < len(tokenizer)


def test_ids_beyond_the_tokenizer_share_one_more() -> None:
    found = compression(words("a", "A", "b"))
    assert found(np.array([0, 1, 2, 3, 99])).tolist() == [0, 0, 1, 2, 2]
    assert found(np.array([], np.int64)).tolist() == []
