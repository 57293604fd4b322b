"""MQuAKE, the hard part: chains of four edits, and questions whose answer follows from all four.

Edits that several chains share are taught once. A chain with an edit that contradicts an earlier
chain's is left out. A question of the group `multi_hop` needs all edits of its chain; `cloze`
holds the edits as beginnings of sentences. Near misses are the hops of the chains as they were
before the edits, where no edit answers them.
"""

from __future__ import annotations

from collections.abc import Iterable

from engram_transformers.evaluation.data import Row, rows
from engram_transformers.evaluation.task import Question, Task
from engram_transformers.types import Fact

FILE = "editing/mquake_hard.jsonl"


def mquake_hard() -> Task:
    """584 edits as questions, and three four-hop questions for each of 299 chains of them."""
    chains = _consistent(rows(FILE))
    edits = {
        (e["subject"], e["relation_id"]): e for row in chains for e in row["requested_rewrite"]
    }
    also = {hop["question"]: tuple(hop["answer_alias"]) for hop in _hops(chains, "new_single_hops")}
    facts = {place: _fact(edit) for place, edit in edits.items()}
    return Task(
        "mquake_hard",
        "chat",
        tuple(facts.values()),
        asked={
            "multi_hop": tuple(question for row in chains for question in _multi_hop(row)),
            "cloze": tuple(
                Question.about(
                    facts[place],
                    edit["prompt"].format(edit["subject"]),
                    also.get(edit["question"], ()),
                )
                for place, edit in edits.items()
            ),
        },
        silent={"near": tuple(hop["question"] for hop in _hops(chains, "single_hops"))},
        accepted={fact.id: also[fact.prompt] for fact in facts.values() if fact.prompt in also},
        source=FILE,
    ).without_clashes()


def _consistent(found: Iterable[Row]) -> list[Row]:
    """The chains none of whose edits contradicts an edit of a chain before."""
    known: dict[str, str] = {}
    kept = []
    for row in found:
        edits = {e["question"]: e["target_new"]["str"] for e in row["requested_rewrite"]}
        if all(known.get(question, answer) == answer for question, answer in edits.items()):
            known |= edits
            kept.append(row)
    return kept


def _hops(chains: Iterable[Row], column: str) -> list[Row]:
    return [hop for row in chains for hop in row[column]]


def _fact(edit: Row) -> Fact:
    return Fact(
        edit["question"],
        edit["target_new"]["str"],
        subject=edit["subject"],
        relation=edit["relation_id"],
    )


def _multi_hop(row: Row) -> list[Question]:
    answers = tuple(dict.fromkeys((row["new_answer"], *row["new_answer_alias"])))
    # The last edit holds the answer; the others lead to it.
    *way, last = (_fact(edit).id for edit in row["requested_rewrite"])
    return [Question(text, answers, last, needs=tuple(way)) for text in row["questions"]]
