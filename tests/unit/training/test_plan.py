from __future__ import annotations

import pytest

from engram_transformers.errors import FactRefused
from engram_transformers.models.tokens import HostTokens
from engram_transformers.training.plan import Book, check_fact
from engram_transformers.types import Fact
from hosts import tiny_tokenizer

OLD = Fact("Who rules?", "Ada", paraphrases=("Who is the ruler?",), subject="X", relation="ruler")
TOKENS = HostTokens(tiny_tokenizer(), stop=1)

AGAINST = {
    "prompt": Fact("Who rules?", "Bob"),
    "prompt in other white space": Fact(" Who  rules?\n", "Bob"),
    "prompt is a stored paraphrase": Fact("Who is the ruler?", "Bob"),
    "paraphrase is a stored prompt": Fact("Name it", "Bob", paraphrases=("Who rules?",)),
    "paraphrase is a stored paraphrase": Fact("Tell", "Bob", paraphrases=("Who is the ruler?",)),
    "subject and relation": Fact("Whose realm is X?", "Bob", subject="X", relation="ruler"),
}


@pytest.mark.parametrize("fact", AGAINST.values(), ids=AGAINST)
@pytest.mark.parametrize(
    ("on_conflict", "act"), [("replace", "write"), ("keep", "keep"), ("reject", "reject")]
)
def test_a_contradiction_is_settled_as_the_caller_chose(
    fact: Fact, on_conflict: str, act: str
) -> None:
    step = Book([OLD]).settle(fact, on_conflict=on_conflict)
    assert (step.act, step.rivals) == (act, (OLD.id,))
    assert on_conflict == "replace" or "Ada" in step.reason


@pytest.mark.parametrize("on_conflict", ["replace", "keep", "reject"])
@pytest.mark.parametrize(
    "fact",
    [
        OLD,
        Fact("Who rules?", "Ada"),
        Fact("Who rules? ", " Ada"),
        Fact("Who is the ruler?", "Ada"),
        Fact("Who rules?", "Ada", subject="X"),
    ],
)
def test_what_adds_nothing_is_known(fact: Fact, on_conflict: str) -> None:
    assert Book([OLD]).settle(fact, on_conflict=on_conflict).act == "known"


@pytest.mark.parametrize("on_conflict", ["replace", "keep", "reject"])
def test_more_paraphrases_of_a_stored_fact_are_an_update(on_conflict: str) -> None:
    more = Fact("Who rules?", "Ada", paraphrases=("Who is the ruler?", "Ruler?"))
    assert more.id == OLD.id
    step = Book([OLD]).settle(more, on_conflict=on_conflict)
    assert (step.act, step.rivals) == ("write", (OLD.id,))


def test_unrelated_facts_are_no_rivals_and_removal_is_complete() -> None:
    book = Book([OLD])
    assert book.settle(Fact("Who sings?", "Bob"), on_conflict="reject").rivals == ()
    book.remove(OLD.id)
    assert not book.facts and not book._holders


@pytest.mark.parametrize(
    ("fact", "why"),
    [
        (Fact("", "a"), "prompt is empty"),
        (Fact(" \n", "a"), "prompt is empty"),
        (Fact("q", " "), "answer is empty"),
        (Fact("q", "a", paraphrases=("",)), "paraphrase is empty"),
        (Fact("q", "a", paraphrases=("r", "\t")), "paraphrase is empty"),
        (Fact("q", "\ud800"), "surrogate"),
        (Fact("q\udfff", "a"), "surrogate"),
        (Fact("q", "a<|im_end|>b"), "cannot write"),
        (Fact("q", "a" * 600), "reads at most"),
        (Fact("q" * 60_000, "a"), "reads at most|cannot fit"),
    ],
)
def test_a_fact_that_cannot_be_taught_is_refused_with_the_reason(fact: Fact, why: str) -> None:
    with pytest.raises(FactRefused, match=why):
        check_fact(fact, TOKENS, longest=512)
